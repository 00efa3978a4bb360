"""What `segda datasets verify` does."""

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from segda.cli.output import output, percent, plain_table
from segda.datasets import DATASETS, SegmentationDataset, resolve_root
from segda.datasets.verification import Verification, shares, verify
from segda.documents import as_json, document
from segda.errors import CorruptSampleError
from segda.progress import progress_bar
from segda.types import IGNORE_INDEX

_MOST_PROBLEMS = 20
_MOST_SIZES = 3


def verify_action(name: str, root: Path | None, quick: bool, as_document: bool) -> None:
    """Do `segda datasets verify`; the arguments are the command's."""
    dataset = DATASETS[name]
    folder = resolve_root(name, root)
    with progress_bar(f"reading {name}") as show:
        found = verify(dataset, folder, decode=not quick, progress=show)
    if as_document:
        click.echo(as_json(_verified(dataset, found, name=name, root=folder, quick=quick)))
    else:
        _print(dataset, found, title=f"{name} in {folder}", quick=quick)
    if found.problems:
        told = "" if as_document else ", as told above"
        raise CorruptSampleError(f"{name} in {folder}: {len(found.problems):,} thing(s) wrong{told}")


def _verified(
    dataset: SegmentationDataset, found: Verification, *, name: str, root: Path, quick: bool
) -> dict[str, Any]:

    whole = sum(count for count, _ in found.stored.values())
    names = dict(enumerate(dataset.classes))
    content = {
        "name": name,
        "root": root,
        "is_decoded": not quick,
        "holds": not found.problems,
        "splits": [
            {
                "domain": entry.domain,
                "split": entry.split,
                "images": entry.images,
                "published": entry.published,
                "labelled": entry.labelled,
                "sizes": [
                    {"height": height, "width": width, "images": count}
                    for (height, width), count in entry.sizes.most_common()
                ],
            }
            for entry in found.splits
        ],
        "classes": []
        if quick
        else [
            {"name": label, "shares": shares(found.pixels, index)}
            for index, label in {**names, IGNORE_INDEX: None}.items()
        ],
        "ids": [
            {"id": number, "class": names.get(train_id), "share": count / whole}
            for number, (count, train_id) in sorted(found.stored.items())
        ],
        "problems": found.problems,
        "notes": found.notes,
    }
    return document("segda.verification/1", content)


def _print(dataset: SegmentationDataset, found: Verification, *, title: str, quick: bool) -> None:
    console = output()
    console.print(_split_table(found, title))
    if not quick:
        console.print(_share_table(dataset, found))
        if found.stored:
            console.print(_id_table(dataset, found))
    for note in found.notes:
        console.print(f"absent: {note}", highlight=False, markup=False, soft_wrap=True)
    for problem in found.problems[:_MOST_PROBLEMS]:
        console.print(f"wrong: {problem}", style="red", highlight=False, markup=False, soft_wrap=True)
    more = len(found.problems) - _MOST_PROBLEMS
    if more > 0:
        console.print(f"wrong: {more:,} more", style="red", highlight=False)
    if not found.problems:
        console.print("nothing is wrong", style="green", highlight=False)


def _split_table(found: Verification, title: str) -> Table:
    rows = []
    for entry in found.splits:
        sizes = [f"{width}x{height} ({count:,})" for (height, width), count in entry.sizes.most_common(_MOST_SIZES)]
        more = len(entry.sizes) - len(sizes)
        rows.append(
            [
                f"{entry.domain}/{entry.split}",
                "-" if entry.images is None else f"{entry.images:,}",
                "-" if entry.published is None else f"{entry.published:,}",
                "-" if entry.images is None else f"{entry.labelled:,}",
                ", ".join(sizes) + (f" and {more} more" if more else "") or "-",
            ]
        )
    return plain_table(title, ["domain/split", "images", "published", "labelled", "width x height (images)"], rows)


def _share_table(dataset: SegmentationDataset, found: Verification) -> Table:

    names = {**dict(enumerate(dataset.classes)), IGNORE_INDEX: "void, of all"}
    rows = [[name, *map(percent, shares(found.pixels, train_id).values())] for train_id, name in names.items()]
    return plain_table("share of labelled pixels in %", ["class", *dataset.domains], rows)


def _id_table(dataset: SegmentationDataset, found: Verification) -> Table:
    """Return what labels store and what it becomes."""
    whole = sum(count for count, _ in found.stored.values())
    names = dict(enumerate(dataset.classes))
    rows = [
        [str(number), names.get(train_id, "void"), percent(count / whole)]
        for number, (count, train_id) in sorted(found.stored.items())
    ]
    return plain_table("ids found in labels", ["id", "class", "% of pixels"], rows)
