"""The zip for LoveDA's server."""

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segda.checkpoint import read_checkpoint
from segda.datasets.listing import find_images
from segda.errors import CorruptSampleError
from segda.submission import verify_submission

SIDE = 64  # pixels; LoveDA's own have 1024


@pytest.fixture
def test_images(tmp_path: Path) -> Path:
    """Make a folder Test with images of both domains."""
    for domain, numbers in (("Urban", (4191, 4192)), ("Rural", (5001,))):
        folder = tmp_path / "loveda" / "Test" / domain / "images_png"
        folder.mkdir(parents=True)
        for number in numbers:
            pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "loveda" / "Test"


def entries(path: Path) -> dict[str, np.ndarray]:
    found = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with Image.open(io.BytesIO(archive.read(name))) as image:
                assert image.mode == "L"
                found[name] = np.array(image)
    return found


@pytest.mark.parametrize("given", ["Test", "root", "one domain"])
def test_classes_count_from_zero_and_no_folder_is_in_the_zip(
    given: str, segda, trained, test_images: Path, tmp_path: Path
) -> None:
    source = {"Test": test_images, "root": test_images.parent, "one domain": test_images / "Urban" / "images_png"}[
        given
    ]
    code, output, errors = segda("predict", trained.checkpoint, source, tmp_path / "out.zip", "--submission", "loveda")
    assert code == 0, errors
    found = entries(tmp_path / "out.zip")
    assert set(found) == {"4191.png", "4192.png"} | (set() if given == "one domain" else {"5001.png"})
    assert f"{len(found)} predictions of classes 0..6, read back" in output
    # The same as a plain prediction, whose values are train ids: background is 0, not 1 as in the published labels.
    image = test_images / "Urban" / "images_png" / "4191.png"
    segda("predict", trained.checkpoint, image, tmp_path / "plain.png")
    with Image.open(tmp_path / "plain.png") as plain:
        assert (np.asarray(plain) == found["4191.png"]).all()


def test_the_same_predictions_make_the_same_zip_and_are_not_made_twice(
    segda, trained, test_images: Path, tmp_path: Path
) -> None:
    words = ("predict", trained.checkpoint, test_images, tmp_path / "out.zip", "--submission", "loveda")
    assert segda(*words).code == 0
    content = (tmp_path / "out.zip").read_bytes()
    assert "out.zip exists" in segda(*words).errors
    (work,) = tmp_path.glob("out-*")
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*.png")}
    assert len(before) == 3
    assert segda(*words, "--overwrite").code == 0
    assert (tmp_path / "out.zip").read_bytes() == content
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*.png")} == before


def test_what_makes_no_submission_is_refused(segda, trained, test_images: Path, tmp_path: Path) -> None:
    def refusal(*words: object) -> str:
        code, _, errors = segda("predict", trained.checkpoint, *words, "--submission", "loveda")
        assert code == 2
        return errors

    assert "must end in .zip" in refusal(test_images, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refusal(tmp_path / "empty", tmp_path / "out.zip")
    assert "has no overlays" in refusal(test_images, tmp_path / "out.zip", "--overlay")
    shutil.copy(test_images / "Urban/images_png/4191.png", test_images / "Rural/images_png")
    assert "have one name" in refusal(test_images, tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


def test_a_network_of_other_classes_is_refused(segda, trained, test_images: Path, tmp_path: Path) -> None:
    state = read_checkpoint(trained.checkpoint)
    split = {"images": "images", "labels": "labels"}
    classes = [{"name": f"crop {number}", "color": [number, 0, 0], "ids": [number]} for number in range(7)]
    described = {"name": "crops", "classes": classes, "domains": {"all": {"train": split, "val": split}}}
    (tmp_path / "crops.yaml").write_text(yaml.safe_dump(described))
    config = json.loads(state["config"])
    for domain in ("source", "target"):
        config["data"][domain] |= {"dataset": str(tmp_path / "crops.yaml"), "domain": "all"}
    names = [item["name"] for item in classes]
    torch.save(state | {"config": json.dumps(config), "classes": names}, tmp_path / "crops.pt")
    code, _, errors = segda(
        "predict", tmp_path / "crops.pt", test_images, tmp_path / "out.zip", "--submission", "loveda"
    )
    assert code == 2
    assert "LoveDA's server knows the classes Background, Building" in errors


def make_zip(path: Path, named: dict[str, Image.Image]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, image in named.items():
            content = io.BytesIO()
            image.save(content, format="PNG")
            archive.writestr(name, content.getvalue())
    return path


def gray(value: int, side: int = SIDE) -> Image.Image:
    return Image.fromarray(np.full((side, side), value, np.uint8))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"4191.png": gray(0)}, "one PNG for each of 2"),
        ({"Urban/4191.png": gray(0), "Urban/4192.png": gray(0)}, "in no folder"),
        ({"4191.png": gray(0), "4192.png": gray(7)}, r"4192.png must hold classes 0..6, holds 7"),
        ({"4191.png": gray(0), "4192.png": gray(0, 32)}, r"4192.png must have the \(64, 64\) pixels"),
        ({"4191.png": gray(0), "4192.png": gray(0).convert("P")}, r"4192.png must be gray"),
    ],
)
def test_a_zip_that_the_server_would_not_take_is_noticed(
    named, message: str, test_images: Path, tmp_path: Path
) -> None:
    images = find_images(test_images / "Urban" / "images_png")
    with pytest.raises(CorruptSampleError, match=message):
        verify_submission(make_zip(tmp_path / "bad.zip", named), images)
    verify_submission(make_zip(tmp_path / "good.zip", {"4191.png": gray(6), "4192.png": gray(0)}), images)
