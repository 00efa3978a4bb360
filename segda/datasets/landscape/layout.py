"""Land cover of a tile: what lies where, before anything has a color.

A layout is drawn in the order in which a landscape grows: parcels, woods and bare ground, water, roads over the water,
verges, houses along the roads. No outside source: the rules and ranges are this project's own, chosen to resemble
satellite tiles at 0.5 to 1 m per pixel.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from segda.datasets.landscape.buildings import FARMHOUSES, HALLS, SLABS, TERRACES, HouseKind, build
from segda.datasets.landscape.geometry import (
    Building,
    Cover,
    Domain,
    Frame,
    Layout,
    Mask,
    covered,
    grow,
    smooth_noise,
)
from segda.datasets.landscape.roads import Course, city_roads, country_roads, river_mask, road_mask


@dataclass(frozen=True)
class _Quarter:
    """Use of a city block: how often, its ground, its houses, the share of its ground under trees."""

    probability: float
    cover: Cover
    sealed: bool
    houses: HouseKind | None
    trees: float


_QUARTERS = (
    _Quarter(0.26, Cover.BACKGROUND, False, SLABS, 0.20),
    _Quarter(0.20, Cover.BACKGROUND, True, HALLS, 0.04),
    _Quarter(0.26, Cover.BACKGROUND, True, TERRACES, 0.09),
    _Quarter(0.07, Cover.BACKGROUND, False, None, 0.40),
    _Quarter(0.07, Cover.BARREN, False, None, 0.005),
    _Quarter(0.06, Cover.FOREST, False, None, 0.005),
    _Quarter(0.08, Cover.AGRICULTURE, False, None, 0.01),
)
_PARK = 3

# Use of a field in the country and how often.
_FIELDS = (
    (0.73, Cover.AGRICULTURE),
    (0.11, Cover.BACKGROUND),
    (0.06, Cover.FOREST),
    (0.05, Cover.BARREN),
    (0.05, Cover.WATER),
)


def lay_out(domain: Domain, rng: np.random.Generator, *, size: int, gsd_m: float) -> Layout:
    """Draw the land cover of one tile.

    Args:
        domain: "urban": street grid, dense and large buildings; "rural": fields, woods, a road and few farms.
        rng: source of randomness; its state decides everything.
        size: height and width in pixels.
        gsd_m: ground sampling distance, meters per pixel.

    Returns:
        The layout. Its road mask is one connected component, except where a strip without data cuts it.
    """
    frame = Frame(size, gsd_m, float(rng.uniform(-np.pi / 4, np.pi / 4)), rng)
    return _city(frame) if domain == "urban" else _country(frame)


def _city(frame: Frame) -> Layout:
    size, rng = frame.size, frame.rng
    roads = city_roads(frame)
    road = road_mask(size, roads)
    count, block = cv2.connectedComponents((~road).astype(np.uint8), connectivity=4)
    quarter = _pick(rng, count, [quarter.probability for quarter in _QUARTERS])[block]
    label = np.array([quarter.cover for quarter in _QUARTERS], np.uint8)[quarter]
    sealed = np.array([quarter.sealed for quarter in _QUARTERS])[quarter]

    bare = smooth_noise(rng, size, frame.px(26), octaves=3)
    label[(bare > 1.9) & (label == Cover.BACKGROUND) & ~sealed] = Cover.BARREN
    label[(bare < -1.7) & (label == Cover.BARREN)] = Cover.BACKGROUND
    water = ((quarter == _PARK) | (label == Cover.FOREST)) & (smooth_noise(rng, size, frame.px(30), octaves=2) > 1.0)
    if rng.random() < 0.28:
        water |= river_mask(frame, Course(frame.uniform_px(-50, 50), False), width_m=(18, 36), sway_m=(1, 6))
    bank = grow(water, frame.px(4))
    label[bank] = Cover.BACKGROUND
    sealed &= ~bank
    buildable = label == Cover.BACKGROUND

    # Clumps of trees: a normal field above the quantile that leaves the wanted share.
    threshold = ndtri(1 - np.array([quarter.trees for quarter in _QUARTERS])).astype(np.float32)[quarter]
    trees = (2 * smooth_noise(rng, size, frame.px(7), octaves=2) + smooth_noise(rng, size, frame.px(45))) / np.sqrt(5)
    label[(trees > threshold) & ~(sealed & grow(road, frame.px(1.5)))] = Cover.FOREST
    label[water] = Cover.WATER
    label[road] = Cover.ROAD

    free = buildable & ~grow(road | water, frame.px(2))
    grounds = [(use.houses, free & (quarter == number)) for number, use in enumerate(_QUARTERS) if use.houses]
    houses = build(frame, roads, grounds, density=0.95)
    layout = Layout(label, sealed, block.astype(np.int32), frame.angle, frame.gsd_m, tuple(roads))
    return _finish(layout, frame, road, houses)


def _country(frame: Frame) -> Layout:
    size, rng = frame.size, frame.rng
    river = Course(frame.uniform_px(-90, 90), bool(rng.random() < 0.6)) if rng.random() < 0.4 else None
    roads = country_roads(frame, river)
    road = road_mask(size, roads)
    parcel = _parcels(frame)
    use = _pick(rng, int(parcel.max()) + 1, [probability for probability, _ in _FIELDS])
    label = np.array([cover for _, cover in _FIELDS], np.uint8)[use][parcel]
    edge = np.zeros((size, size), np.bool_)
    edge[1:] |= parcel[1:] != parcel[:-1]
    edge[:, 1:] |= parcel[:, 1:] != parcel[:, :-1]
    hedge = smooth_noise(rng, size, frame.px(35))
    label[grow(edge, frame.px(1))] = Cover.BACKGROUND
    label[grow(edge, frame.px(3.5)) & (hedge > 1.1)] = Cover.FOREST

    wild = smooth_noise(rng, size, frame.px(float(rng.uniform(50, 90))), octaves=4)
    label[wild > rng.uniform(0.7, 1.3)] = Cover.FOREST
    bare = smooth_noise(rng, size, frame.px(36), octaves=3)
    label[bare > 1.7] = Cover.BARREN

    # Roads go around ponds and lakes, and cross rivers.
    lakes = label == Cover.WATER
    if rng.random() < 0.35:
        lakes |= smooth_noise(rng, size, frame.px(65), octaves=3) > 1.4
    water = lakes & ~grow(road, frame.px(8))
    label[lakes] = Cover.BACKGROUND
    if river is not None:
        water |= river_mask(frame, river, width_m=(10, 34), sway_m=(6, 18))
    label[grow(water, frame.px(3)) & (label != Cover.FOREST)] = Cover.BACKGROUND
    label[grow(road, frame.px(2.5))] = Cover.BACKGROUND
    label[water] = Cover.WATER
    label[road] = Cover.ROAD

    settled = _settlements(frame, roads[0].points) & ~road & ~water
    grove = smooth_noise(rng, size, frame.px(10), octaves=2)
    label[settled & (label != Cover.FOREST)] = Cover.BACKGROUND
    label[settled & (label == Cover.FOREST) & (grove < 0.3)] = Cover.BACKGROUND
    houses = build(frame, roads, [(FARMHOUSES, settled & ~grow(road | water, frame.px(1.5)))], density=0.85)
    layout = Layout(label, settled & (grove > -0.3), parcel, frame.angle, frame.gsd_m, tuple(roads))
    return _finish(layout, frame, road, houses)


def _settlements(frame: Frame, main: NDArray[np.float64]) -> Mask:
    """Choose the ground of a village along the main road in two thirds of the tiles, of single farms elsewhere.

    Their number follows the length of the road: on much less land than 250 m square many tiles have none.
    """
    size, rng = frame.size, frame.rng
    room = size * frame.gsd_m / 250
    inner = main[frame.inner(main)]
    village = bool(rng.random() < 0.65 * min(room, 1.0))
    axis = np.arange(size, dtype=np.float32)
    ragged = 1 + 0.25 * smooth_noise(rng, size, frame.px(25))
    ground = np.zeros((size, size), np.bool_)
    for _ in range((max(round(room), 1) if village else round(3 * room)) if len(inner) else 0):
        x, y = inner[int(rng.integers(len(inner)))].astype(np.float32)
        radius = frame.uniform_px(50, 80) if village else frame.uniform_px(22, 30)
        ground |= np.hypot(axis[None, :] - x, axis[:, None] - y) < radius * ragged
    return ground


def _parcels(frame: Frame) -> NDArray[np.int32]:
    """Divide the tile into numbered fields: cells around scattered points, or strips between parallel ways."""
    size, rng = frame.size, frame.rng
    if rng.random() < 0.35:
        cell = frame.uniform_px(45, 75)
        pad = int(2 * cell)
        side = int(np.ceil((size + 2 * pad) / cell))
        lattice = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1)
        seeds = (lattice + rng.uniform(0.05, 0.95, (side, side, 2))) * cell
        column, row = np.minimum(seeds.astype(np.int64), size + 2 * pad - 1).reshape(-1, 2).T
        canvas = np.ones((size + 2 * pad, size + 2 * pad), np.uint8)
        canvas[row, column] = 0
        # The nearest zero of each pixel: its Voronoi cell.
        _, nearest = cv2.distanceTransformWithLabels(canvas, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
        return np.asarray(nearest[pad : pad + size, pad : pad + size], np.int32)
    axis = np.arange(size, dtype=np.float32) - (size - 1) / 2
    u = axis[None, :] * frame.along[0] + axis[:, None] * frame.along[1]
    v = axis[None, :] * frame.across[0] + axis[:, None] * frame.across[1]
    v = v + frame.px(2.5) * smooth_noise(rng, size, frame.px(120))
    bands = frame.ladder(35, 80, first=frame.uniform_px(-20, 20))
    band = np.searchsorted(np.array(bands), v.ravel())
    # One sorted list for all bands: each has its own stretch of the number line.
    stretch = 4 * frame.reach + frame.px(500)
    low, high = (18, 45) if rng.random() < 0.5 else (35, 95)
    edges = [
        number * stretch + offset
        for number in range(len(bands) + 1)
        for offset in frame.ladder(low, high, first=frame.uniform_px(-20, 20))
    ]
    parcel = np.searchsorted(np.array(edges), u.ravel() + band * stretch)
    return np.asarray(parcel.reshape(size, size), np.int32)


def _pick(rng: np.random.Generator, count: int, probabilities: list[float]) -> NDArray[np.int64]:
    return np.asarray(rng.choice(len(probabilities), count, p=probabilities), np.int64)


def _finish(layout: Layout, frame: Frame, road: Mask, houses: list[Building]) -> Layout:
    """Put houses into the label and cut a strip without data off some tiles."""
    label, size, rng = layout.label, frame.size, frame.rng
    for house in houses:
        for wing in house.wings:
            place = covered(wing, size)
            if place is not None:
                window, inside = place
                label[window][inside & ~road[window]] = Cover.BUILDING
    if rng.random() < 0.08:
        slope, width = rng.uniform(-0.06, 0.06), rng.uniform(0.03, 0.1) * size
        ramp = np.arange(size)[:, None] + slope * np.arange(size)[None, :]
        label[np.rot90(ramp - ramp.min() < width, int(rng.integers(4)))] = Cover.NO_DATA
    return replace(layout, buildings=tuple(houses))
