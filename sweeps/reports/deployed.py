"""What `sweeps deploy` has left of a sweep, for whoever reads about it."""

import json
from collections.abc import Mapping
from typing import Any

from sweeps.store import Store

FOLDER, FACTS = "winner", "winner.json"  # in the folder of a deployment
LOCK = "lock"  # there too; held while somebody works in it


def read_winner(store: Store, sweep: str) -> Mapping[str, Any] | None:
    """Return the facts about a sweep's winner (`sweeps.deployment.winner`), or None if nothing was deployed.

    Args:
        store: where the sweep is.
        sweep: its name.
    """
    path = store.deployment(sweep) / FOLDER / FACTS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and (path.parent / str(facts.get("file"))).is_file() else None
