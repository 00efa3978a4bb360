"""`segda export`."""

from pathlib import Path

import click

from segda.cli.output import data_root_option, parse_size
from segda.cli_command import Command
from segda.errors import ConfigError


def _parse_size(_context: click.Context, _option: click.Parameter, text: str) -> tuple[int, int] | None:
    return None if text == "dynamic" else parse_size(text, option="--size", smallest=32)


def _parse_batch(_context: click.Context, _option: click.Parameter, text: str) -> int | None:
    if text == "dynamic":
        return None
    if not (text.isdecimal() and int(text) > 0):
        raise ConfigError(f"--batch expects a number of images, or dynamic, got {text!r}")
    return int(text)


@click.command("export", cls=Command, action="segda.cli.actions.export:export_action")
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
    metavar="SIZE",
    callback=_parse_size,
    default="dynamic",
    show_default=True,
    help="What images it takes: HEIGHTxWIDTH, or dynamic: any from 32x32.",
)
@click.option(
    "--batch",
    metavar="N",
    callback=_parse_batch,
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
def export_command(**_: object) -> None:
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
