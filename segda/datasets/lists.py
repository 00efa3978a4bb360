"""List files: which samples a split has, one line each, an image and perhaps its label.

They come from other machines and other systems: with absolute paths, drive letters, backslashes, spaces in names. So of a path only
the last folder, where there is one of that name, and the file name count, and of the file name the suffix does not.
"""

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from segda.datasets.listing import SUFFIXES, files_by_name
from segda.errors import CorruptSampleError, DatasetNotFoundError


@dataclass
class Listed:
    """Files that lines speak of.

    Attributes:
        root: of the data set, whose folders they are in.
        usual: the folder of those that name none, or one that is not there.
    """

    root: Path
    usual: Path
    _folders: dict[str, Path] = field(default_factory=dict)
    _files: dict[Path, Mapping[str, Path]] = field(default_factory=dict)

    def find(self, text: str) -> Path | None:
        """Return the file that a path of another machine stands for, if there is one."""
        place = self.place(text)
        if place.parent not in self._files:
            self._files[place.parent] = files_by_name(place.parent)
        files = self._files[place.parent]
        # A name may stand without suffix, but may also contain a dot itself.
        return files.get(place.stem) or files.get(place.name)

    def place(self, text: str) -> Path:
        """Return where that file is or should be."""
        parts = re.split(r"[\\/]+", text)
        return self._folder(parts[-2] if len(parts) > 1 else "") / parts[-1]

    def _folder(self, name: str) -> Path:
        if name not in self._folders:
            folder = self.root / name
            self._folders[name] = folder if name.strip(".") and folder.is_dir() else self.usual
        return self._folders[name]


def listed_pairs(list_file: Path, *, images: Listed, labels: Listed) -> Iterator[tuple[int, Path, Path | None]]:
    """Read a list file.

    Args:
        list_file: text with lines of `image` or `image label`; empty ones and those that begin with # say nothing.
        images: where images are.
        labels: where labels are.

    Yields:
        Number of the line, image, and the label if the line names one, there or not.

    Raises:
        DatasetNotFoundError: the file cannot be read, or a listed image does not exist.
        CorruptSampleError: a line may mean one image or another.
    """
    for number, line in enumerate(_lines(list_file), start=1):
        readings = list(_readings(line, images, labels)) if line else []
        if readings:
            best = max(rank for rank, _ in readings)
            image, label = next(pair for rank, pair in readings if rank == best)
            others = [other for rank, (other, _) in readings if rank == best and other != image]
            if others:
                raise CorruptSampleError(
                    f"{list_file}:{number} may mean {image} or {others[0]}, and both are there; rename one of them"
                )
            yield number, image, label
        elif line and not line.startswith("#"):
            place = images.place(line)
            raise DatasetNotFoundError(
                f"{list_file}:{number} lists {line}, but {place.parent} has no such image; complete the folder or correct the list"
            )


def _readings(line: str, images: Listed, labels: Listed) -> Iterator[tuple[tuple[int, int], tuple[Path, Path | None]]]:
    """Yield what a line may mean, and how likely that is: names may have spaces, so every space may be the one before the label.

    An image's name ends as one, if any part of the line does. Then it is likelier that there is a label than that there is none;
    but a line without such ends is one name.
    """
    for space in re.finditer(r"\s+|$", line):
        text, rest = line[: space.start()], line[space.end() :]
        image = images.find(text)
        if image is not None:
            has_end = PurePath(text).suffix.lower() in SUFFIXES
            label = labels.find(rest) if rest else None
            likely = int(label is not None) if rest or has_end else 2
            yield (int(has_end), likely), (image, label or labels.place(rest) if rest else None)


def _lines(list_file: Path) -> list[str]:
    try:
        content = list_file.read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except OSError as error:
        raise DatasetNotFoundError(f"list {list_file} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DatasetNotFoundError(f"list {list_file} is no text in UTF-8 ({error}); save it as such") from None
    return [line.strip() for line in re.split(r"\r\n|\r|\n", text)]
