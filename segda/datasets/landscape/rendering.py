"""Appearance of a landscape: textures, shadows, light, air and sensor, in this order."""

import cv2
import numpy as np
from numpy.typing import NDArray

from segda.datasets.landscape.geometry import SHIFT, Building, Cover, Domain, Field, Layout, Points, fixed, smooth_noise
from segda.datasets.landscape.looks import LOOKS, Color, Look

Image = NDArray[np.float32]


def _choose(rng: np.random.Generator, colors: tuple[Color, ...], count: int, spread: float) -> Image:
    """Draw `count` colors: one of the given each, brightness and hue varied by `spread` grey levels."""
    chosen = np.array(colors, np.float32)[rng.integers(len(colors), size=count)]
    brightness = rng.normal(0, spread, (count, 1))
    hue = rng.normal(0, spread / 4, (count, 3))
    return np.asarray(chosen + brightness + hue, np.float32)


def _shade(noise: Field, sun: Points) -> Field:
    """Light a height field from the side: its slope towards the sun, standard deviation 1."""
    right, down = cv2.Sobel(noise, cv2.CV_32F, 1, 0), cv2.Sobel(noise, cv2.CV_32F, 0, 1)
    slope = right * np.float32(sun[0]) + down * np.float32(sun[1])
    return np.asarray(slope / max(float(slope.std()), 1e-6), np.float32)


def _ground(layout: Layout, look: Look, rng: np.random.Generator, sun: Points) -> Image:
    """Color everything that is flat: all classes without houses."""
    label, size, gsd = layout.label, layout.label.shape[0], layout.gsd_m
    grain = rng.standard_normal((size, size), dtype=np.float32)
    fine = smooth_noise(rng, size, 2.2)
    clumps = smooth_noise(rng, size, 5 / gsd, octaves=2)
    coarse = smooth_noise(rng, size, 30 / gsd, octaves=2)
    parcels = int(layout.parcel.max()) + 1

    # Background: meadow with tufts, or a paved yard that looks much like the road beside it.
    image = _choose(rng, look.meadow, parcels, 6)[layout.parcel]
    image += (5 * clumps + 4 * fine + 5 * coarse)[..., None] * np.array([1, 0.9, 0.7], np.float32)
    yard = _choose(rng, look.yard, parcels, 6)[layout.parcel] + (3 * fine + 3 * coarse)[..., None]
    np.copyto(image, yard, where=(layout.sealed & (label == Cover.BACKGROUND))[..., None])

    # Fields: rows at the field's own direction and distance, some fields without visible rows.
    crops = _choose(rng, look.crops, parcels, 7)
    turn = layout.angle + np.where(rng.random(parcels) < 0.5, 0.0, np.pi / 2) + rng.normal(0, 0.06, parcels)
    period = np.maximum(rng.uniform(2.0, 5.0, parcels) / gsd, 2.6)
    depth = np.where(rng.random(parcels) < 0.8, rng.uniform(5, 14, parcels), 1.5).astype(np.float32)
    wave = 2 * np.pi * np.stack([np.cos(turn), np.sin(turn)]) / period
    wave_x, wave_y = wave.astype(np.float32)[:, layout.parcel]
    axis = np.arange(size, dtype=np.float32)
    rows = np.sin(wave_x * axis[None, :] + wave_y * axis[:, None] + 0.5 * coarse)
    field = crops[layout.parcel] + (rows * depth[layout.parcel] + 3 * fine + 4 * coarse + 2 * clumps)[..., None]
    np.copyto(image, field, where=(label == Cover.AGRICULTURE)[..., None])

    soil = _choose(rng, look.barren, 1, 6)[0] + (8 * coarse + 5 * clumps + 3 * grain)[..., None]
    soil += (3 * _shade(coarse + 0.4 * clumps, sun))[..., None]
    np.copyto(image, soil, where=(label == Cover.BARREN)[..., None])

    ripples = np.sin(axis[:, None] * 0.9 + axis[None, :] * 0.35 + 2 * clumps)
    water = _choose(rng, look.water, 1, 5)[0] + (4 * coarse + 0.8 * ripples + 0.8 * grain)[..., None]
    np.copyto(image, water, where=(label == Cover.WATER)[..., None])

    # Crowns: bumps of a few meters, lit from the side of the sun, dark between them.
    crowns = smooth_noise(rng, size, max(3.2 / gsd, 2.0)) + 0.5 * smooth_noise(rng, size, max(1.8 / gsd, 1.5))
    tone = 10 * _shade(crowns, sun) + 8 * np.minimum(crowns, 0.5) + 4 * coarse + 2 * grain
    canopy = _choose(rng, look.canopy, parcels, 4)[layout.parcel]
    canopy += tone[..., None] * np.array([0.9, 1.0, 0.7], np.float32)
    np.copyto(image, canopy, where=(label == Cover.FOREST)[..., None])
    return np.asarray(image, np.float32)


def _fill(image: Image, corners: Points, color: NDArray[np.floating]) -> None:
    cv2.fillConvexPoly(image, fixed(corners), color.tolist(), cv2.LINE_8, SHIFT)


def _line(image: Image, points: Points, color: NDArray[np.floating], width: int) -> None:
    cv2.polylines(image, [fixed(points)], False, color.tolist(), width, cv2.LINE_8, SHIFT)


def _pave(image: Image, layout: Layout, look: Look, rng: np.random.Generator) -> None:
    """Color the roads in place: surface, ruts, markings, cars."""
    size, gsd = layout.label.shape[0], layout.gsd_m
    surface = np.zeros_like(image)
    # Paved roads on top; one pixel wider than in the label on each side, so that every road pixel gets a color.
    for road in sorted(layout.roads, key=lambda road: road.paved):
        _line(surface, road.points, _choose(rng, look.asphalt if road.paved else look.track, 1, 4)[0], road.width + 2)
    for road in layout.roads:
        if not road.paved:
            _line(surface, road.points, _choose(rng, look.meadow, 1, 4)[0], 1)
        if road.marked:
            # Two segments of about two meters are painted, three are not.
            for start in range(0, len(road.points) - 2, 5):
                _line(surface, road.points[start : start + 3], np.array((205.0, 205.0, 200.0)), 1)
        busy = 0.035 if road.width * gsd > 6.5 else 0.01
        for spot in np.flatnonzero(rng.random(len(road.points) - 1) < busy):
            ahead = road.points[spot + 1] - road.points[spot]
            ahead = ahead / max(float(np.hypot(ahead[0], ahead[1])), 1e-9)
            aside = np.array([-ahead[1], ahead[0]]) * (1 if rng.random() < 0.5 else -1)
            center = road.points[spot] + aside * road.width * rng.uniform(0.18, 0.36)
            corners = np.outer((-2.2, 2.2, 2.2, -2.2), ahead) + np.outer((-0.9, -0.9, 0.9, 0.9), aside)
            _fill(surface, center + corners / gsd, rng.choice((40, 90, 170, 225)) + rng.normal(0, 12, 3))
    surface += (2.5 * smooth_noise(rng, size, 2.0) + 3 * smooth_noise(rng, size, 20 / gsd))[..., None]
    np.copyto(image, surface, where=(layout.label == Cover.ROAD)[..., None])


def _roof(image: Image, house: Building, look: Look, rng: np.random.Generator, sun: Points) -> None:
    """Draw one roof in place: two halves of which the sun lights one, or a flat roof with things standing on it."""
    color = _choose(rng, look.roofs, 1, 9)[0]
    for wing in house.wings:
        along, away = wing[1] - wing[0], wing[3] - wing[0]
        if house.gabled:
            lit = 0.16 * float(-away @ sun) / max(float(np.hypot(away[0], away[1])), 1e-9)
            _fill(image, wing, color * (1 - lit))
            _fill(image, np.stack([wing[0], wing[1], wing[1] + away / 2, wing[0] + away / 2]), color * (1 + lit))
            continue
        _fill(image, wing, color)
        _line(image, wing[[0, 1, 2, 3, 0]], color * 1.12, 1)
        for _ in range(int(rng.integers(4))):
            spot = wing[0] + rng.uniform(0.1, 0.75) * along + rng.uniform(0.1, 0.75) * away
            box = np.stack([spot, spot + 0.13 * along, spot + 0.13 * along + 0.2 * away, spot + 0.2 * away])
            _fill(image, box, color * rng.choice((0.7, 1.18)))


def _shadows(layout: Layout, fall: Points) -> Field:
    """Cast the shadows of houses and of the edges of woods.

    Args:
        layout: the land.
        fall: where the shadow of a thing of one meter ends, (x, y) in pixels.

    Returns:
        Share of direct light that is lost, float32 [H, W] in [0, 1].
    """
    label, size = layout.label, layout.label.shape[0]
    mask = np.zeros((size, size), np.uint8)
    for house in layout.buildings:
        for wing in house.wings:
            both = np.concatenate([wing, wing + fall * house.height_m]).astype(np.float32)
            cv2.fillConvexPoly(mask, fixed(cv2.convexHull(both)), 1, cv2.LINE_8, SHIFT)
    mask[label == Cover.BUILDING] = 0
    wood = (label == Cover.FOREST).astype(np.uint8)
    for height in (2.0, 4.0, 6.0):
        move = np.array([[1, 0, fall[0] * height], [0, 1, fall[1] * height]])
        moved = cv2.warpAffine(wood, move, (size, size), flags=cv2.INTER_NEAREST)
        mask |= moved & (wood == 0) & (label != Cover.BUILDING)
    return np.asarray(cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.7), np.float32)


def render(layout: Layout, domain: Domain, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Take the picture of a layout.

    Args:
        layout: the land.
        domain: whose season, light, air and sensor to use.
        rng: source of randomness; its state decides everything.

    Returns:
        RGB image, uint8 [H, W, 3]; 0 in all channels exactly where the layout has no data, at least 1 elsewhere.
    """
    look, size = LOOKS[domain], layout.label.shape[0]
    azimuth = np.deg2rad(rng.uniform(*look.sun_azimuth))
    elevation = np.deg2rad(rng.uniform(*look.sun_elevation))
    direction = np.array([np.cos(azimuth), np.sin(azimuth)])
    fall = direction / np.tan(elevation) / layout.gsd_m

    image = _ground(layout, look, rng, -direction)
    _pave(image, layout, look, rng)
    roofs = image.copy()
    for house in layout.buildings:
        _roof(roofs, house, look, rng, -direction)
    roofs += (2.0 * smooth_noise(rng, size, 2.0))[..., None]
    np.copyto(image, roofs, where=(layout.label == Cover.BUILDING)[..., None])

    # In the shade only the blue light of the sky is left.
    image *= 1 - _shadows(layout, fall)[..., None] * np.array([0.6, 0.56, 0.48], np.float32)
    # Uneven light: a ramp across the tile and thin clouds.
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    tilt = rng.uniform(-0.07, 0.07, 2)
    light = 1 + tilt[0] * axis[None, :] + tilt[1] * axis[:, None] + 0.03 * smooth_noise(rng, size, 0.6 * size)
    image *= (light * rng.uniform(0.93, 1.07)).astype(np.float32)[..., None]
    haze = rng.uniform(*look.haze) * (1 + 0.25 * smooth_noise(rng, size, 0.7 * size))
    haze = np.clip(haze, 0, 0.6).astype(np.float32)[..., None]
    image = image * (1 - haze) + np.array(look.air, np.float32) * haze

    image *= np.array(look.gain, np.float32) * rng.uniform(0.98, 1.02, 3).astype(np.float32)
    if look.gamma != 1:
        image = 255 * np.power(np.clip(image / 255, 0, 1), np.float32(look.gamma))
    image = cv2.GaussianBlur(image, (0, 0), look.blur_px)
    # Photon noise grows with the square root of the signal; 110 is a middle grey.
    deviation = look.noise * np.sqrt(np.clip(image, 1, 255) / 110)
    image += deviation * rng.standard_normal(image.shape, dtype=np.float32)
    picture: NDArray[np.uint8] = np.clip(np.rint(image), 1, 255).astype(np.uint8)
    picture[layout.label == Cover.NO_DATA] = 0
    return picture
