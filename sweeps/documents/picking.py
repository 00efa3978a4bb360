"""Document of `sweeps pick`: the choice by labels that the user gave.

Its figures stand under no `oracle`: that is for labels that are there to compare with, and that nobody gave to choose by. These
were given to choose by, and whoever asks for this document asks for that. Other documents have the choice, and none of the figures.
"""

from typing import Any

from segda.documents import document
from sweeps.labelling.picking import Picking
from sweeps.selection.few_labels import FURTHER, Interval


def picking_document(found: Picking) -> dict[str, Any]:
    """Return what is known after a call.

    Args:
        found: by `sweeps.commands.picking`.
    """
    said, folder = found.standing, found.folder
    return document(
        "sweeps.pick/1",
        {
            "sweep": found.sweep,
            "trial": None if found.pick is None else found.pick.trial,
            "unlabelled": found.unlabelled,
            "reads_target_labels": said is not None,
            "labels": found.state.labels,
            "counted": len(found.counted),
            "criterion": found.state.criterion,
            "finalists": [
                {
                    "trial": item.trial,
                    "key": item.key,
                    "figure": item.figure,
                    "miou": None if said is None else said.miou[place],
                    "on_random": None if said is None or said.on_random is None else _interval(said.on_random[place]),
                }
                for place, item in enumerate(found.state.finalists)
            ],
            "expected": None if said is None else _interval(said.expected),
            "certainty": None if said is None else said.certainty,
            "regret": None if said is None else said.regret,
            "regret_bound": None if said is None else said.regret_bound,
            "further": FURTHER,
            "regret_with_further": None if said is None else said.regret_with_more,
            "images": [
                {
                    "name": image.name,
                    "path": image.path,
                    "part": image.part,
                    "is_counted": image.name in found.counted,
                    "answer": folder.answer(image.name),
                    "draft": folder.draft(image.name),
                }
                for image in found.state.images
            ],
            "folder": folder.path,
        },
    )


def _interval(found: Interval | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"miou": found.miou, "low": found.low, "high": found.high, "images": found.images}
