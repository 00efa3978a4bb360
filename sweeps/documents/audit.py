"""The document of `sweeps audit`."""

from collections.abc import Sequence
from typing import Any

from segda.documents import document
from sweeps.findings import Check


def audit_document(name: str, checks: Sequence[Check]) -> dict[str, Any]:
    """Return what an audit found.

    Args:
        name: the sweep.
        checks: its claims, and what contradicts them.
    """
    listed = [
        {"claim": item.claim, "count": item.count, "holds": item.ok, "problems": item.problems, "note": item.note}
        for item in checks
    ]
    return document("sweeps.audit/1", {"sweep": name, "holds": all(item.ok for item in checks), "checks": listed})
