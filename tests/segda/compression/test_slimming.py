"""From a checkpoint to a smaller one by the command line, and on from there with a training."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from segda.checkpoint import load_segmenter, read_checkpoint
from segda.compression.slimming import renew_statistics
from segda.config import TrainConfig
from segda.datasets.scenes import generate_scenes
from segda.efficiency import count_parameters
from segda.errors import ConfigError
from segda.loading import load_config
from segda.splits import open_splits
from segda.testing.runs import RUN_CHECKS, SIDE, RunCase
from segda.training import train

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Scenes and runs on them; `run` is that of a small network."""
    base = tmp_path_factory.mktemp("slimming")
    root = generate_scenes(base / "scenes", size=SIDE, train=4, val=1, seed=1)
    for name, case in {
        "run": RunCase("source_only", fields={"steps": 3, "model": {"name": "fast_scnn", "width": 0.5}}),
        "supervised": RunCase("target_only", fields={"steps": 1}),
    }.items():
        train(case.config(root, base / "cache"), lambda *_: None, folder=base / name)
    return base


@pytest.fixture
def cache(place, monkeypatch) -> None:
    monkeypatch.setenv("SEGDA_CACHE", str(place / "cache"))


@pytest.fixture(scope="module")
def slimmed(place) -> Path:
    from segda.compression.slimming import slim_checkpoint

    path = place / "slim.pt"
    made = slim_checkpoint(place / "run" / "checkpoint.pt", path, ratio=0.5, device="cpu", precision="fp32", runs=5)
    assert made.after.num_parameters < 0.4 * made.before.num_parameters
    assert made.after.macs < 0.4 * made.before.macs
    assert made.after.miou.keys() == {"source/val"}
    return path


def test_the_command_tells_what_both_are_worth_and_marks_what_target_labels_made(segda, place, tmp_path):
    out = tmp_path / "out.pt"
    ended = segda(
        "slim", place / "run" / "checkpoint.pt", out, "--ratio", "0.3", "--round-to", "8", "--global", "--oracle",
        "--runs", "5", "--statistics", "target",
    )  # fmt: skip
    assert ended.code == 0, ended.errors
    for word in (
        "parameters",
        "multiply-accumulates",
        "latency",
        "source/val",
        "target/val (*)",
        "for reading",
        "narrowed",
    ):
        assert word in ended.output
    segmenter, config = load_segmenter(out)
    assert config.model.widths is not None
    num_classes = segmenter.num_classes
    assert all(outputs % 8 == 0 or outputs == num_classes for _, outputs, _ in config.model.widths)
    assert count_parameters(segmenter) < count_parameters(load_segmenter(place / "run" / "checkpoint.pt")[0])


def test_other_commands_read_it(segda, place, slimmed, tmp_path):
    picture = next((place / "scenes" / "Val" / "Rural" / "images_png").iterdir())
    assert segda("evaluate", slimmed, "--split", "source/val").code == 0
    ended = segda("predict", slimmed, picture, tmp_path / "classes.png")
    assert ended.code == 0, ended.errors
    assert (tmp_path / "classes.png").exists()


def test_the_configuration_differs_by_the_widths_alone(place, slimmed):
    before, after = (load_segmenter(path)[1] for path in (place / "run" / "checkpoint.pt", slimmed))
    assert before.fingerprint() != after.fingerprint()
    plain = after.model_dump()
    del plain["model"]["widths"]
    assert TrainConfig.model_validate(plain) == before
    assert read_checkpoint(slimmed)["method"].keys() == {
        f"segmenter.{name}" for name in load_segmenter(slimmed)[0].state_dict()
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ratio", "1.5"], "between 0 and 1"),
        (["--ratio", "0.01", "--round-to", "999"], "takes nothing out"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(segda, place, tmp_path, options, message):
    ended = segda("slim", place / "run" / "checkpoint.pt", tmp_path / "out.pt", *options)
    assert ended.code == 2
    assert message in ended.errors
    assert not list(tmp_path.iterdir())


def test_the_network_itself_is_not_replaced(segda, place, tmp_path):
    path = tmp_path / "checkpoint.pt"
    shutil.copy(place / "run" / "checkpoint.pt", path)
    before = path.read_bytes()
    ended = segda("slim", path, tmp_path / ".." / tmp_path.name / "checkpoint.pt", "--ratio", "0.3")
    assert ended.code == 2
    assert "elsewhere" in ended.errors
    assert path.read_bytes() == before
    assert segda("slim", tmp_path / "absent.pt", tmp_path / "out.pt", "--ratio", "0.3").code == 2


@pytest.mark.parametrize("statistics", ["source", "target", "none"])
def test_statistics_are_those_of_the_images_that_were_named(place, statistics):
    """The first normalization sees what the first convolution makes of the images: that can be said with NumPy."""
    segmenter, config = load_segmenter(place / "run" / "checkpoint.pt")
    config = config.model_copy(update={"data": config.data.model_copy(update={"augmentation": "none"})})
    layers = [layer for layer in segmenter.modules() if isinstance(layer, nn.BatchNorm2d)]
    convolution = next(layer for layer in segmenter.modules() if isinstance(layer, nn.Conv2d))
    before = layers[0].running_mean.clone()
    renew_statistics(segmenter, config, statistics, device=torch.device("cpu"))
    if statistics == "none":
        assert torch.equal(layers[0].running_mean, before)
        return
    splits = open_splits(config)
    images = (splits.source if statistics == "source" else splits.target).images
    normalized = (np.array(images) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    seen = convolution(torch.from_numpy(normalized).permute(0, 3, 1, 2).float())
    assert layers[0].running_mean.numpy() == pytest.approx(seen.detach().mean((0, 2, 3)).numpy(), abs=1e-3)
    assert not torch.equal(layers[0].running_mean, before)


def test_a_training_starts_from_it_and_has_its_network(place, slimmed, tmp_path):
    config = RunCase("source_only", fields={"start": {"checkpoint": slimmed}, "model": None, "steps": 1}).config(
        place / "scenes", place / "cache"
    )
    expected, own = load_segmenter(slimmed)
    assert config.model == own.model
    still = config.model_copy(
        update={"optimizer": config.optimizer.model_copy(update={"lr": 1e-12, "weight_decay": 0.0})}
    )
    train(still, lambda *_: None, folder=tmp_path / "still")
    got, _ = load_segmenter(tmp_path / "still" / "checkpoint.pt")
    for (name, value), wanted in zip(got.named_parameters(), expected.parameters(), strict=True):
        assert torch.allclose(value, wanted, atol=1e-6), name


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """A folder in which the checks of a contract share a training."""
    return tmp_path_factory.mktemp("shared")


@pytest.mark.usefixtures("narrow_discriminator")
@pytest.mark.parametrize("check", RUN_CHECKS.values(), ids=RUN_CHECKS)
def test_whole_trainings_of_a_smaller_network_keep_the_contract(check, slimmed, shared):
    check(RunCase("adversarial", fields={"start": {"checkpoint": slimmed}, "model": None}), shared)


def test_a_resumed_training_needs_no_start_any_more(place, slimmed, tmp_path):
    path = tmp_path / "start.pt"
    shutil.copy(slimmed, path)
    config = RunCase("source_only", fields={"start": {"checkpoint": path}, "model": None}).config(
        place / "scenes", place / "cache"
    )

    def stop(*_):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        train(config, stop, folder=tmp_path / "run")
    path.unlink()
    assert train(config, lambda *_: None, folder=tmp_path / "run").step == config.steps


def test_the_digest_of_the_start_is_in_the_fingerprint_and_its_path_is_not(place, slimmed, tmp_path):
    shutil.copy(slimmed, tmp_path / "moved.pt")
    case = {"model": None}
    here, there, other = (
        RunCase("source_only", fields={**case, "start": {"checkpoint": path}}).config(place / "scenes", place / "cache")
        for path in (slimmed, tmp_path / "moved.pt", place / "run" / "checkpoint.pt")
    )
    assert here.fingerprint() == there.fingerprint() != other.fingerprint()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"start": "run", "model": {"name": "ddrnet_23_slim"}},
            r"is fast_scnn \(width 0\.5\), the configuration has ddrnet_23_slim",
        ),
        ({"start": "supervised", "model": None}, "is supervised by the target: .*start from one that has seen none"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(place, tmp_path, fields, message):
    fields = {**fields, "start": {"checkpoint": place / fields["start"] / "checkpoint.pt"}}
    config = RunCase("source_only", fields=fields).config(place / "scenes", place / "cache")
    with pytest.raises(ConfigError, match=message) as raised:
        train(config, lambda *_: None, folder=tmp_path / "run")
    assert "\n" not in str(raised.value)


def test_a_start_that_is_no_checkpoint_is_told_with_its_key(place, tmp_path):
    (tmp_path / "torn.pt").write_bytes(b"no checkpoint")
    plain = RunCase("source_only").config(place / "scenes", place / "cache").model_dump(mode="json")
    del plain["model"]
    for name in ("torn.pt", "absent.pt"):
        (tmp_path / "config.yaml").write_text(
            yaml.safe_dump({**plain, "start": {"checkpoint": str(tmp_path / name)}}), encoding="utf-8"
        )
        with pytest.raises(ConfigError, match=r"start.checkpoint: .*") as raised:
            load_config(tmp_path / "config.yaml")
        assert "\n" not in str(raised.value)
