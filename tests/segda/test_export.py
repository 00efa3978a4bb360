"""From a checkpoint to a file, by the command line, and what can be done with the file."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import segda as package
from segda import exporting
from segda.config_file import read_document
from segda.datasets import DATASETS
from segda.deployment import ShippedNetwork
from segda.deployment.agreement import USUAL_BAR
from segda.exporting import export, other_size
from segda.raster import weights_sha256
from segda.trained import make_ready


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module", autouse=True)
def _cache(trained):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGDA_CACHE", str(trained.cache))
        yield


@pytest.fixture(scope="module")
def onnx_file(trained, folder):
    """A file of the shared run; its labels are hidden meanwhile."""
    unlabelled = folder / "unlabelled"
    shutil.copytree(trained.root, unlabelled, ignore=lambda _, names: [name for name in names if name == "masks_png"])
    for split in ("Train", "Val"):
        for domain in ("Urban", "Rural"):
            (unlabelled / split / domain / "masks_png").mkdir()
            for image in (unlabelled / split / domain / "images_png").iterdir():
                (unlabelled / split / domain / "masks_png" / image.name).write_bytes(b"not to be opened")
    return export(trained.checkpoint, folder / "street.onnx", data_roots={"loveda": unlabelled})


def test_no_label_is_opened_and_the_record_says_what_it_is_made_of(onnx_file, trained, folder) -> None:
    record = onnx_file.record
    assert record.classes == DATASETS["loveda"].classes
    assert (record.source, record.target, record.trained_size) == ("loveda/urban", "loveda/rural", (64, 64))
    assert record.data_terms == {"loveda": DATASETS["loveda"].terms}
    assert record.checkpoint == exporting.sha256_of(trained.checkpoint)
    assert str(trained.root) not in onnx_file.path.read_bytes().decode("latin-1")
    assert [agreement.size for agreement in onnx_file.agreements] == [(64, 64), other_size((64, 64))]
    assert all(agreement.mean >= USUAL_BAR["fp32"] for agreement in onnx_file.agreements)
    assert onnx_file.agreements[0].images == 3
    assert sorted(path.name for path in folder.iterdir()) == ["street.onnx", "unlabelled"]


def test_predictions_and_scores_of_the_file_are_those_of_the_network(segda, onnx_file, trained, tmp_path) -> None:
    image = trained.root / "Val" / "Rural" / "images_png" / "0.png"
    network = ShippedNetwork(package.load_segmenter(trained.checkpoint)[0])
    pixels = torch.from_numpy(np.array(Image.open(image))).permute(2, 0, 1)[None]
    expected = network(pixels)[0].numpy()

    artefact = package.load_artefact(onnx_file.path)
    assert np.array_equal(artefact(pixels)[0].numpy(), expected)
    assert np.array_equal(package.predict(onnx_file.path, image), expected)

    code, _, errors = segda("predict", onnx_file.path, image, tmp_path / "classes.png", "--overlay")
    assert (code, errors) == (0, "")
    with Image.open(tmp_path / "classes.png") as written:
        assert np.array_equal(np.asarray(written), expected)

    ours, theirs = (
        package.evaluate(each, data_roots={"loveda": trained.root}, precision="fp32")
        for each in (onnx_file.path, trained.checkpoint)
    )
    for split, scores in theirs.items():
        # Flat margins: another order of sums may decide a pixel or two in another way.
        assert np.abs(ours[split].confusion - scores.confusion).sum() <= 4


def test_a_program_of_torch_export_is_a_file_like_any_other(segda, trained, tmp_path) -> None:
    path = tmp_path / "street.pt2"
    words = ["export", trained.checkpoint, path, "--data-root", f"loveda={trained.root}", "--images", "2"]
    code, output, errors = segda(*words, "--size", "64x96", "--batch", "2", "--compare", "source")
    assert (code, errors) == (0, "")
    assert "of the pixels of 2 images of 64x96" in output
    assert "for images uint8 [2, 3, 64, 96]" in output
    assert f"segda predict {path} IMAGE.png CLASSES.png" in output
    image = trained.root / "Val" / "Rural" / "images_png" / "0.png"
    assert package.predict(path, image, size="train").shape == (64, 64)
    with pytest.raises(package.ConfigError, match=r"expected images uint8 \[2, 3, 64, 96\]"):
        package.predict(path, image, size="native")

    code, output, errors = segda(*words)
    assert (code, output) == (2, "")
    assert "exists; choose another name" in errors


def test_int8_is_calibrated_on_other_images_than_those_that_are_compared(trained, tmp_path, monkeypatch) -> None:
    seen = {}
    quantize, compare = exporting.quantize, exporting.compare
    monkeypatch.setattr(
        exporting, "quantize", lambda *args, **more: (seen.update(quantize=more["images"]), quantize(*args, **more))[1]
    )
    monkeypatch.setattr(
        exporting,
        "compare",
        lambda *args, **more: (seen.setdefault("compare", more["images"]), compare(*args, **more))[1],
    )

    done = export(
        trained.checkpoint,
        tmp_path / "street.onnx",
        precision="int8",
        calibrate="target",
        argmax="quarter",
        agreement=0.3,  # noise for images, and two steps of training: margins are all but nothing
        data_roots={"loveda": trained.root},
    )

    assert (len(seen["quantize"]), len(seen["compare"])) == (1, 2)
    assert not any(torch.equal(one, other) for one in seen["quantize"] for other in seen["compare"])
    assert done.record.calibrated_on == "1 training images of the target"
    assert done.convolutions.int8 > 20
    assert done.convolutions.single == 0
    assert done.argmax_agreement is not None
    assert done.argmax_agreement.mean < 1
    assert done.file_bytes < 0.3 * trained.checkpoint.stat().st_size


def test_a_file_that_says_something_else_gets_no_name(segda, trained, tmp_path, monkeypatch) -> None:
    run = exporting.open_run

    def wrong(*args, **more):
        segments, texts = run(*args, **more)
        return lambda image: 6 - segments(image), texts

    monkeypatch.setattr(exporting, "open_run", wrong)
    (tmp_path / "folder").mkdir()
    words = ["export", trained.checkpoint, tmp_path / "folder" / "street.pt2", "--data-root", f"loveda={trained.root}"]
    code, output, errors = segda(*words)
    assert (code, output) == (2, "")
    assert "street.pt2 (fp32) says the same as the network in" in errors
    assert "worst image:" in errors
    assert "expected at least 99.9900%; nothing was written" in errors
    assert errors.count("\n") == 1
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("street.pt", (), "the file must end in .onnx or .pt2"),
        ("street.pt2", ("--precision", "int8"), "a .pt2 file is written in fp32 alone"),
        ("street.onnx", ("--size", "31x64"), "--size expects HEIGHTxWIDTH"),
        ("street.onnx", ("--batch", "0"), "--batch expects a number of images, or dynamic, got '0'"),
        ("street.onnx", ("--agreement", "2"), "Invalid value for '--agreement'"),
    ],
)
def test_wrong_options_are_one_line(segda, trained, tmp_path, name, options, message) -> None:
    code, output, errors = segda("export", trained.checkpoint, tmp_path / name, *options)
    assert (code, output) == (2, "")
    assert message in errors
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_used_alone_and_in_its_own_precision(segda, onnx_file, trained, tmp_path) -> None:
    image = trained.root / "Val" / "Rural" / "images_png" / "0.png"
    for options, message in (
        (("--with", trained.checkpoint), "says classes and no probabilities, so it is used alone"),
        (("--precision", "bf16"), "computes in fp32, not in bf16; export it in that precision"),
    ):
        code, _, errors = segda("predict", onnx_file.path, image, tmp_path / "classes.png", *options)
        assert code == 2
        assert message in errors


def test_a_file_has_no_confidences_and_an_identity_of_its_own(segda, onnx_file, trained, tmp_path) -> None:
    raster = tmp_path / "raster.tif"
    Image.open(trained.root / "Val" / "Rural" / "images_png" / "0.png").save(raster)
    code, _, errors = segda("predict", onnx_file.path, raster, tmp_path / "classes.tif", "--confidence")
    assert code == 2
    assert "street.onnx says classes and no probabilities; leave confidence out" in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raster.tif"]
    # A raster that was begun with one file is not finished with another one.
    other = tmp_path / "other.onnx"
    other.write_bytes(onnx_file.path.read_bytes())
    one, same = (make_ready(path, None, device="cpu", precision="auto") for path in (onnx_file.path, other))
    assert weights_sha256(one.segmenter) == weights_sha256(same.segmenter)
    quarter = export(
        trained.checkpoint, tmp_path / "quarter.onnx", argmax="quarter", data_roots={"loveda": trained.root}
    )
    different = make_ready(quarter.path, None, device="cpu", precision="auto")
    assert weights_sha256(one.segmenter) != weights_sha256(different.segmenter)


def test_what_the_record_holds_is_a_configuration(onnx_file, trained) -> None:
    written = read_document(trained.config).data
    assert onnx_file.record.config["steps"] == written["steps"]
    assert "root" not in onnx_file.record.config["data"]["source"]
