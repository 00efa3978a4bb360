"""What `segda export` does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from segda.cli.output import output
from segda.exporting import export


def export_action(
    checkpoint: Path,
    destination: Path,
    precision: Literal["fp32", "fp16", "int8"],
    size: tuple[int, int] | None,
    batch: int | None,
    argmax: Literal["full", "quarter"],
    calibrate: Literal["source", "target"],
    calibration_images: int,
    compare_on: Literal["source", "target"],
    images: int,
    agreement: float | None,
    opset: int,
    roots: Mapping[str, Path],
    overwrite: bool,
) -> None:
    """Do `segda export`; the arguments are the command's."""
    done = export(
        checkpoint,
        destination,
        precision=precision,
        size=size,
        batch=batch,
        argmax=argmax,
        calibrate=calibrate,
        calibration_images=calibration_images,
        compare_on=compare_on,
        images=images,
        agreement=agreement,
        opset=opset,
        data_roots=roots,
        overwrite=overwrite,
    )
    console = output()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    for found in done.agreements:
        say(f"says the same as the network in {found}")
    if done.argmax_agreement is not None:
        say(f"argmax at a quarter says the same as at full size in {done.argmax_agreement}")
    if done.convolutions is not None:
        say(f"{done.convolutions.int8} of {sum(done.convolutions)} convolutions compute in int8")
    say(f"written: {done.path} ({done.file_bytes / 1e6:.1f} MB), for {done.record.accepts}")
    say(f"try it: segda predict {done.path} IMAGE.png CLASSES.png --overlay")
