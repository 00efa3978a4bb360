"""`segda predict`."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from segda.cli.output import device_option, output, parse_size, precision_option, progress_bar
from segda.errors import ConfigError

if TYPE_CHECKING:
    from segda.config import TrainConfig

_RASTER_SUFFIXES = (".tif", ".tiff")


@click.command("predict")
@click.argument("checkpoint", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("source", metavar="INPUT", type=click.Path(exists=True, path_type=Path))
@click.argument("destination", metavar="OUTPUT", type=click.Path(path_type=Path))
@click.option(
    "--window", default=512, show_default=True, help="Rasters: side in pixels of what the network sees at once."
)
@click.option("--overlap", default=128, show_default=True, help="Rasters: pixels that neighboring windows share.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=4, show_default=True, help="Rasters: windows at once."
)
@click.option(
    "--size",
    "size_text",
    metavar="SIZE",
    help="Images: what the network sees; native, train (the size of the training configuration) or HEIGHTxWIDTH. The "
    "prediction always has the size of the image.  [default: native for data sets seen from above, else train]",
)
@device_option
@precision_option
@click.option("--overlay", is_flag=True, help="Images: also write <name>_overlay.png, the classes over the image.")
@click.option("--overwrite", is_flag=True, help="Replace predictions that exist.")
def predict_command(
    checkpoint: Path,
    source: Path,
    destination: Path,
    window: int,
    overlap: int,
    batch_size: int,
    size_text: str | None,
    device: str,
    precision: Literal["auto", "fp32", "bf16", "fp16"],
    overlay: bool,
    overwrite: bool,
) -> None:
    """Predict the class of every pixel of INPUT with CHECKPOINT.

    INPUT is an image (OUTPUT: a PNG of class ids with a palette), a GeoTIFF of any size (OUTPUT: a GeoTIFF of class ids
    with color table and coordinates; 255 where INPUT has no data), or a folder of them (OUTPUT: a folder; what is there
    is skipped, so an interrupted run goes on).

    \b
    Examples:
      segda predict runs/RUN/checkpoint.pt photo.jpg classes.png --overlay
      segda predict runs/RUN/checkpoint.pt city.tif city_classes.tif --window 1024 --device cuda
      segda predict runs/RUN/checkpoint.pt frames/ predictions/ --overlay
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    is_raster = source.is_file() and source.suffix.lower() in _RASTER_SUFFIXES
    if source.is_file():
        wanted = _RASTER_SUFFIXES if is_raster else (".png",)
        if destination.suffix.lower() not in wanted:
            raise ConfigError(f"OUTPUT for {source.name} must end in {' or '.join(wanted)}, got {destination}")
        if destination.exists() and not overwrite:
            raise ConfigError(f"{destination} exists; choose another name or add --overwrite")
        if is_raster and overlay:
            raise ConfigError(
                "--overlay is for images; a predicted raster carries its colors and lies over its input in a GIS"
            )
    elif destination.is_file():
        raise ConfigError(f"INPUT {source} is a folder, so OUTPUT must be one; {destination} is a file")

    from segda.checkpoint import load_segmenter
    from segda.datasets import DATASETS
    from segda.device import resolve_device, resolve_precision
    from segda.file_prediction import predict_file, predict_folder
    from segda.raster import predict_raster

    chosen_device = resolve_device(device)
    dtype = resolve_precision(precision, chosen_device)
    segmenter, config = load_segmenter(checkpoint)
    segmenter.to(chosen_device)
    dataset = DATASETS[config.data.source.dataset]
    size = _seen_size(size_text, config, nadir=dataset.nadir)
    console = output()
    if is_raster:
        with progress_bar(source.name) as show:
            predict_raster(
                segmenter,
                source,
                destination,
                palette=dataset.palette,
                classes=dataset.classes,
                window=window,
                overlap=overlap,
                batch_size=batch_size,
                device=chosen_device,
                dtype=dtype,
                progress=show,
            )
    elif source.is_file():
        predict_file(
            segmenter,
            source,
            destination,
            palette=dataset.palette,
            size=size,
            with_overlay=overlay,
            device=chosen_device,
            dtype=dtype,
        )
    else:
        with progress_bar(source.name) as show:
            done = predict_folder(
                segmenter,
                source,
                destination,
                palette=dataset.palette,
                classes=dataset.classes,
                size=size,
                window=window,
                overlap=overlap,
                batch_size=batch_size,
                with_overlay=overlay,
                overwrite=overwrite,
                device=chosen_device,
                dtype=dtype,
                progress=show,
            )
        console.print(f"{len(done.written)} predicted, {len(done.skipped)} were there", highlight=False)
    console.print(f"written: {destination}", highlight=False, soft_wrap=True)


def _seen_size(text: str | None, config: "TrainConfig", *, nadir: bool) -> tuple[int, int] | None:
    """Return the height and width that the network sees of an image; None: the image's own."""
    if text is None:
        text = "native" if nadir else "train"
    if text == "native":
        return None
    if text == "train":
        return config.data.height, config.data.width
    return parse_size(text, option="--size", smallest=32)
