"""`segda datasets`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from rich.markup import escape

from segda.cli.output import json_option, output, percent, plain_table
from segda.documents import as_json, document
from segda.errors import CorruptSampleError
from segda.progress import progress_bar

if TYPE_CHECKING:
    from rich.table import Table

    from segda.datasets import SegmentationDataset
    from segda.datasets.verification import Verification

_MOST_PROBLEMS = 20
_MOST_SIZES = 3


@click.group("datasets")
def datasets_group() -> None:
    """List, get, verify and generate data sets.

    \b
    Examples:
      segda datasets list
      segda datasets get cityscapes
      segda datasets verify camvid --root data/camvid
      segda datasets make scenes data/scenes --size 64 --train 40
      segda datasets recipes
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped


@datasets_group.command("list")
@json_option
def list_command(as_document: bool) -> None:
    """List the data sets that are known: classes, domains, terms, and where to get them.

    \b
    Examples:
      segda datasets list
      segda datasets list --json | jq .datasets[].name
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    from segda.datasets import DATASETS

    if as_document:
        listed = [_described(dataset) for dataset in DATASETS.usable().values()]
        click.echo(as_json(document("segda.datasets/1", {"datasets": listed})))
        return
    console = output()
    for dataset in DATASETS.usable().values():
        console.print(f"[bold]{dataset.name}[/bold], {len(dataset.classes)} classes", highlight=False)
        rows = {
            "classes": ", ".join(
                f"{name} (unscored)" if index in dataset.unscored else name
                for index, name in enumerate(dataset.classes)
            ),
            "domains": "; ".join(f"{domain} ({', '.join(dataset.splits(domain))})" for domain in dataset.domains),
            "reported on": dataset.report_split,
            "terms": dataset.terms,
            "get it from": dataset.url,
            "layout": dataset.layout,
        }
        for heading, text in rows.items():
            console.print(f"  {heading}: {text}", highlight=False, markup=False, soft_wrap=True)


def _described(dataset: "SegmentationDataset") -> dict[str, Any]:
    return {
        "name": dataset.name,
        "classes": dataset.classes,
        "unscored": [dataset.classes[index] for index in sorted(dataset.unscored)],
        "domains": [{"name": domain, "splits": dataset.splits(domain)} for domain in dataset.domains],
        "report_split": dataset.report_split,
        "terms": dataset.terms,
        "url": dataset.url,
        "layout": dataset.layout,
    }


@datasets_group.command("get")
@click.argument("name")
def get_command(name: str) -> None:
    """Tell how to get the data set NAME: address, terms, what to fetch, and what to unpack where.

    Nothing is fetched: most owners want to know who takes their data. NAME may be the path of a description.

    \b
    Examples:
      segda datasets get cityscapes
      segda datasets get examples/described.yaml
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    from rich.table import Table

    from segda.datasets import DATASETS
    from segda.datasets.base import root_variable

    dataset = DATASETS[name]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    steps = [f"{number}. {step}" for number, step in enumerate(dataset.steps, start=1)]
    rows = {
        "address": dataset.url,
        "terms": dataset.terms,
        "what to do": "\n".join(steps) or "bring it into the layout",
        "layout of the root": dataset.layout,
        "is it complete?": f"segda datasets verify {name} --root ROOT",
        "in configurations": f"dataset: {name}, domain: {' or '.join(dataset.domains)}",
        "root": f"--data-root {name}=ROOT, or the variable {root_variable(name)}",
    }
    for heading, text in rows.items():
        grid.add_row(heading, escape(text))
    console = output()
    console.print(f"[bold]{dataset.name}[/bold], {len(dataset.classes)} classes", highlight=False)
    console.print(grid, highlight=False)


@datasets_group.command("verify")
@click.argument("name")
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the data set; without it the variable SEGDA_<NAME>_ROOT.",
)
@click.option("--quick", is_flag=True, help="Count files and open none.")
@json_option
def verify_command(name: str, root: Path | None, quick: bool, as_document: bool) -> None:
    """Look at all that the data set NAME has at a folder, and tell what is wrong with which file.

    Images and labels are decoded: counts against those that are published, sizes, the ids that labels store and the classes
    that they become, the share of each class. Something wrong ends with exit code 2; a test split that is absent is not
    wrong where results are reported on another one. NAME may be the path of a description.

    \b
    Examples:
      segda datasets verify camvid --root data/camvid
      SEGDA_LOVEDA_ROOT=data/loveda segda datasets verify loveda --quick
      segda datasets verify camvid --root data/camvid --json | jq .problems
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    from segda.datasets import DATASETS, resolve_root
    from segda.datasets.verification import verify

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
    dataset: "SegmentationDataset", found: "Verification", *, name: str, root: Path, quick: bool
) -> dict[str, Any]:
    from segda.datasets.verification import shares
    from segda.types import IGNORE_INDEX

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


def _print(dataset: "SegmentationDataset", found: "Verification", *, title: str, quick: bool) -> None:
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


def _split_table(found: "Verification", title: str) -> "Table":
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


def _share_table(dataset: "SegmentationDataset", found: "Verification") -> "Table":
    from segda.datasets.verification import shares
    from segda.types import IGNORE_INDEX

    names = {**dict(enumerate(dataset.classes)), IGNORE_INDEX: "void, of all"}
    rows = [[name, *map(percent, shares(found.pixels, train_id).values())] for train_id, name in names.items()]
    return plain_table("share of labelled pixels in %", ["class", *dataset.domains], rows)


def _id_table(dataset: "SegmentationDataset", found: "Verification") -> "Table":
    """Return what labels store and what it becomes."""
    whole = sum(count for count, _ in found.stored.values())
    names = dict(enumerate(dataset.classes))
    rows = [
        [str(number), names.get(train_id, "void"), percent(count / whole)]
        for number, (count, train_id) in sorted(found.stored.items())
    ]
    return plain_table("ids found in labels", ["id", "class", "% of pixels"], rows)


@datasets_group.group("make")
def make_group() -> None:
    """Generate a data set.

    \b
    Example:
      segda datasets make scenes data/scenes --size 128
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped


@make_group.command("scenes")
@click.argument("root", type=click.Path(file_okay=False, path_type=Path))
@click.option("--size", default=256, show_default=True, help="Height and width of a tile in pixels.")
@click.option("--train", default=40, show_default=True, help="Training tiles of each domain.")
@click.option("--val", default=16, show_default=True, help="Validation tiles of each domain.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same tiles.")
@click.option(
    "--format",
    "image_format",
    type=click.Choice(["png", "tif"]),
    default="png",
    show_default=True,
    help="tif: GeoTIFF with coordinates.",
)
def make_scenes_command(
    root: Path, size: int, train: int, val: int, seed: int, image_format: Literal["png", "tif"]
) -> None:
    """Draw labelled aerial scenes of two domains, urban and rural, into the new folder ROOT.

    They stand in for real data where there is none: for trying things out, for tests and for demonstrations. Nothing is
    downloaded.

    \b
    Examples:
      segda datasets make scenes data/scenes
      segda datasets make scenes data/scenes_small --size 64 --train 8 --val 4 --format tif
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    from segda.datasets.scenes import generate_scenes

    generate_scenes(
        root,
        size=size,
        train=train,
        val=val,
        seed=seed,
        image_format=image_format,
        progress=sys.stderr.isatty(),
    )
    output().print(f"written: {root}", highlight=False, soft_wrap=True)


@datasets_group.command("recipes")
@json_option
def recipes_command(as_document: bool) -> None:
    """List the augmentation recipes that a configuration can name as data.augmentation.

    \b
    Examples:
      segda datasets recipes
      segda datasets recipes --json
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    from rich.table import Table

    from segda.transforms.recipes import RECIPES

    if as_document:
        listed = [{"name": name, "description": recipe.description()} for name, recipe in RECIPES.usable().items()]
        click.echo(as_json(document("segda.recipes/1", {"recipes": listed})))
        return
    table = Table("recipe", "what it does")
    for name, recipe in RECIPES.usable().items():
        table.add_row(name, recipe.description())
    output().print(table)
