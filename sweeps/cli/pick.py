"""`sweeps pick`: the choice among finalists by the labels of a few target images."""

from pathlib import Path

import click

from segda.cli_command import Command
from sweeps.cli.options import examples, options


@click.command(
    "pick",
    cls=Command,
    action="sweeps.cli.actions.pick:pick_action",
    epilog=examples(
        "sweeps pick camvid_day_to_dusk --labels 20",
        "sweeps pick camvid_day_to_dusk",
        "sweeps pick camvid_day_to_dusk --labels-from my_labels",
        "sweeps pick camvid_day_to_dusk --json | jq .trial",
    ),
)
@options("name")
@click.option(
    "--labels",
    type=click.IntRange(min=5),
    metavar="N",
    help="How many images to label in all, 5 or more.  [default: as many as were wanted last, at first 20]",
)
@click.option(
    "--labels-from",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Take labels from there, too: PNG files of train ids under the images' names, or the data set's own labels.",
)
@options("store", "ledger", "roots", "json")
def pick_command(**_: object) -> None:
    """Name target images that are worth labelling, take the labels when they come, and choose by them among NAME's finalists.

    The sweep's folder gets a folder labels: images.csv names the images, README.md says what a label is, drafts/ has what most
    finalists say, and answers/ is where labels go. The first five images are drawn at random, the others are those that the three
    leaders dispute most; five wait at a time. The same command, typed again when labels have come, says which finalist they choose,
    what is lost if they err, what ten more would buy, and which images are next.

    Labels that have chosen are spent: the ledger and the report name them, and no figure over them is unbiased. No label of the
    data set is read unless you name its folder. The search never learns of any.
    """
