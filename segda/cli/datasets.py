"""`segda datasets`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from segda.cli.output import output, percent, plain_table
from segda.errors import DatasetNotFoundError
from segda.progress import progress_columns

if TYPE_CHECKING:
    from rich.table import Table

    from segda.datasets import Sample, SegmentationDataset


@click.group("datasets")
def datasets_group() -> None:
    """List, inspect and generate data sets.

    \b
    Examples:
      segda datasets list
      segda datasets show camvid --root data/camvid
      segda datasets make scenes data/scenes --size 64 --train 40
      segda datasets recipes
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped


@datasets_group.command("list")
def list_command() -> None:
    """List the data sets that are known: classes, domains, terms, and where to get them.

    \b
    Example:
      segda datasets list
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    from segda.datasets import DATASETS

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


@datasets_group.command("show")
@click.argument("name")
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the data set; without it the variable SEGDA_<NAME>_ROOT.",
)
@click.option("--shares/--no-shares", default=True, show_default=True, help="Read every label to count its classes.")
def show_command(name: str, root: Path | None, shares: bool) -> None:
    """Show how many images the data set NAME has at a folder, and how its labels are distributed.

    Splits that are absent are shown as such; a damaged label ends the command.

    \b
    Examples:
      segda datasets show camvid --root data/camvid
      SEGDA_LOVEDA_ROOT=data/loveda segda datasets show loveda --no-shares
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    from segda.datasets import DATASETS, resolve_root

    dataset = DATASETS[name]
    folder = resolve_root(name, root)
    found, absent = _find_samples(dataset, folder)
    rows = []
    for domain in dataset.domains:
        for split in dataset.splits(domain):
            samples = found.get((domain, split))
            if samples is None:
                rows.append([f"{domain}/{split}", "-", "-"])
            else:
                rows.append([f"{domain}/{split}", str(len(samples)), str(sum(map(_has_label, samples)))])
    console = output()
    console.print(plain_table(f"{name} in {folder}", ["domain/split", "images", "labelled"], rows))
    for error in absent:
        console.print(f"absent: {error}", highlight=False, markup=False, soft_wrap=True)
    if shares:
        console.print(_share_table(dataset, found))


def _find_samples(
    dataset: "SegmentationDataset", folder: Path
) -> tuple[dict[tuple[str, str], "list[Sample]"], list[DatasetNotFoundError]]:
    """List the samples of every split that is there, and why the others are not."""
    found: dict[tuple[str, str], list[Sample]] = {}
    absent: list[DatasetNotFoundError] = []
    for domain in dataset.domains:
        for split in dataset.splits(domain):
            try:
                found[domain, split] = dataset.samples(folder, domain=domain, split=split)
            except DatasetNotFoundError as error:
                absent.append(error)
    if not found:
        raise absent[0]
    return found, absent


def _has_label(sample: "Sample") -> bool:
    from segda.datasets.listing import UnreachableError, reach

    try:
        return sample.label is not None and bool(reach(sample.label))
    except UnreachableError:
        return False


def _share_table(dataset: "SegmentationDataset", found: Mapping[tuple[str, str], "list[Sample]"]) -> "Table":
    """Count the labelled pixels of each class over all splits of each domain."""
    import numpy as np

    from segda.types import IGNORE_INDEX

    counts = {domain: np.zeros(256, dtype=np.int64) for domain in dataset.domains}
    # One image may belong to several splits of a domain, e.g. to a part of a split; it counts once.
    labels = sorted(
        {(domain, sample.label) for (domain, _), samples in found.items() for sample in samples if _has_label(sample)}
    )
    with progress_columns() as bar:
        for domain, label in bar.track(labels, description="reading labels"):
            assert label is not None
            counts[domain] += np.bincount(dataset.decode_label(label).ravel(), minlength=256)
    rows = []
    for index, name in enumerate(dataset.classes):
        valid = {domain: count[: len(dataset.classes)].sum() for domain, count in counts.items()}
        rows.append([name, *(_share(counts[domain][index], valid[domain]) for domain in dataset.domains)])
    rows.append(["void, of all", *(_share(count[IGNORE_INDEX], count.sum()) for count in counts.values())])
    return plain_table("share of labelled pixels in %", ["class", *dataset.domains], rows)


def _share(part: int, whole: int) -> str:
    return percent(float(part / whole) if whole else None)


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
def recipes_command() -> None:
    """List the augmentation recipes that a configuration can name as data.augmentation.

    \b
    Example:
      segda datasets recipes
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    from rich.table import Table

    from segda.transforms.recipes import RECIPES

    table = Table("recipe", "what it does")
    for name, recipe in RECIPES.usable().items():
        table.add_row(name, recipe.description())
    output().print(table)
