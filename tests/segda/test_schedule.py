"""Settings that change in the middle of a run, and runs that begin as copies of others."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from segda.checkpoint import fork_checkpoint, read_checkpoint
from segda.config import TrainConfig
from segda.datasets.scenes import generate_scenes
from segda.errors import WeightsError
from segda.methods import METHODS
from segda.schedule import is_changeable
from segda.train import train

SIZE = 64
CHANGE = {"step": 2, "values": {"optimizer.lr": 0.05, "optimizer.weight_decay": 0.01, "method.lambda_adv": 0.1}}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return generate_scenes(tmp_path_factory.mktemp("data") / "scenes", size=SIZE, train=4, val=2, seed=1)


@pytest.fixture(scope="module")
def configure(scenes, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def make(*changes: dict[str, Any], **fields: Any) -> TrainConfig:
        domain = {"dataset": "scenes", "root": scenes}
        return TrainConfig.model_validate(
            {
                "data": {
                    "source": domain | {"domain": "urban"},
                    "target": domain | {"domain": "rural"},
                    "height": SIZE,
                    "width": SIZE,
                    "cache": cache,
                },
                "model": {"pretrained": "none"},
                "method": {"name": "adversarial", "discriminator": "dwd"},
                "optimizer": {"lr": 0.01},
                "schedule": {"power": 1.0, "changes": changes},
                "steps": 4,
                "report_every": 1,
                "batch_size": 2,
                "precision": "fp32",
                "oracle": "never",
            }
            | fields
        )

    return make


class Reports(list):
    def __call__(self, step, metrics, checkpoint):
        self.append((step, dict(metrics)))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "checkpoint.pt")["method"]


@pytest.fixture(scope="module")
def donor(configure, tmp_path_factory):
    """A run without changes, and its checkpoint after two of four steps."""
    folder = tmp_path_factory.mktemp("donor")

    def keep(step, metrics, checkpoint):
        if step == 2:
            (folder / "two.pt").write_bytes(checkpoint.read_bytes())

    train(configure(), keep, folder=folder)
    return folder


def test_a_copied_run_goes_on_as_if_it_had_trained_its_whole_schedule_alone(configure, donor, tmp_path):
    config = configure(CHANGE)
    alone, copied = Reports(), Reports()
    train(config, alone, folder=tmp_path / "alone")
    assert fork_checkpoint(donor / "two.pt", config=config, folder=tmp_path / "copy") == 2
    train(config, copied, folder=tmp_path / "copy", acknowledged=2)

    assert [step for step, _ in copied] == [3, 4]
    for name, value in weights(tmp_path / "alone").items():
        assert torch.equal(value, weights(tmp_path / "copy")[name]), name
    for (_, one), (_, other) in zip(alone[2:], copied, strict=True):
        for name in one.keys() - {"train/seconds_per_step", "train/images_per_second"}:
            assert one[name] == other[name], name
    # The change made a difference, and not before its step.
    assert not torch.equal(
        weights(tmp_path / "copy")["segmenter.classifier.weight"], weights(donor)["segmenter.classifier.weight"]
    )
    assert [metrics["train/lr"] for _, metrics in alone] == pytest.approx([0.01, 0.0075, 0.025, 0.0125])
    assert json.loads((tmp_path / "copy" / "config.json").read_text())["schedule"]["changes"][0]["step"] == 2


def test_each_change_alone_changes_the_result(configure, donor, tmp_path):
    plain = weights(donor)
    for path, value in (*CHANGE["values"].items(), ("discriminator_optimizer.lr", 1e-2)):
        config = configure({"step": 2, "values": {path: value}})
        fork_checkpoint(donor / "two.pt", config=config, folder=tmp_path / path)
        train(config, Reports(), folder=tmp_path / path, acknowledged=2)
        changed = weights(tmp_path / path)
        assert any(not torch.equal(changed[name], plain[name]) for name in plain), path


def test_weight_decay_still_spares_biases_and_normalization(configure, donor, tmp_path):
    config = configure({"step": 2, "values": {"optimizer.weight_decay": 0.5}})
    fork_checkpoint(donor / "two.pt", config=config, folder=tmp_path)
    train(config, Reports(), folder=tmp_path, acknowledged=2)
    groups = read_checkpoint(tmp_path / "checkpoint.pt")["optimizers"]["segmenter"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]


@pytest.mark.parametrize(
    ("changes", "fields"),
    [((CHANGE | {"step": 1},), {}), ((CHANGE,), {"seed": 1}), ((CHANGE,), {"optimizer": {"lr": 0.02}})],
    ids=["changed before", "seed", "first lr"],
)
def test_a_checkpoint_of_another_beginning_is_refused(configure, donor, tmp_path, changes, fields):
    with pytest.raises(WeightsError, match="is no beginning of the new run"):
        fork_checkpoint(donor / "two.pt", config=configure(*changes, **fields), folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_settings_of_a_step_are_those_after_its_updates(configure):
    config = configure(CHANGE, {"step": 3, "values": {"optimizer.lr": 0.07}})
    assert [config.at(step).optimizer.lr for step in range(5)] == [0.01, 0.01, 0.05, 0.07, 0.07]
    assert [config.at(step).method.lambda_adv for step in (1, 3)] == [0.001, 0.1]
    assert config.at(3).schedule.changes == ()


def test_a_schedule_is_part_of_what_a_run_computes(configure):
    assert configure(CHANGE).fingerprint() != configure().fingerprint()
    assert configure(CHANGE).until(2) == configure()
    assert configure(CHANGE).until(3) == configure(CHANGE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 2, "values": {"batch_size": 8}}, "batch_size cannot change in the middle of a run"),
        ({"step": 4, "values": {"optimizer.lr": 0.1}}, "below steps 4, got 4"),
        ({"step": 2, "values": {"method.lambda_x": 0.1}}, "method adversarial has no method.lambda_x"),
        ({"step": 2, "values": {"optimizer.lr": -0.1}}, "the changes up to step 2 make an impossible optimizer.lr"),
        ({"step": 2, "values": {}}, "at least 1 item"),
    ],
)
def test_an_impossible_change_is_refused(configure, change, message):
    with pytest.raises(ValidationError, match=message):
        configure(change)


def test_changes_come_between_reports_in_order(configure):
    with pytest.raises(ValidationError, match="multiple of report_every 2 below steps 4, got 3"):
        configure(CHANGE | {"step": 3}, report_every=2)
    with pytest.raises(ValidationError, match="ascending steps"):
        configure(CHANGE, CHANGE)


@pytest.mark.parametrize("name", METHODS)
def test_methods_read_weights_of_losses_in_every_step(configure, name):
    """A weight that is put in force later acts as if the method had been built with it."""
    from segda.losses import SegmentationLoss
    from segda.models import build_segmenter
    from segda.types import LabeledBatch, UnlabeledBatch

    weights_of = [field for field in METHODS[name].Config.model_fields if field.startswith("lambda_")]
    assert all(is_changeable(f"method.{field}") for field in weights_of)
    plain = configure(method={"name": name}).method
    heavy = plain.model_copy(update=dict.fromkeys(weights_of, 0.7))
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, SIZE, SIZE, generator=generator)
    label = torch.randint(0, 3, (2, SIZE, SIZE), generator=generator)
    losses = []
    for built, present in ((plain, heavy), (heavy, heavy), (plain, plain)):
        torch.manual_seed(0)
        method = METHODS[name](
            build_segmenter("bisenet_v1", num_classes=3, backbone="resnet18", pretrained="none"),
            config=built,
            loss=SegmentationLoss("cross_entropy"),
            num_classes=3,
        ).train()
        method.config = present
        torch.manual_seed(1)
        output = method.training_step(LabeledBatch(image, label), UnlabeledBatch(image.flip(0)), progress=0.9)
        losses.append(output.losses["segmenter"].item())
    assert losses[0] == losses[1]
    assert (losses[0] != losses[2]) is bool(weights_of)
