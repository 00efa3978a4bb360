"""What a label file means: the numbers of classes, their colors, or numbers with a color table.

A table is mostly decoration of numbers. But a color label that a program saved with a palette has numbers that only count its
colors, and reading them as classes trains on nonsense. So the table is compared with what the data set knows:

1. It is decoration if it is a ramp of grays, which is a gray file in another form (the gray value is the number), or has the colors
   that Pascal VOC gives to numbers, as annotation tools write them under any classes. Both only if some color is no class's.
2. It is decoration if no occurring number shows the color of another class than its own.
3. It is the label if all occurring numbers show class colors, each another one, and numbers cannot be meant: one is no class's, or
   the table has no colors but those of classes. (Black alone is no evidence if it also fills the table up.)
4. Everything else is ambiguous and refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segda.datasets.reading import read_stored_label
from segda.errors import CorruptSampleError
from segda.types import IGNORE_INDEX, Pixels

Color = tuple[int, int, int]

_BLACK = (0, 0, 0)


@dataclass(frozen=True)
class LabelCode:
    """How a data set writes classes.

    Attributes:
        ids: stored number, 0..255 -> train id or `IGNORE_INDEX`; empty where numbers do not say enough.
        colors: stored RGB color -> train id or `IGNORE_INDEX`; empty where labels are never colors.
        advice: what to do about a file of numbers without `ids`, or of colors without `colors`.
        others_are_void: whether colors that are not listed are void; else they are refused.
    """

    ids: Mapping[int, int] = field(default_factory=dict)
    colors: Mapping[Color, int] = field(default_factory=dict)
    advice: str = "convert it"
    others_are_void: bool = False

    def read(self, path: Path) -> Pixels:
        """Read a label file.

        Args:
            path: PNG (gray, RGB or with a color table) or 8-bit TIFF with one or three bands.

        Returns:
            Train ids uint8 [H, W], 255 is void.

        Raises:
            CorruptSampleError: the file cannot be read, holds a number or color that is no class's, or is ambiguous.
        """
        stored, table = read_stored_label(path)
        if stored.ndim == 3:
            return self.from_colors(stored, path)
        meaning = self._numbers(stored, path) if table is None else self._by_table(stored, table, path)
        decoded = np.full(256, IGNORE_INDEX, dtype=np.uint8)
        decoded[list(meaning)] = list(meaning.values())
        result: Pixels = decoded[stored]
        return result

    def _numbers(self, stored: Pixels, path: Path) -> Mapping[int, int]:
        return self._known({number: number for number in _occurring(stored)}, path)

    def _known(self, number_of: Mapping[int, int], path: Path) -> Mapping[int, int]:
        """Return the train id of each stored value, given the number that it stands for."""
        if not self.ids:
            raise CorruptSampleError(f"label {path}: expected colors, got class indices; {self.advice}")
        _check_known([number for number in number_of.values() if number not in self.ids], self.ids, path)
        return {value: self.ids[number] for value, number in number_of.items()}

    def _by_table(self, stored: Pixels, table: Pixels, path: Path) -> Mapping[int, int]:
        """Return the train id of each occurring value of a file with a color table, uint8 [N, 3]; see the head of this file."""
        used = _occurring(stored)
        if used[-1] >= len(table):
            raise CorruptSampleError(f"label {path}: value {used[-1]} is beyond its table of {len(table)} colors")
        colors = _trimmed(table, least=used[-1] + 1)
        has_others = any(color not in self.colors for color in colors)
        if has_others and all(red == green == blue for red, green, blue in colors):
            grays = {value: colors[value][0] for value in used}
            if all(gray in self.ids for gray in grays.values()):
                return self._known(grays, path)
        shown = {value: self.colors[colors[value]] for value in used if colors[value] in self.colors}
        denied = [value for value in shown if self.ids.get(value) != shown[value]]
        if not denied or (has_others and _is_voc(colors)):
            return self._known({value: value for value in used}, path)
        has_class_colors = len(shown) == len({colors[value] for value in used}) == len(used)
        black_fills = np.count_nonzero(~table.any(axis=1)) > 1
        is_certain = not has_others and not (black_fills and all(colors[value] == _BLACK for value in denied))
        if has_class_colors and (is_certain or any(value not in self.ids for value in used)):
            return shown
        raise CorruptSampleError(
            f"label {path}: its values and its color table contradict each other, and either may be meant: value {denied[0]} has "
            f"the color {colors[denied[0]]} of another class; save it as RGB if its colors are right, as gray if its values are"
        )

    def from_colors(self, rgb: Pixels, path: Path) -> Pixels:
        """Map colors uint8 [H, W, 3] to train ids uint8 [H, W].

        Raises:
            CorruptSampleError: a color is no class's.
        """
        if not self.colors:
            raise CorruptSampleError(f"label {path}: expected one band of class indices, got colors; {self.advice}")
        position = self._position_of_color[_packed(rgb)]
        if not self.others_are_void and not position.all():
            row, column = (int(at) for at in np.argwhere(position == 0)[0])
            color = tuple(int(value) for value in rgb[row, column])
            raise CorruptSampleError(
                f"label {path}: color {color} at row {row}, column {column} is none of the {len(self.colors)} class colors; "
                "labels must be stored without loss and resized without interpolation"
            )
        result: Pixels = np.array([IGNORE_INDEX, *self.colors.values()], dtype=np.uint8)[position]
        return result

    @cached_property
    def _position_of_color(self) -> Pixels:
        """The table uint8 [2^24] of packed color -> 1 + position in `colors`; 0 is an unknown color.

        Of its 16 MiB only the pages of class colors are ever touched.
        """
        table = np.zeros(1 << 24, dtype=np.uint8)
        table[_packed(np.array(list(self.colors), dtype=np.uint8))] = np.arange(1, len(self.colors) + 1)
        return table


def train_ids(stored: npt.NDArray[np.unsignedinteger[Any]], ids: Mapping[int, int], path: Path) -> Pixels:
    """Translate stored numbers.

    Args:
        stored: unsigned integers [H, W].
        ids: stored number -> train id or `IGNORE_INDEX`.
        path: the label file, for the message.

    Returns:
        Train ids uint8 [H, W], 255 is void.

    Raises:
        CorruptSampleError: a number is no class's.
    """
    used = np.flatnonzero(np.bincount(stored.ravel())).tolist()
    _check_known([number for number in used if number not in ids], ids, path)
    decoded = np.full(max(used, default=0) + 1, IGNORE_INDEX, dtype=np.uint8)
    decoded[used] = [ids[number] for number in used]
    result: Pixels = decoded[stored]
    return result


def _check_known(strange: Sequence[int], ids: Mapping[int, int], path: Path) -> None:
    if strange:
        raise CorruptSampleError(
            f"label {path}: unknown id {', '.join(map(str, strange[:5]))}; allowed are {_ranges(sorted(ids))}"
        )


def _packed(rgb: Pixels) -> np.ndarray[tuple[int, ...], np.dtype[np.uint32]]:
    """Return red * 2^16 + green * 2^8 + blue of colors [..., 3]."""
    packed = rgb[..., 0].astype(np.uint32)
    for channel in (1, 2):
        packed <<= 8
        packed |= rgb[..., channel]
    return packed


def _occurring(stored: Pixels) -> list[int]:
    """Return the values of uint8 [H, W], ascending."""
    return np.flatnonzero(np.bincount(stored.ravel(), minlength=256)).tolist()


def _trimmed(table: Pixels, *, least: int) -> list[Color]:
    """Return the colors of a table without the black that fills it up, but for at least some of them."""
    filled = int(np.flatnonzero(table.any(axis=1)).max(initial=-1)) + 1
    return [(red, green, blue) for red, green, blue in table[: max(filled, least)].tolist()]


def _is_voc(colors: Sequence[Color]) -> bool:
    """Tell whether a table is the one of Pascal VOC, or its beginning: bits of the number dealt out to red, green and blue."""
    return all(color == _voc_color(number) for number, color in enumerate(colors))


def _voc_color(number: int) -> Color:
    parts = [sum((number >> (3 * bit + part) & 1) << (7 - bit) for bit in range(3)) for part in range(3)]
    return parts[0], parts[1], parts[2]


def _ranges(values: list[int]) -> str:
    """Write 0, 1, 2, 255 as `0..2, 255`."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(first) if first == last else f"{first}..{last}" for first, last in runs)
