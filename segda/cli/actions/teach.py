"""What `segda teach` does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from segda.cli.output import output, percent, plain_table
from segda.teaching import teach


def teach_action(
    config_file: Path,
    folder: Path,
    changes: Mapping[str, Any],
    checkpoints: tuple[Path, ...],
    predictions: Path | None,
    confidences: Path | None,
    roots: Mapping[str, Path],
    temperature: float,
    flip: bool,
    scales: tuple[float, ...],
    device: str,
    precision: Literal["auto", "fp32", "bf16", "fp16"],
    batch_size: int,
) -> None:
    """Do `segda teach`; the arguments are the command's."""
    labels = teach(
        config_file,
        folder,
        checkpoints=checkpoints,
        predictions=predictions,
        confidences=confidences,
        temperature=temperature,
        flip=flip,
        scales=scales or (1.0,),
        changes=changes,
        data_roots=roots,
        device=device,
        precision=precision,
        batch_size=batch_size,
    )
    record = labels.record
    total = sum(record.pixels)
    rows = [
        [name, percent(pixels / total), percent(mean)]
        for name, pixels, mean in zip(
            (*record.job.classes, "void"), record.pixels, (*record.mean_confidence, None), strict=True
        )
    ]
    height, width = record.job.size
    console = output()
    console.print(
        plain_table(
            f"{len(record.job.names)} images of {height}x{width}, digest {record.digest[:16]}",
            ["class", "pixels %", "mean confidence %"],
            rows,
        )
    )
    console.print(f"written: {folder}", highlight=False, soft_wrap=True)
