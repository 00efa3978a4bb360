"""What a landscape is made of, and the axes and random fields that it is drawn with.

Lengths are given in meters and turned into pixels by the ground sampling distance, so a larger tile shows more land and
not larger things. Points are (x, y) in pixels from the center of the upper left pixel.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Domain = Literal["urban", "rural"]
Points = NDArray[np.float64]
Mask = NDArray[np.bool_]
Field = NDArray[np.float32]

# Drawing takes fixed-point coordinates with this many fractional bits.
SHIFT = 4


class Cover(IntEnum):
    """Raw ids of the masks: LoveDA's classes, 0 is no data."""

    NO_DATA = 0
    BACKGROUND = 1
    BUILDING = 2
    ROAD = 3
    WATER = 4
    BARREN = 5
    FOREST = 6
    AGRICULTURE = 7


@dataclass(frozen=True)
class Road:
    """A road.

    Attributes:
        points: center line, float64 [P, 2] in pixels, about one point per two meters.
        width: in pixels.
        paved: asphalt or concrete; otherwise a dirt track.
        marked: has lane markings.
    """

    points: Points
    width: int
    paved: bool
    marked: bool


@dataclass(frozen=True)
class Building:
    """A house of one or two wings.

    Attributes:
        wings: rectangles, float64 [4, 2] each in pixels; corners 0-1 and 2-3 are the sides along the road.
        height_m: above the ground.
        gabled: two roof halves along the road; otherwise a flat roof.
    """

    wings: tuple[Points, ...]
    height_m: float
    gabled: bool


@dataclass(frozen=True)
class Layout:
    """One tile of land.

    Attributes:
        label: ids of `Cover`, uint8 [H, W].
        sealed: paved ground (yards, car parks), bool [H, W]; matters where the label is background.
        parcel: number of the field or city block that a pixel belongs to, int32 [H, W].
        angle: orientation of streets and parcels in radians.
        gsd_m: ground sampling distance, meters per pixel.
        roads: what the road mask was drawn from; stubs that do not join the network are not in the label.
        buildings: what the building mask was drawn from.
    """

    label: NDArray[np.uint8]
    sealed: Mask
    parcel: NDArray[np.int32]
    angle: float
    gsd_m: float
    roads: tuple[Road, ...] = ()
    buildings: tuple[Building, ...] = ()


@dataclass
class Frame:
    """The tile's own axes, `along` and `across` its main direction, with the origin at the center of the tile.

    Attributes:
        size: height and width in pixels.
        gsd_m: meters per pixel.
        angle: of the first axis to +x, in radians.
        rng: source of randomness of everything that is laid out.
        origin: center of the tile, float64 [2] in pixels.
        along: unit vector of the first axis.
        across: unit vector of the second axis.
    """

    size: int
    gsd_m: float
    angle: float
    rng: np.random.Generator
    origin: Points = field(init=False)
    along: Points = field(init=False)
    across: Points = field(init=False)

    def __post_init__(self) -> None:
        self.origin = np.full(2, (self.size - 1) / 2)
        self.along = np.array([np.cos(self.angle), np.sin(self.angle)])
        self.across = np.array([-np.sin(self.angle), np.cos(self.angle)])

    @property
    def reach(self) -> float:
        """Half the diagonal of the tile with a margin, in pixels."""
        return 0.72 * self.size + 4

    def px(self, meters: float) -> float:
        """Turn meters into pixels."""
        return meters / self.gsd_m

    def uniform_px(self, low_m: float, high_m: float) -> float:
        """Draw a length between two numbers of meters, in pixels."""
        return float(self.rng.uniform(low_m, high_m)) / self.gsd_m

    def inner(self, points: Points) -> Mask:
        """Return which points lie well inside the tile, bool [P]."""
        return np.asarray((np.abs(points - self.origin) < 0.45 * self.size).all(axis=1))

    def curve(
        self,
        offset: float,
        *,
        transverse: bool = False,
        start: float | None = None,
        end: float | None = None,
        sway_m: float = 0.0,
        wavelength_m: float = 200.0,
    ) -> Points:
        """Lay a gently swaying line parallel to one axis.

        Args:
            offset: distance from the center in pixels, along the other axis.
            transverse: along the second axis instead of the first.
            start: where it begins, in pixels along it; unset: outside of the tile.
            end: where it ends.
            sway_m: amplitude of its sway in meters.
            wavelength_m: length of one sway in meters.

        Returns:
            Points, float64 [P, 2] in pixels, P >= 2.
        """
        first = -self.reach if start is None else start
        last = self.reach if end is None else end
        t = np.linspace(first, last, max(int(abs(last - first) * self.gsd_m / 2), 2))
        k = 2 * np.pi / self.px(wavelength_m)
        phase = self.rng.uniform(0, 2 * np.pi, 2)
        side = offset + self.px(sway_m) * (np.sin(k * t + phase[0]) + 0.4 * np.sin(2.3 * k * t + phase[1]))
        main, other = (self.across, self.along) if transverse else (self.along, self.across)
        return np.asarray(self.origin + t[:, None] * main + side[:, None] * other)

    def ladder(self, low_m: float, high_m: float, *, first: float) -> list[float]:
        """Return rising offsets in pixels across the whole tile, in random steps of meters, `first` among them."""
        offsets = [first]
        while offsets[-1] < self.reach:
            offsets.append(offsets[-1] + self.uniform_px(low_m, high_m))
        while offsets[0] > -self.reach:
            offsets.insert(0, offsets[0] - self.uniform_px(low_m, high_m))
        return offsets


def smooth_noise(rng: np.random.Generator, size: int, scale: float, *, octaves: int = 1) -> Field:
    """Draw a smooth random field: normal numbers on a grid, interpolated by cubic B-splines.

    Args:
        rng: source of randomness.
        size: height and width in pixels.
        scale: distance of the grid points in pixels; below 1 it counts as 1.
        octaves: how many fields of halved scale and halved amplitude are summed.

    Returns:
        Float32 [size, size], normally distributed with mean 0 and standard deviation 1.
    """
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        step = max(scale / 2**octave, 1.0)
        corner = rng.random(2)
        grid = rng.standard_normal((int(size / step) + 5,) * 2, dtype=np.float32)
        row, row_weights = _spline(size, step, corner[0])
        column, column_weights = _spline(size, step, corner[1])
        rows = sum(grid[row + tap] * row_weights[tap, :, None] for tap in range(4))
        total += np.float32(0.5**octave) * sum(
            np.take(rows, column + tap, axis=1) * column_weights[tap] for tap in range(4)
        )
    # The squares of the four weights sum to 151/315 on average over a cell, in each of the two directions.
    deviation = 151 / 315 * np.sqrt(sum(0.25**octave for octave in range(octaves)))
    return total / np.float32(deviation)


def _spline(size: int, step: float, corner: float) -> tuple[NDArray[np.int64], Field]:
    """Return the first of four grid points of each pixel, int64 [size], and their weights, float32 [4, size]."""
    position = corner + np.arange(size) / step
    first = position.astype(np.int64)
    t = position - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    return first, weights.astype(np.float32)


def fixed(points: Points) -> NDArray[np.int32]:
    """Turn points into the fixed-point numbers that OpenCV draws with; pass `shift=SHIFT` along."""
    return np.round(points * (1 << SHIFT)).astype(np.int32)


def grow(mask: Mask, pixels: float) -> Mask:
    """Widen a mask by a number of pixels, at least one."""
    radius = max(round(pixels), 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel).astype(np.bool_))


def covered(corners: Points, size: int) -> tuple[tuple[slice, slice], Mask] | None:
    """Rasterize a convex polygon.

    Args:
        corners: float64 [P, 2] in pixels.
        size: height and width of the tile in pixels.

    Returns:
        The polygon's window in the tile and, in this window, which pixels it covers; None if it lies outside.
    """
    left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, size)
    if right <= left or bottom <= top:
        return None
    patch = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillConvexPoly(patch, fixed(corners - (left, top)), 1, shift=SHIFT)
    return (slice(top, bottom), slice(left, right)), patch.astype(np.bool_)
