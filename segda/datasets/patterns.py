"""Files whose places follow a pattern, such as `*/images/*_rgb.tif`: what the stars stand for, joined by slashes, is the name."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from segda.datasets.listing import IMAGE_SUFFIXES, UnreachableError, natural_key, reach, shown
from segda.errors import CorruptSampleError, DatasetNotFoundError


def complete(pattern: str) -> str:
    """Return a pattern of files; a place that ends in no image is a folder, and all images in it are meant.

    Example:
        >>> complete("*/images"), complete("a/*_rgb.tif"), complete("*/image.png")
        ('*/images/*', 'a/*_rgb.tif', '*/image.png')
    """
    last = PurePosixPath(pattern).name
    return pattern if "*" in last or _has_suffix(last) else f"{pattern.rstrip('/')}/*"


def place_of(pattern: str, name: str) -> str:
    """Return where the file of a name is or should be; a PNG where the pattern leaves its kind open.

    Example:
        >>> place_of("*/labels/*", "town/7"), place_of("*_l.tif", "7")
        ('town/labels/7.png', '7_l.tif')
    """
    parts = iter(name.split("/"))
    place = re.sub(r"\*", lambda _: next(parts), complete(pattern))
    return place if _has_suffix(place) else f"{place}.png"


def find_pattern(root: Path, pattern: str, *, look: bool) -> dict[str, Path]:
    """Find the files of a pattern, in natural order.

    Args:
        root: folder that the pattern is relative to.
        pattern: see the head of this file; without the suffix of an image at its end, files with any of them.
        look: whether to refuse what cannot be read; without, only names are looked at.

    Returns:
        Name -> file.

    Raises:
        DatasetNotFoundError: a folder that the pattern names is missing or cannot be read.
        CorruptSampleError: two files have one name, or one cannot be read.
    """
    *folders, last = complete(pattern).split("/")
    expression = _expression(last)
    found: dict[str, Path] = {}
    for parts, folder in _folders(root, folders):
        for path in _entries(folder):
            suffix = path.suffix.lower()
            if suffix not in IMAGE_SUFFIXES:
                continue
            match = expression.fullmatch(path.name if _has_suffix(last) else path.stem)
            if match is None:
                continue
            name = "/".join((*parts, *match.groups()))
            if name in found:
                raise CorruptSampleError(
                    f"{shown(found[name])} and {shown(path)} are the same sample twice; remove one of them"
                )
            if look:
                _check(path)
            found[name] = path
    return found


def _folders(root: Path, parts: Sequence[str]) -> Iterator[tuple[tuple[str, ...], Path]]:
    """Yield what the stars stand for, and the folder."""
    if not parts:
        yield (), root
        return
    first, *rest = parts
    if "*" not in first:
        yield from _folders(root / first, rest)
        return
    expression = _expression(first)
    for path in _entries(root):
        match = expression.fullmatch(path.name)
        if match is not None and path.joinpath(*_fixed(rest)).is_dir():
            for groups, folder in _folders(path, rest):
                yield (*match.groups(), *groups), folder


def _fixed(parts: Sequence[str]) -> list[str]:
    """Return the folders up to the next star: where they are missing, a folder is another thing."""
    stars = [place for place, part in enumerate(parts) if "*" in part]
    return list(parts[: stars[0]] if stars else parts)


def _entries(folder: Path) -> list[Path]:
    try:
        paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        raise DatasetNotFoundError(f"folder {folder} is missing; complete the data set or correct its root") from None
    except OSError as error:
        raise DatasetNotFoundError(
            f"folder {folder} cannot be read ({error.strerror}); see to the disk or the permissions"
        ) from error
    return sorted(paths, key=lambda path: natural_key(path.name))


def _check(path: Path) -> None:
    try:
        path.name.encode()
        reach(path)
    except UnicodeEncodeError:
        raise CorruptSampleError(f"image {shown(path)} has a name that is not UTF-8; rename it") from None
    except UnreachableError as error:
        raise CorruptSampleError(
            f"image {shown(path)} {error}; put it right, or remove it from the data set"
        ) from error


def _expression(part: str) -> re.Pattern[str]:
    return re.compile("(.+)".join(map(re.escape, part.split("*"))))


def _has_suffix(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES
