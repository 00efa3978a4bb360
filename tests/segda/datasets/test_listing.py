"""What of a data set cannot be reached is named, and the run ends: a smaller data set is another one."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from segda.datasets import DATASETS, resolve_root
from segda.datasets.cache import DecodedSplit, decoded_split
from segda.datasets.listing import files_by_name, find_images, find_labels, list_folder
from segda.errors import CorruptSampleError, DatasetNotFoundError, SegdaError

loveda, camvid = DATASETS["loveda"], DATASETS["camvid"]


def decode(root: Path, *, with_labels: bool = True, domain: str = "rural") -> DecodedSplit:
    size = {"height": 6, "width": 8}
    return decoded_split(
        loveda, root, domain=domain, split="train", with_labels=with_labels, cache=root / "cache", **size
    )


def into_link(path: Path, target: Path | str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def into_loop(path: Path) -> None:
    into_link(path, path)


def into_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def into_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def renamed(path: Path, name: str) -> None:
    path.rename(path.with_name(name))


WAYS: dict[str, tuple[Callable[[Path], None], str]] = {
    "dangling link": (lambda path: into_link(path, "/nowhere/annex/9.png"), "is a link to what is missing"),
    "link into a file": (
        lambda path: into_link(path, path.with_name("10.png") / "9.png"),
        "is a link to what is missing",
    ),
    "loop of links": (into_loop, "leads back to itself"),
    "folder": (into_folder, "is a folder"),
    "pipe": (into_pipe, "pipe or a device"),
    "empty": (lambda path: path.write_bytes(b"") and None, "is empty"),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_image_that_cannot_be_reached_is_named(loveda_root: Path, way: str) -> None:
    spoil, words = WAYS[way]
    path = loveda_root / "Train" / "Rural" / "images_png" / "9.png"
    spoil(path)
    for with_labels in (True, False):
        with pytest.raises(CorruptSampleError, match=f"image {path} .*{words}"):
            decode(loveda_root, with_labels=with_labels)


@pytest.mark.parametrize("way", WAYS)
def test_a_label_that_cannot_be_reached_is_named_once_it_is_asked_for(loveda_root: Path, way: str) -> None:
    spoil, words = WAYS[way]
    path = loveda_root / "Train" / "Rural" / "masks_png" / "9.png"
    spoil(path)
    assert len(decode(loveda_root, with_labels=False)) == 3
    with pytest.raises(CorruptSampleError, match=f"9.png has no label: expected {path}, which .*{words}"):
        decode(loveda_root)


@pytest.mark.parametrize("kind", [".bmp", ".webp", ".JP2"])
def test_an_image_of_a_kind_that_is_not_read_is_named(loveda_root: Path, kind: str) -> None:
    path = loveda_root / "Train" / "Rural" / "images_png" / "9.png"
    renamed(path, f"9{kind}")
    with pytest.raises(CorruptSampleError, match=rf"9\{kind} is of a kind that is not read"):
        decode(loveda_root)


@pytest.mark.parametrize("with_labels", [True, False])
def test_a_label_whose_image_is_missing_is_named(loveda_root: Path, with_labels: bool) -> None:
    (loveda_root / "Train" / "Rural" / "images_png" / "9.png").unlink()
    label = loveda_root / "Train" / "Rural" / "masks_png" / "9.png"
    with pytest.raises(CorruptSampleError, match=f"label {label} has no image"):
        decode(loveda_root, with_labels=with_labels)


@pytest.mark.parametrize(("layout", "folder"), [("segnet", "train"), ("color_folders", "train")])
def test_the_same_in_folders_of_frames(request: pytest.FixtureRequest, layout: str, folder: str) -> None:
    root = request.getfixturevalue(layout)
    (root / folder / "0016E5_00390.png").unlink()
    with pytest.raises(CorruptSampleError, match=r"0016E5_00390(_L)?\.png has no image"):
        camvid.samples(root, domain="all", split="train")


def test_suffixes_may_be_in_capitals_and_of_any_kind(loveda_root: Path) -> None:
    before = decode(loveda_root).fingerprint
    folder = loveda_root / "Train" / "Rural"
    renamed(folder / "images_png" / "9.png", "9.PNG")
    renamed(folder / "masks_png" / "9.png", "9.Png")
    after = decode(loveda_root)
    assert (after.names, after.fingerprint) == (("2", "9", "10"), before)
    with Image.open(folder / "masks_png" / "10.png") as label:
        label.save(folder / "masks_png" / "10.TIF")
    (folder / "masks_png" / "10.png").unlink()
    assert decode(loveda_root).names == ("2", "9", "10")


def test_two_labels_of_one_image_are_refused(loveda_root: Path) -> None:
    folder = loveda_root / "Train" / "Rural" / "masks_png"
    shutil.copy(folder / "9.png", folder / "9.PNG")
    with pytest.raises(CorruptSampleError, match=r"9\.(png|PNG) and .*9\.(png|PNG) are the same sample twice"):
        decode(loveda_root)


def test_a_name_that_is_not_utf_8_is_told_in_letters(loveda_root: Path) -> None:
    path = loveda_root / "Train" / "Rural" / "images_png" / "9.png"
    renamed(path, os.fsdecode(b"9\xff.png"))
    with pytest.raises(CorruptSampleError, match=r"9\\xff\.png has a name that is not UTF-8") as caught:
        decode(loveda_root)
    str(caught.value).encode()


def test_hidden_files_are_none(loveda_root: Path) -> None:
    folder = loveda_root / "Train" / "Rural"
    for place in ("images_png", "masks_png"):
        (folder / place / "._9.png").write_bytes(b"of another system")
    assert len(decode(loveda_root)) == 3


def test_links_to_images_are_followed(loveda_root: Path, tmp_path: Path) -> None:
    before = decode(loveda_root).fingerprint
    folder = loveda_root / "Train" / "Rural" / "images_png"
    (folder / "9.png").rename(tmp_path / "object")
    (folder / "9.png").symlink_to(tmp_path / "object")
    assert decode(loveda_root).fingerprint == before


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_folder_that_cannot_be_listed_is_named_with_the_reason(
    loveda_root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "images_png":
            raise OSError(number, os.strerror(number), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DatasetNotFoundError, match=rf"images_png cannot be read \({os.strerror(number)}\)"):
        decode(loveda_root)


def test_whatever_a_data_set_of_ones_own_cannot_list_is_one_error(
    loveda_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def list_samples(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/secret")

    monkeypatch.setattr(loveda, "list_samples", list_samples)
    with pytest.raises(DatasetNotFoundError, match=r"loveda: /data/secret cannot be read \(Permission denied\)"):
        decode(loveda_root)


@pytest.mark.parametrize("spoil", [Path.touch, lambda path: path.symlink_to("/nowhere"), into_loop])
@pytest.mark.parametrize("place", ["", "Train", "Train/Rural", "Train/Rural/images_png"])
def test_a_folder_that_is_none_is_named(loveda_root: Path, place: str, spoil: Callable[[Path], None]) -> None:
    shutil.rmtree(loveda_root / place)
    spoil(loveda_root / place)
    with pytest.raises(SegdaError, match=str(loveda_root / place)):
        decode(loveda_root)


def test_a_root_that_one_must_not_look_at_is_no_traceback(loveda_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = Path.stat

    def refuse(path: Path, **options: bool) -> os.stat_result:
        if path == loveda_root:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    for look in (decode, lambda root: resolve_root("loveda", root)):
        with pytest.raises(DatasetNotFoundError, match=r"cannot be read \(Permission denied\)"):
            look(loveda_root)


def test_labels_that_must_not_be_listed_disturb_nobody_who_does_not_ask_for_them(
    loveda_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    iterdir = Path.iterdir

    def refuse(path: Path) -> object:
        if path.name == "masks_png":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert len(decode(loveda_root, with_labels=False)) == 3


def test_one_look_at_each_file_is_enough(loveda_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of the cache needs size and time of each file; nothing else asks."""
    decode(loveda_root)
    looked: list[str] = []
    stat = Path.stat

    def counted(path: Path, **options: bool) -> os.stat_result:
        if path.suffix == ".png":
            looked.append(str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", counted)
    decode(loveda_root)
    assert len(looked) == len(set(looked)) == 6


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "a.jpg").touch()
    with pytest.raises(CorruptSampleError, match="same sample twice"):
        find_images(tmp_path)


def test_other_files_are_no_images_and_are_told_with_the_reason(tmp_path: Path) -> None:
    for name in ("a.png", "10.png", "9.png", ".b.png", "Thumbs.db", "readme.txt"):
        (tmp_path / name).touch()
    (tmp_path / "more").mkdir()
    assert list(find_images(tmp_path)) == ["9", "10", "a"]
    left = {why: [path.name for path in paths] for why, paths in list_folder(tmp_path).left.items()}
    assert left == {
        "is hidden": [".b.png"],
        "is a folder": ["more"],
        "is of a kind that is not read": ["Thumbs.db", "readme.txt"],
    }


def test_marked_labels_belong_to_the_image_without_the_mark(tmp_path: Path) -> None:
    images = {"a": tmp_path / "a.png", "b_L": tmp_path / "b_L.png", "c": tmp_path / "c.png"}
    for name in ("a_L.png", "b_L.png"):
        (tmp_path / name).touch()
    found = find_labels(tmp_path, images, marks=("", "_L"), usual="{name}_L.png")
    assert {name: path.name for name, path in found.items()} == {"a": "a_L.png", "b_L": "b_L.png", "c": "c_L.png"}
    assert files_by_name(tmp_path / "nowhere") == {}
