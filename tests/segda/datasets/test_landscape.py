import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from segda.datasets.landscape.geometry import Building, Cover, Frame, Layout, Road, covered, smooth_noise
from segda.datasets.landscape.layout import lay_out
from segda.datasets.landscape.looks import LOOKS
from segda.datasets.landscape.rendering import render
from segda.datasets.landscape.roads import road_mask

GSD_M = {"urban": 0.6, "rural": 1.0}
DOMAINS = tuple(GSD_M)


def layouts(domain, *, count=6, size=192, seed=0):
    return [
        lay_out(domain, np.random.default_rng((seed, number)), size=size, gsd_m=GSD_M[domain])
        for number in range(count)
    ]


def plain(cover, *, size=96, gsd_m=0.5, **changes):
    label = np.full((size, size), cover, np.uint8)
    nothing = np.zeros((size, size), np.bool_)
    return dataclasses.replace(Layout(label, nothing, np.zeros((size, size), np.int32), 0.0, gsd_m), **changes)


@pytest.mark.parametrize(("scale", "octaves"), [(1.0, 1), (4.0, 1), (4.0, 3), (7.3, 2)])
def test_smooth_noise_is_standard_normal(scale, octaves):
    fields = [smooth_noise(np.random.default_rng(seed), 160, scale, octaves=octaves) for seed in range(4)]
    assert np.mean(fields) == pytest.approx(0, abs=0.06)
    assert np.std(fields) == pytest.approx(1, abs=0.06)


def test_smooth_noise_changes_over_its_scale():
    def correlation(scale, distance):
        field = smooth_noise(np.random.default_rng(0), 256, scale)
        return np.corrcoef(field[:, :-distance].ravel(), field[:, distance:].ravel())[0, 1]

    assert correlation(16, 2) > 0.9
    assert abs(correlation(16, 80)) < 0.3
    assert correlation(4, 8) < correlation(16, 8)


def test_a_curve_without_sway_is_a_straight_line_at_its_offset():
    frame = Frame(100, 0.5, 0.3, np.random.default_rng(0))
    relative = frame.curve(7.0, transverse=True, start=-20.0, end=30.0) - frame.origin
    np.testing.assert_allclose(relative @ frame.along, 7.0)
    np.testing.assert_allclose((relative @ frame.across)[[0, -1]], [-20.0, 30.0])


def test_a_covered_rectangle_has_its_area_and_place():
    corners = np.array([[10.0, 20.0], [30.0, 20.0], [30.0, 26.0], [10.0, 26.0]])
    window, inside = covered(corners, 64)
    canvas = np.zeros((64, 64), np.bool_)
    canvas[window] = inside
    rows, columns = np.nonzero(canvas)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 26, 10, 30)
    assert canvas.all(where=np.pad(np.ones((7, 21), np.bool_), ((20, 37), (10, 33))))


def test_a_rectangle_outside_of_the_tile_covers_nothing():
    assert covered(np.array([[70.0, 5.0], [80.0, 5.0], [80.0, 9.0], [70.0, 9.0]]), 64) is None


def test_a_stub_apart_from_the_network_is_dropped():
    network = [
        Road(np.array([[0.0, 30.0], [63.0, 30.0]]), 5, True, False),
        Road(np.array([[30.0, 0.0], [30.0, 63.0]]), 5, True, False),
    ]
    stub = Road(np.array([[58.0, 63.0], [63.0, 58.0]]), 5, True, False)
    np.testing.assert_array_equal(road_mask(64, [*network, stub]), road_mask(64, network))


@pytest.mark.parametrize("domain", DOMAINS)
def test_roads_form_one_connected_network(domain):
    for layout in layouts(domain, count=10):
        road = layout.label == Cover.ROAD
        component, count = ndimage.label(road)
        assert count >= 1
        # A strip without data may cut a corner off.
        largest = np.bincount(component.ravel())[1:].max() / road.sum()
        assert largest == 1 if (layout.label > 0).all() else largest > 0.9


@pytest.mark.parametrize("domain", DOMAINS)
def test_houses_do_not_overlap(domain):
    for layout in layouts(domain):
        times = np.zeros(layout.label.shape, np.int64)
        for house in layout.buildings:
            base = np.zeros(layout.label.shape, np.bool_)
            for wing in house.wings:
                place = covered(wing, len(base))
                if place is not None:
                    base[place[0]] |= place[1]
            times += base
        assert times.max() == 1


@pytest.mark.parametrize("domain", DOMAINS)
def test_houses_stand_along_roads_and_not_on_them(domain):
    turns, clearances = [], []
    for layout in layouts(domain):
        points = np.concatenate([road.points[:-1] for road in layout.roads])
        ahead = np.concatenate([np.diff(road.points, axis=0) for road in layout.roads])
        clearance = ndimage.distance_transform_edt(layout.label != Cover.ROAD) * layout.gsd_m
        component, count = ndimage.label(layout.label == Cover.BUILDING)
        clearances += list(ndimage.minimum(clearance, component, range(1, count + 1)))
        for house in layout.buildings:
            nearest = np.hypot(*(points - house.wings[0].mean(axis=0)).T).argmin()
            side = house.wings[0][1] - house.wings[0][0]
            turn = np.arctan2(side[1], side[0]) - np.arctan2(ahead[nearest][1], ahead[nearest][0])
            # Front or gable to the road: an angle from the nearest quarter turn.
            turns.append(abs((turn + np.pi / 4) % (np.pi / 2) - np.pi / 4))
    assert len(turns) > 10
    # Uniformly random angles would have a median of 22.5 degrees.
    assert np.median(turns) < np.deg2rad(6)
    assert min(clearances) > layout.gsd_m
    assert np.mean(np.array(clearances) < 15) > 0.5
    assert max(clearances) < 90


def test_cities_are_denser_built_than_the_country():
    built = {
        domain: np.mean([(layout.label == Cover.BUILDING).mean() for layout in layouts(domain)]) for domain in DOMAINS
    }
    assert built["urban"] > 2 * built["rural"] > 0


def test_fields_are_divided_into_parcels():
    for layout in layouts("rural"):
        fields = np.unique(layout.parcel[layout.label == Cover.AGRICULTURE])
        assert len(fields) >= 5


@pytest.mark.parametrize("domain", DOMAINS)
def test_some_tiles_have_a_small_border_without_data(domain):
    shares = np.array([(layout.label == 0).mean() for layout in layouts(domain, count=60, size=48)])
    assert 0 < (shares > 0).mean() < 0.3
    assert shares.max() < 0.2


@pytest.mark.parametrize("domain", DOMAINS)
def test_pixels_are_black_exactly_where_there_is_no_data(domain):
    layout = plain(Cover.BACKGROUND)
    layout.label[:9] = Cover.NO_DATA
    image = render(layout, domain, np.random.default_rng(0))
    np.testing.assert_array_equal((image == 0).all(axis=2), layout.label == 0)
    assert image[9:].min() >= 1


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_house_throws_its_shadow_away_from_the_sun(domain):
    corners = np.array([[40.0, 40.0], [56.0, 40.0], [56.0, 56.0], [40.0, 56.0]])
    layout = plain(Cover.BACKGROUND, buildings=(Building((corners,), 8.0, False),))
    layout.label[40:57, 40:57] = Cover.BUILDING
    picture = np.mean([render(layout, domain, np.random.default_rng(seed)) for seed in range(4)], axis=(0, 3))
    azimuth = np.deg2rad(np.mean(LOOKS[domain].sun_azimuth))
    step = 13 * np.array([np.cos(azimuth), np.sin(azimuth)])

    def brightness(center):
        column, row = np.rint(center).astype(int)
        return picture[row - 2 : row + 3, column - 2 : column + 3].mean()

    assert brightness(48 + step) < 0.75 * brightness(48 - step)


@pytest.mark.parametrize("domain", DOMAINS)
def test_textures_tell_woods_and_fields_from_water(domain):
    def roughness(cover):
        images = [render(plain(cover), domain, np.random.default_rng(seed)) for seed in range(4)]
        gray = np.mean(images, axis=3)
        return np.mean([np.std(image - ndimage.gaussian_filter(image, 4)) for image in gray])

    assert roughness(Cover.FOREST) > 1.8 * roughness(Cover.WATER)
    assert roughness(Cover.AGRICULTURE) > 1.5 * roughness(Cover.WATER)
