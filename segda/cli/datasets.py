"""`segda datasets`."""

from pathlib import Path

import click

from segda.cli.output import json_option
from segda.cli_command import Command


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


@datasets_group.command("list", cls=Command, action="segda.cli.actions.datasets:list_action")
@json_option
def list_command(**_: object) -> None:
    """List the data sets that are known: classes, domains, terms, and where to get them.

    \b
    Examples:
      segda datasets list
      segda datasets list --json | jq .datasets[].name
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped


@datasets_group.command("get", cls=Command, action="segda.cli.actions.datasets:get_action")
@click.argument("name")
def get_command(**_: object) -> None:
    """Tell how to get the data set NAME: address, terms, what to fetch, and what to unpack where.

    Nothing is fetched: most owners want to know who takes their data. NAME may be the path of a description.

    \b
    Examples:
      segda datasets get cityscapes
      segda datasets get examples/described.yaml
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped


@datasets_group.command("verify", cls=Command, action="segda.cli.actions.verify:verify_action")
@click.argument("name")
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the data set; without it the variable SEGDA_<NAME>_ROOT.",
)
@click.option("--quick", is_flag=True, help="Count files and open none.")
@json_option
def verify_command(**_: object) -> None:
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


@datasets_group.group("make")
def make_group() -> None:
    """Generate a data set.

    \b
    Example:
      segda datasets make scenes data/scenes --size 128
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped


@make_group.command("scenes", cls=Command, action="segda.cli.actions.make_scenes:make_scenes_action")
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
def make_scenes_command(**_: object) -> None:
    """Draw labelled aerial scenes of two domains, urban and rural, into the new folder ROOT.

    They stand in for real data where there is none: for trying things out, for tests and for demonstrations. Nothing is
    downloaded.

    \b
    Examples:
      segda datasets make scenes data/scenes
      segda datasets make scenes data/scenes_small --size 64 --train 8 --val 4 --format tif
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped


@datasets_group.command("recipes", cls=Command, action="segda.cli.actions.recipes:recipes_action")
@json_option
def recipes_command(**_: object) -> None:
    """List the augmentation recipes that a configuration can name as data.augmentation.

    \b
    Examples:
      segda datasets recipes
      segda datasets recipes --json
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
