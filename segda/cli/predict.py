"""`segda predict`."""

from pathlib import Path

import click

from segda.cli.output import device_option, parse_size, precision_option
from segda.cli_command import Command
from segda.errors import ConfigError


def _parse_size(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, int] | str | None:
    if text in (None, "native", "train"):
        return text
    return parse_size(text, option="--size", smallest=32)


def _parse_bands(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise ConfigError(f"--bands expects numbers such as 4,3,2, got {text!r}")
    return tuple(int(word) for word in words)


@click.command("predict", cls=Command, action="segda.cli.actions.predict:predict_action")
@click.argument("checkpoint", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("sources", metavar="INPUT...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.argument("destination", metavar="OUTPUT", type=click.Path(path_type=Path))
@click.option(
    "--with",
    "others",
    multiple=True,
    metavar="CHECKPOINT",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Another checkpoint; the mean of all probabilities counts. May be repeated.",
)
@click.option(
    "--window", default=512, show_default=True, help="Rasters: side in pixels of what the network sees at once."
)
@click.option(
    "--overlap",
    default=128,
    show_default=True,
    help="Rasters: pixels that neighboring windows share at least, and over which they are blended.",
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=4, show_default=True, help="Rasters: windows at once."
)
@click.option(
    "--bands",
    metavar="R,G,B",
    callback=_parse_bands,
    help="Rasters: numbers of the bands for red, green and blue, from 1, or one for all three.  [default: what the data set "
    "says, else the file's colour interpretation]",
)
@click.option(
    "--stretch",
    nargs=2,
    metavar="LOW HIGH",
    help="Rasters: values that become 0 and 255, or percentiles of each band such as 2% 98%.  [default: what the data set says; "
    "else 8 bits as they are, and others are refused]",
)
@click.option(
    "--confidence",
    "with_confidence",
    is_flag=True,
    help="Rasters: also write <name>_confidence.tif, the probability of the class in per cent.",
)
@click.option(
    "--size",
    metavar="SIZE",
    callback=_parse_size,
    help="Images: what the network sees; native, train (the size of the training configuration) or HEIGHTxWIDTH. The "
    "prediction always has the size of the image.  [default: native for data sets seen from above, else train]",
)
@device_option
@precision_option
@click.option("--overlay", is_flag=True, help="Images: also write <name>_overlay.png, the classes over the image.")
@click.option(
    "--submission",
    type=click.Choice(["loveda"]),
    help="OUTPUT is the zip that this data set's evaluation server takes; INPUT its test images, or its folder.",
)
@click.option("--overwrite", is_flag=True, help="Replace predictions that exist.")
def predict_command(
    sources: tuple[Path, ...],
    bands: tuple[int, ...] | None,
    stretch: tuple[str, str] | None,
    with_confidence: bool,
    overlay: bool,
    submission: str | None,
    **_: object,
) -> None:
    """Predict the class of every pixel of INPUT with CHECKPOINT, or with a file that segda export wrote.

    INPUT is an image (OUTPUT: a PNG of class ids with a palette), a GeoTIFF of any size (OUTPUT: a cloud-optimized GeoTIFF of
    class ids with color table and coordinates; 255 where INPUT has no data), or a folder of them. For folders and for several
    inputs OUTPUT is a folder; what is there is skipped, and what is no image or cannot be reached is left alone and told. Run
    again, an interrupted prediction goes on, within a GeoTIFF too.

    \b
    Examples:
      segda predict runs/RUN/checkpoint.pt photo.jpg classes.png --overlay
      segda predict street.onnx photo.jpg classes.png
      segda predict runs/RUN/checkpoint.pt city.tif city_classes.tif --window 1024 --confidence --device cuda
      segda predict runs/RUN/checkpoint.pt sentinel.tif classes.tif --bands 4,3,2 --stretch 0 3000
      segda predict runs/RUN/checkpoint.pt north.tif south.tif more/ predictions/ --stretch 2% 98%
      segda predict runs/A/checkpoint.pt photo.jpg classes.png --with runs/B/checkpoint.pt --with runs/C/checkpoint.pt
      segda predict runs/RUN/checkpoint.pt data/loveda/Test submission.zip --submission loveda
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    if submission is None:
        return
    if len(sources) > 1:
        raise ConfigError(f"a submission is made of one INPUT, got {len(sources)}")
    if bands is not None or stretch is not None or with_confidence:
        raise ConfigError("a submission is made of PNG images; leave --bands, --stretch and --confidence out")
    if overlay:
        raise ConfigError("a submission has no overlays; leave --overlay out")
