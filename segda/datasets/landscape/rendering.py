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
    slope = cv2.Sobel(noise, cv2.CV_32F, 1, 0) * np.float32(sun[0]) + cv2.Sobel(noise, cv2.CV_32F, 0, 1) * np.float32(
        sun[1]
    )
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
    canopy = _choose(rng, look.canopy, parcels, 4)[layout.parcel] + tone[..., None] * np.array(
        [0.9, 1.0, 0.7], np.float32
    )
    np.copyto(image, canopy, where=(label == Cover.FOREST)[..., None])
    return np.asarray(image, np.float32)


def _pave(image: Image, layout: Layout, look: Look, rng: np.random.Generator) -> None:
    """Color the roads in place: surface, markings, cars."""
    size, gsd = layout.label.shape[0], layout.gsd_m
    surface = np.zeros_like(image)
    for paved in (False, True):
        for road in layout.roads:
            if road.paved == paved:
                color = _choose(rng, look.asphalt if paved else look.track, 1, 4)[0]
                points = fixed(road.points)
                # One pixel wider than the label: every road pixel gets a color.
                cv2.polylines(surface, [points], False, color.tolist(), road.width + 2, cv2.LINE_8, 4)
    for road in layout.roads:
        worn = fixed(road.points)
        if not road.paved:
            # Grass between the wheel ruts of a track.
            cv2.polylines(surface, [worn], False, _choose(rng, look.meadow, 1, 4)[0].tolist(), 1, cv2.LINE_8, 4)
        if road.marked:
            dash = max(round(4 / 2), 1)
            for start in range(0, len(worn) - dash, 2 * dash + 1):
                cv2.polylines(surface, [worn[start : start + dash + 1]], False, (205, 205, 200), 1, cv2.LINE_AA, 4)
        for spot in np.flatnonzero(rng.random(len(road.points) - 1) < (0.035 if road.width * gsd > 6.5 else 0.01)):
            tangent = road.points[spot + 1] - road.points[spot]
            tangent = tangent / max(float(np.hypot(*tangent)), 1e-9)
            normal = np.array([-tangent[1], tangent[0]]) * (1 if rng.random() < 0.5 else -1)
            center = road.points[spot] + normal * road.width * rng.uniform(0.18, 0.36)
            half = np.outer((-1, 1, 1, -1), tangent) * 2.2 / gsd + np.outer((-1, -1, 1, 1), normal) * 0.9 / gsd
            paint = float(rng.choice((40, 90, 170, 225))) + rng.normal(0, 12, 3)
            cv2.fillConvexPoly(surface, fixed((center + half)), paint.tolist(), cv2.LINE_AA, 4)
    surface += (2.5 * smooth_noise(rng, size, 2.5) + 3 * smooth_noise(rng, size, 25 / gsd))[..., None]
    np.copyto(image, surface, where=(layout.label == Cover.ROAD)[..., None])


def _roof(image: Image, house: Building, look: Look, rng: np.random.Generator, sun: Points) -> None:
    """Draw one roof in place: two lit halves, or a flat one with a parapet and things standing on it."""
    color = _choose(rng, look.roofs, 1, 9)[0]
    for wing in house.wings:
        corners = fixed(wing)
        cv2.fillConvexPoly(image, corners, color.tolist(), cv2.LINE_8, 4)
        if house.gabled:
            ridge = (wing[[1, 0]] + wing[[2, 3]]) / 2
            front = np.concatenate([wing[:2], ridge])
            outward = (wing[0] - wing[3]) / max(float(np.hypot(*(wing[0] - wing[3]))), 1e-9)
            lit = float(outward @ sun)
            cv2.fillConvexPoly(
                image, fixed(front), (color * (1 + 0.16 * lit)).tolist(), cv2.LINE_8, 4
            )
            back = np.concatenate([wing[[3, 2]], ridge])
            cv2.fillConvexPoly(
                image, fixed(back), (color * (1 - 0.16 * lit)).tolist(), cv2.LINE_8, 4
            )
            continue
        cv2.polylines(image, [corners], True, (color * 1.12).tolist(), 1, cv2.LINE_AA, 4)
        for _ in range(int(rng.integers(0, 4))):
            spot = (
                wing[0] + rng.uniform(0.15, 0.75) * (wing[1] - wing[0]) + rng.uniform(0.15, 0.75) * (wing[3] - wing[0])
            )
            part = np.stack(
                [
                    spot,
                    spot + 0.12 * (wing[1] - wing[0]),
                    spot + 0.12 * (wing[2] - wing[0]),
                    spot + 0.12 * (wing[3] - wing[0]),
                ]
            )
            cv2.fillConvexPoly(
                image,
                fixed(part),
                (color * float(rng.choice((0.7, 1.18)))).tolist(),
                cv2.LINE_8,
                4,
            )


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
            cv2.fillConvexPoly(mask, fixed(cv2.convexHull(both)), 1, cv2.LINE_8, 4)
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
    picture = np.clip(np.rint(image), 1, 255).astype(np.uint8)
    picture[layout.label == Cover.NO_DATA] = 0
    return picture
