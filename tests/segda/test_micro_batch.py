"""Gradient accumulation: fewer images at once, the same step."""

import json
from typing import Any

import pytest
import torch
from torch import nn

from segda.checkpoint import read_checkpoint
from segda.config import TrainConfig
from segda.draws import Draws
from segda.errors import ConfigError
from segda.gradients import Gradients, images_at_once
from segda.losses import SegmentationLoss
from segda.methods import METHODS, Method, StepInput
from segda.models import build_segmenter
from segda.models.bisenet_v1 import BiSeNetV1
from segda.team import Team
from segda.training import train
from segda.types import IGNORE_INDEX, LabeledBatch, UnlabeledBatch

NUM_CLASSES = 7
ALONE = Team(rank=0, size=1, device=torch.device("cpu"))


def configure(method: str = "source_only", **changes: Any) -> TrainConfig:
    domain = {"dataset": "scenes", "domain": "urban"}
    plain = {
        "data": {"source": domain, "target": domain | {"domain": "rural"}, "height": 32, "width": 64},
        "method": {"name": method},
        "steps": 10,
        "batch_size": 8,
        "precision": "fp32",
        "device": "cpu",
    }
    return TrainConfig.model_validate(plain | changes)


def batch(*, with_target: bool) -> StepInput:
    """Eight images of each domain, whose void pixels differ from image to image; two images have nothing else."""
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, NUM_CLASSES, (8, 32, 64), generator=generator)
    for image, rows in enumerate((0, 30, 4, 0, 32, 32, 9, 1)):
        label[image, :rows] = IGNORE_INDEX
    source, target = torch.randn(2, 8, 3, 32, 64, generator=generator)
    return StepInput(
        labeled=LabeledBatch(source, label),
        target=UnlabeledBatch(target if with_target else target[:0]),
        few_shot=None,
        progress=0.0,
        draws=Draws(seed=0, step=0),
    )


def build(config: TrainConfig, *, loss: str = "cross_entropy") -> Method:
    """Return a method around a network whose normalization does not depend on the batch."""
    torch.manual_seed(0)
    segmenter = build_segmenter(BiSeNetV1.Config(), num_classes=NUM_CLASSES, pretrained=False)
    method = METHODS[config.method.name](
        segmenter, config=config.method, loss=SegmentationLoss(loss), num_classes=NUM_CLASSES
    )
    method.train()
    for module in method.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return method


def computed(
    config: TrainConfig, *, micro_batch: int | None, loss: str = "cross_entropy"
) -> tuple[dict[str, torch.Tensor], ...]:
    """Return losses, logs and gradients of one step."""
    method = build(config, loss=loss)
    gradients = Gradients(
        config,
        method,
        method.parameter_groups(),
        torch.amp.GradScaler("cpu", enabled=False),
        team=ALONE,
        dtype=torch.float32,
        micro_batch=micro_batch,
    )
    losses, logs = gradients.compute(batch(with_target=method.needs_target))
    return losses, logs, {name: p.grad for name, p in method.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("loss", ["cross_entropy", "dice"])
@pytest.mark.parametrize("method", ["source_only", "adversarial"])
def test_gradients_of_micro_batches_add_up_to_those_of_the_batch(method, loss):
    """Also where void pixels are spread unevenly: each labelled pixel weighs the same in either case."""
    whole, parts = (computed(configure(method), micro_batch=size, loss=loss) for size in (None, 4))
    for expected, got in zip(whole, parts, strict=True):
        assert expected.keys() == got.keys()
        for name, value in expected.items():
            scale = float(value.norm())
            assert float((got[name] - value).norm()) <= 1e-5 * scale + 1e-7, name


@pytest.mark.parametrize("micro_batch", [None, 4])
def test_the_discriminator_is_frozen_in_the_segmenters_step_and_the_segmenter_in_the_discriminators(micro_batch):
    """The loop has both losses at once; what it adds to each network is as if the other one had been frozen, as references do."""
    strong = METHODS["adversarial"].Config.model_validate({"lambda_adv": 1.0})
    config = configure("adversarial").model_copy(update={"method": strong})
    _, _, got = computed(config, micro_batch=micro_batch)
    expected = {}
    for group in ("segmenter", "discriminator"):
        method = build(config)
        for other, parameters in method.parameter_groups().items():
            for parameter in parameters:
                parameter.requires_grad_(other == group)
        method.training_step(batch(with_target=True)).losses[group].value.backward()
        expected |= {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        assert float((got[name] - value).norm()) <= 1e-5 * float(value.norm()) + 1e-7, name


def test_a_micro_batch_as_large_as_the_batch_changes_no_bit():
    whole, same = (computed(configure("adversarial"), micro_batch=size) for size in (None, 8))
    for expected, got in zip(whole, same, strict=True):
        assert all(torch.equal(got[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("micro_batch", "processes", "message"),
    [
        (3, 1, r"one of \[4, 8\], got 3"),
        (1, 1, r"one of \[4, 8\], got 1"),
        (
            2,
            1,
            r"got 2: .* fewer images at once \(at least 4 over all processes\) batch normalization would train another",
        ),
        (8, 2, r"one of \[2, 4\], got 8: it divides the 4 images of each process"),
        (None, 3, r"batch_size 8 cannot be shared by 3 processes"),
        (None, 8, r"at least 2"),
        (None, 0, r"cannot be shared by 0 processes"),
    ],
)
def test_a_batch_that_cannot_be_cut_like_that_is_one_clear_error(tmp_path, micro_batch, processes, message):
    with pytest.raises(ConfigError, match=message):
        train(configure(), lambda *_: None, folder=tmp_path / "run", micro_batch=micro_batch, processes=processes)
    assert not (tmp_path / "run").exists()


def test_images_at_once_are_all_of_a_process_unless_asked_for_fewer():
    assert images_at_once(configure(), micro_batch=None, processes=1) == 8
    assert images_at_once(configure(), micro_batch=None, processes=2) == 4
    assert images_at_once(configure(), micro_batch=2, processes=2) == 2


def test_the_command_line_trains_in_micro_batches_and_goes_on_in_others(segda, miniatures, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGDA_CACHE", str(tmp_path / "cache"))
    root = miniatures.loveda(tmp_path / "loveda")
    config = miniatures.config(tmp_path / "tiny.yaml")
    words = ["train", config, "--data-root", f"loveda={root}", "batch_size=8", "report_every=1"]
    run = tmp_path / "run"

    def recorded() -> tuple[int, int]:
        environment = json.loads((run / "environment.json").read_text())
        assert environment["device"] == "cpu"
        return environment["micro_batch"], environment["processes"]

    assert segda(*words, "--folder", run, "--micro-batch", 4).code == 0
    assert recorded() == (4, 1)
    first = read_checkpoint(run / "checkpoint.pt")
    assert (first["step"], first["method"]["segmenter.backbone.bn1.num_batches_tracked"]) == (2, 4)
    assert segda(*words, "--folder", run).code == 0
    assert recorded() == (8, 1)

    refused = segda(*words, "--folder", run, "--micro-batch", 3)
    assert refused.code == 2
    assert len(refused.errors.strip().splitlines()) == 1
