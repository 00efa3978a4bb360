"""What `sweeps pick` has found by labels, for whoever reads about the sweep."""

import json
from collections.abc import Mapping
from typing import Any

from sweeps.store import Store

FACTS = "pick.json"  # in the folder of labels


def read_labelled(store: Store, sweep: str) -> Mapping[str, Any] | None:
    """Return the facts about a sweep's pick by labels (`sweeps.labelling.picking`), or None if no label has come.

    Args:
        store: where the sweep is.
        sweep: its name.
    """
    try:
        facts = json.loads((store.labels(sweep) / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None
