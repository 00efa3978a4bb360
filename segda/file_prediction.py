"""Predict image files, rasters and folders of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import rasterio
import torch
from PIL import Image
from torch import nn

from segda.config import TrainConfig
from segda.datasets import DATASETS
from segda.datasets.bands import FindBands, image_bands
from segda.datasets.listing import IMAGE_SUFFIXES, TIFF_SUFFIXES, Listing, in_words, list_folder
from segda.datasets.reading import read_image
from segda.datasets.stretch import Stretch, bands_as_told
from segda.deployment.segmenter import ArtefactSegmenter
from segda.device import Precision
from segda.environment import code_fingerprint
from segda.errors import ConfigError, DatasetNotFoundError
from segda.files import expanded
from segda.pictures import Palette, color_table, overlay, write_png
from segda.prediction import CPU, SeenSize, predict_image, seen_size
from segda.progress import Update, progress_bar
from segda.raster import confidence_path, predict_raster
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
    source: Path | str | Sequence[Path | str],
    destination: Path | str,
    *,
    config: TrainConfig | None = None,
    size: SeenSize | None = None,
    window: int = 512,
    overlap: int = 128,
    batch_size: int = 4,
    bands: Sequence[int] | None = None,
    stretch: tuple[str | float, str | float] | None = None,
    with_confidence: bool = False,
    with_overlay: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    precision: Precision = "auto",
) -> FolderResult:
    """Predict an image file, a GeoTIFF of any size, or folders of them. Where somebody watches, a progress bar is drawn.

    Args:
        trained: path of a checkpoint, paths of several, of whose probabilities the mean counts, or a segmenter.
        source: PNG, JPEG or TIFF file, a folder of such files, or several of these.
        destination: for an image, a PNG of train ids with a palette; for a TIFF, a cloud-optimized GeoTIFF of train ids, as
            `segda.raster.predict_raster` says, which goes on where an earlier call was interrupted; for a folder or several, a
            folder, where what is there is skipped.
        config: with a segmenter, what it was trained with.
        size: what the network sees of an image, as `segda.predict` says.
        window: TIFF: side in pixels of what the network sees at once.
        overlap: TIFF: pixels that neighboring windows share at least, and over which they are blended.
        batch_size: TIFF: windows at once.
        bands: TIFF: three bands for red, green and blue, or one for all three, from 1. None: what the data set or the file says.
        stretch: TIFF: values that become 0 and 255, or percentiles of each band, such as `("2%", "98%")`. None: what the data set
            says; where it says nothing, bands of uint8 are taken as they are and others refused.
        with_confidence: TIFF: whether to write `<name>_confidence.tif`, the probability of the class in per cent, too.
        with_overlay: images: whether to write `<name>_overlay.png`, the classes over the image, too.
        overwrite: whether to replace predictions that exist.
        device: `auto`, `cpu`, `cuda` or `cuda:<n>`.
        precision: arithmetic of convolutions.

    Returns:
        What was written, what was there and what was left alone.

    Raises:
        SegdaError: checkpoint, files or device cannot be used.
    """
    sources = [expanded(path) for path in ([source] if isinstance(source, Path | str) else source)]
    destination = expanded(destination)
    told = Stretch.parse(*stretch) if stretch is not None else None
    for_rasters = [
        name
        for name, is_asked in (("bands", bands), ("stretch", stretch), ("confidence", with_confidence or None))
        if is_asked is not None
    ]
    if len(sources) == 1 and not sources[0].is_dir():
        listing = None
        _check_places(sources[0], destination, with_overlay=with_overlay, overwrite=overwrite)
        _check_used(for_rasters, sources)
    else:
        listing = _listed(sources, destination, with_overlay=with_overlay, with_confidence=with_confidence)
        _check_used(for_rasters, listing.images.values())
    network = make_ready(trained, config, device=device, precision=precision)
    if with_confidence and isinstance(network.segmenter, ArtefactSegmenter):
        raise ConfigError(
            f"{network.segmenter.artefact.path} says classes and no probabilities; leave confidence out, or predict with the "
            "checkpoint"
        )
    data = network.config.data
    dataset = DATASETS[data.source.dataset]
    predictor = _Predictor(
        segmenter=network.segmenter,
        palette=dataset.palette,
        classes=dataset.classes,
        size=seen_size(size, network.config),
        window=window,
        overlap=overlap,
        batch_size=batch_size,
        # Rasters are read as those of the domain that the network is wanted for.
        bands_of=bands_as_told(DATASETS[data.target.dataset].bands_of, numbers=bands, stretch=told),
        with_confidence=with_confidence,
        with_overlay=with_overlay,
        device=network.device,
        dtype=network.dtype,
        made_by=_made_by(trained, network.config),
    )
    with progress_bar(sources[0].name if len(sources) == 1 else destination.name) as show:
        if listing is not None:
            return predictor.predict_all(listing, destination, overwrite=overwrite, progress=show)
        predictor.predict(sources[0], destination, show)
    return FolderResult((destination,), ())


def _made_by(trained: Trained, config: TrainConfig) -> dict[str, str]:
    """Say what a prediction follows from, beside weights and settings."""
    said = {
        "software": f"segda {metadata.version('segda')}, torch {torch.__version__}, rasterio {rasterio.__version__}",
        "code": code_fingerprint(config),
        "model": config.model.label(),
        "method": config.method.name,
        "trained_on": f"{config.data.source.dataset}/{config.data.source.domain}",
        "wanted_on": f"{config.data.target.dataset}/{config.data.target.domain}",
    }
    if isinstance(trained, Path | str):
        said["checkpoint"] = Path(trained).name
    elif isinstance(trained, Sequence):
        said["checkpoint"] = ", ".join(Path(path).name for path in trained)
    return said


def _check_used(for_rasters: Sequence[str], images: Iterable[Path]) -> None:
    """Refuse what would do nothing."""
    if for_rasters and not any(_is_raster(path) for path in images):
        raise ConfigError(f"{' and '.join(for_rasters)} is for TIFF files, and there is none; leave it out")


def _is_raster(path: Path) -> bool:
    return path.suffix.lower() in TIFF_SUFFIXES


def _listed(sources: Sequence[Path], destination: Path, *, with_overlay: bool, with_confidence: bool) -> Listing:
    """Find the images of files and folders, and refuse predictions that would replace one of them or each other."""
    found = Listing()
    for source in sources:
        if not source.exists():
            raise DatasetNotFoundError(f"{source}: there is no such file or folder")
        if source.is_dir():
            listing = list_folder(source)
        elif source.suffix.lower() in IMAGE_SUFFIXES:
            listing = Listing({source.stem: source})
        else:
            raise ConfigError(f"{source} is of a kind that is not read; expected {', '.join(IMAGE_SUFFIXES)}")
        for name, path in listing.images.items():
            if name in found.images:
                raise ConfigError(
                    f"the predictions of {found.images[name]} and {path} have one name; predict them into two folders"
                )
            found.images[name] = path
        for why, paths in listing.left.items():
            found.left.setdefault(why, []).extend(paths)
    named = ", ".join(map(str, sources))
    if not found.images:
        left = f"; left alone: {in_words(found.left)}" if found.left else ""
        raise DatasetNotFoundError(
            f"{named} holds no image; expected files ending in {', '.join(IMAGE_SUFFIXES)}{left}"
        )
    if destination.is_file():
        raise ConfigError(f"the predictions of {named} go into a folder; {destination} is a file")
    if destination.exists():
        for folder in {path.parent for path in found.images.values()}:
            if destination.samefile(folder):
                raise ConfigError(f"predictions would replace the images in {folder}; choose another folder for them")
    for name, path in found.images.items():
        what, is_asked = ("confidence", with_confidence) if _is_raster(path) else ("overlay", with_overlay)
        if is_asked and f"{name}_{what}" in found.images:
            raise ConfigError(
                f"the {what} of {name} and the prediction of {name}_{what} have one name; rename one image"
            )
    return found


def _check_places(source: Path, destination: Path, *, with_overlay: bool, overwrite: bool) -> None:
    """Refuse what can be seen to be wrong before a network is loaded."""
    if not source.exists():
        raise DatasetNotFoundError(f"{source}: there is no such file or folder")
    is_raster = _is_raster(source)
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
    with_confidence: bool = False,
    with_overlay: bool = False,
    overwrite: bool = False,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
    progress: Update | None = None,
) -> FolderResult:
    """Predict every image of a folder; a run that was interrupted goes on where it stopped.

    Args:
        segmenter: maps a normalized image float [B, 3, H, W] to `SegmentationOutput`; in evaluation mode, on `device`.
        source: folder with PNG, JPEG and TIFF files; everything else is left alone, and sub-folders are not entered.
        destination: folder for `<name>.png` of train ids with a palette and, if asked for, `<name>_overlay.png`. A TIFF
            becomes a `<name>.tif` as `segda.raster.predict_raster` says, and has no overlay.
        palette: RGB color of each train id.
        classes: name of each train id, for the tags of a TIFF.
        size: height and width that the network sees of a PNG or JPEG; None: each image's own.
        window: side in pixels of what the network sees of a TIFF at once.
        overlap: pixels that neighboring windows of a TIFF share at least.
        batch_size: windows of a TIFF that go through the network together.
        bands_of: says which bands of a TIFF are red, green and blue.
        with_confidence: whether to write `confidence_path` of a TIFF's prediction too.
        with_overlay: whether to write the prediction laid over the image too.
        overwrite: whether to predict again what is there.
        device: where the segmenter is.
        dtype: what convolutions compute in.
        progress: called with files, in shares where a TIFF is large.

    Returns:
        What was written, what was there and what was left alone.

    Raises:
        DatasetNotFoundError: if the folder holds no image.
        ConfigError: if a prediction would replace an image, an overlay or a confidence.
        CorruptSampleError: if a file cannot be read; the predictions before it stay.
        OutOfMemoryError: if an image does not fit on the device.
    """
    predictor = _Predictor(
        segmenter=segmenter,
        palette=palette,
        classes=classes,
        size=size,
        window=window,
        overlap=overlap,
        batch_size=batch_size,
        bands_of=bands_of,
        with_confidence=with_confidence,
        with_overlay=with_overlay,
        device=device,
        dtype=dtype,
    )
    listing = _listed([source], destination, with_overlay=with_overlay, with_confidence=with_confidence)
    return predictor.predict_all(listing, destination, overwrite=overwrite, progress=progress)


def overlay_path(prediction: Path) -> Path:
    """Return where the overlay of a prediction is written.

    Example:
        >>> overlay_path(Path("out/a.png")).name
        'a_overlay.png'
    """
    return prediction.with_name(f"{prediction.stem}_overlay.png")


@dataclass(frozen=True)
class _Predictor:
    """What predicts one file like the other; `predict_folder` says what the parts are."""

    segmenter: nn.Module
    palette: Palette
    classes: tuple[str, ...]
    size: tuple[int, int] | None
    window: int
    overlap: int
    batch_size: int
    bands_of: FindBands
    with_confidence: bool
    with_overlay: bool
    device: torch.device
    dtype: torch.dtype
    made_by: Mapping[str, str] = field(default_factory=dict)

    def predict(self, source: Path, destination: Path, progress: Update | None) -> None:
        """Predict one file; progress is told windows of a TIFF, and nothing of others."""
        if _is_raster(source):
            predict_raster(
                self.segmenter,
                source,
                destination,
                palette=self.palette,
                classes=self.classes,
                window=self.window,
                overlap=self.overlap,
                device=self.device,
                dtype=self.dtype,
                batch_size=self.batch_size,
                bands_of=self.bands_of,
                with_confidence=self.with_confidence,
                made_by=self.made_by,
                progress=progress,
            )
        else:
            predict_file(
                self.segmenter,
                source,
                destination,
                palette=self.palette,
                size=self.size,
                with_overlay=self.with_overlay,
                device=self.device,
                dtype=self.dtype,
            )

    def is_there(self, source: Path, output: Path) -> bool:
        """Return whether all has been written that is asked for."""
        if _is_raster(source):
            beside = confidence_path(output) if self.with_confidence else output
        else:
            beside = overlay_path(output) if self.with_overlay else output
        return output.exists() and beside.exists()

    def predict_all(
        self, listing: Listing, destination: Path, *, overwrite: bool, progress: Update | None
    ) -> FolderResult:
        """Predict files into a folder; progress is told files and what share of the current one is done."""
        written: list[Path] = []
        skipped: list[Path] = []
        for number, (name, path) in enumerate(listing.images.items()):
            show = _as_share(progress, number, len(listing.images))
            output = destination / f"{name}{'.tif' if _is_raster(path) else '.png'}"
            if self.is_there(path, output) and not overwrite:
                skipped.append(output)
            else:
                self.predict(path, output, show)
                written.append(output)
            show(1, 1)
        return FolderResult(tuple(written), tuple(skipped), {why: tuple(paths) for why, paths in listing.left.items()})


def _as_share(progress: Update | None, number: int, files: int) -> Update:
    """Return what tells the progress within one file as a share of that through all files."""

    def show(done: float, total: float | None = None, text: str | None = None) -> None:
        if progress is not None and total:
            progress(round(number + done / total, 3), files, text)

    return show
