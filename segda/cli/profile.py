"""`segda profile`."""

from pathlib import Path

import click

from segda.cli.output import PRECISIONS, device_option
from segda.cli.overrides import FileOrChange
from segda.cli_command import Command
from segda.errors import ConfigError


@click.command("profile", cls=Command, action="segda.cli.actions.profile:profile_action")
@click.argument(
    "words",
    metavar="[FILE|KEY=VALUE]...",
    nargs=-1,
    type=FileOrChange(exists=True, dir_okay=False, path_type=Path),
)
@click.option(
    "--model", "models", multiple=True, metavar="NAME", help="Network with its own defaults; may be repeated."
)
@click.option(
    "--classes", "num_classes", type=click.IntRange(min=1), help="Number of classes, where no weights say it."
)
@click.option("--height", type=click.IntRange(min=32), help="Input height in pixels.")
@click.option("--width", type=click.IntRange(min=32), help="Input width in pixels.")
@device_option
@click.option(
    "--precision",
    type=click.Choice([*PRECISIONS, "int8"]),
    default="auto",
    show_default=True,
    help="Arithmetic of networks; auto: bf16 where device and runtime have fast kernels for it, else fp32. int8 needs a --runtime.",
)
@click.option(
    "--runtime",
    type=click.Choice(["eager", "torch_compile", "onnxruntime", "pt2e"]),
    default="eager",
    show_default=True,
    help="What runs networks; eager is PyTorch as it is.",
)
@click.option(
    "--runs", type=click.IntRange(min=1), help="Timed runs of each.  [default: at least 100, and 15 seconds of them]"
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
    help="Write all figures, conditions and doubts there; -: to standard output, in place of the table.",
)
@click.option(
    "--plot",
    "picture",
    metavar="FILE.png",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw latency against multiply-accumulates there.",
)
def profile_command(
    words: tuple[Path | str, ...],
    num_classes: int | None,
    height: int | None,
    width: int | None,
    picture: Path | None,
    **_: object,
) -> None:
    """Measure what networks cost: parameters, multiply-accumulates, latency, memory and size of files.

    A FILE is a configuration, a checkpoint (.pt) or what `segda export` wrote (.onnx, .pt2). All that are given are measured in one
    run, block by block in turn, so that what else happens on the machine happens to all. Words KEY=VALUE replace single values of
    configurations and of --model, e.g. model.backbone=resnet34. A --model has the classes and the size
    of the first FILE, where options do not say others; exported files have a runtime and a precision of their own.

    Latency is told twice. Whole: from the bytes of an image to its class map. Network alone: without enlargement to the image's
    size and argmax; exported files have both inside. Measured is the deployment view, without the parts that only training needs.
    Weights do not matter for it. Nothing else should run on the device: a latency that is not reliable is marked with ~, and it is
    told what else ran, or that it was slower most of the time than in its fastest tenth.

    \b
    Examples:
      segda profile day_to_dusk.yaml
      segda profile --model stdc --model pidnet_s --classes 19 --height 512 --width 1024 --plot costs.png
      segda profile runs/day/checkpoint.pt street.onnx --model fast_scnn --json costs.json
      segda profile day_to_dusk.yaml model.backbone=resnet34 --device cuda --precision fp16
      segda profile day_to_dusk.yaml --runtime onnxruntime --precision int8
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    if picture is not None and picture.suffix.lower() != ".png":
        raise ConfigError(f"--plot draws a picture that ends in .png, got {picture}")
    has_files = any(isinstance(word, Path) for word in words)
    if not has_files and None in (num_classes, height, width):
        raise ConfigError("profile needs a CONFIG.yaml or all of --classes, --height and --width")
