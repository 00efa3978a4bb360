"""What lies in a folder of images: found by name, and what cannot be reached is told and not left out.

A dangling link, a label whose image is gone or a name that cannot be written makes a data set smaller, and whoever trains on it
does not notice. One listing of a folder costs no look at each file: only links are followed.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segda.errors import CorruptSampleError, DatasetNotFoundError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
TIFF_SUFFIXES = (".tif", ".tiff")

_TOLD = 3  # names of many
_MISSING = "is missing"

# Those of all images, most of which nobody here reads.
SUFFIXES = (*IMAGE_SUFFIXES, ".avif", ".bmp", ".gif", ".heic", ".jp2", ".jxl", ".pgm", ".ppm", ".tga", ".webp")


class UnreachableError(Exception):
    """A file cannot be opened: why, in a few words that also stand for others of its kind."""


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key by which 9.png comes before 10.png.

    Example:
        >>> sorted(["10.png", "9.png", "a2", "a10"], key=natural_key)
        ['9.png', '10.png', 'a2', 'a10']
    """
    parts = re.split(r"([0-9]+)", name)
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part)


def reach(path: Path) -> os.stat_result:
    """Return the state of a file that can be read.

    Raises:
        UnreachableError: there is none.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise UnreachableError(_why(path, error)) from error
    if stat.S_ISDIR(status.st_mode):
        raise UnreachableError("is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise UnreachableError("is not a file but a pipe or a device")
    if status.st_size == 0:
        raise UnreachableError("is empty")
    return status


def why_no_folder(path: Path) -> str:
    """Say why a path is no folder to look into; empty if it is one."""
    try:
        return "" if stat.S_ISDIR(path.stat().st_mode) else "is not a folder"
    except OSError as error:
        why = _why(path, error)
        return "is not a folder" if why == _MISSING else why


def _why(path: Path, error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "is a link that leads back to itself"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "is a link to what is missing" if path.is_symlink() else _MISSING
    return f"cannot be read ({error.strerror})"


@dataclass(frozen=True)
class Listing:
    """The entries of a folder; its sub-folders are not entered.

    Attributes:
        images: name without suffix -> image, in natural order; a file is not opened for that.
        left: why something is none of them -> what, in natural order.
    """

    images: dict[str, Path] = field(default_factory=dict)
    left: dict[str, list[Path]] = field(default_factory=dict)

    @property
    def unreachable(self) -> Iterator[tuple[Path, str]]:
        """What has the name of an image and cannot be used as one, and why."""
        for why, paths in self.left.items():
            for path in paths:
                if not path.name.startswith(".") and path.suffix.lower() in SUFFIXES:
                    yield path, why


def list_folder(folder: Path) -> Listing:
    """List a folder.

    Raises:
        DatasetNotFoundError: it is missing, no folder or cannot be read.
        CorruptSampleError: two images differ in their suffix only, so that the label would be shared.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: natural_key(entry.name))
    except FileNotFoundError:
        raise DatasetNotFoundError(f"folder {folder} is missing; complete the data set or correct its root") from None
    except OSError as error:
        raise DatasetNotFoundError(
            f"folder {folder} cannot be read ({error.strerror}); see to the disk or the permissions"
        ) from error
    listing = Listing()
    for entry in found:
        path = folder / entry.name
        why = _why_not(entry, path)
        if why:
            listing.left.setdefault(why, []).append(path)
        elif path.stem in listing.images:
            raise _twice(listing.images[path.stem], path)
        else:
            listing.images[path.stem] = path
    return listing


def _why_not(entry: "os.DirEntry[str]", path: Path) -> str:
    """Say why an entry is no image; empty if it is one."""
    if entry.name.startswith("."):
        return "is hidden"
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        if entry.is_dir(follow_symlinks=False):
            return "is a folder"
        return "is of a kind that is not read"
    if not _is_text(entry.name):
        return "has a name that is not UTF-8"
    if not entry.is_file(follow_symlinks=False):
        try:
            reach(path)
        except UnreachableError as error:
            return str(error)
    return ""


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def find_images(folder: Path) -> dict[str, Path]:
    """List the images of a folder by name without suffix, in natural order.

    Args:
        folder: an existing folder; its subfolders are not entered.

    Raises:
        DatasetNotFoundError: the folder is missing or cannot be read.
        CorruptSampleError: what has the name of an image is none, or two images differ in their suffix only.
    """
    listing = list_folder(folder)
    for path, why in listing.unreachable:
        raise CorruptSampleError(f"image {shown(path)} {why}; put it right, or remove it from the data set")
    return listing.images


def find_labels(
    folder: Path,
    images: Mapping[str, Path],
    *,
    usual: str = "{name}.png",
    marks: Sequence[str] = ("",),
    others: Sequence[str] = (),
) -> dict[str, Path]:
    """Return where the label of each image is or should be: under its name, perhaps with a mark, with any suffix of an image.

    Only names are looked at, so that nobody needs to be allowed to read labels that nobody asks for.

    Args:
        folder: of the labels; it may be missing.
        images: name -> image, all that there are.
        usual: name of the label that is expected where there is none.
        marks: what may follow the image's name in that of its label.
        others: how names of files end that lie beside labels and are none, e.g. a colored copy.

    Raises:
        CorruptSampleError: the image of a label is missing, or an image has two labels.
    """
    found: dict[str, Path] = {}
    for stem, path in files_by_name(folder).items():
        if stem.endswith(tuple(others)):
            continue
        mark = next((mark for mark in marks if stem.endswith(mark) and stem.removesuffix(mark) in images), None)
        if mark is None:
            raise CorruptSampleError(
                f"label {shown(path)} has no image: bring the image of that name back, or remove the label from the data set"
            )
        name = stem.removesuffix(mark)
        if name in found:
            raise _twice(found[name], path)
        found[name] = path
    return {name: found.get(name, folder / usual.format(name=name)) for name in images}


def files_by_name(folder: Path) -> dict[str, Path]:
    """List what has the name of an image or label, without a look at it.

    Returns:
        Name without suffix -> file, in natural order; nothing if the folder is missing or must not be listed: whoever opens a file
        is told why that fails.

    Raises:
        CorruptSampleError: two names differ in their suffix only.
    """
    try:
        paths = sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
    except OSError:
        return {}
    found: dict[str, Path] = {}
    for path in paths:
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise _twice(found[path.stem], path)
            found[path.stem] = path
    return found


def _twice(first: Path, second: Path) -> CorruptSampleError:
    return CorruptSampleError(f"{shown(first)} and {shown(second)} are the same sample twice; remove one of them")


def in_words(left: Mapping[str, Sequence[Path]]) -> str:
    """Say what was left alone and why.

    Args:
        left: why -> what.

    Example:
        >>> in_words({"is hidden": [Path(".x.png")], "is a folder": [Path(name) for name in "abcd"]})
        '.x.png: is hidden; a, b and 2 more: is a folder'
    """
    return "; ".join(f"{_some(paths)}: {why}" for why, paths in left.items())


def _some(paths: Sequence[Path]) -> str:
    told = paths if len(paths) <= _TOLD else paths[: _TOLD - 1]
    more = f" and {len(paths) - len(told)} more" if len(told) < len(paths) else ""
    return ", ".join(shown(Path(path.name)) for path in told) + more


def shown(path: Path) -> str:
    r"""Return a path as it can be printed everywhere: bytes that are no UTF-8 as escapes.

    Example:
        >>> shown(Path("a-\udcff.png"))
        'a-\\xff.png'
    """
    return os.fsencode(path).decode(errors="backslashreplace")
