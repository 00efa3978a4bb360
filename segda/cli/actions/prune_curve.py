"""What `segda prune-curve` does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from segda.cli.output import output, percent, plain_table
from segda.compression.curve import LEVELS, prune_curve


def prune_curve_action(
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
    """Do `segda prune-curve`; the arguments are the command's."""
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
