"""`segda prune-curve`."""

from pathlib import Path

import click

from segda.cli.output import data_root_option, device_option, precision_option
from segda.cli_command import Command


@click.command("prune-curve", cls=Command, action="segda.cli.actions.prune_curve:prune_curve_action")
@click.argument("checkpoint", metavar="CHECKPOINT", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--level",
    "levels",
    multiple=True,
    type=float,
    metavar="SHARE",
    help="Share of the weights that become zero, e.g. 0.4; may be repeated.  [default: 0, 0.05, ..., 0.85]",
)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="NAME",
    help="global (one ranking over all layers), module (the same share of every layer), or a module of the network that alone is "
    "pruned, e.g. backbone.layer4; may be repeated.  [default: both, and the network's modules one by one]",
)
@click.option(
    "--recalibrate",
    type=click.Choice(["none", "source", "target"]),
    default="source",
    show_default=True,
    help="Score each network a second time, with statistics of batch normalization from 64 training images of this domain, without "
    "labels.",
)
@click.option("--all-layers", is_flag=True, help="Prune the first and the last layers too.")
@click.option("--no-oracle", is_flag=True, help="Do not score the target's labelled split.")
@data_root_option
@device_option
@precision_option
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Images at once.")
def prune_curve_command(**_: object) -> None:
    """Score CHECKPOINT with more and more of its smallest weights at zero, and draw the curves into FOLDER.

    Nothing is trained. FOLDER receives curve.json, curve.csv, global.png and modules.png. What was interrupted goes on when the
    same command is given again.

    \b
    Examples:
      segda prune-curve runs/day_to_dusk-0123/checkpoint.pt curves --data-root camvid=data/camvid
      segda prune-curve checkpoint.pt curves --scope global --level 0.4 --level 0.6 --recalibrate target
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
