"""Documents of `sweeps delete` and `sweeps clean`: what would go."""

from collections.abc import Sequence
from typing import Any

from segda.documents import document
from sweeps.housekeeping.cleaning import Cleaning
from sweeps.housekeeping.deletion import Deletion


def deletion_document(found: Deletion) -> dict[str, Any]:
    """Return what the deletion of a sweep takes away.

    Args:
        found: of `sweeps.housekeeping.deletion`.
    """
    parts = [
        {"what": part.what, "where": part.where, "files": part.files, "bytes": part.num_bytes} for part in found.parts
    ]
    return document(
        "sweeps.deletion/1",
        {
            "sweep": found.sweep,
            "trials": found.trials,
            "reports": found.reports,
            "parts": parts,
            "bytes": found.num_bytes,
            "notes": found.notes,
            "mlflow": found.mlflow,
        },
    )


def cleaning_document(found: Sequence[Cleaning]) -> dict[str, Any]:
    """Return what sweeps can do without.

    Args:
        found: of each sweep.
    """
    return document(
        "sweeps.cleaning/1",
        {"sweeps": [_cleaned(item) for item in found], "bytes": sum(item.num_bytes for item in found)},
    )


def _cleaned(found: Cleaning) -> dict[str, Any]:
    return {
        "sweep": found.sweep,
        "bytes": found.num_bytes,
        "freed": [
            {
                "kind": part.kind,
                "why": part.why,
                "trials": part.trials,
                "files": [*map(str, part.files), *part.remote],
                "bytes": part.num_bytes,
            }
            for part in found.freed
        ],
        "kept": [{"trial": number, "why": why} for number, why in found.kept.items()],
        "lost": found.lost,
    }
