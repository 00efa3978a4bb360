"""List files of other machines and other systems."""

import codecs
import shutil
from pathlib import Path

import pytest
from PIL import Image

from segda.datasets import DATASETS
from segda.datasets.cache import decoded_split
from segda.errors import CorruptSampleError, DatasetNotFoundError, SegdaError

camvid = DATASETS["camvid"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Frames with spaces in their names, and a folder with one."""
    for folder, mode in (("my train", "RGB"), ("train", "RGB"), ("trainannot", "L")):
        (tmp_path / folder).mkdir()
        for name in ("a 1", "a", "1", "b.2"):
            Image.new(mode, (8, 6)).save(tmp_path / folder / f"{name}.png")
    return tmp_path


def listed(root: Path, content: str | bytes) -> list[tuple[str, str]]:
    (root / "train.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    samples = camvid.samples(root, domain="all", split="train")
    return [(str(s.image.relative_to(root)), str(s.label.relative_to(root))) for s in samples if s.label]


A1 = ("train/a 1.png", "trainannot/a 1.png")


@pytest.mark.parametrize(
    "line",
    [
        "a 1.png",
        "a 1",
        "train/a 1.png",
        "train/a 1.png trainannot/a 1.png",
        "train/a 1.png\ttrainannot/a 1.png",
        "train/a 1.png   a 1.png",
        "train/a 1.png   a 1",
        "  /SegNet/Cam Vid/train/a 1.jpg /SegNet/Cam Vid/trainannot/a 1.png  ",
        r"train\a 1.png trainannot\a 1.png",
        r"C:\my data\CamVid\train\a 1.png C:\my data\CamVid\trainannot\a 1.png",
        r"C:\my data\elsewhere\a 1.png",
        "D:/CamVid/train/a 1.png D:/CamVid/labels/a 1.png",
        r"\\server\my share\train\a 1.TIF",
        "./a 1.png",
        "../a 1.png",
    ],
)
def test_a_line_is_an_image_and_perhaps_its_label_whatever_system_wrote_it(root: Path, line: str) -> None:
    assert listed(root, f"{line}\n") == [A1]


def test_a_folder_may_have_a_space_too(root: Path) -> None:
    assert listed(root, r"X:\my train\a 1.png") == [("my train/a 1.png", "trainannot/a 1.png")]


def test_a_name_that_is_another_one_with_a_space_is_the_whole_line(root: Path) -> None:
    assert listed(root, "a\n") == [("train/a.png", "trainannot/a.png")]
    assert listed(root, "train/a.png trainannot/1.png") == [("train/a.png", "trainannot/1.png")]
    assert listed(root, "b.2") == [("train/b.2.png", "trainannot/b.2.png")]


@pytest.mark.parametrize(
    "content",
    [
        b"a\r\nb.2\r\n",
        b"a\rb.2",
        codecs.BOM_UTF8 + b"a\n\n  \nb.2\n\n",
        "\ufeffa\r\nb.2\r\n".encode("utf-16-le"),
        "\ufeffa\nb.2".encode("utf-16-be"),
        b"# frames by day\na\n  # b\nb.2",
    ],
)
def test_ends_of_lines_marks_of_order_blanks_and_comments_say_nothing(root: Path, content: bytes) -> None:
    assert [image for image, _ in listed(root, content)] == ["train/a.png", "train/b.2.png"]


def test_a_name_may_begin_like_a_comment(root: Path) -> None:
    (root / "train" / "a.png").rename(root / "train" / "#a.png")
    assert listed(root, "#a.png")[0][0] == "train/#a.png"


def test_a_missing_image_is_named_with_the_whole_line(root: Path) -> None:
    with pytest.raises(
        DatasetNotFoundError, match=r"train.txt:2 lists D:\\CamVid\\train\\no such.png, but .*/train has no such image"
    ):
        listed(root, "a\nD:\\CamVid\\train\\no such.png\n")


def test_a_line_that_may_mean_two_images_is_refused(root: Path) -> None:
    for path in ("train/c.png", "train/c.png d.png.png", "trainannot/d.png x.png", "trainannot/x.png"):
        (root / path).touch()
    with pytest.raises(CorruptSampleError, match=r"train\.txt:1 may mean .*/c\.png or .*/c\.png d\.png\.png, and both"):
        listed(root, "train/c.png d.png x.png")


@pytest.mark.parametrize("line", ["a 1.png trainannot/gone.png", r"train\a 1.png x:\labels\gone.png"])
def test_a_missing_label_is_told_when_it_is_asked_for(root: Path, line: str) -> None:
    assert listed(root, line) == [("train/a 1.png", "trainannot/gone.png")]
    with pytest.raises(CorruptSampleError, match=r"a 1.png has no label: .*trainannot/gone.png, which is missing"):
        decoded_split(
            camvid, root, domain="all", split="train", height=6, width=8, with_labels=True, cache=root / "cache"
        )


def test_labels_that_were_deleted_change_nothing_for_who_does_not_ask_for_them(root: Path) -> None:
    content = "train/a 1.png trainannot/a 1.png\ntrain/b.2.png trainannot/b.2.png\n"
    before = listed(root, content)
    (root / "trainannot" / "b.2.png").unlink()
    assert listed(root, content) == before
    shutil.rmtree(root / "trainannot")
    assert listed(root, content) == before


def test_a_third_column_is_a_label_that_is_not_there(root: Path) -> None:
    assert listed(root, "train/a.png trainannot/a.png 0.5") == [("train/a.png", "trainannot/a.png 0.5")]


def test_an_image_that_cannot_be_reached_is_named_if_it_is_listed(root: Path) -> None:
    (root / "train" / "a.png").unlink()
    (root / "train" / "a.png").symlink_to("/nowhere")
    split = {"domain": "all", "split": "train", "height": 6, "width": 8, "with_labels": False, "cache": root / "cache"}
    (root / "train.txt").write_text("b.2\n")
    assert decoded_split(camvid, root, **split).names == ("b.2",)  # type: ignore[arg-type]
    (root / "train.txt").write_text("a\nb.2\n")
    with pytest.raises(CorruptSampleError, match=r"train/a\.png is a link to what is missing"):
        decoded_split(camvid, root, **split)  # type: ignore[arg-type]


@pytest.mark.parametrize("line", ["/", "..", "\0", "a\0.png", "x" * 5000, "x/" * 2000 + "a", "\u2028", "train/"])
def test_a_line_that_names_nothing_is_one_error(root: Path, line: str) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"train\.txt|cannot be read"):
        listed(root, f"b.2\n{line}-\n")


@pytest.mark.parametrize("kind", ["dangling", "folder", "bytes"])
def test_a_list_that_cannot_be_read_is_named_and_not_passed_over(root: Path, kind: str) -> None:
    path = root / "train.txt"
    if kind == "dangling":
        path.symlink_to("/nowhere/train.txt")
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"a\nb\xff\n")
    with pytest.raises(SegdaError, match=str(path)):
        camvid.samples(root, domain="all", split="train")
