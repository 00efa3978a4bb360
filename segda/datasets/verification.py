"""What of a data set lies on disk: every image and label is decoded once, and what is wrong is told for each file."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segda.datasets.base import Sample, SegmentationDataset
from segda.datasets.listing import UnreachableError, reach, why_no_folder
from segda.errors import CorruptSampleError, DatasetNotFoundError
from segda.progress import Update
from segda.types import IGNORE_INDEX

_MOST_READERS = 8
_VALUES = IGNORE_INDEX + 1
Size = tuple[int, int]  # height and width in pixels


@dataclass
class SplitFound:
    """One split of one domain.

    Attributes:
        domain: of the data set.
        split: of the domain.
        images: how many are listed; None if the split is not there, or cannot be listed.
        labelled: how many of them have a label file.
        published: how many there are where nothing is missing; None if that is not known.
        sizes: how many decoded images have which size.
    """

    domain: str
    split: str
    images: int | None = None
    labelled: int = 0
    published: int | None = None
    sizes: Counter[Size] = field(default_factory=Counter)


@dataclass
class Verification:
    """What was found.

    Attributes:
        splits: all that the data set has.
        pixels: domain -> how many label pixels have which train id, int64 [256]; the last is void.
        stored: number in label files -> how many pixels store it, and the train id that it becomes. Empty for labels in colors.
        problems: what is wrong, a line each, with the file.
        notes: what is absent and need not be there.
    """

    splits: list[SplitFound] = field(default_factory=list)
    pixels: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    stored: dict[int, tuple[int, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Seen:
    """What one sample holds."""

    size: Size
    pixels: npt.NDArray[np.int64] | None  # by train id, [256]
    stored: npt.NDArray[np.int64] | None  # pixels by stored number
    meaning: npt.NDArray[np.uint8] | None  # train id by stored number, where it occurs


def verify(
    dataset: SegmentationDataset, root: Path, *, decode: bool = True, progress: Update | None = None
) -> Verification:
    """Look at all that a data set has.

    Args:
        dataset: which.
        root: its folder.
        decode: whether to open files; without, they are counted only.
        progress: called with (done, total) samples.

    Raises:
        DatasetNotFoundError: there is no such folder, or nothing in it.
    """
    why = why_no_folder(root)
    if why:
        raise DatasetNotFoundError(f"data set {dataset.name}: {root} {why}; name the folder in which it lies")
    found = Verification(pixels={domain: np.zeros(_VALUES, dtype=np.int64) for domain in dataset.domains})
    owners: dict[Sample, list[SplitFound]] = {}
    for entry, samples in _listed(dataset, root, found):
        found.splits.append(entry)
        for sample in samples:
            owners.setdefault(sample, []).append(entry)
    if all(entry.images is None for entry in found.splits):
        raise DatasetNotFoundError(found.problems[0])
    if decode:
        for done, (sample, future) in enumerate(_decoded(dataset, list(owners)), start=1):
            try:
                _add(found, future.result(), owners[sample])
            except CorruptSampleError as error:
                found.problems.append(str(error))
            if progress is not None:
                progress(done, len(owners))
    return found


def _listed(dataset: SegmentationDataset, root: Path, found: Verification) -> Iterator[tuple[SplitFound, list[Sample]]]:
    published = dataset.published_counts(root)
    for domain in dataset.domains:
        for split in dataset.splits(domain):
            entry = SplitFound(domain, split, published=published.get((domain, split)))
            samples: list[Sample] = []
            try:
                samples = dataset.samples(root, domain=domain, split=split)
            except DatasetNotFoundError as error:
                # Many leave away what has no labels.
                is_needed = split != "test" or dataset.report_split == "test"
                (found.problems if is_needed else found.notes).append(str(error))
            except CorruptSampleError as error:
                found.problems.append(str(error))
            else:
                entry.images = len(samples)
                entry.labelled = sum(map(_has_label, samples))
                if entry.published not in (None, entry.images):
                    found.problems.append(
                        f"domain {domain}, split {split}: {entry.images:,} images, {entry.published:,} are published; "
                        "complete it"
                    )
            yield entry, samples


def _has_label(sample: Sample) -> bool:
    try:
        return sample.label is not None and bool(reach(sample.label))
    except UnreachableError:
        return False


def _decoded(dataset: SegmentationDataset, samples: list[Sample]) -> Iterator[tuple[Sample, "Future[_Seen]"]]:
    """Decode samples in several threads, and yield them in their order."""
    with ThreadPoolExecutor(min(_MOST_READERS, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(_look, dataset, sample) for sample in samples]
        try:
            yield from zip(samples, futures, strict=True)
        finally:  # whoever asked may have been interrupted
            pool.shutdown(wait=False, cancel_futures=True)


def _look(dataset: SegmentationDataset, sample: Sample) -> _Seen:
    image, label = dataset.read(sample, with_label=sample.label is not None)
    size = (image.shape[0], image.shape[1])
    if label is None or sample.label is None:
        return _Seen(size, None, None, None)
    pixels = np.bincount(label.ravel(), minlength=_VALUES)
    ids = dataset.stored_ids(sample.label)
    if ids is None:
        return _Seen(size, pixels, None, None)
    stored = np.bincount(ids.ravel())
    meaning = np.zeros(len(stored), dtype=np.uint8)
    meaning[ids.ravel()] = label.ravel()
    return _Seen(size, pixels, stored, meaning)


def _add(found: Verification, seen: _Seen, owners: list[SplitFound]) -> None:
    for entry in owners:
        entry.sizes[seen.size] += 1
    if seen.pixels is not None:
        for domain in {entry.domain for entry in owners}:
            found.pixels[domain] += seen.pixels
    if seen.stored is not None and seen.meaning is not None:
        for number in np.flatnonzero(seen.stored).tolist():
            before, _ = found.stored.get(number, (0, 0))
            found.stored[number] = (before + int(seen.stored[number]), int(seen.meaning[number]))


def shares(pixels: Mapping[str, npt.NDArray[np.int64]], train_id: int) -> dict[str, float | None]:
    """Return the share of a class among the labelled pixels of each domain, of void among all pixels; None without any."""
    parts: dict[str, float | None] = {}
    for domain, counts in pixels.items():
        whole = int(counts.sum() if train_id == IGNORE_INDEX else counts[:IGNORE_INDEX].sum())
        parts[domain] = float(counts[train_id] / whole) if whole else None
    return parts
