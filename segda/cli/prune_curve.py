"""`segda prune-curve`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import click

from segda.cli.output import data_root_option, device_option, output, percent, plain_table, precision_option


@click.command("prune-curve")
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
def prune_curve_command(
    checkpoint: Path,
    folder: Path,
    levels: tuple[float, ...],
    scopes: tuple[str, ...],
    recalibrate: Literal["none", "source", "target"],
    all_layers: bool,
    no_oracle: bool,
    roots: Mapping[str, Path],
    device: str,
    precision: Literal["auto", "fp32", "bf16", "fp16"],
    batch_size: int,
) -> None:
    """Score CHECKPOINT with more and more of its smallest weights at zero, and draw the curves into FOLDER.

    Nothing is trained. FOLDER receives curve.json, curve.csv, global.png and modules.png. What was interrupted goes on when the
    same command is given again.

    \b
    Examples:
      segda prune-curve runs/day_to_dusk-0123/checkpoint.pt curves --data-root camvid=data/camvid
      segda prune-curve checkpoint.pt curves --scope global --level 0.4 --level 0.6 --recalibrate target
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    from segda.compression.curve import LEVELS, prune_curve

    curve = prune_curve(
        checkpoint,
        folder,
        levels=levels or LEVELS,
        scopes=scopes or None,
        recalibration=recalibrate,
        protect_ends=not all_layers,
        oracle=not no_oracle,
        data_roots=roots,
        device=device,
        precision=precision,
        batch_size=batch_size,
    )
    has_oracle = any(point.oracle_target_miou is not None for point in curve.points)
    rows = [
        [
            point.scope,
            percent(point.level),
            "new" if point.recalibrated else "old",
            percent(point.source_val_miou),
            *([percent(point.oracle_target_miou)] if has_oracle else []),
        ]
        for point in curve.points
    ]
    headings = ["pruned", "zeros %", "statistics", "source/val mIoU %", *(["target mIoU % (*)"] if has_oracle else [])]
    console = output()
    console.print(plain_table(str(checkpoint), headings, rows))
    if has_oracle:
        console.print("(*) made from target labels: for reading, not for choosing", highlight=False)
    console.print(f"written: {folder}", highlight=False, soft_wrap=True)
