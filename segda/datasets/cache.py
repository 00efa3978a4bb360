"""Decoded images, once per data set and size, as memory-mapped arrays that all processes of a machine share.

An entry is a folder `<data set>/<domain>-<split>-<height>x<width>[-labels]-<key>` (`segda.datasets.entry`). The key is a hash of
what the entry was made from, so a changed file leads to a new entry. Entries appear by one rename of a finished folder and are
never written to again: one that is damaged is replaced. Of several processes that want the same entry one builds it.
"""

import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from rich.console import Console
from rich.progress import track

from segda.datasets.array_file import ArrayFile
from segda.datasets.base import Sample, SegmentationDataset, check_image_exists, check_label_exists
from segda.datasets.entry import IMAGES, LABELS, open_entry, verify_entry, write_entry
from segda.errors import CacheError, ConfigError, CorruptSampleError, DatasetNotFoundError, SegdaError
from segda.files import expanded, locked, sha256_of
from segda.names import nearest
from segda.resizing import resize_image, resize_label
from segda.types import Pixels

logger = logging.getLogger(__name__)

# Raise when decoding or resizing changes, so that entries of older versions are not used any more.
DECODE_VERSION = 3

_BUILDING = ".building-"
_MAX_DECODERS = 8
# What the system says of an entry that is not whole; anything else, such as too many open files, says nothing about it.
_OF_DAMAGE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO})


@dataclass(frozen=True)
class DecodedSplit:
    """The decoded images of one split. Pickling one that lies in the cache sends its path, not its pixels.

    Attributes:
        images: RGB, uint8 [N, H, W, 3], read-only.
        labels: train ids, uint8 [N, H, W], 255 is void, read-only; None if decoded without labels.
        names: sample names, N.
        fingerprint: hash of the contents of all files that were read, 64 hexadecimal digits. Independent of the decoded
            size and of where the files lie.
        folder: the cache entry that the arrays are mapped from; None for arrays in memory.
        weights: of each label pixel in 255ths, uint8 [N, H, W], read-only; None: all weigh the same.
        maps: where labels and weights are mapped from, if they are no part of the cache entry; see `with_maps`.
    """

    images: Pixels
    labels: Pixels | None
    names: tuple[str, ...]
    fingerprint: str
    folder: Path | None = None
    weights: Pixels | None = None
    maps: tuple[Path, Path | None] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __reduce__(self) -> tuple[Callable[..., "DecodedSplit"], tuple[Any, ...]]:
        if self.folder is None:
            return DecodedSplit, (self.images, self.labels, self.names, self.fingerprint, None, self.weights, None)
        return (_open, (self.folder,)) if self.maps is None else (_open_with_maps, (self.folder, *self.maps))

    def with_maps(self, labels: Path, weights: Path | None) -> "DecodedSplit":
        """Return the same images with labels from elsewhere, such as a network's predictions.

        Args:
            labels: .npy file of train ids, uint8 [N, H, W], 255 is void.
            weights: .npy file of weights in 255ths, uint8 [N, H, W], or None.
        """
        return replace(
            self,
            labels=np.load(labels, mmap_mode="r"),
            weights=None if weights is None else np.load(weights, mmap_mode="r"),
            maps=(labels, weights),
        )


def decoded_split(
    dataset: SegmentationDataset,
    root: Path,
    *,
    domain: str,
    split: str,
    height: int,
    width: int,
    with_labels: bool,
    names: Sequence[str] | None = None,
    cache: Path | None = None,
    progress: bool = False,
) -> DecodedSplit:
    """Open a split decoded to one size; decode it first if no process has done so yet.

    Images are resized by area averaging when they shrink and bilinearly when they grow; a label's pixel gets the class that
    covers most of it (`segda.resizing`).

    Args:
        dataset: the data set.
        root: its folder.
        domain: one of its domains.
        split: one of the domain's splits.
        height: height in pixels to decode to.
        width: width in pixels to decode to.
        with_labels: whether to decode labels; otherwise no label file is opened.
        names: samples to decode, of which alone files are opened; None: all.
        cache: folder of the cache; None: `SEGDA_CACHE`, else the user's cache folder.
        progress: whether to draw a progress bar on stderr while decoding.

    Raises:
        DatasetNotFoundError: root, domain, split or list file is missing.
        CorruptSampleError: a sample cannot be used; nothing is kept.
        CacheError: the cache cannot be written, for example because the disk is full.
        ConfigError: height or width is not positive.
    """
    if height < 1 or width < 1:
        raise ConfigError(f"images are decoded to at least 1x1 pixel, got height {height} and width {width}")
    samples = dataset.samples(root, domain=domain, split=split)
    if names is not None:
        samples = _chosen(samples, names, where=f"data set {dataset.name}, domain {domain!r}, split {split!r}")
    suffix = "-labels" if with_labels else ""
    key = _key(dataset, root, samples, with_labels=with_labels)
    parent = (cache or default_cache()) / dataset.name
    folder = parent / f"{domain}-{split}-{height}x{width}{suffix}-{key}"
    size = (height, width)
    found = tuple(sample.name for sample in samples)
    verify = partial(verify_entry, folder, names=found, size=size, with_labels=with_labels)
    build = partial(_build, dataset, samples, folder, size=size, with_labels=with_labels, progress=progress)
    try:
        verify()
    # Missing or damaged: who has the lock finds out which.
    except (OSError, ValueError):
        _decode_alone(folder, verify, build)
    return _open(folder)


def _decode_alone(folder: Path, verify: Callable[[], None], build: Callable[[], None]) -> None:
    """Build an entry while nobody else does, unless somebody has done so meanwhile."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(_lock_of(folder), waiting=f"waiting for another process that decodes into {folder}"):
            if os.path.lexists(folder):
                try:
                    verify()
                    return
                except (OSError, ValueError) as error:
                    if isinstance(error, OSError) and error.errno not in _OF_DAMAGE:
                        raise
                    reason = error.strerror if isinstance(error, OSError) else error
                    logger.warning("decoded images in %s are damaged (%s): decoding again", folder, reason)
            _remove_leftovers(folder)
            build()
    except SegdaError:
        raise
    except OSError as error:
        raise CacheError(
            f"decoded images cannot be kept in {folder.parent} ({error}); free space or choose another folder by `cache` or "
            "the environment variable SEGDA_CACHE"
        ) from error


def default_cache() -> Path:
    """Return the folder of decoded images: the variable `SEGDA_CACHE`, else in the user's cache folder."""
    given = os.environ.get("SEGDA_CACHE")
    return expanded(given) if given else platformdirs.user_cache_path("segda") / "decoded"


def _key(dataset: SegmentationDataset, root: Path, samples: list[Sample], *, with_labels: bool) -> str:
    """Hash what the decoded arrays depend on except the size, without opening a file: 16 hexadecimal digits.

    Raises:
        CorruptSampleError: a file cannot be reached.
    """

    def state(path: Path | None, status: os.stat_result) -> list[str | int]:
        assert path is not None
        return [os.path.relpath(path, root), status.st_size, status.st_mtime_ns]

    inputs = [
        [
            sample.name,
            state(sample.image, check_image_exists(sample)),
            state(sample.label, check_label_exists(sample)) if with_labels else None,
        ]
        for sample in samples
    ]
    text = json.dumps([DECODE_VERSION, dataset.identity, inputs])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _chosen(samples: list[Sample], names: Sequence[str], *, where: str) -> list[Sample]:
    """Return the samples of some names, in the order of the split."""
    known = {sample.name for sample in samples}
    for name in names:
        if name not in known:
            raise DatasetNotFoundError(
                f"{where}, has no sample {name!r}{nearest(name, known)}; names of its {len(samples)} are such as "
                f"{samples[0].name!r}"
            )
    return [sample for sample in samples if sample.name in set(names)]


def _open_with_maps(folder: Path, labels: Path, weights: Path | None) -> DecodedSplit:
    return _open(folder).with_maps(labels, weights)


def _open(folder: Path) -> DecodedSplit:
    entry, arrays = open_entry(folder)
    return DecodedSplit(arrays[IMAGES], arrays.get(LABELS), entry.names, entry.fingerprint, folder)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed builders left; `folder`'s lock is held by the caller, so its own leftovers are dead."""
    if os.path.lexists(folder):
        # Moved aside first: what others have mapped stays as it is, and a network's file system removes it later.
        aside = folder.with_name(f"{folder.name}{_BUILDING}{secrets.token_hex(4)}")
        folder.rename(aside)
        is_folder = aside.is_dir() and not aside.is_symlink()
        shutil.rmtree(aside, ignore_errors=True) if is_folder else aside.unlink()
    for leftover in folder.parent.glob(f"*{_BUILDING}*"):
        built = folder.with_name(leftover.name.partition(_BUILDING)[0])
        if built == folder:
            shutil.rmtree(leftover, ignore_errors=True)
            continue
        # Whose builder is alive stays.
        with suppress(BlockingIOError), locked(_lock_of(built)):
            shutil.rmtree(leftover, ignore_errors=True)


def _build(
    dataset: SegmentationDataset,
    samples: list[Sample],
    folder: Path,
    *,
    size: tuple[int, int],
    with_labels: bool,
    progress: bool,
) -> None:
    """Decode all samples into a folder beside `folder` and rename it when it is complete."""
    building = Path(tempfile.mkdtemp(prefix=f"{folder.name}{_BUILDING}", dir=folder.parent))
    try:
        building.chmod(0o755)  # mkdtemp makes it private, but a cache may be shared between users
        logger.info("decoding %d images of %s into %s", len(samples), dataset.name, folder)
        count = len(samples)
        with (
            ArrayFile(building / IMAGES, (count, *size, 3)) as images,
            ArrayFile(building / LABELS, (count, *size)) if with_labels else nullcontext() as labels,
            ThreadPoolExecutor(min(_MAX_DECODERS, os.cpu_count() or 1)) as pool,
        ):

            def decode(index: int) -> list[str]:
                sample = samples[index]
                image, label = dataset.read(sample, with_label=with_labels)
                images.write(index, resize_image(image, size))
                if labels is None or label is None or sample.label is None:
                    return [sample.name, _digest(sample.image)]
                labels.write(index, resize_label(label, size))
                return [sample.name, _digest(sample.image), _digest(sample.label)]

            futures = [pool.submit(decode, index) for index in range(count)]
            try:
                contents = [
                    future.result()
                    for future in track(
                        futures,
                        description=f"Decoding {dataset.name}",
                        console=Console(stderr=True),
                        disable=not progress,
                    )
                ]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        fingerprint = hashlib.sha256(json.dumps([dataset.identity, sorted(contents)]).encode()).hexdigest()
        write_entry(building, names=tuple(sample.name for sample in samples), fingerprint=fingerprint)
        building.replace(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise CorruptSampleError(f"{path} cannot be read ({error.strerror}); complete the data set") from error
