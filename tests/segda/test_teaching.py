"""Labelling once: against NumPy in float64, killed in the middle, and without a look at a target label."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segda.checkpoint import load_segmenter
from segda.datasets.external_labels import confidences_of_levels, digest_in
from segda.datasets.loaders import normalize
from segda.errors import ConfigError, SegdaError
from segda.loading import load_config, load_data
from segda.splits import open_target
from segda.teaching import resized_probs, teach
from segda.training import train


@pytest.fixture(scope="module")
def teachers(trained, tmp_path_factory) -> dict[str, Path]:
    """Runs on the miniature LoveDA whose networks have opinions of their own."""
    base = tmp_path_factory.mktemp("teachers")
    plain = yaml.safe_load(trained.config.read_text()) | {"oracle": "never", "optimizer": {"lr": 1e-4}}
    data = plain["data"]
    changes = {
        "first": {"seed": 1},
        "second": {"seed": 2},
        "small": {"seed": 3, "data": data | {"height": 32, "width": 48}},
        "supervised": {"method": {"name": "target_only"}},
        "few": {"method": {"name": "joint"}, "data": data | {"few_shot": {"images": 1}}},
        "reverse": {"data": data | {"source": data["target"], "target": data["source"]}},
    }
    for name, change in changes.items():
        config = load_config(plain | change, data_roots={"loveda": trained.root})
        train(config, lambda *_: None, folder=base / name)
    return {name: base / name / "checkpoint.pt" for name in changes}


def resize_axis(array: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Resize one axis bilinearly, float64: with a triangle as wide as an output pixel's reach where it shrinks."""
    length = array.shape[axis]
    scale = length / size
    reach = max(scale, 1.0)
    weights = np.zeros((size, length))
    for i in range(size):
        center = (i + 0.5) * scale
        for j in range(length):
            weights[i, j] = max(0.0, 1 - abs(j + 0.5 - center) / reach)
        if scale < 1:  # what lies beyond the edge is the edge
            low = center - 0.5
            weights[i, :] = 0
            for j, share in (
                (int(np.floor(low)), 1 - (low - np.floor(low))),
                (int(np.floor(low)) + 1, low - np.floor(low)),
            ):
                weights[i, min(max(j, 0), length - 1)] += share
        weights[i] /= weights[i].sum()
    return np.moveaxis(np.tensordot(weights, array, axes=(1, axis)), 0, axis)


def resized(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    for axis, length in ((-2, size[0]), (-1, size[1])):
        if array.shape[axis] != length:
            array = resize_axis(array, length, array.ndim + axis)
    return array


def expected_probs(paths, data, *, size, temperature=1.0, flip=False, scales=(1.0,)) -> np.ndarray:
    """Return the mean of all views' probabilities, float64 [N, C, H, W]; the networks' logits are given."""
    found = []
    for path in paths:
        segmenter, own = load_segmenter(path)
        for scale in scales:
            seen = (round(own.data.height * scale), round(own.data.width * scale))
            images = torch.from_numpy(np.array(open_target(data, size=seen).images)).permute(0, 3, 1, 2)
            for mirrored in [False, True] if flip else [False]:
                image = normalize(images.flip(3) if mirrored else images)
                with torch.inference_mode():
                    logits = segmenter(image).logits.double().numpy() / temperature
                powers = np.exp(logits - logits.max(1, keepdims=True))
                probs = powers / powers.sum(1, keepdims=True)
                found.append(resized(probs[..., ::-1] if mirrored else probs, size))
    return np.mean(found, axis=0)


def assert_says(folder: Path, probs: np.ndarray) -> None:
    """Compare labels and confidences with probabilities, but where two classes are as good as equal."""
    order = np.sort(probs, axis=1)
    margin = order[:, -1] - order[:, -2]
    label, level = np.load(folder / "labels.npy"), np.load(folder / "confidences.npy")
    clear = margin > 1e-4
    assert clear.mean() > 0.9
    assert np.array_equal(label[clear], probs.argmax(1)[clear])
    got = confidences_of_levels()[level].astype(np.float64)
    assert (np.abs(got - margin) <= np.sqrt(1 - margin) / 255 + 1 / 510**2 + 1e-4).all()
    for index, mean in enumerate(yaml.safe_load((folder / "labels.json").read_text())["mean_confidence"]):
        of_class = label == index
        assert (mean is None) == (not of_class.any())
        assert mean is None or mean == pytest.approx(got[of_class].mean(), rel=1e-6)


@pytest.mark.parametrize("size", [(5, 9), (13, 11), (40, 24), (5, 40)])
def test_probabilities_are_resized_as_the_formula_says(size):
    probs = np.random.default_rng(0).dirichlet(np.ones(4), (2, 20, 16)).transpose(0, 3, 1, 2)
    got = resized_probs(torch.from_numpy(probs).float(), size).numpy()
    assert np.allclose(got, resized(probs, size), atol=2e-6)
    assert np.allclose(got.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (["first"], {}),
        (["first", "second"], {"temperature": 2.0}),
        (["first", "small"], {"flip": True, "scales": (1.0, 1.5), "batch_size": 2}),
    ],
)
def test_labels_are_the_mean_of_the_teachers_probabilities(trained, teachers, tmp_path, names, options):
    roots = {"loveda": trained.root}
    paths = [teachers[name] for name in names]
    labels = teach(
        trained.config,
        tmp_path / "labels",
        checkpoints=paths,
        data_roots=roots,
        precision="fp32",
        device="cpu",
        **options,
    )
    options = {name: value for name, value in options.items() if name != "batch_size"}
    data = load_data(trained.config, data_roots=roots)
    assert_says(tmp_path / "labels", expected_probs(paths, data, size=(64, 64), **options))
    assert labels.record.job.size == (64, 64)
    assert labels.record.job.confidence == "margin"
    made_by = labels.record.job.made_by
    assert [item["seed"] for item in made_by["checkpoints"]] == [
        {"first": 1, "second": 2, "small": 3}[name] for name in names
    ]
    assert "/" not in str([item["sha256"] for item in made_by["checkpoints"]])


def test_labels_have_the_student_s_size(trained, teachers, tmp_path):
    changes, roots = {"data.height": 32, "data.width": 48}, {"loveda": trained.root}
    teach(
        trained.config,
        tmp_path / "labels",
        checkpoints=[teachers["first"]],
        changes=changes,
        data_roots=roots,
        precision="fp32",
    )
    data = load_data(trained.config, changes=changes, data_roots=roots)
    assert_says(tmp_path / "labels", expected_probs([teachers["first"]], data, size=(32, 48)))


def test_a_higher_temperature_lowers_confidence(trained, teachers, tmp_path):
    sums = []
    for temperature in (0.5, 1.0, 4.0):
        folder = tmp_path / str(temperature)
        options = {"data_roots": {"loveda": trained.root}, "precision": "fp32", "temperature": temperature}
        teach(trained.config, folder, checkpoints=[teachers["first"]], **options)
        sums.append(np.load(folder / "confidences.npy").astype(int).sum())
    assert sums[0] > sums[1] > sums[2]


def names_of(trained) -> list[str]:
    return list(open_target(load_data(trained.config, data_roots={"loveda": trained.root})).names)


def test_ids_and_confidences_of_a_program_are_resized_by_area(trained, tmp_path):
    generator = np.random.default_rng(2)
    for name in names_of(trained):
        coarse = generator.integers(0, 3, (16, 16), dtype=np.uint8)
        coarse[0, 0] = 255
        ids = coarse.repeat(8, 0).repeat(8, 1)  # 128 x 128, four times the area
        ids[::2, ::2] = generator.integers(0, 7, (64, 64))  # a quarter of every output pixel
        stored = generator.integers(0, 65536, (128, 128)).astype(np.uint16)
        for folder, array in (("ids", ids), ("sure", stored)):
            (tmp_path / folder).mkdir(exist_ok=True)
            assert cv2.imwrite(str(tmp_path / folder / f"{name}.png"), array)
    options = {"predictions": tmp_path / "ids", "data_roots": {"loveda": trained.root}}
    labels = teach(trained.config, tmp_path / "labels", confidences=tmp_path / "sure", **options)
    assert labels.record.job.confidence == "given"
    plain = teach(trained.config, tmp_path / "plain", **options)
    assert plain.record.job.confidence == "none"
    assert not (tmp_path / "plain" / "confidences.npy").exists()
    got, level = np.load(tmp_path / "labels" / "labels.npy"), np.load(tmp_path / "labels" / "confidences.npy")
    assert np.array_equal(got, np.load(tmp_path / "plain" / "labels.npy"))
    for number, name in enumerate(names_of(trained)):
        ids = cv2.imread(str(tmp_path / "ids" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(got[number], ids[1::2, 1::2])  # three quarters
        assert (got[number, :4, :4] == 255).all()
        stored = cv2.imread(str(tmp_path / "sure" / f"{name}.png"), cv2.IMREAD_UNCHANGED).astype(np.float64) / 65535
        mean = stored.reshape(64, 2, 64, 2).mean((1, 3))
        expected = np.where(got[number] == 255, 0, np.rint(255 * (1 - np.sqrt(1 - mean))))
        assert np.abs(level[number] - expected).max() <= 1


def test_probabilities_of_a_program_are_taken_like_those_of_a_network(trained, tmp_path):
    generator, said = np.random.default_rng(2), []
    (tmp_path / "said").mkdir()
    for name in names_of(trained):
        probs = generator.dirichlet(np.ones(7) * 0.3, (20, 30)).transpose(2, 0, 1)
        np.save(tmp_path / "said" / f"{name}.npy", probs)
        said.append(resized(probs, (64, 64)))
    teach(trained.config, tmp_path / "labels", predictions=tmp_path / "said", data_roots={"loveda": trained.root})
    assert_says(tmp_path / "labels", np.stack(said))


KILLED = """
import os, signal, sys
from segda.cli import main
from segda.datasets import external_labels

external_labels._SECONDS_BETWEEN_NOTES = -1.0
note = external_labels._note

def note_and_die(building, job, count):
    note(building, job, count)
    if count == int(os.environ["DIE_AT"]):
        os.kill(os.getpid(), signal.SIGKILL)

external_labels._note = note_and_die
main()
"""


@pytest.mark.parametrize("at", [1, 2])
def test_killed_in_the_middle_it_ends_with_the_same_bytes(trained, teachers, segda, tmp_path, at):
    def words(folder: Path) -> list[str]:
        return [
            *("teach", str(trained.config), str(folder), "--checkpoint", str(teachers["first"])),
            *("--data-root", f"loveda={trained.root}", "--batch-size", "1", "--precision", "fp32", "--device", "cpu"),
        ]

    torch.set_num_threads(1)
    assert segda(*words(tmp_path / "whole")).code == 0
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    environment = {**os.environ, "DIE_AT": str(at), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(
        [sys.executable, script, *words(tmp_path / "labels")], env=environment, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "labels").exists()
    assert (tmp_path / ".labels.unfinished" / "labels.npy").exists()
    code, output, _ = segda(*words(tmp_path / "labels"))
    assert code == 0
    assert digest_in(tmp_path / "labels")[:16] in output
    for name in ("labels.npy", "confidences.npy", "labels.json"):
        assert (tmp_path / "labels" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / ".labels.unfinished").exists()


def test_no_target_label_is_opened(trained, teachers, miniatures, tmp_path):
    """Replaced by garbage and then deleted they leave the digest as it is."""
    root = miniatures.loveda(tmp_path / "loveda")
    masks = sorted((root / "Train" / "Rural" / "masks_png").iterdir())

    def digest(name: str) -> str:
        options = {"data_roots": {"loveda": root}, "changes": {"data.cache": str(tmp_path / f"cache {name}")}}
        return teach(
            trained.config, tmp_path / name, checkpoints=[teachers["first"]], precision="fp32", **options
        ).fingerprint

    expected = digest("with labels")
    for path in masks:
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
    assert digest("garbage") == expected
    for path in masks:
        path.unlink()
    assert digest("absent") == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("supervised", "is supervised by the target: its students would be trained on target labels"),
        ("few", "has had the labels of some target images: its students would be trained on target labels"),
        ("reverse", "had as its source what is the target here"),
    ],
)
def test_teachers_that_have_seen_target_labels_are_refused(trained, teachers, segda, tmp_path, name, message):
    code, _, errors = segda(
        "teach", trained.config, tmp_path / "x", "--checkpoint", teachers[name], "--data-root", f"loveda={trained.root}"
    )
    assert code == 2
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either from checkpoints or from a folder of predictions; give one of the two"),
        ({"checkpoints": ["first"], "predictions": "x"}, "give one of the two"),
        ({"checkpoints": ["first"], "confidences": "x"}, "confidences belong to predictions of another program"),
        ({"predictions": "x", "flip": True}, "ways to ask a network; leave them out"),
        ({"predictions": "x", "temperature": 2.0}, "ways to ask a network; leave them out"),
        ({"checkpoints": ["first"], "temperature": 0.0}, "must be greater than 0"),
        ({"checkpoints": ["first"], "temperature": float("nan")}, "must be greater than 0"),
        ({"checkpoints": ["first"], "scales": [-1.0]}, "must be greater than 0"),
        ({"checkpoints": ["first"], "batch_size": 0}, "batch_size must be at least 1"),
        ({"checkpoints": ["nowhere"]}, "no checkpoint at"),
    ],
)
def test_what_does_not_fit_is_refused(trained, teachers, tmp_path, options, message):
    options = {**options, "checkpoints": [teachers.get(name, name) for name in options.get("checkpoints", [])]}
    with pytest.raises(SegdaError, match=message):
        teach(trained.config, tmp_path / "labels", data_roots={"loveda": trained.root}, **options)


def test_a_student_s_configuration_may_name_labels_that_are_not_there_yet(trained, tmp_path):
    plain = yaml.safe_load(trained.config.read_text())
    plain["method"] = {"name": "external_labels"}
    plain["data"]["external_labels"] = {"folder": str(tmp_path / "labels")}
    config = tmp_path / "student.yaml"
    config.write_text(yaml.safe_dump(plain))
    assert load_data(config) == load_data(trained.config)
    with pytest.raises(ConfigError, match=r"student\.yaml:\d+: data\.external_labels\.folder: no external labels in"):
        load_config(config)
    config.write_text(yaml.safe_dump({**plain, "data": {**plain["data"], "height": "tall"}}))
    with pytest.raises(ConfigError, match=r"student\.yaml:\d+: data\.height: must be a whole number, got 'tall'"):
        load_data(config)


def test_the_help_says_how_students_use_the_labels(segda):
    code, output, _ = segda("teach", "--help")
    assert code == 0
    assert "external_labels: {folder: labels}" in output
    assert "segda teach student.yaml labels --checkpoint" in output
