"""Predict image files and folders of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from segda.config import TrainConfig
from segda.datasets import DATASETS
from segda.datasets.bands import FindBands, image_bands
from segda.datasets.listing import IMAGE_SUFFIXES, TIFF_SUFFIXES, in_words, list_folder
from segda.datasets.reading import read_image
from segda.device import Precision
from segda.errors import ConfigError, DatasetNotFoundError
from segda.files import expanded
from segda.pictures import Palette, color_table, overlay, write_png
from segda.prediction import CPU, Progress, SeenSize, predict_image, seen_size
from segda.progress import progress_bar
from segda.raster import predict_raster
from segda.trained import Trained, make_ready


@dataclass(frozen=True)
class FolderResult:
    """What became of the files of a folder.

    Attributes:
        written: predictions made.
        skipped: predictions that were there.
        left: why files were left alone -> which, e.g. those of other kinds and links to what is missing.
    """

    written: tuple[Path, ...]
    skipped: tuple[Path, ...]
    left: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)


def predict_files(
    trained: Trained,
    source: Path | str,
    destination: Path | str,
    *,
    config: TrainConfig | None = None,
    size: SeenSize | None = None,
    window: int = 512,
    overlap: int = 128,
    batch_size: int = 4,
    with_overlay: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    precision: Precision = "auto",
) -> FolderResult:
    """Predict an image file, a GeoTIFF of any size, or a folder of them. Where somebody watches, a progress bar is drawn.

    Args:
        trained: path of a checkpoint, paths of several, of whose probabilities the mean counts, or a segmenter.
        source: PNG, JPEG or TIFF file, or a folder of such files.
        destination: for an image, a PNG of train ids with a palette; for a TIFF, a TIFF of train ids with color table and
            coordinates, 255 where the source has no data; for a folder, a folder, where what is there is skipped.
        config: with a segmenter, what it was trained with.
        size: what the network sees of an image, as `segda.predict` says.
        window: TIFF: side in pixels of what the network sees at once.
        overlap: TIFF: pixels that neighboring windows share.
        batch_size: TIFF: windows at once.
        with_overlay: images: whether to write `<name>_overlay.png`, the classes over the image, too.
        overwrite: whether to replace predictions that exist.
        device: `auto`, `cpu`, `cuda` or `cuda:<n>`.
        precision: arithmetic of convolutions.

    Returns:
        What was written, what was there and what was left alone.

    Raises:
        SegdaError: checkpoint, files or device cannot be used.
    """
    source, destination = expanded(source), expanded(destination)
    _check_places(source, destination, with_overlay=with_overlay, overwrite=overwrite)
    network = make_ready(trained, config, device=device, precision=precision)
    data = network.config.data
    dataset = DATASETS[data.source.dataset]
    # Rasters are read as those of the domain that the network is wanted for.
    bands_of = DATASETS[data.target.dataset].bands_of
    seen = seen_size(size, network.config)
    with progress_bar(source.name) as show:
        if source.is_dir():
            return predict_folder(
                network.segmenter,
                source,
                destination,
                palette=dataset.palette,
                classes=dataset.classes,
                size=seen,
                with_overlay=with_overlay,
                overwrite=overwrite,
                window=window,
                overlap=overlap,
                batch_size=batch_size,
                bands_of=bands_of,
                device=network.device,
                dtype=network.dtype,
                progress=show,
            )
        if source.suffix.lower() in TIFF_SUFFIXES:
            predict_raster(
                network.segmenter,
                source,
                destination,
                palette=dataset.palette,
                classes=dataset.classes,
                window=window,
                overlap=overlap,
                batch_size=batch_size,
                bands_of=bands_of,
                device=network.device,
                dtype=network.dtype,
                progress=show,
            )
        else:
            predict_file(
                network.segmenter,
                source,
                destination,
                palette=dataset.palette,
                size=seen,
                with_overlay=with_overlay,
                device=network.device,
                dtype=network.dtype,
            )
    return FolderResult((destination,), ())


def _check_places(source: Path, destination: Path, *, with_overlay: bool, overwrite: bool) -> None:
    """Refuse what can be seen to be wrong before a network is loaded."""
    if not source.exists():
        raise DatasetNotFoundError(f"{source}: there is no such file or folder")
    if source.is_dir():
        if destination.is_file():
            raise ConfigError(f"{source} is a folder, so its predictions go into one; {destination} is a file")
        return
    is_raster = source.suffix.lower() in TIFF_SUFFIXES
    wanted = TIFF_SUFFIXES if is_raster else (".png",)
    if destination.suffix.lower() not in wanted:
        raise ConfigError(f"the prediction of {source.name} must end in {' or '.join(wanted)}, got {destination}")
    if destination.exists() and not overwrite:
        raise ConfigError(f"{destination} exists; choose another name, or ask for it to be replaced (overwrite)")
    if is_raster and with_overlay:
        raise ConfigError(
            "overlay is for images; a predicted raster carries its colors and lies over its input in a GIS"
        )


def predict_file(
    segmenter: nn.Module,
    source: Path,
    destination: Path,
    *,
    palette: Palette,
    size: tuple[int, int] | None = None,
    with_overlay: bool = False,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Predict one image file.

    Args:
        segmenter: maps a normalized image float [B, 3, H, W] to `SegmentationOutput`; in evaluation mode, on `device`.
        source: 8-bit RGB image; pixels are taken as stored, an EXIF orientation is not applied.
        destination: PNG of train ids with a palette; replaced once the new one is complete.
        palette: RGB color of each train id.
        size: height and width that the network sees; None: the image's own.
        with_overlay: whether to write `overlay_path(destination)` too.
        device: where the segmenter is.
        dtype: what convolutions compute in.

    Raises:
        CorruptSampleError: if the image cannot be read.
        OutOfMemoryError: if the image does not fit on the device.
    """
    image = read_image(source)
    prediction = predict_image(segmenter, image, size=size, device=device, dtype=dtype)
    if with_overlay:  # first: a prediction that exists then says that its overlay does too
        write_png(overlay_path(destination), Image.fromarray(overlay(image, prediction, palette)))
    indexed = Image.fromarray(prediction)
    indexed.putpalette(color_table(palette).tobytes())  # turns gray into palette mode and keeps the ids
    write_png(destination, indexed)


def predict_folder(
    segmenter: nn.Module,
    source: Path,
    destination: Path,
    *,
    palette: Palette,
    classes: tuple[str, ...] = (),
    size: tuple[int, int] | None = None,
    window: int = 512,
    overlap: int = 128,
    batch_size: int = 4,
    bands_of: FindBands = image_bands,
    with_overlay: bool = False,
    overwrite: bool = False,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
    progress: Progress | None = None,
) -> FolderResult:
    """Predict every image of a folder; a run that was interrupted goes on where it stopped.

    Args:
        segmenter: maps a normalized image float [B, 3, H, W] to `SegmentationOutput`; in evaluation mode, on `device`.
        source: folder with PNG, JPEG and TIFF files; everything else is left alone, and sub-folders are not entered.
        destination: folder for `<name>.png` of train ids with a palette and, if asked for, `<name>_overlay.png`. A TIFF
            becomes a `<name>.tif` with the coordinates of its source, and has no overlay.
        palette: RGB color of each train id.
        classes: name of each train id, for the tags of a TIFF.
        size: height and width that the network sees of a PNG or JPEG; None: each image's own.
        window: side in pixels of what the network sees of a TIFF at once.
        overlap: pixels that neighboring windows of a TIFF share.
        batch_size: windows of a TIFF that go through the network together.
        bands_of: says which bands of a TIFF are red, green and blue.
        with_overlay: whether to write the prediction laid over the image too.
        overwrite: whether to predict again what is there.
        device: where the segmenter is.
        dtype: what convolutions compute in.
        progress: called with (done, total) files.

    Returns:
        What was written, what was there and what was left alone.

    Raises:
        DatasetNotFoundError: if the folder holds no image.
        ConfigError: if a prediction would replace an image or an overlay.
        CorruptSampleError: if a file cannot be read; the predictions before it stay.
        OutOfMemoryError: if an image does not fit on the device.
    """
    listing = list_folder(source)
    images = listing.images
    if not images:
        found = f"; left alone: {in_words(listing.left)}" if listing.left else ""
        raise DatasetNotFoundError(
            f"{source} holds no image; expected files ending in {', '.join(IMAGE_SUFFIXES)}{found}"
        )
    if destination.exists() and destination.samefile(source):
        raise ConfigError(f"predictions would replace the images in {source}; choose another folder for them")
    for name in images if with_overlay else ():
        if overlay_path(Path(name)).stem in images:
            raise ConfigError(
                f"the overlay of {name} and the prediction of {name}_overlay have one name; rename one image"
            )
    written: list[Path] = []
    skipped: list[Path] = []
    for done, (name, path) in enumerate(images.items(), start=1):
        is_raster = path.suffix.lower() in TIFF_SUFFIXES
        output = destination / f"{name}{'.tif' if is_raster else '.png'}"
        needs_overlay = with_overlay and not is_raster
        if output.exists() and not (needs_overlay and not overlay_path(output).exists()) and not overwrite:
            skipped.append(output)
        elif is_raster:
            predict_raster(
                segmenter,
                path,
                output,
                palette=palette,
                classes=classes,
                window=window,
                overlap=overlap,
                batch_size=batch_size,
                bands_of=bands_of,
                device=device,
                dtype=dtype,
            )
            written.append(output)
        else:
            predict_file(
                segmenter,
                path,
                output,
                palette=palette,
                size=size,
                with_overlay=needs_overlay,
                device=device,
                dtype=dtype,
            )
            written.append(output)
        if progress is not None:
            progress(done, len(images))
    return FolderResult(tuple(written), tuple(skipped), {why: tuple(paths) for why, paths in listing.left.items()})


def overlay_path(prediction: Path) -> Path:
    """Return where the overlay of a prediction is written.

    Example:
        >>> overlay_path(Path("out/a.png")).name
        'a_overlay.png'
    """
    return prediction.with_name(f"{prediction.stem}_overlay.png")
