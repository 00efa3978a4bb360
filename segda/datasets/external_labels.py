"""Labels of the target's training images that something else has made, written once and shared by all trainings that use them.

A folder with `labels.npy` (train ids uint8 [N, H, W], 255 is void), perhaps `confidences.npy` (levels uint8 [N, H, W]), and
`labels.json`, which says what they are labels of, who made them and their checksums. Its digest is the identity of the labels:
equal digests are equal bytes, wherever the folder lies. It holds no time and no path, so labelling again gives the same digest.

**Confidence** is the margin p_(1) - p_(2) between the two most probable classes. The largest probability alone says nearly the same
(their correlation is 0.97), but the margin also sees a tie of two classes among many. What a maker of labels says of its own
confidence is taken instead where it tells no probabilities.

**Levels.** Confidences of trained networks crowd below 1, where 255ths cannot tell 0.997 from 0.999. What is stored is the root of
the doubt, q = round(255 * (1 - sqrt(1 - confidence))), of which the confidence is 1 - ((255 - q) / 255)^2: steps of 0.00002 next to
1 and of 0.008 next to 0. As (65025 - (255 - q)^2) / 65025 it is a ratio of whole numbers, so means over millions of pixels are
exact and independent of any order.

The folder appears whole or not at all. Until then its parts lie beside it in `.<name>.unfinished`, with a note of how many images
are safely on the disk: labelling that was killed goes on from there.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from segda.datasets.array_file import ArrayFile
from segda.datasets.cache import DecodedSplit
from segda.errors import ConfigError, CorruptSampleError, DatasetNotFoundError, SegdaError
from segda.files import flush, locked, sha256_of, write_json
from segda.types import IGNORE_INDEX, Pixels

LABELS, CONFIDENCES, RECORD = "labels.npy", "confidences.npy", "labels.json"
TOP_LEVEL = 255
_WHOLE = TOP_LEVEL**2  # a confidence of 1 as a whole number
_PROGRESS, _LOCK = "progress.json", "lock"
_SECONDS_BETWEEN_NOTES = 2.0

Confidence = Literal["margin", "given", "none"]

# Folder, and which files of which time in it.
_verified: set[tuple[Path, tuple[tuple[int, int, int], ...]]] = set()


class Job(BaseModel):
    """What shall be labelled, and by what.

    Attributes:
        classes: name of each train id.
        names: of the images, in the order of the maps.
        images: fingerprint of the images, see `DecodedSplit`.
        size: height and width of the maps in pixels.
        confidence: what the confidences are: `margin`, `given` by the maker of the labels, or `none`: there are none.
        made_by: where the labels come from, plain data without places and times.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    classes: tuple[str, ...]
    names: tuple[str, ...]
    images: str
    size: tuple[int, int]
    confidence: Confidence
    made_by: dict[str, Any]


class Record(BaseModel):
    """What is known of finished labels.

    Attributes:
        format: of this record.
        job: what was labelled, and by what.
        pixels: of each class among the labels; the last number is that of void.
        mean_confidence: of the pixels of each class over all images; None for an absent class, and without confidences.
        lowest_level: of each class: the smallest level whose confidence is at least that mean; None as above.
        checksums: name of a file -> its SHA-256.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    job: Job
    pixels: tuple[int, ...]
    mean_confidence: tuple[float | None, ...]
    lowest_level: tuple[int | None, ...]
    checksums: dict[str, str]

    @property
    def digest(self) -> str:
        """Identity of the labels, 64 hexadecimal digits."""
        return _digest(self)


@dataclass(frozen=True)
class ExternalMaps:
    """Finished labels in a folder.

    Attributes:
        folder: where they are.
        record: what they are.
    """

    folder: Path
    record: Record

    @property
    def fingerprint(self) -> str:
        """Identity of the labels, as that of decoded images."""
        return self.record.digest

    @property
    def has_confidences(self) -> bool:
        """Whether every pixel has a confidence."""
        return CONFIDENCES in self.record.checksums

    def on(self, target: DecodedSplit) -> DecodedSplit:
        """Return the target's training images with these labels, and with levels as weights where there are confidences.

        Args:
            target: the images, without labels; those that were labelled, at the same size.
        """
        return target.with_maps(self.folder / LABELS, self.folder / CONFIDENCES if self.has_confidences else None)

    def class_confidences(self) -> NDArray[np.float32] | None:
        """Return the mean confidence of each class over all images, float32 [C]; None without confidences.

        Rounded up to the next confidence that a pixel can have, so that at least the mean and at least this are the same. Infinity
        for a class that no pixel has: nothing is as confident.
        """
        if not self.has_confidences:
            return None
        table = confidences_of_levels()
        return np.array(
            [np.inf if level is None else table[level] for level in self.record.lowest_level], dtype=np.float32
        )


class Maps(NamedTuple):
    """Labels of some images, one after the other.

    Attributes:
        label: train ids, uint8 [B, H, W], 255 is void.
        level: of the confidence of each pixel, uint8 [B, H, W]; None without confidences.
    """

    label: Pixels
    level: Pixels | None


def levels_of(confidence: NDArray[np.floating[Any]]) -> Pixels:
    """Return the level that a confidence is stored as.

    Args:
        confidence: in [0, 1], of any shape.

    Returns:
        uint8 of the same shape.

    Example:
        >>> levels_of(np.array([0.0, 0.5, 0.96, 1.0])).tolist()
        [0, 75, 204, 255]
    """
    doubt = np.sqrt(1 - np.asarray(confidence, dtype=np.float64).clip(0, 1))
    levels: Pixels = np.rint(TOP_LEVEL * (1 - doubt)).astype(np.uint8)
    return levels


@cache
def confidences_of_levels() -> NDArray[np.float32]:
    """Return the confidence of each level, float32 [256], ascending."""
    table: NDArray[np.float32] = (_whole_confidences() / _WHOLE).astype(np.float32)
    return table


def _whole_confidences() -> NDArray[np.int64]:
    """Return the confidence of each level as a whole number of 65025ths, int64 [256]."""
    return _WHOLE - (TOP_LEVEL - np.arange(TOP_LEVEL + 1, dtype=np.int64)) ** 2


def digest_in(folder: Path) -> str:
    """Return the digest that a folder's record says it has; the maps are not looked at.

    Raises:
        DatasetNotFoundError: there are no labels.
        CorruptSampleError: the record is damaged.
    """
    return _read(folder).digest


def open_external_labels(folder: Path, *, digest: str) -> ExternalMaps:
    """Open labels and compare them with their checksums, once in each process for as long as the files stay as they are.

    Args:
        folder: where they are.
        digest: of the labels that are wanted.

    Raises:
        DatasetNotFoundError: there are none.
        CorruptSampleError: they are damaged, or others.
    """
    record = _read(folder)
    if record.digest != digest:
        raise CorruptSampleError(
            f"external labels in {folder} are others than those that were configured (digest {record.digest[:16]}, wanted "
            f"{digest[:16]}); bring those back, or begin anew with these"
        )
    try:
        states = [(folder / name).stat() for name in (RECORD, *record.checksums)]
        identity = (folder.absolute(), tuple((state.st_ino, state.st_mtime_ns, state.st_size) for state in states))
        if identity not in _verified:
            for name, expected in record.checksums.items():
                if sha256_of(folder / name) != expected:
                    raise CorruptSampleError(
                        f"external labels in {folder}: {name} has changed since it was written; bring it back, or label again"
                    )
        _verified.add(identity)
    except OSError as error:
        raise DatasetNotFoundError(
            f"external labels in {folder} are not complete: {error.filename} cannot be read ({error.strerror}); bring it back, or "
            "label again"
        ) from error
    return ExternalMaps(folder, record)


def write_external_labels(
    folder: Path, job: Job, label_from: Callable[[int], Iterator[Maps]], *, progress: Callable[[int], None]
) -> ExternalMaps:
    """Write labels into a new folder, or go on with what an interrupted call has left beside it.

    Args:
        folder: where nothing is yet, or the finished labels of the same job.
        job: what is labelled, and by what. What a call has left is used by a call for the same job alone.
        label_from: yields the maps of all images from the one with a number on, in order; the number is one at which it has ended a
            piece before, or 0.
        progress: called with the number of images that are done.

    Returns:
        The labels.

    Raises:
        ConfigError: the folder holds something else, or another process writes it.
    """
    folder = folder.absolute()
    if os.path.lexists(folder):
        return _finished(folder, job)
    building = folder.with_name(f".{folder.name}.unfinished")
    building.mkdir(parents=True, exist_ok=True)
    try:
        with locked(building / _LOCK):
            if os.path.lexists(folder):  # by a process that had the lock before
                shutil.rmtree(building)
                return _finished(folder, job)
            try:
                record = _write(building, job, label_from, progress)
            except SegdaError:
                shutil.rmtree(building)  # once that is put right the job is another one
                raise
            for name in (_PROGRESS, _LOCK):
                (building / name).unlink()
            building.rename(folder)
            flush(folder.parent)
    except BlockingIOError:
        raise ConfigError(
            f"another process is writing external labels to {folder}; wait for it, or choose another folder"
        ) from None
    return open_external_labels(folder, digest=record.digest)


def _finished(folder: Path, job: Job) -> ExternalMaps:
    try:
        record = _read(folder)
    except SegdaError:
        record = None
    if record is None or record.job != job:
        what = "no labels of `segda teach`" if record is None else "labels that were made otherwise"
        raise ConfigError(f"{folder} exists and holds {what}; choose another folder, or delete it")
    return open_external_labels(folder, digest=record.digest)


def _write(
    building: Path, job: Job, label_from: Callable[[int], Iterator[Maps]], progress: Callable[[int], None]
) -> Record:
    """Write the maps that are missing, and the record."""
    shape = (len(job.names), *job.size)
    files = [LABELS] if job.confidence == "none" else [LABELS, CONFIDENCES]
    done = _progress_of(building, job)
    for path in building.iterdir():
        if path.name != _LOCK and (done is None or path.name not in (*files, _PROGRESS)):
            path.unlink()
    with ExitStack() as stack:
        arrays = [stack.enter_context(ArrayFile(building / name, shape, is_there=done is not None)) for name in files]
        count = done or 0
        noted = time.monotonic()
        progress(count)
        for maps in label_from(count):
            _check(maps, job)
            for array, items in zip(arrays, maps, strict=False):
                assert items is not None
                for number, item in enumerate(items, start=count):
                    array.write(number, item)
            count += len(maps.label)
            progress(count)
            if time.monotonic() > noted + _SECONDS_BETWEEN_NOTES:
                for array in arrays:
                    array.flush()
                _note(building, job, count)
                noted = time.monotonic()
    if count != len(job.names):
        raise ValueError(f"{count} images were labelled, there are {len(job.names)}")
    record = _record_of(building, job, files)
    write_json(building / RECORD, {"digest": record.digest, **record.model_dump(mode="json")})
    _note(building, job, count)
    return record


def _check(maps: Maps, job: Job) -> None:
    label = maps.label
    if label.shape[1:] != job.size or (maps.level is None) != (job.confidence == "none"):
        raise ValueError(f"maps of {job.size} with confidence {job.confidence} were announced, got others")
    if not ((label < len(job.classes)) | (label == IGNORE_INDEX)).all():
        raise ValueError(f"labels must be 0..{len(job.classes) - 1} or {IGNORE_INDEX}")


def _record_of(building: Path, job: Job, files: list[str]) -> Record:
    """Return the record of finished maps, read from the disk as whoever uses them will."""
    num_classes = len(job.classes)
    counts = np.zeros((256, TOP_LEVEL + 1), dtype=np.int64)
    maps = [np.lib.format.open_memmap(building / name, mode="r") for name in files]
    for image in zip(*maps, strict=True):
        label = image[0].ravel().astype(np.int64)
        level = image[1].ravel() if len(image) > 1 else 0
        counts += np.bincount(label * (TOP_LEVEL + 1) + level, minlength=counts.size).reshape(counts.shape)
    pixels = [int(counts[index].sum()) for index in (*range(num_classes), IGNORE_INDEX)]
    of_classes = [_class_means(counts[index]) for index in range(num_classes)]
    means, lowest = zip(*of_classes, strict=True) if len(files) > 1 else ([None] * num_classes,) * 2
    return Record(
        job=job,
        pixels=tuple(pixels),
        mean_confidence=tuple(means),
        lowest_level=tuple(lowest),
        checksums={name: sha256_of(building / name) for name in files},
    )


def _class_means(counts: NDArray[np.int64]) -> tuple[float | None, int | None]:
    """Return the mean confidence of the pixels of a class, and the smallest level with at least that; None for no pixels.

    Args:
        counts: of the pixels by level, int64 [256].
    """
    whole, pixels = _whole_confidences(), int(counts.sum())
    if pixels == 0:
        return None, None
    total = int(counts @ whole)
    return total / (pixels * _WHOLE), int((whole * pixels < total).sum())


def _note(building: Path, job: Job, count: int) -> None:
    write_json(building / _PROGRESS, {"job": _digest(job), "done": count})


def _progress_of(building: Path, job: Job) -> int | None:
    """Return how many images of a job an interrupted call has labelled; None if there is nothing to go on with."""
    try:
        noted = json.loads((building / _PROGRESS).read_text(encoding="utf-8"))
        done, of = noted["done"], noted["job"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if of != _digest(job) or not isinstance(done, int) or not 0 <= done <= len(job.names):
        return None
    files = [LABELS] if job.confidence == "none" else [LABELS, CONFIDENCES]
    return done if all((building / name).is_file() for name in files) else None


def _read(folder: Path) -> Record:
    path = folder / RECORD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        digest = content.pop("digest")
        record = Record.model_validate_json(json.dumps(content))
    except OSError as error:
        raise DatasetNotFoundError(
            f"no external labels in {folder} ({path.name}: {error.strerror}); `segda teach` writes them"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError):
        raise CorruptSampleError(f"{path} is not what `segda teach` writes; bring it back, or label again") from None
    if record.digest != digest:
        raise CorruptSampleError(f"{path} has changed since it was written; bring it back, or label again")
    return record


def _digest(model: BaseModel) -> str:
    text = json.dumps(model.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
