"""The folder that is taken away: the network as a file, its model card, and the same figures for programs.

`winner.json` is written last and names the digest of the file: who finds it finds what belongs to it.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segda.files import replacing, sha256_of, write_json, write_text
from sweeps.reports.deployed import FACTS, FOLDER

CARD = "MODEL_CARD.md"
_NETWORK = "network"


def write_winner(folder: Path, *, network: Path, card: str, facts: Mapping[str, Any]) -> Path:
    """Write a winner in the place of the one before; one that is there already stays as it is.

    Args:
        folder: of the deployment.
        network: the artefact.
        card: Markdown.
        facts: plain data; has the digest of the artefact as `sha256`.

    Returns:
        The file that is to be taken away.
    """
    place = folder / FOLDER
    destination = place / f"{_NETWORK}{network.suffix}"
    facts = {**facts, "file": destination.name}
    if _is_written(place, destination, card=card, facts=facts):
        return destination
    (place / FACTS).unlink(missing_ok=True)
    for other in place.glob(f"{_NETWORK}.*"):
        if other != destination:
            other.unlink()
    with replacing(destination, durable=True) as temporary:
        shutil.copyfile(network, temporary)
    write_text(place / CARD, card)
    write_json(place / FACTS, facts)
    return destination


def _is_written(place: Path, destination: Path, *, card: str, facts: Mapping[str, Any]) -> bool:
    try:
        return (
            json.loads((place / FACTS).read_text(encoding="utf-8")) == json.loads(json.dumps(facts))
            and (place / CARD).read_text(encoding="utf-8") == card
            and sha256_of(destination) == facts["sha256"]
        )
    except (OSError, ValueError):
        return False
