"""`segda export`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import click

from segda.cli.output import data_root_option, output, parse_size
from segda.errors import ConfigError


@click.command("export")
@click.argument("checkpoint", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("destination", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    show_default=True,
    help="Arithmetic of convolutions; fp16 and int8 are for .onnx.",
)
@click.option(
    "--size",
    "size_text",
    metavar="SIZE",
    default="dynamic",
    show_default=True,
    help="What images it takes: HEIGHTxWIDTH, or dynamic: any from 32x32.",
)
@click.option(
    "--batch",
    "batch_text",
    metavar="N",
    default="dynamic",
    show_default=True,
    help="How many images at once, or dynamic: any number.",
)
@click.option(
    "--argmax",
    type=click.Choice(["full", "quarter"]),
    default="full",
    show_default=True,
    help="Where classes are decided; quarter: at a quarter of height and width, each for 4x4 pixels, which is faster and CHANGES "
    "RESULTS: by how much on the compared images is said.",
)
@click.option(
    "--calibrate",
    type=click.Choice(["source", "target"]),
    default="source",
    show_default=True,
    help="int8: whose training images tell the ranges; labels are not opened.",
)
@click.option(
    "--calibration-images", type=click.IntRange(min=1), default=32, show_default=True, help="int8: how many of them."
)
@click.option(
    "--compare",
    "compare_on",
    type=click.Choice(["source", "target"]),
    default="target",
    show_default=True,
    help="Images that the file is compared with the network on: the target's of training, the source's of validation.",
)
@click.option("--images", type=click.IntRange(min=1), default=16, show_default=True, help="How many of them.")
@click.option(
    "--agreement",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Share of pixels in which both must say the same.  [default: 0.9999 for fp32, 0.995 for fp16, 0.97 for int8]",
)
@click.option("--opset", default=20, show_default=True, help=".onnx: version of the operators, 18 to 24.")
@data_root_option
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
def export_command(
    checkpoint: Path,
    destination: Path,
    precision: Literal["fp32", "fp16", "int8"],
    size_text: str,
    batch_text: str,
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
    """Write CHECKPOINT as FILE, which runs without it: bytes of RGB images in, a class for every pixel out.

    FILE.onnx is for ONNX Runtime and whatever else reads ONNX, FILE.pt2 for PyTorch (torch.export). Input: image, uint8 [batch, 3,
    height, width]; output: classes, uint8 [batch, height, width]. Normalization, enlargement and argmax are inside, and the file
    says of itself which classes it knows, what it was made of, and under which terms its training data are.

    The file gets its name only after it was run on real images and said what the network says: at the size of the training and, if
    it takes any size, at an odd one too. Otherwise what was seen is told, nothing is written and the exit code is 2.

    \b
    Examples:
      segda export runs/RUN/checkpoint.pt street.onnx
      segda export runs/RUN/checkpoint.pt street_int8.onnx --precision int8 --calibrate target --size 512x1024 --batch 1
      segda export runs/RUN/checkpoint.pt street.pt2 --data-root camvid=data/camvid
      segda predict street.onnx photo.jpg classes.png --overlay
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    size = None if size_text == "dynamic" else parse_size(size_text, option="--size", smallest=32)
    if batch_text != "dynamic" and not (batch_text.isdecimal() and int(batch_text) > 0):
        raise ConfigError(f"--batch expects a number of images, or dynamic, got {batch_text!r}")
    from segda.exporting import export

    done = export(
        checkpoint,
        destination,
        precision=precision,
        size=size,
        batch=None if batch_text == "dynamic" else int(batch_text),
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
