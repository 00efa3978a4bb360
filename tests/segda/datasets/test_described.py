"""Data sets that a YAML file describes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from PIL import Image

from segda import guests
from segda.config import DataConfig
from segda.datasets import DATASETS, resolve_root
from segda.datasets.cache import decoded_split
from segda.environment import code_fingerprint
from segda.errors import ConfigError, CorruptSampleError, DatasetNotFoundError, UnknownNameError
from segda.loading import load_config
from segda.named import guests_in
from segda.testing.datasets import DATASET_CHECKS, DatasetCase

from .conftest import REPOSITORY, build_loveda, write_image, write_label

EXAMPLE = REPOSITORY / "examples" / "described.yaml"

BASE = {
    "name": "towns",
    "classes": [
        {"name": "ground", "color": [9, 9, 9], "ids": [1]},
        {"name": "house", "color": [255, 0, 0], "ids": [2, 7]},
    ],
    "domains": {
        "old": {
            "train": {"images": "old/images", "labels": "old/labels"},
            "val": {"images": "v/images", "labels": "v/labels"},
        },
    },
}

Describe = Callable[..., Path]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(guests, "_folders", [])


@pytest.fixture
def describe(tmp_path: Path) -> Describe:
    """Write a description: `BASE` with other keys, or without those that are None."""

    def write(path: str = "towns.yaml", **changes: object) -> Path:
        said = {key: value for key, value in {**BASE, **changes}.items() if value is not None}
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(yaml.safe_dump(said, sort_keys=False))
        return place

    return write


@pytest.mark.parametrize("check", DATASET_CHECKS)
def test_the_example_keeps_the_contract(check: str, tmp_path: Path) -> None:
    root = build_loveda(tmp_path / "loveda")
    folder = tmp_path / "check"
    folder.mkdir()
    DATASET_CHECKS[check](DatasetCase(DATASETS[str(EXAMPLE)], root), folder)


def test_the_example_reads_ids_as_it_says(tmp_path: Path) -> None:
    write_label(tmp_path / "a.png", list(range(8)))
    dataset = DATASETS[str(EXAMPLE)]
    assert dataset.decode_label(tmp_path / "a.png").ravel()[:8].tolist() == [255, 0, 1, 2, 3, 4, 5, 5]
    assert (dataset.nadir, dataset.unscored) == (True, {4})


def test_ids_that_nobody_lists_are_void_or_refused(describe: Describe, tmp_path: Path) -> None:
    write_label(tmp_path / "a.png", [1, 2, 7, 0, 200])
    lenient = DATASETS[str(describe())]
    assert lenient.decode_label(tmp_path / "a.png").ravel()[:5].tolist() == [0, 1, 1, 255, 255]
    strict = DATASETS[str(describe("strict.yaml", labels={"others": "refused", "void": [0]}))]
    with pytest.raises(CorruptSampleError, match=r"a.png: unknown id 200; allowed are 0..2, 7"):
        strict.decode_label(tmp_path / "a.png")


def test_ids_of_16_bits_and_of_a_channel(describe: Describe, tmp_path: Path) -> None:
    classes = [
        {"name": "ground", "color": [9, 9, 9], "ids": [40_000]},
        {"name": "house", "color": [1, 0, 0], "ids": [3]},
    ]
    Image.fromarray(np.array([[40_000, 3, 64]], dtype=np.uint16)).save(tmp_path / "deep.png")
    assert DATASETS[str(describe(classes=classes))].decode_label(tmp_path / "deep.png").tolist() == [[0, 1, 255]]
    write_label(tmp_path / "green.png", np.array([[[9, 1, 9], [9, 2, 9]]]))
    assert DATASETS[str(describe("g.yaml", labels={"channel": 2}))].decode_label(tmp_path / "green.png").tolist() == [
        [0, 1]
    ]
    with pytest.raises(CorruptSampleError, match=r"green.png: expected one channel of ids, got 3"):
        DATASETS[str(describe("n.yaml"))].decode_label(tmp_path / "green.png")


@pytest.mark.parametrize("with_table", [False, True], ids=["rgb", "table"])
def test_labels_in_colors(describe: Describe, tmp_path: Path, with_table: bool) -> None:
    classes = [
        {"name": "ground", "color": [9, 9, 9]},
        {"name": "house", "color": [255, 0, 0], "colors": [[250, 0, 0]]},
    ]
    colors = [(9, 9, 9), (255, 0, 0), (250, 0, 0), (0, 0, 0)]
    if with_table:
        image = Image.fromarray(np.array([[0, 1, 2, 3]], dtype=np.uint8))
        image.putpalette([part for color in colors for part in color])
    else:
        image = Image.fromarray(np.array([colors], dtype=np.uint8))
    image.save(tmp_path / "a.png")
    lenient = DATASETS[str(describe(classes=classes, labels={"kind": "colors"}))]
    assert lenient.decode_label(tmp_path / "a.png").tolist() == [[0, 1, 1, 255]]
    assert lenient.stored_ids(tmp_path / "a.png") is None
    strict = DATASETS[str(describe("s.yaml", classes=classes, labels={"kind": "colors", "others": "refused"}))]
    with pytest.raises(CorruptSampleError, match=r"color \(0, 0, 0\) at row 0, column 3"):
        strict.decode_label(tmp_path / "a.png")
    named = DATASETS[
        str(describe("v.yaml", classes=classes, labels={"kind": "colors", "others": "refused", "void": [[0, 0, 0]]}))
    ]
    assert named.decode_label(tmp_path / "a.png").tolist() == [[0, 1, 1, 255]]
    write_label(tmp_path / "gray.png", [1])
    with pytest.raises(CorruptSampleError, match=r"its description says colors, it stores numbers"):
        lenient.decode_label(tmp_path / "gray.png")


def test_stars_are_the_name_and_files_of_other_kinds_lie_beside(describe: Describe, tmp_path: Path) -> None:
    for town in ("b", "a"):
        for number in (10, 9):
            write_image(tmp_path / "root" / town / f"tile{number}_rgb.png")
            write_label(tmp_path / "root" / town / f"tile{number}_mask.png", [1])
            (tmp_path / "root" / town / f"tile{number}.json").write_text("{}")
    (tmp_path / "root" / "notes").mkdir()
    split = {"images": "*/tile*_rgb.png", "labels": "*/tile*_mask.png"}
    dataset = DATASETS[str(describe(domains={"all": {"train": split, "val": split}}))]
    samples = dataset.samples(tmp_path / "root", domain="all", split="train")
    assert [sample.name for sample in samples] == ["a/9", "a/10", "b/9", "b/10"]
    assert samples[0].label == tmp_path / "root/a/tile9_mask.png"
    (tmp_path / "root/a/tile9_mask.png").unlink()
    with pytest.raises(CorruptSampleError, match=r"expected .*root/a/tile9_mask.png, which is missing"):
        dataset.read(dataset.samples(tmp_path / "root", domain="all", split="train")[0], with_label=True)
    (tmp_path / "root/b/tile9_rgb.png").unlink()
    with pytest.raises(CorruptSampleError, match=r"b/tile9_mask.png has no image"):
        dataset.samples(tmp_path / "root", domain="all", split="train")


def test_an_image_and_its_label_may_differ_in_their_suffix_alone(describe: Describe, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "7.jpg")
    write_label(tmp_path / "7.png", [1])
    split = {"images": "*.jpg", "labels": "*.png"}
    dataset = DATASETS[str(describe(domains={"all": {"val": split}}))]
    (sample,) = dataset.samples(tmp_path, domain="all", split="val")
    assert (sample.name, sample.image.name, sample.label.name) == ("7", "7.jpg", "7.png")


def test_a_list_says_which_images_of_a_folder_belong_to_a_split(describe: Describe, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_image(tmp_path / "images" / f"{name}.png")
        write_label(tmp_path / "labels" / f"{name}.png", [1])
    (tmp_path / "train.txt").write_text("c.png\na.png labels/a.png\n")
    split = {"images": "images", "labels": "labels", "list": "train.txt"}
    dataset = DATASETS[
        str(describe(domains={"all": {"train": split, "val": {"images": "images", "labels": "labels"}}}))
    ]
    samples = dataset.samples(tmp_path, domain="all", split="train")
    assert [(sample.name, sample.label) for sample in samples] == [
        (name, tmp_path / "labels" / f"{name}.png") for name in ("c", "a")
    ]
    (tmp_path / "train.txt").write_text("c\nc\n")
    with pytest.raises(CorruptSampleError, match=r"train.txt:2 lists image c a second time"):
        dataset.samples(tmp_path, domain="all", split="train")


def test_a_split_without_labels_is_unlabelled(describe: Describe, tmp_path: Path) -> None:
    write_image(tmp_path / "test" / "1.png")
    domains = {"old": BASE["domains"]["old"] | {"test": {"images": "test"}}}
    dataset = DATASETS[str(describe(domains=domains))]
    assert dataset.splits("old") == ("train", "val", "test")
    assert dataset.samples(tmp_path, domain="old", split="test")[0].label is None


def write_raster(path: Path, bands: np.ndarray) -> None:
    with rasterio.open(
        path, "w", driver="GTiff", count=len(bands), height=bands.shape[1], width=bands.shape[2], dtype=bands.dtype
    ) as raster:
        raster.write(bands)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.float32])
def test_bands_are_chosen_and_scaled_linearly(describe: Describe, tmp_path: Path, kind: type) -> None:
    bands = np.random.default_rng(0).integers(0, 4000, (4, 5, 6)).astype(kind)
    bands[3, 0, 0] = 100
    if kind is np.float32:
        bands[3, 0, 1] = np.nan
    write_raster(tmp_path / "a.tif", bands)
    dataset = DATASETS[str(describe(bands={"numbers": [4, 1, 2], "low": [100, 0, 0], "high": [3000, 2000, 4000]}))]
    expected = np.stack(
        [
            (bands[band].astype(np.float64) - low) / (high - low) * 255
            for band, low, high in ((3, 100, 3000), (0, 0, 2000), (1, 0, 4000))
        ],
        axis=2,
    )
    expected = np.clip(np.nan_to_num(expected), 0, 255)
    image = dataset.decode_image(tmp_path / "a.tif")
    assert image.dtype == np.uint8
    assert np.abs(image - expected).max() <= 0.501
    assert image[0, 0, 0] == 0
    assert (image[..., 1] == 255).any(), "what lies beyond is cut off"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_one_band_is_all_three_and_missing_bands_are_named(describe: Describe, tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", np.full((2, 4, 4), 50, np.uint8))
    assert (DATASETS[str(describe(bands={"numbers": [2]}))].decode_image(tmp_path / "a.tif") == 50).all()
    with pytest.raises(CorruptSampleError, match=r"a.tif: expected a band 3, got 2"):
        DATASETS[str(describe("b.yaml", bands={"numbers": [3]}))].decode_image(tmp_path / "a.tif")
    write_image(tmp_path / "a.png")
    with pytest.raises(CorruptSampleError, match=r"a.png: its description names bands of a TIFF"):
        DATASETS[str(describe("b.yaml", bands={"numbers": [3]}))].decode_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "My Towns"}, r"yaml:1: name: must match"),
        ({"name": None}, r"name: a value is required"),
        ({"nadire": True}, r"nadire: unknown key \(did you mean 'nadir'\?\)"),
        ({"classes": []}, r"classes: must have at least 2"),
        (
            {"classes": [BASE["classes"][0], BASE["classes"][0] | {"name": "b"}]},
            r"yaml:\d+: classes\[1\].color: .* is there twice",
        ),
        ({"classes": [BASE["classes"][0], BASE["classes"][1] | {"ids": [1]}]}, r"classes\[1\].ids: 1 is there twice"),
        (
            {"classes": [{"name": "a", "color": [1, 2, 300], "ids": [1]}, BASE["classes"][1]]},
            r"classes\[0\].color\[2\]: must be at most 255",
        ),
        ({"classes": [BASE["classes"][0]]}, r"classes: must have at least 2 item\(s\)"),
        ({"classes": [{"name": "a", "color": [1, 2, 3]}, BASE["classes"][1]]}, r"classes\[0\]: class a needs ids"),
        ({"classes": [item | {"scored": False} for item in BASE["classes"]]}, r"classes: at least one"),
        ({"labels": {"void": [2]}}, r"classes\[1\].ids: 2 is void"),
        ({"labels": {"void": [[0, 0, 0]]}}, r"labels.void: must list ids"),
        ({"labels": {"kind": "colors", "channel": 1}}, r"labels.channel: colors are in all channels"),
        # A value that may be of several types: one thing is said of it, under its own key.
        ({"labels": {"void": ["x"]}}, r"labels\.void\[0\]: must be a whole number or a list, got 'x'$"),
        ({"labels": {"void": [[0, 0]]}}, r"labels\.void\[0\]\[2\]: a value is required, none came$"),
        ({"bands": {"numbers": [1], "low": {}}}, r"bands\.low: must be a number or a list, got a mapping$"),
        ({"bands": {"numbers": [1], "low": [0, "x", 0]}}, r"bands\.low\[1\]: must be a number, got 'x'$"),
        ({"labels": {"kind": "color"}}, r"labels.kind: must be one of 'ids' or 'colors'"),
        ({"bands": {"numbers": [1, 2]}}, r"bands.numbers: must be three bands or one, got 2"),
        ({"bands": {"numbers": [1], "low": 5, "high": 5}}, r"bands.high: must be larger than low"),
        ({"report_split": "test"}, r"report_split: some domain must have the split test with labels"),
        ({"domains": {"old": {}}}, r"domains.old: a domain needs at least one"),
        ({"domains": {"old": {"val": {"images": "/x", "labels": "l"}}}}, r"val.images: must be a place under the root"),
        (
            {"domains": {"old": {"val": {"images": "a/../b", "labels": "l"}}}},
            r"val.images: must be a place under the root",
        ),
        ({"domains": {"old": {"val": {"images": "**/a*", "labels": "l"}}}}, r"val.images: each \* stands for a part"),
        ({"domains": {"old": {"val": {"images": "*/a*", "labels": "l"}}}}, r"val.labels: must have as many \*"),
        ({"domains": {"old": {"val": {"images": "a*", "labels": "l", "list": "x"}}}}, r"val.images: with a list"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_number(describe: Describe, changes: dict, message: str) -> None:
    path = describe(**changes)
    with pytest.raises(ConfigError, match=message) as error:
        DATASETS[str(path)]
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{path}:")


def test_yaml_that_would_run_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ConfigError, match=r"bad.yaml:1: the tag .* is not known"):
        DATASETS["bad.yaml"]


def test_a_description_lies_beside_the_configuration_or_in_the_working_folder(
    describe: Describe, tmp_path: Path
) -> None:
    describe("configs/towns.yaml")
    with pytest.raises(UnknownNameError, match=r"unknown data set 'towns.yaml': there is no such file"):
        DATASETS["towns.yaml"]
    domain = {"dataset": "towns.yaml", "domain": "old"}
    plain = {
        "data": {"source": domain, "target": domain, "height": 32, "width": 32},
        "method": {"name": "source_only"},
        "steps": 2,
    }
    (tmp_path / "configs/run.yaml").write_text(yaml.safe_dump(plain))
    config = load_config(tmp_path / "configs/run.yaml")
    assert config.data.source.dataset == "towns.yaml"
    describe("towns.yaml")
    assert DATASETS["towns.yaml"].classes == ("ground", "house"), "two files that say the same"
    describe("towns.yaml", terms="others")
    with pytest.raises(UnknownNameError, match="which differ; give the whole path"):
        DATASETS["towns.yaml"]


def test_source_and_target_must_have_the_same_classes(describe: Describe) -> None:
    path = describe()
    with pytest.raises(ValueError, match="have different classes"):
        DataConfig.model_validate(
            {
                "source": {"dataset": str(path), "domain": "old"},
                "target": {"dataset": "loveda", "domain": "rural"},
                "height": 32,
                "width": 32,
            }
        )


def test_what_it_says_is_part_of_the_fingerprints_and_how_it_is_written_is_not(
    describe: Describe, tmp_path: Path
) -> None:
    path = describe()
    for part in ("old", "v"):
        write_image(tmp_path / "root" / part / "images" / "1.png")
        write_label(tmp_path / "root" / part / "labels" / "1.png", [1, 2, 3])
    domain = {"dataset": str(path), "domain": "old"}
    plain = {
        "data": {"source": domain, "target": domain, "height": 32, "width": 32},
        "method": {"name": "source_only"},
        "steps": 2,
    }

    def state() -> tuple[str, str, Path | None]:
        config = load_config(plain)
        split = decoded_split(
            DATASETS[str(path)],
            tmp_path / "root",
            domain="old",
            split="train",
            height=32,
            width=32,
            with_labels=True,
            cache=tmp_path / "cache",
        )
        return code_fingerprint(config), split.fingerprint, split.folder

    before = state()
    assert [guest.module for guest in guests_in(load_config(plain))] == ["towns"]
    path.write_text(f"# a remark\n{path.read_text()}")
    assert state() == before
    describe(classes=[BASE["classes"][0] | {"ids": [1, 3]}, BASE["classes"][1]])
    after = state()
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_the_folder_comes_from_a_variable_named_after_the_file(
    describe: Describe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = describe("some/where/my-towns.yaml")
    with pytest.raises(DatasetNotFoundError, match="SEGDA_MY_TOWNS_ROOT"):
        resolve_root(str(path), None)
    monkeypatch.setenv("SEGDA_MY_TOWNS_ROOT", str(tmp_path))
    assert resolve_root(str(path), None) == tmp_path


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_real_geotiff_is_read_as_described(describe: Describe) -> None:
    path = REPOSITORY / "../shared/data/geotiff_samples/rasterio/RGB.byte.tif"
    if not path.is_file():
        pytest.skip(f"needs a GeoTIFF; there is none at {path}")
    plain = DATASETS[str(describe())].decode_image(path)
    swapped = DATASETS[str(describe("b.yaml", bands={"numbers": [3, 2, 1]}))].decode_image(path)
    assert (swapped == plain[..., ::-1]).all()
    stretched = DATASETS[str(describe("c.yaml", bands={"numbers": [1, 2, 3], "low": 0, "high": 51}))].decode_image(path)
    assert (stretched == np.minimum(plain.astype(int) * 5, 255)).all()


def test_labels_are_not_looked_at_before_they_are_asked_for(describe: Describe, tmp_path: Path) -> None:
    write_image(tmp_path / "a" / "1_rgb.png")
    split = {"images": "a/*_rgb.png", "labels": "b/*_mask.png"}
    (tmp_path / "b").mkdir()
    dataset = DATASETS[str(describe(domains={"all": {"val": split}}))]
    (sample,) = dataset.samples(tmp_path, domain="all", split="val")
    assert sample.label == tmp_path / "b/1_mask.png"
    shutil.rmtree(tmp_path / "b")
    (again,) = dataset.samples(tmp_path, domain="all", split="val")
    assert again == sample, "images are used without labels, whose folder need not be there"


def test_the_example_of_two_drives_describes_the_real_camvid(camvid_root):
    dataset = DATASETS[str(REPOSITORY / "examples" / "camvid_drives.yaml")]
    source = dataset.samples(camvid_root, domain="drive_0016e5", split="val")
    assert (len(source), {sample.image.name[:6] for sample in source}) == (101, {"0016E5"})
    target = dataset.samples(camvid_root, domain="drive_seq05vd", split="train")
    assert (len(target), {sample.label for sample in target}) == (171, {None})
    assert dataset.classes == DATASETS["camvid"].classes
