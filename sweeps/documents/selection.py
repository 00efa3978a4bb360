"""What a sweep picks, as documents tell it."""

from typing import Any

from sweeps.documents.figures import interval_part
from sweeps.documents.parts import number_of
from sweeps.selection.choice import Selection
from sweeps.selection.seed_budget import Standing


def selection_part(found: Selection) -> dict[str, Any]:
    """Return a choice with its reasons.

    Args:
        found: by a criterion that reads no target label, or by `oracle`, which `criterion` says then.
    """
    return {
        "criterion": found.criterion,
        "used": found.used,
        "reads_target_labels": found.used == "oracle",
        "trial": number_of(found.picked),
        "reason": found.reason,
        "runner_up": number_of(found.runner_up),
        "ranked": found.ranked,
        "rejected": [{"trial": number, "why": why} for number, why in found.rejected],
        "comparisons": [
            {
                "trial": pair.number,
                "other": pair.other,
                "seeds": pair.seeds,
                "difference": interval_part(pair.difference),
                "holds": pair.holds,
            }
            for pair in found.comparisons
        ],
        "standing": _standing_part(found.standing),
    }


def _standing_part(found: Standing | None) -> dict[str, Any] | None:
    if found is None:
        return None
    rows = zip(found.finalists, found.known.counts, found.known.means, found.known.best, strict=True)
    return {
        "runs": found.runs,
        "budget": found.budget.budget,
        "probability": found.probability,
        "confidence": found.budget.confidence,
        "deviation": found.known.deviation,
        "resolvable": found.known.resolvable(),
        "default": found.default,
        "gain": interval_part(found.gain),
        "finalists": [
            {"trial": number, "runs": runs, "expected": expected, "best": best} for number, runs, expected, best in rows
        ],
    }
