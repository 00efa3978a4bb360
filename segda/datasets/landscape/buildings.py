"""Houses: rows along the roads, parallel to them and set back from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segda.datasets.landscape.geometry import Building, Frame, Mask, Points, Road, covered


@dataclass(frozen=True)
class HouseKind:
    """How the houses of a quarter look and stand.

    Attributes:
        frontage: range of the length along the road, meters.
        depth: range of the length away from the road, meters.
        height: range of the height, meters.
        setback: distance from the edge of the road, meters.
        gap: range of the distance between neighbors, meters.
        rows: how many rows stand behind each other.
        gabled: share of houses with a gabled roof.
        winged: share of houses with a second wing.
    """

    frontage: tuple[float, float]
    depth: tuple[float, float]
    height: tuple[float, float]
    setback: float
    gap: tuple[float, float]
    rows: int
    gabled: float
    winged: float


SLABS = HouseKind((22, 44), (11, 14), (12, 24), 4, (4, 8), 4, gabled=0.15, winged=0.1)
HALLS = HouseKind((18, 42), (16, 30), (7, 14), 4, (4, 8), 3, gabled=0.1, winged=0.3)
TERRACES = HouseKind((9, 16), (9, 14), (6, 10), 3, (1.5, 4), 5, gabled=0.5, winged=0.2)
FARMHOUSES = HouseKind((9, 16), (7, 11), (4, 7), 4, (3, 11), 2, gabled=0.8, winged=0.3)


@dataclass(frozen=True)
class _Verges:
    """Both sides of all roads laid end to end, arrays over their P segments.

    `position` has one entry more: where each segment begins and the last one ends, in pixels from the very beginning.
    """

    start: Points
    tangent: Points
    normal: Points
    half_width: NDArray[np.float64]
    number: NDArray[np.int64]
    position: NDArray[np.float64]


def _verges(roads: Sequence[Road]) -> _Verges:
    segments = [np.diff(road.points, axis=0) for road in roads]
    segment = np.concatenate(segments * 2)
    length = np.maximum(np.hypot(segment[:, 0], segment[:, 1]), 1e-9)
    tangent = segment / length[:, None]
    side = np.repeat([1.0, -1.0], len(segment) // 2)[:, None]
    counts = [len(part) for part in segments]
    return _Verges(
        start=np.concatenate([road.points[:-1] for road in roads] * 2),
        tangent=tangent,
        normal=side * np.stack([-tangent[:, 1], tangent[:, 0]], axis=1),
        half_width=np.repeat([road.width / 2 for road in roads] * 2, counts * 2),
        number=np.repeat(np.arange(2 * len(roads)), counts * 2),
        position=np.concatenate([[0.0], np.cumsum(length)]),
    )


@dataclass(frozen=True)
class _Sites:
    """Proposed houses, arrays of N: centers, directions along the road and away from it, lengths in both."""

    center: Points
    tangent: Points
    normal: Points
    extents: Points


def _sites(verges: _Verges, kind: HouseKind, frame: Frame, *, row: int) -> _Sites:
    """Walk along all roads in random steps and propose the houses of one row."""
    rng, total = frame.rng, float(verges.position[-1])
    count = int(total / frame.px(kind.frontage[0] + kind.gap[0])) + 1
    lengths = [rng.uniform(*kind.frontage, count), rng.uniform(*kind.depth, count), rng.uniform(*kind.gap, count)]
    frontage, depth, gap = np.array(lengths) / frame.gsd_m
    last = np.cumsum(frontage + gap)
    index = np.searchsorted(verges.position, np.stack([last - frontage, last - frontage / 2, last])) - 1
    index = np.minimum(index, len(verges.number) - 1)
    # A house belongs to one side of one road.
    whole = (last < total) & (verges.number[index[0]] == verges.number[index[2]])
    index, frontage, depth = index[1, whole], frontage[whole], depth[whole]
    behind = row * frame.px(kind.depth[1] + kind.gap[1])
    away = verges.half_width[index] + frame.px(kind.setback) + behind + depth / 2
    center = verges.start[index] + away[:, None] * verges.normal[index]
    return _Sites(center, verges.tangent[index], verges.normal[index], np.stack([frontage, depth], axis=1))


def _rectangle(center: Points, tangent: Points, normal: Points, extents: Points) -> Points:
    along, away = tangent * extents[0] / 2, normal * extents[1] / 2
    return np.stack([center - along - away, center + along - away, center + along + away, center - along + away])


def build(
    frame: Frame, roads: Sequence[Road], quarters: Sequence[tuple[HouseKind, Mask]], *, density: float
) -> list[Building]:
    """Set houses along the roads, first row first, wherever the ground is free.

    Args:
        frame: axes and randomness of the tile.
        roads: roads to build along.
        quarters: kinds of houses and the ground that each may stand on, bool [H, W]; they do not overlap.
        density: probability that a free site is used.

    Returns:
        The houses; no two of them touch.
    """
    verges = _verges(roads)
    houses: list[Building] = []
    for kind, ground in quarters:
        free = ground.copy()
        # The second round fills the holes that the first one left.
        for row in [*range(kind.rows), *range(kind.rows)]:
            if free.any():
                houses += _settle(frame, kind, _sites(verges, kind, frame, row=row), free, density)
    return houses


def _settle(frame: Frame, kind: HouseKind, sites: _Sites, free: Mask, density: float) -> list[Building]:
    """Build on the sites whose ground and yard are free, and take that ground out of `free`."""
    rng, size = frame.rng, frame.size
    spot = np.clip(np.rint(sites.center), 0, size - 1).astype(np.int64)
    inside = (np.abs(sites.center - spot) < 0.4 * sites.extents.min(axis=1)[:, None]).all(axis=1)
    houses = []
    for number in np.flatnonzero(inside & free[spot[:, 1], spot[:, 0]] & (rng.random(len(spot)) < density)):
        center, tangent, normal = sites.center[number], sites.tangent[number], sites.normal[number]
        extents = sites.extents[number]
        wings = [_rectangle(center, tangent, normal, extents)]
        if rng.random() < kind.winged:
            wing = extents * (0.4, 0.8)
            shift = tangent * (extents[0] - wing[0]) / 2 * (1 if rng.random() < 0.5 else -1)
            # The wing overlaps the house a little, so that no gap opens between them.
            wings.append(_rectangle(center + shift + normal * (extents[1] + wing[1]) / 2.1, tangent, normal, wing))
        yards = [covered(wing + (wing - wing.mean(axis=0)) * 0.08, size) for wing in wings]
        places = [place for place in yards if place is not None]
        if any((ground & ~free[window]).any() for window, ground in places):
            continue
        for window, ground in places:
            free[window] &= ~ground
        houses.append(Building(tuple(wings), float(rng.uniform(*kind.height)), bool(rng.random() < kind.gabled)))
    return houses
