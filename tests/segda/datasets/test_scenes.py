import json

import numpy as np
import pytest
import rasterio
from PIL import Image

from segda.datasets import scenes
from segda.datasets.loveda import CLASSES, PALETTE
from segda.datasets.scenes import GSD_M, Scenes, generate_scene, generate_scenes
from segda.errors import ConfigError, DatasetNotFoundError
from segda.types import IGNORE_INDEX

SMALL = {"size": 48, "train": 2, "val": 1}
BUILDING, ROAD, FOREST, AGRICULTURE = 2, 3, 6, 7


def files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def tiles():
    """Twenty tiles of 128 x 128 of each domain: images and raw labels."""
    made = {}
    for number, domain in enumerate(GSD_M):
        found = [generate_scene(domain, np.random.default_rng((7, number, n)), 128) for n in range(20)]
        made[domain] = np.stack([tile.image for tile in found]), np.stack([tile.label_raw for tile in found])
    return made


def shares(labels):
    return np.bincount(labels.ravel(), minlength=8)[1:] / (labels > 0).sum()


def test_a_scene_is_an_image_with_raw_ids_and_its_scale():
    scene = generate_scene("urban", np.random.default_rng(0), 70)
    assert scene.image.shape == (70, 70, 3)
    assert scene.image.dtype == scene.label_raw.dtype == np.uint8
    assert scene.label_raw.shape == (70, 70)
    assert scene.gsd_m == GSD_M["urban"] != GSD_M["rural"]


def test_equal_random_states_make_equal_scenes_and_others_do_not():
    first, again, other = (generate_scene("rural", np.random.default_rng(seed), 64) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.label_raw, again.label_raw)
    assert (first.label_raw != other.label_raw).mean() > 0.2


def test_masks_hold_only_ids_from_zero_to_seven(tiles):
    assert set(np.unique([labels for _, labels in tiles.values()])) == set(range(8))


@pytest.mark.parametrize("domain", ["urban", "rural"])
def test_every_class_appears_in_both_domains(tiles, domain):
    assert shares(tiles[domain][1]).min() > 0.005


def test_class_shares_tell_city_from_country(tiles):
    urban, rural = (shares(tiles[domain][1]) for domain in ("urban", "rural"))
    assert urban[BUILDING - 1] + urban[ROAD - 1] > 1.5 * (rural[BUILDING - 1] + rural[ROAD - 1])
    assert rural[FOREST - 1] + rural[AGRICULTURE - 1] > 1.5 * (urban[FOREST - 1] + urban[AGRICULTURE - 1])
    # Total variation distance of the class priors.
    assert 0.5 * np.abs(urban - rural).sum() > 0.2


def test_the_same_class_has_another_color_in_the_other_domain(tiles):
    means = {
        domain: np.stack([images[labels == raw].mean(axis=0) for raw in range(1, 8)])
        for domain, (images, labels) in tiles.items()
    }
    assert np.linalg.norm(means["urban"] - means["rural"], axis=1).min() > 15


def test_colors_learned_on_urban_tiles_fail_on_rural_ones(tiles):
    images, labels = tiles["urban"]
    means = np.stack([images[:10][labels[:10] == raw].mean(axis=0) for raw in range(1, 8)])

    def miou(domain):
        image, label = (part[10:] for part in tiles[domain])
        nearest = 1 + ((image[..., None, :] - means) ** 2).sum(axis=-1).argmin(axis=-1)
        found = []
        for raw in range(1, 8):
            hit, union = (nearest == raw) & (label == raw), ((nearest == raw) | (label == raw)) & (label > 0)
            found.append(hit.sum() / union.sum())
        return np.mean(found)

    # Color alone does not solve the source either.
    assert 0.15 < miou("urban") < 0.5
    assert miou("rural") < 0.7 * miou("urban")


@pytest.mark.parametrize("image_format", ["png", "tif"])
def test_the_same_arguments_write_the_same_bytes(tmp_path, image_format):
    arguments = SMALL | {"image_format": image_format}
    first, again = (files(generate_scenes(tmp_path / name, **arguments, seed=3)) for name in ("a", "b"))
    assert first == again
    other = files(generate_scenes(tmp_path / "c", **arguments, seed=4))
    assert first.keys() == other.keys()
    assert not any(first[name] == other[name] for name in first)


def test_a_longer_split_starts_with_the_same_tiles(tmp_path):
    short, long = (
        generate_scenes(tmp_path / str(train), size=48, train=train, val=1, image_format="png") for train in (1, 3)
    )
    for domain in Scenes.domains:
        for split in ("train", "val"):
            before, after = (Scenes().samples(root, domain=domain, split=split)[0] for root in (short, long))
            assert before.image.read_bytes() == after.image.read_bytes()


@pytest.mark.parametrize("image_format", ["png", "tif"])
def test_written_tiles_are_read_like_loveda(tmp_path, image_format):
    root = generate_scenes(tmp_path / "scenes", **SMALL, image_format=image_format)
    dataset, names = Scenes(), []
    for index, domain in enumerate(dataset.domains):
        assert dataset.splits(domain) == ("train", "val")
        for split_index, (split, count) in enumerate((("train", 2), ("val", 1))):
            samples = dataset.samples(root, domain=domain, split=split)
            assert len(samples) == count
            names += [sample.name for sample in samples]
            image, label = dataset.read(samples[0], with_label=True)
            scene = generate_scene(domain, np.random.default_rng((0, index, split_index, 0)), 48)
            np.testing.assert_array_equal(image, scene.image)
            expected = np.where(scene.label_raw == 0, IGNORE_INDEX, scene.label_raw.astype(int) - 1)
            np.testing.assert_array_equal(label, expected)
    assert sorted(names, key=int) == [str(number) for number in range(6)]


def test_png_masks_are_gray_class_ids(tmp_path):
    root = generate_scenes(tmp_path / "scenes", **SMALL)
    with Image.open(next((root / "Val/Rural/masks_png").iterdir())) as mask:
        assert mask.mode == "L"


def test_geotiffs_carry_projection_scale_and_colors(tmp_path):
    root = generate_scenes(tmp_path / "scenes", **SMALL, image_format="tif")
    places = []
    for domain in GSD_M:
        for path in sorted((root / "Train" / domain.capitalize()).rglob("*.tif")):
            with rasterio.open(path) as raster:
                assert raster.crs.to_epsg() == 32632
                assert raster.res == pytest.approx((GSD_M[domain], GSD_M[domain]))
                assert raster.nodata == 0
                if path.parent.name == "masks_png":
                    colors = raster.colormap(1)
                    assert [colors[raw][:3] for raw in range(8)] == [(0, 0, 0), *PALETTE]
                    assert raster.tags(1)["class_2"] == CLASSES[1]
                else:
                    assert raster.count == 3
                    places.append(raster.bounds)
    for number, one in enumerate(places):
        for other in places[number + 1 :]:
            assert one.right <= other.left + 1e-6 or other.right <= one.left + 1e-6 or one.top <= other.bottom


def test_a_finished_folder_is_not_made_again(tmp_path, monkeypatch):
    root = generate_scenes(tmp_path / "scenes", **SMALL)
    monkeypatch.setattr(scenes, "_write", lambda *_, **__: pytest.fail("made again"))
    assert generate_scenes(root, **SMALL) == root


@pytest.mark.parametrize("change", [{"seed": 1}, {"size": 64}, {"image_format": "tif"}, {"val": 2}])
def test_a_folder_made_with_other_arguments_is_refused(tmp_path, change):
    root = generate_scenes(tmp_path / "scenes", **SMALL)
    before = files(root)
    name, value = next(iter(change.items()))
    with pytest.raises(ConfigError, match=f"was made with .*, asked for .*{name} {value}.*another folder"):
        generate_scenes(root, **(SMALL | change))
    assert files(root) == before


def test_a_folder_of_another_version_is_refused(tmp_path):
    root = generate_scenes(tmp_path / "scenes", **SMALL)
    manifest = json.loads((root / "scenes.json").read_text())
    (root / "scenes.json").write_text(json.dumps(manifest | {"version": 0}))
    with pytest.raises(ConfigError, match="version 0"):
        generate_scenes(root, **SMALL)


def test_a_damaged_manifest_is_refused(tmp_path):
    root = generate_scenes(tmp_path / "scenes", **SMALL)
    (root / "scenes.json").write_text("{")
    with pytest.raises(ConfigError, match="not readable"):
        generate_scenes(root, **SMALL)


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="new or empty folder"):
        generate_scenes(tmp_path, **SMALL)
    assert list(files(tmp_path)) == ["thesis.tex"]


def test_a_file_as_root_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        generate_scenes(tmp_path / "file", **SMALL)


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "scenes").mkdir()
    root = generate_scenes(tmp_path / "scenes", **SMALL)
    assert len(files(root)) == 2 * 2 * 3 + 1


def test_a_link_to_an_empty_folder_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    generate_scenes(tmp_path / "link", **SMALL)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "scenes.json").is_file()


def test_an_interrupted_run_leaves_no_folder(tmp_path, monkeypatch):
    write, calls = scenes._write, []

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        write(*args, **kwargs)

    monkeypatch.setattr(scenes, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate_scenes(tmp_path / "scenes", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_behind_is_not_taken_for_finished(tmp_path):
    finished = generate_scenes(tmp_path / "finished", **SMALL)
    left = tmp_path / ".scenes.0123.partial" / "Train" / "Urban" / "images_png"
    left.mkdir(parents=True)
    (left / "0.png").write_bytes(b"half a f")
    root = generate_scenes(tmp_path / "scenes", **SMALL)
    assert files(root) == files(finished)


def test_of_two_processes_that_make_the_same_folder_the_first_one_wins(tmp_path, monkeypatch):
    root = generate_scenes(tmp_path / "scenes", **SMALL)
    stamp = (root / "scenes.json").stat().st_mtime_ns
    check, calls = scenes._is_finished, []

    def late(*args):
        calls.append(args)
        # At the first look the other process had not finished.
        return check(*args) if len(calls) > 1 else False

    monkeypatch.setattr(scenes, "_is_finished", late)
    assert generate_scenes(root, **SMALL) == root
    assert len(calls) == 2
    assert (root / "scenes.json").stat().st_mtime_ns == stamp
    assert list(tmp_path.iterdir()) == [root]


@pytest.mark.parametrize("wrong", [{"size": 31}, {"train": 0}, {"val": 0}, {"seed": -1}, {"image_format": "bmp"}])
def test_arguments_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(ConfigError, match=str(next(iter(wrong.values())))):
        generate_scenes(tmp_path / "scenes", **(SMALL | wrong))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_domain_is_refused():
    with pytest.raises(ConfigError, match="urban, rural, got 'suburban'"):
        generate_scene("suburban", np.random.default_rng(0), 64)


def test_a_missing_root_says_how_to_make_it(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=f"segda datasets make scenes {tmp_path / 'none'}"):
        Scenes().samples(tmp_path / "none", domain="urban", split="train")


def test_scenes_have_no_test_split(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="no split 'test'"):
        Scenes().samples(tmp_path, domain="urban", split="test")
