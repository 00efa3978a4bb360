"""`segda slim`."""

from pathlib import Path

import click

from segda.cli.output import data_root_option, device_option, precision_option
from segda.cli_command import Command


@click.command("slim", cls=Command, action="segda.cli.actions.slim:slim_action")
@click.argument("checkpoint", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("destination", metavar="OUT", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--ratio", type=float, required=True, help="Share of the channels to take out, e.g. 0.3.")
@click.option(
    "--round-to",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Round widths to multiples of N; 8 or 16 is faster than widths as they come.",
)
@click.option(
    "--global",
    "is_global",
    is_flag=True,
    help="Rank the channels of the whole network together; without it each group of layers loses the same share.",
)
@click.option(
    "--statistics",
    type=click.Choice(["source", "target", "none"]),
    default="source",
    show_default=True,
    help="Images of which batch normalization gets new statistics: the source's as in training, then the configured share of the "
    "target's; the unlabelled target's alone; or none, it keeps the old ones.",
)
@click.option("--oracle", is_flag=True, help="Score the target's labelled split too, for reading.")
@data_root_option
@device_option
@precision_option
@click.option(
    "--runs", type=click.IntRange(min=1), help="Timed runs of each network.  [default: enough for the device]"
)
def slim_command(**_: object) -> None:
    """Take the channels that matter least out of the network CHECKPOINT, and write the smaller one to OUT.

    The smaller network is dense: every device runs it faster. Parameters and multiply-accumulates fall with the square of what is
    left. It gets new statistics of batch normalization, without a gradient. It is worth more when it is trained on, with any
    method, by a configuration that has, instead of `model`,

    \b
      start: {checkpoint: OUT}
    All commands that read a checkpoint read OUT.

    \b
    Examples:
      segda slim runs/large/checkpoint.pt slim.pt --ratio 0.3 --round-to 16
      segda slim runs/large/checkpoint.pt slim.pt --ratio 0.5 --global --statistics target --oracle
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
