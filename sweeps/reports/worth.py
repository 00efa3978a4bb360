"""What the pick is worth on the target, in one sentence, where somebody labelled it."""

from sweeps.metrics import TARGET_MIOU, finite
from sweeps.reports.standing_tables import closed_share
from sweeps.reports.text import interval, percent
from sweeps.reports.view import SweepView
from sweeps.trial import TrialRecord


def worth_line(view: SweepView) -> str | None:
    """Return what the picked network gained over none, and how much of the way to the upper bound that is.

    Figures are over further seeds where pick and baseline have them, else of the seed of the search, which chose the pick.

    Args:
        view: the sweep.

    Returns:
        None without a pick, or where nobody labelled the target.
    """
    value = _target(view.picked)
    if view.picked is None or value is None:
        return None
    row = next((row for row in view.standings if row.trial is view.picked and row.gain is not None), None)
    if row is not None and row.target is not None and row.gain is not None:
        how = f"{row.gain.n} further seeds"
        value, gained, share = row.target.mean, row.gain.mean, row.closed
        between = f" ({interval(row.gain)})" if row.gain.low is not None else ""
    else:
        how, between = "one seed, which chose it", ""
        start = _target(view.baseline) if view.baseline is not view.picked else None
        gained = None if start is None else value - start
        share = closed_share(value, low=start, high=_target(view.upper_bound))
    parts = [f"{percent(value)} % mIoU on the target"]
    if gained is not None and view.baseline is not None:
        parts.append(f"{100 * gained:+.1f} points{between} against {_name(view.baseline)}")
    if share is not None and view.upper_bound is not None:
        parts.append(f"{share:.0%} of the way to {_name(view.upper_bound)}, which had target labels")
    read = "" if view.spec.selection == "oracle" else "; target labels tell this and chose nothing"
    return f"{', '.join(parts)} ({how}{read})"


def _target(trial: TrialRecord | None) -> float | None:
    return None if trial is None else finite(trial.metrics, TARGET_MIOU)


def _name(trial: TrialRecord) -> str:
    return trial.name or f"trial {trial.number}"
