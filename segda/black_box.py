"""What another program says of images, in files: one per image, named like the image.

- `<name>.png`: train ids of one band with 8 bits, 255 for none, as `segda predict` writes them; their colors do not count.
- `<name>.npy` or `<name>.npz`: probabilities [C, h, w] of any floating-point type, which sum to 1 over the classes; of several
  arrays in one file the one called `probs`.
- beside PNGs perhaps another folder with the confidence of each pixel: `<name>.png`, gray with 8 or 16 bits, whose largest value is
  a confidence of 1.

Sizes may be any, also another one for each image.
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segda.datasets.reading import read_stored_label
from segda.errors import ConfigError, CorruptSampleError, DatasetNotFoundError
from segda.files import sha256_of
from segda.types import IGNORE_INDEX, Pixels

_IDS, _PROBS = (".png",), (".npy", ".npz")
_TOLD = 5  # names in a message
_SUM_TOLERANCE = 0.02  # of probabilities in half precision


@dataclass(frozen=True)
class Said:
    """What the program says of one image.

    Attributes:
        probs: of the classes, float32 [C, h, w]; None where it tells ids.
        label: train ids, uint8 [h, w], 255 for none; None where it tells probabilities.
        confidence: of each id, float32 [h', w'] in [0, 1]; None where it tells none.
    """

    probs: NDArray[np.float32] | None = None
    label: Pixels | None = None
    confidence: NDArray[np.float32] | None = None


class BlackBox:
    """A folder of predictions that another program made.

    Attributes:
        has_probs: whether it tells probabilities.
        has_confidences: whether it tells confidences beside its ids.
        surplus: names of files that belong to none of the images.
    """

    def __init__(
        self, folder: Path, *, names: Sequence[str], num_classes: int, confidences: Path | None = None
    ) -> None:
        """Find the files; none is opened yet.

        Args:
            folder: of the predictions.
            names: of the images, as the data set calls them; may lead into sub-folders.
            num_classes: number of train ids.
            confidences: folder of the confidences.

        Raises:
            DatasetNotFoundError: a folder, or the file of an image, is missing.
            ConfigError: files of both kinds, or confidences beside probabilities.
        """
        self._num_classes = num_classes
        found = _files(folder, (*_IDS, *_PROBS))
        self.has_probs = any(path.suffix.lower() in _PROBS for path in found.values())
        if self.has_probs and any(path.suffix.lower() in _IDS for path in found.values()):
            raise ConfigError(f"{folder} holds both PNGs and arrays; keep one kind in it")
        if self.has_probs and confidences is not None:
            raise ConfigError(
                f"{folder} holds probabilities, which tell confidences by themselves; leave {confidences} out"
            )
        self._files = [found[name] for name in _complete(found, names, folder)]
        self.surplus = sorted(found.keys() - set(names))
        self._confidences: list[Path] | None = None
        if confidences is not None:
            beside = _files(confidences, _IDS)
            self._confidences = [beside[name] for name in _complete(beside, names, confidences)]
        self.has_confidences = self._confidences is not None

    def digest(self) -> str:
        """Return a hash of all files that are read, 64 hexadecimal digits; the same wherever they lie."""
        try:
            digests = [sha256_of(path) for path in (*self._files, *(self._confidences or ()))]
        except OSError as error:
            raise CorruptSampleError(
                f"{error.filename} cannot be read ({error.strerror}); see to the disk or the permissions"
            ) from error
        return hashlib.sha256(json.dumps(digests).encode()).hexdigest()

    def read(self, number: int) -> Said:
        """Read what is said of an image.

        Args:
            number: of the image, from 0.

        Raises:
            CorruptSampleError: a file is damaged, or holds what is no train id, probability or confidence.
        """
        path = self._files[number]
        if self.has_probs:
            return Said(probs=self._probs(path))
        label, _ = read_stored_label(path)
        if label.ndim != 2:
            raise CorruptSampleError(
                f"{path}: expected train ids in one band, got colors; write ids 0..{self._num_classes - 1}"
            )
        strange = [int(value) for value in np.unique(label) if value >= self._num_classes and value != IGNORE_INDEX]
        if strange:
            raise CorruptSampleError(
                f"{path}: unknown id {', '.join(map(str, strange[:_TOLD]))}; allowed are the train ids "
                f"0..{self._num_classes - 1} and {IGNORE_INDEX} for none"
            )
        return Said(
            label=label, confidence=None if self._confidences is None else _confidence(self._confidences[number])
        )

    def _probs(self, path: Path) -> NDArray[np.float32]:
        array = _array(path)
        if array.ndim != 3 or array.shape[0] != self._num_classes or array.dtype.kind != "f" or 0 in array.shape:
            raise CorruptSampleError(
                f"{path}: expected probabilities [{self._num_classes}, height, width] of a floating-point type, got "
                f"{list(array.shape)} of {array.dtype}"
            )
        probs = array.astype(np.float32)
        if not (np.isfinite(probs).all() and (probs >= 0).all() and (np.abs(probs.sum(0) - 1) < _SUM_TOLERANCE).all()):
            raise CorruptSampleError(
                f"{path}: expected probabilities >= 0 that sum to 1 over the classes, got others; apply softmax, and save no NaN"
            )
        return probs


def _files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Return name -> file of all files below a folder that end in one of the suffixes."""
    if not folder.is_dir():
        raise DatasetNotFoundError(f"{folder}: there is no such folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in suffixes or not path.is_file():
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise ConfigError(f"{found[name]} and {path} are of one image; keep one of them")
        found[name] = path
    return found


def _complete(found: dict[str, Path], names: Sequence[str], folder: Path) -> Sequence[str]:
    missing = [name for name in names if name not in found]
    surplus = sorted(found.keys() - set(names))
    if missing:
        others = f"; {len(surplus)} files belong to no image: {_listed(surplus)}" if surplus else ""
        raise DatasetNotFoundError(
            f"{folder} has no file of {len(missing)} of the {len(names)} target training images: {_listed(missing)}{others}; name "
            "files like images"
        )
    return names


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return f"{', '.join(names[:_TOLD])}{more}"


def _array(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            names = list(loaded.files)
            if len(names) != 1 and "probs" not in names:
                raise CorruptSampleError(
                    f"{path} holds {f'the arrays {_listed(names)}' if names else 'no array'}; call the one of probabilities probs"
                )
            array: NDArray[Any] = loaded["probs" if "probs" in names else names[0]]
            return array
    except OSError as error:
        raise CorruptSampleError(
            f"{path} cannot be read ({error.strerror or error}); see to the disk or write it again"
        ) from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CorruptSampleError(
            f"{path} cannot be decoded ({error}); it must be an array without pickled objects"
        ) from error


def _confidence(path: Path) -> NDArray[np.float32]:
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise CorruptSampleError(f"{path} cannot be decoded; it may be truncated: copy it again")
    if stored.ndim != 2 or stored.dtype not in (np.uint8, np.uint16):
        raise CorruptSampleError(
            f"{path}: expected confidences as gray of 8 or 16 bits, got {stored.dtype} {stored.shape}"
        )
    confidence: NDArray[np.float32] = np.asarray(stored / np.iinfo(stored.dtype).max, dtype=np.float32)
    return confidence
