"""Streets, country roads and the rivers that they cross."""

from dataclasses import dataclass

import cv2
import numpy as np

from segda.datasets.landscape.geometry import SHIFT, Frame, Mask, Points, Road, fixed


@dataclass(frozen=True)
class Course:
    """Where a river runs: parallel to one axis of the tile.

    Attributes:
        offset: distance from the center in pixels, along the other axis.
        transverse: along the second axis instead of the first.
    """

    offset: float
    transverse: bool


def city_roads(frame: Frame) -> list[Road]:
    """Lay a street grid with some streets that end at a crossing one, and sometimes a diagonal avenue."""
    rng, roads = frame.rng, []
    rows = frame.ladder(56, 92, first=frame.uniform_px(-25, 25))
    columns = frame.ladder(66, 115, first=frame.uniform_px(-25, 25))
    sway = float(rng.uniform(0, 2.5))
    spine = min(columns, key=abs)
    for offset in rows:
        avenue = bool(rng.random() < 0.3)
        width = round(frame.uniform_px(12, 15) if avenue else frame.uniform_px(6.5, 9))
        roads.append(Road(frame.curve(offset, sway_m=sway), max(width, 2), True, avenue))
    for offset in columns:
        start: float | None = None
        end: float | None = None
        # The street nearest to the center runs through and ties all rows together.
        if offset != spine and rng.random() < 0.4:
            start, end = sorted(rng.choice(rows, 2, replace=False))
        avenue = bool(offset == spine and rng.random() < 0.5)
        width = round(frame.uniform_px(12, 15) if avenue else frame.uniform_px(6, 9))
        points = frame.curve(offset, transverse=True, start=start, end=end, sway_m=sway)
        roads.append(Road(points, max(width, 2), True, avenue))
    if rng.random() < 0.2:
        tilted = Frame(frame.size, frame.gsd_m, frame.angle + float(rng.uniform(0.5, 1.0)), rng)
        points = tilted.curve(tilted.uniform_px(-20, 20), sway_m=sway)
        roads.append(Road(points, round(frame.uniform_px(11, 14)), True, True))
    return roads


def country_roads(frame: Frame, river: Course | None) -> list[Road]:
    """Lay one road through the tile and lanes that leave it; they may cross the river and do not run in it."""
    rng = frame.rng
    limit = 0.25 * frame.size
    offset = float(rng.uniform(-limit, limit))
    if river is not None and not river.transverse:
        offset = river.offset + frame.uniform_px(50, 90) * (-1 if river.offset > 0 else 1)
    main = frame.curve(offset, sway_m=float(rng.uniform(3, 12)), wavelength_m=float(rng.uniform(150, 320)))
    roads = [Road(main, max(round(frame.uniform_px(6, 8.5)), 3), True, bool(rng.random() < 0.3))]
    spots = main - frame.origin
    allowed = frame.inner(main)
    if river is not None and river.transverse:
        allowed &= np.abs(spots @ frame.along - river.offset) > frame.px(50)
    for _ in range(2 + int(rng.integers(2)) + int(frame.size * frame.gsd_m / 350)):
        if not allowed.any():
            break
        spot = int(rng.choice(np.flatnonzero(allowed)))
        allowed &= np.abs((spots - spots[spot]) @ frame.along) > frame.px(32)
        start = float(spots[spot] @ frame.across)
        length = frame.reach if rng.random() < 0.65 else frame.uniform_px(45, 110)
        end = start + length * (1 if rng.random() < 0.5 else -1)
        sway = float(rng.uniform(1, 6))
        lane = frame.curve(0.0, transverse=True, start=start, end=end, sway_m=sway, wavelength_m=180)
        # The sway is not zero at the start: move the lane so that it begins on the center line of the main road.
        lane += main[spot] - lane[0]
        roads.append(Road(lane, max(round(frame.uniform_px(3.5, 5)), 2), bool(rng.random() < 0.4), False))
    return roads


def road_mask(size: int, roads: list[Road]) -> Mask:
    """Draw roads and keep the network that hangs together: a stub that only cuts a corner of the tile is dropped.

    Args:
        size: height and width in pixels.
        roads: what to draw.

    Returns:
        Bool [H, W]; one component of 4-connected pixels.
    """
    mask = np.zeros((size, size), np.uint8)
    for road in roads:
        _stroke(mask, road.points, road.width)
    count, component, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    if count <= 1:
        return mask.astype(np.bool_)
    return np.asarray(component == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])))


def river_mask(frame: Frame, course: Course, *, width_m: tuple[float, float], sway_m: tuple[float, float]) -> Mask:
    """Draw a river along a smooth curve.

    Args:
        frame: axes and randomness of the tile.
        course: where it runs.
        width_m: range of its width in meters.
        sway_m: range of the amplitude of its bends in meters.

    Returns:
        Bool [H, W].
    """
    sway, wavelength = float(frame.rng.uniform(*sway_m)), float(frame.rng.uniform(160, 300))
    mask = np.zeros((frame.size, frame.size), np.uint8)
    points = frame.curve(course.offset, transverse=course.transverse, sway_m=sway, wavelength_m=wavelength)
    _stroke(mask, points, round(frame.uniform_px(*width_m)))
    return mask.astype(np.bool_)


def _stroke(mask: np.ndarray[tuple[int, int], np.dtype[np.uint8]], points: Points, width: int) -> None:
    cv2.polylines(mask, [fixed(points)], False, 1, thickness=max(width, 1), lineType=cv2.LINE_8, shift=SHIFT)
