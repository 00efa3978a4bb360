"""Predict class maps for georeferenced rasters of any size, in memory that does not grow with their height.

A raster is read, predicted and blended window by window (`segda.blending`) from top to bottom. Rows that no further window
changes are a finished strip: its classes go to a work file beside the output, which a killed run goes on from
(`segda.work_file`). When all strips are there, the output is made of them (`segda.cog`).

What is held at a time, beside the network and a batch of windows: the logits of the rows that two rows of windows share, 4
bytes for each class, shared row and column of the raster (70 MB for 7 classes, an overlap of 128 and 20,000 columns), one strip
of bytes, and GDAL's cache of blocks. That cache also decides how often a file without tiles is decoded; its default is a share of
the machine's memory, which a container does not have.
"""

import hashlib
import json
import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window
from torch import Tensor, nn

from segda.blending import Blender, Span, spans
from segda.cog import BandMeaning, Place, write_cog
from segda.datasets.bands import FindBands, ImageBands, image_bands
from segda.datasets.listing import UnreachableError, reach
from segda.errors import ConfigError, CorruptSampleError
from segda.pictures import ByteArray, Palette
from segda.prediction import CPU, SMALLEST_SIDE, predict_logits
from segda.progress import Update
from segda.types import IGNORE_INDEX, Pixels
from segda.work_file import WorkFile, work_file

log = logging.getLogger(__name__)

_CACHE_BYTES = 256 << 20  # rasterio passes the number on as bytes, whatever GDAL's documentation says of megabytes
# What networks see where there is no data, whatever the file holds there: ImageNet's mean, which is 0 once it is normalized. That
# is what convolutions see beyond the border of an image, too, so the border of the data looks like one.
_NO_DATA = np.array([124, 116, 104], np.uint8)
_PER_CENT = 100

Mask = npt.NDArray[np.bool_]


def predict_raster(
    segmenter: nn.Module,
    source: Path,
    destination: Path,
    *,
    palette: Palette,
    classes: Sequence[str] = (),
    window: int = 512,
    overlap: int = 128,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 4,
    bands_of: FindBands = image_bands,
    with_confidence: bool = False,
    made_by: Mapping[str, str] | None = None,
    progress: Update | None = None,
) -> None:
    """Predict a georeferenced raster of any size.

    The network sees the raster at its own ground resolution: resample it first if the network was trained at another. The class
    of a pixel is that of the largest mean of logits over all windows that see it, weighted as `segda.blending` says.

    A run that ends early, also by SIGKILL or at a damaged block of the raster, leaves `.<name>.work` beside the destination. The
    same call goes on there, and on the same machine ends with the same bytes as a run that was never interrupted; a row of
    windows may have to be predicted again for that. If the raster, the weights or a setting has changed, it begins anew and says
    so.

    Args:
        segmenter: maps a normalized image float [B, 3, H, W] to `SegmentationOutput`; in evaluation mode, on `device`.
        source: raster with red, green and blue.
        destination: cloud-optimized GeoTIFF to write: train ids uint8 with a color table, coordinates of the source, 255 (nodata)
            where the source has nodata, is masked or wholly transparent, or holds no finite number. Such pixels change nothing
            beside them: networks see ImageNet's mean color there. What made it is said in tags `SEGDA_...`. A file there is
            replaced once the new one is complete.
        palette: RGB color of each train id.
        classes: name of each train id: tags CLASS_<id> of the band, and GDAL's category names.
        window: side in pixels of what the network sees at once; the last ones in a row or column may be 63 pixels longer.
        overlap: pixels that neighboring windows share at least.
        device: where the segmenter is.
        dtype: what convolutions compute in.
        batch_size: windows of a row that go through the network together.
        bands_of: says which bands are red, green and blue, and which values become 0 and 255, as in training: that of the data
            set.
        with_confidence: whether to write `confidence_path(destination)` too, before the classes: the mean probability of the
            class, uint8 in per cent (its scale is 0.01), 255 where there is no data.
        made_by: name -> text of what else the result follows from, e.g. the version of this library; becomes tags.
        progress: called with windows.

    Raises:
        ConfigError: if window and overlap do not fit together, source and destination are the same file, or another process is at
            work on the destination.
        CorruptSampleError: if the raster cannot be read or has other bands.
        OutOfMemoryError: if a batch of windows does not fit on the device.
        OSError: if the output cannot be written.
    """
    try:
        reach(source)  # a pipe would be waited for
    except UnreachableError as error:
        raise CorruptSampleError(f"{source} {error}") from error
    for output in (destination, confidence_path(destination)) if with_confidence else (destination,):
        if output.exists() and output.samefile(source):
            raise ConfigError(f"the prediction would replace its own input {source}; choose another output")
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    if window < SMALLEST_SIDE:
        raise ConfigError(f"window must be at least {SMALLEST_SIDE} pixels, got {window}")
    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a plain TIFF is a fine input
        try:
            with rasterio.open(source.absolute()) as reader:  # a name with a colon would be an address
                bands = bands_of(reader, source)
                bands.check_values(reader)
                job = _Job(
                    segmenter=segmenter,
                    reader=reader,
                    bands=bands,
                    window=window,
                    overlap=overlap,
                    batch_size=batch_size,
                    device=device,
                    dtype=dtype,
                    with_confidence=with_confidence,
                )
                tags = _tags(job, palette=palette, classes=classes) | {
                    f"SEGDA_{name.upper()}": text for name, text in (made_by or {}).items()
                }
                made_of = tags | {"input": _state_of(reader)}
                with work_file(destination.with_name(f".{destination.name}.work"), made_of) as work:
                    told = _Progress(
                        progress,
                        source.name,
                        windows=len(job.rows) * len(job.columns),
                        pixels=reader.height * reader.width,
                    )
                    job.finish_strips(work, told)
                    told.writing()
                    _write(job, work, destination, palette=palette, classes=classes, tags=tags)
        except RasterioError as error:
            raise CorruptSampleError(f"cannot read {source} as a raster: {error}; is the file complete?") from error


def confidence_path(prediction: Path) -> Path:
    """Return where the confidence of a predicted raster is written.

    Example:
        >>> confidence_path(Path("out/a.tif")).name
        'a_confidence.tif'
    """
    return prediction.with_name(f"{prediction.stem}_confidence{prediction.suffix}")


@dataclass(frozen=True)
class _Job:
    """One open raster, its windows, and the network that they go through."""

    segmenter: nn.Module
    reader: Any
    bands: ImageBands
    window: int
    overlap: int
    batch_size: int
    device: torch.device
    dtype: torch.dtype
    with_confidence: bool

    @cached_property
    def rows(self) -> list[Span]:
        """Windows along the height."""
        return spans(self.reader.height, window=self.window, overlap=self.overlap)

    @cached_property
    def columns(self) -> list[Span]:
        """Windows along the width."""
        return spans(self.reader.width, window=self.window, overlap=self.overlap)

    def finish_strips(self, work: WorkFile, progress: "_Progress") -> None:
        """Predict what the work file lacks: strip by strip, one for each row of windows."""
        if len(work) == len(self.rows):
            return
        blender = Blender(self.rows, self.columns, overlap=self.overlap, device=self.device)
        first = blender.first_row_needed(len(work))
        if len(work) > 0:
            log.info("continues at strip %d of %d", len(work) + 1, len(self.rows))
        for row in range(first, len(self.rows)):
            strip = self._strip(blender, row, progress)
            if row >= len(work):
                work.append(strip.tobytes())

    def _strip(self, blender: Blender, row: int, progress: "_Progress") -> ByteArray:
        """Predict a row of windows; return what is final with it, uint8 [1 or 2, rows, W]: classes and perhaps per cent."""
        height = blender.final_rows(row).length
        strip = np.full((1 + self.with_confidence, height, self.reader.width), IGNORE_INDEX, np.uint8)
        with torch.inference_mode():
            for column, (logits, valid) in enumerate(self._predicted(row)):
                mean = blender.add(row, column, logits)
                span = blender.final_columns(column)
                if mean is not None:
                    largest, classes = mean.max(dim=0)  # many times as fast as argmax
                    found = [classes]
                    if self.with_confidence:
                        found.append((_PER_CENT * (largest - mean.logsumexp(dim=0)).exp()).round())
                    values = torch.stack([item.to(torch.uint8) for item in found]).cpu().numpy()
                    here = valid[:height, : span.length]
                    strip[:, :, span.start : span.stop] = np.where(here, values, np.uint8(IGNORE_INDEX))
                progress.windows(row * len(self.columns) + column + 1)
        return strip

    def _predicted(self, row: int) -> Iterator[tuple[Tensor | None, Mask]]:
        """Yield the logits of the windows of a row, None where there is no data, and which pixels have some.

        Batches are of one row, so that a run that begins at any row makes the same ones: the last bits depend on them.
        """
        waiting: list[tuple[Pixels | None, Mask]] = []
        for column in self.columns:
            read = self._read(self.rows[row], column)
            seen = [image for image, _ in waiting if image is not None]
            if seen and read[0] is not None and (len(seen) == self.batch_size or read[0].shape != seen[0].shape):
                yield from self._flushed(waiting)
                waiting = []
            waiting.append(read)
        yield from self._flushed(waiting)

    def _read(self, row: Span, column: Span) -> tuple[Pixels | None, Mask]:
        area = Window(column.start, row.start, column.length, row.length)
        valid = self.bands.valid(self.reader, area)
        if not valid.any():  # a border of nodata costs no network
            return None, valid
        image = self.bands.read(self.reader, area)
        image[~valid] = _NO_DATA
        return image, valid

    def _flushed(self, waiting: Sequence[tuple[Pixels | None, Mask]]) -> Iterator[tuple[Tensor | None, Mask]]:
        images = [image for image, _ in waiting if image is not None]
        logits: Iterator[Tensor] = iter(())
        if images:
            logits = iter(predict_logits(self.segmenter, np.stack(images), device=self.device, dtype=self.dtype))
        for image, valid in waiting:
            yield None if image is None else next(logits), valid


class _Progress:
    """Tells windows, and the megapixels per second of this run."""

    def __init__(self, update: Update | None, name: str, *, windows: int, pixels: int) -> None:
        self._update = update
        self._name = name
        self._total = windows
        self._megapixels = pixels / windows / 1e6  # of a window, on average
        self._began = time.monotonic()
        self._first: int | None = None

    def windows(self, done: int) -> None:
        """Tell how many windows are done; the first call says where this run began."""
        if self._update is None:
            return
        self._first = done - 1 if self._first is None else self._first
        rate = (done - self._first) * self._megapixels / max(time.monotonic() - self._began, 1e-3)
        self._update(done, self._total, f"{self._name}, {rate:.2f} megapixels/s")

    def writing(self) -> None:
        """Tell that all windows are done and the output is made of them."""
        if self._update is not None:
            self._update(self._total, self._total, f"{self._name}, writing")


def _write(
    job: _Job,
    work: WorkFile,
    destination: Path,
    *,
    palette: Palette,
    classes: Sequence[str],
    tags: Mapping[str, str],
) -> None:
    """Make the output of the finished strips; the classes come last, and say by their name that all is there."""
    place = Place.of(job.reader)
    shape = (1 + job.with_confidence, -1, job.reader.width)

    def strips(band: int) -> Iterator[ByteArray]:
        return (np.frombuffer(strip, np.uint8).reshape(shape)[band] for strip in work.strips())

    if job.with_confidence:
        meaning = BandMeaning("probability of the class", scale=1 / _PER_CENT)
        write_cog(confidence_path(destination), lambda: strips(1), place=place, meaning=meaning, tags=tags)
    meaning = BandMeaning("class", palette, classes)
    write_cog(destination, lambda: strips(0), place=place, meaning=meaning, tags=tags)


def _tags(job: _Job, *, palette: Palette, classes: Sequence[str]) -> dict[str, str]:
    """Say what a prediction follows from, beside its raster: tags of the output."""
    return {
        "SEGDA_WEIGHTS_SHA256": weights_sha256(job.segmenter),
        "SEGDA_CLASSES": json.dumps(list(classes)),
        "SEGDA_COLORS": json.dumps([list(color) for color in palette]),
        "SEGDA_WINDOW": str(job.window),
        "SEGDA_OVERLAP": str(job.overlap),
        "SEGDA_BATCH_SIZE": str(job.batch_size),
        "SEGDA_DEVICE": job.device.type,
        "SEGDA_PRECISION": str(job.dtype).removeprefix("torch."),
        "SEGDA_CONFIDENCE": str(job.with_confidence).lower(),
        "SEGDA_BANDS": ", ".join(map(str, job.bands.numbers)),
        "SEGDA_STRETCH": "none" if job.bands.ranges is None else json.dumps([list(ends) for ends in job.bands.ranges]),
    }


def weights_sha256(module: nn.Module) -> str:
    """Return the SHA-256 of a module's layers and of all that it has learned, 64 hexadecimal digits."""
    digest = hashlib.sha256(repr(module).encode())
    for name, value in module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _state_of(reader: Any) -> str:
    """Return size and time of all files of a raster; masks, overviews and coordinates may lie beside it."""
    states = [(Path(name).name, Path(name).stat()) for name in reader.files]
    return json.dumps([[name, state.st_size, state.st_mtime_ns] for name, state in states])
