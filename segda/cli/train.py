"""`segda train`."""

from pathlib import Path

import click

from segda.cli.completion import CONFIGS, files_or_shipped
from segda.cli.output import data_root_option
from segda.cli.overrides import changes_argument
from segda.cli_command import Command


@click.command("train", cls=Command, action="segda.cli.actions.train:train_action")
@click.argument(
    "config_file",
    metavar="CONFIG.yaml",
    type=click.Path(dir_okay=False, path_type=Path),
    shell_complete=files_or_shipped(CONFIGS),
)
@changes_argument()
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the run lives.  [default: runs/<name of the file>-<fingerprint>]",
)
@data_root_option
@click.option(
    "--micro-batch",
    type=click.IntRange(min=2),
    metavar="M",
    help="Pass M images of each domain through the network at once and add up the gradients: needs less memory, for the same batch "
    "size.  [default: the whole batch]",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Train with N processes on this machine, each on its part of every batch and, with CUDA, on a GPU of its own.",
)
def train_command(**_: object) -> None:
    """Train one network as CONFIG.yaml says, and score it.

    Words KEY=VALUE after the file replace or add single values; the end of a key is enough where no other key ends so.

    The run folder receives checkpoint.pt, config.json, environment.json, metrics.jsonl, result.json and pictures of
    examples. A run that stopped goes on from its last checkpoint when the same command is given again.

    \b
    A configuration needs no more than this:
      data:
        source: {dataset: camvid, domain: day}
        target: {dataset: camvid, domain: dusk}
        height: 176
        width: 240
      method: {name: adversarial}
      steps: 1000

    \b
    Examples:
      segda train day_to_dusk.yaml --data-root camvid=data/camvid
      segda train day_to_dusk.yaml method.lambda_adv=0.003 device=cuda
      segda train day_to_dusk.yaml steps=20 --folder runs/quick_look
      segda train day_to_dusk.yaml device=cuda --processes 2 --micro-batch 2
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
