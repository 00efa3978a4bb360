"""Masks that last: whatever moves weights, what is pruned stays zero, and the numbers are exact."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from segda.checkpoint import load_segmenter, read_checkpoint
from segda.compression.pruning import Pruning, PruningConfig
from segda.compression.weights import discriminator_weights, segmenter_weights, stages
from segda.config import TrainConfig
from segda.datasets.scenes import generate_scenes
from segda.discriminators import DISCRIMINATORS, build_discriminator
from segda.errors import ConfigError, DamagedCheckpointError
from segda.loading import load_config
from segda.methods.teacher import make_teacher, move_teacher
from segda.models import MODELS, ModelConfig, Segmenter, build_segmenter
from segda.optim import OPTIMIZERS, build_optimizer
from segda.testing.runs import RunCase, check_interrupted_equals_uninterrupted
from segda.training import train
from segda.types import SegmentationOutput

NUM_CLASSES = 5


class Small(Segmenter):
    """A first layer, three between, a depthwise one, and a last one."""

    def __init__(self) -> None:
        super().__init__(ModelConfig(name="small"), num_classes=NUM_CLASSES)
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(16, 24, 3, padding=1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 24, 3, padding=1, groups=24),
            nn.Conv2d(24, 16, 1),
        )
        self.last = nn.Conv2d(16, NUM_CLASSES, 1)

    def forward(self, image: torch.Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        features = self.body(self.first(image).relu())
        return SegmentationOutput(self.last(features), (), features)


class Whole(nn.Module):
    """What a method is to pruning: a segmenter and discriminators."""

    def __init__(self, discriminator: str = "fcd") -> None:
        super().__init__()
        self.segmenter = Small()
        self.discriminators = nn.ModuleList([build_discriminator(discriminator, num_classes=NUM_CLASSES)])


def pruning_of(whole: Whole, *, steps: int = 10, images: int = 4, **parts: Any) -> Pruning:
    config = PruningConfig.model_validate(parts)
    return Pruning(config, whole, whole.segmenter, steps=steps, batch_size=2, images=images)


def fixed(sparsity: float, **more: Any) -> dict[str, Any]:
    return {"schedule": {"name": "fixed", "sparsity": sparsity}, **more}


def zeros(weights: dict[str, nn.Parameter]) -> int:
    return sum(int((weight == 0).sum()) for weight in weights.values())


def size(weights: dict[str, nn.Parameter]) -> int:
    return sum(weight.numel() for weight in weights.values())


def step_of(segmenter: nn.Module, seed: int) -> torch.Tensor:
    image = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return segmenter(image).logits.square().mean()


# --- what may become zero ---


def test_first_last_depthwise_biases_and_normalization_are_left_alone():
    assert list(segmenter_weights(Small())) == ["body.0.weight", "body.4.weight"]
    assert list(segmenter_weights(Small(), protect_ends=False)) == [
        "first.weight",
        "body.0.weight",
        "body.4.weight",
        "last.weight",
    ]


@pytest.mark.parametrize("name", MODELS)
def test_of_every_network_the_layers_at_the_image_and_at_the_scores_are_protected(name):
    config = MODELS[name].Config.model_validate({"name": name})
    with torch.device("meta"):
        segmenter = MODELS[name](config, num_classes=NUM_CLASSES)
    free = segmenter_weights(segmenter, protect_ends=False)
    kept = segmenter_weights(segmenter)
    protected = [segmenter.get_submodule(name.removesuffix(".weight")) for name in free.keys() - kept.keys()]
    shapes = [tuple(layer.weight.shape) for layer in protected]
    assert any(shape[1] == 3 for shape in shapes)
    assert any(shape[0] == NUM_CLASSES for shape in shapes)
    # Nearly all of the network can become zero, and what only training runs is not counted.
    assert size(kept) > 0.7 * size(free)
    assert not any(key.split(".")[0] in segmenter.training_only for key in free)
    parts = stages(segmenter, list(kept))
    assert sorted(weight for inside in parts.values() for weight in inside) == sorted(kept)
    assert len(parts) > 1


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_of_every_discriminator_the_first_and_the_last_layer_are_protected_with_all_their_factors(name):
    whole = Whole(name)
    layers = {key.split(".")[3] for key in discriminator_weights(whole)}
    last = len(whole.discriminators[0].layers) - 1
    assert layers
    assert layers == {str(number) for number in range(2, last, 2)}
    assert len(discriminator_weights(whole, protect_ends=False)) > len(discriminator_weights(whole))


def test_nothing_to_prune_is_told():
    whole = Whole()
    whole.segmenter.body = nn.Sequential(nn.Identity())
    with pytest.raises(ConfigError, match="no weight lies between the first and the last layers; set protect_ends"):
        pruning_of(whole, segmenter=fixed(0.5))


# --- masks and optimizers ---


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_is_pruned_stays_zero_after_every_step_of_every_optimizer(optimizer):
    torch.manual_seed(0)
    whole = Whole()
    settings = OPTIMIZERS[optimizer].Config.model_validate({"lr": 0.01, "weight_decay": 0.01})
    built = build_optimizer(settings, whole.segmenter.parameters())
    # Momenta and averages are there before the first zero.
    for step in range(2):
        step_of(whole.segmenter, step).backward()
        built.step()
        built.zero_grad()
    pruning = pruning_of(whole, segmenter=fixed(0.5))
    weights = segmenter_weights(whole.segmenter)
    total = size(weights)
    for step in range(5):
        pruning.advance(step)
        step_of(whole.segmenter, step).backward()
        pruning.clear_gradients()
        built.step()
        pruning.apply()
        built.zero_grad()
        assert zeros(weights) == round(0.5 * total)
        assert pruning.sparsity() == {"segmenter": round(0.5 * total) / total}


def test_without_masks_one_step_of_adam_brings_everything_back():
    # The trap that the report's code fell into: the mask is forgotten after it was applied.
    torch.manual_seed(0)
    whole = Whole()
    built = build_optimizer(OPTIMIZERS["adam"].Config(name="adam", lr=0.01), whole.segmenter.parameters())
    pruning_of(whole, segmenter=fixed(0.2)).advance(0)
    weights = segmenter_weights(whole.segmenter)
    assert zeros(weights) == round(0.2 * size(weights))
    step_of(whole.segmenter, 0).backward()
    built.step()
    assert zeros(weights) == 0


def test_gradients_of_zeros_do_not_count_when_gradients_are_clipped():
    whole = Whole()
    pruning = pruning_of(whole, segmenter=fixed(0.5))
    pruning.advance(0)
    step_of(whole.segmenter, 0).backward()
    pruning.clear_gradients()
    for weight in segmenter_weights(whole.segmenter).values():
        assert bool((weight.grad[weight == 0] == 0).all())
        assert bool((weight.grad[weight != 0] != 0).any())


def test_levels_are_reached_exactly_while_weights_move():
    torch.manual_seed(0)
    whole = Whole()
    built = torch.optim.SGD(whole.segmenter.parameters(), lr=0.05, momentum=0.9)
    # Two steps are an epoch.
    pruning = pruning_of(whole, segmenter={"schedule": {"name": "incremental", "per_epoch": 0.1, "largest": 0.35}})
    weights = segmenter_weights(whole.segmenter)
    before: dict[str, torch.Tensor] = {}
    for step in range(10):
        pruning.advance(step)
        step_of(whole.segmenter, step).backward()
        pruning.clear_gradients()
        built.step()
        pruning.apply()
        built.zero_grad()
        assert zeros(weights) == round(min(0.1 * (step // 2), 0.35) * size(weights))
        for name, weight in weights.items():
            assert not (weight[before.get(name, torch.zeros_like(weight, dtype=torch.bool))] != 0).any()
            before[name] = weight == 0


def test_names_and_tensors_stay_so_that_plain_checkpoints_and_teachers_fit():
    whole = Whole()
    names = list(whole.state_dict())
    held = [id(parameter) for parameter in whole.parameters()]
    pruning_of(whole, segmenter=fixed(0.5), discriminator=fixed(0.5)).advance(0)
    assert list(whole.state_dict()) == names
    assert [id(parameter) for parameter in whole.parameters()] == held
    copy.deepcopy(whole).load_state_dict(Whole().state_dict())


def test_a_teacher_that_has_seen_only_pruned_weights_has_their_zeros():
    whole = Whole()
    pruning = pruning_of(whole, segmenter=fixed(0.5))
    pruning.advance(0)
    teacher = make_teacher(whole.segmenter)
    built = torch.optim.Adam(whole.segmenter.parameters(), lr=0.01)
    for step in range(3):
        step_of(whole.segmenter, step).backward()
        built.step()
        pruning.apply()
        move_teacher(teacher, whole.segmenter, moves=torch.tensor(step), alpha=0.99)
    averaged = dict(teacher.named_parameters())
    for name, weight in segmenter_weights(whole.segmenter).items():
        assert torch.equal(averaged[name] == 0, weight == 0)


# --- dead discriminators ---


def says(discriminator: nn.Module, seed: int) -> torch.Tensor:
    maps = torch.randn(2, NUM_CLASSES, 64, 64, generator=torch.Generator().manual_seed(seed)).softmax(1)
    return discriminator(maps).detach()


def test_one_ranking_over_a_fresh_discriminator_kills_it_and_the_defaults_do_not():
    torch.manual_seed(0)
    unprotected = Whole()
    dead = pruning_of(unprotected, discriminator=fixed(0.85, protect_ends=False, largest_layer_share=1.0))
    dead.advance(0)
    layers = list(dead.summary()["discriminator"]["layers"].values())
    assert layers == sorted(layers)
    assert layers[-1] == 1.0  # the classifier is gone
    assert torch.equal(says(unprotected.discriminators[0], 0), says(unprotected.discriminators[0], 1))

    torch.manual_seed(0)
    whole = Whole()
    kept = pruning_of(whole, discriminator=fixed(0.85))
    kept.advance(0)
    summary = kept.summary()["discriminator"]
    assert summary["sparsity"] == pytest.approx(0.85, abs=1e-6)
    assert max(summary["layers"].values()) <= 0.9
    assert not torch.equal(says(whole.discriminators[0], 0), says(whole.discriminators[0], 1))

    # The bound alone keeps the last layer alive, too.
    torch.manual_seed(0)
    bounded = Whole()
    pruning_of(bounded, discriminator=fixed(0.85, protect_ends=False)).advance(0)
    assert not torch.equal(says(bounded.discriminators[0], 0), says(bounded.discriminators[0], 1))


# --- configurations ---


def plain(root: Path, cache: Path, **fields: Any) -> dict[str, Any]:
    return {
        "data": {
            "source": {"dataset": "scenes", "domain": "urban", "root": root},
            "target": {"dataset": "scenes", "domain": "rural", "root": root},
            "height": 64,
            "width": 64,
            "cache": cache,
        },
        "model": {"name": "fast_scnn", "width": 0.25},
        "method": {"name": "adversarial", "discriminator": "dwd"},
        "optimizer": {"lr": 0.01},
        "steps": 6,
        "report_every": 4,
        "batch_size": 4,
        "precision": "fp32",
        "device": "cpu",
        "oracle": "never",
        **fields,
    }


@pytest.mark.parametrize(
    "method", [{"name": "source_only"}, {"name": "mic", "host": {"name": "dacs"}}, {"name": "self_training"}]
)
def test_a_discriminator_is_not_pruned_where_there_is_none(method):
    fields = {"method": method, "pruning": {"discriminator": fixed(0.2)}}
    with pytest.raises(
        ConfigError, match=r"pruning.discriminator.schedule.name.*trains no discriminator; set it to none"
    ):
        load_config(plain(Path("/nowhere"), Path("/nowhere"), **fields))


@pytest.mark.parametrize("name", ["adversarial", "mic"])
def test_a_discriminator_is_pruned_where_there_is_one_also_below_another_method(name):
    method = {"name": name} if name != "mic" else {"name": "mic", "host": {"name": "adversarial"}}
    config = load_config(
        plain(Path("/nowhere"), Path("/nowhere"), method=method, pruning={"discriminator": fixed(0.2)})
    )
    assert config.pruning.discriminator.is_on
    assert not config.pruning.segmenter.is_on


def test_a_level_beyond_the_bound_of_a_layer_is_refused():
    fields = {"pruning": {"segmenter": fixed(0.95)}}
    with pytest.raises(ConfigError, match=r"largest_layer_share.*highest level of the schedule, 0.95, got 0.9"):
        load_config(plain(Path("/nowhere"), Path("/nowhere"), **fields))


# --- whole trainings ---


BOTH = {
    "segmenter": {"schedule": {"name": "cubic", "end": 0.6, "updates": 4}},
    "discriminator": {"schedule": {"name": "incremental", "per_epoch": 0.1}},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[TrainConfig, Path, list[dict[str, float]]]:
    place = tmp_path_factory.mktemp("pruned")
    root = generate_scenes(place / "scenes", size=64, train=4, val=1, seed=1)
    config = load_config(plain(root, place / "cache", pruning=BOTH))
    reports: list[dict[str, float]] = []
    train(config, lambda step, metrics, path: reports.append(dict(metrics)), folder=place / "run")
    return config, place / "run", reports


def test_a_training_reports_how_much_is_zero_and_leaves_a_plain_checkpoint(finished):
    _, folder, reports = finished
    segmenter, _ = load_segmenter(folder / "checkpoint.pt")
    weights = segmenter_weights(segmenter)
    result = json.loads((folder / "result.json").read_text())["pruning"]
    expected = round(0.6 * size(weights))

    assert zeros(weights) == expected == result["segmenter"]["num_zeros"]
    assert result["segmenter"]["num_weights"] == size(weights)
    assert [report["train/sparsity_segmenter"] for report in reports][-1] == expected / size(weights)
    assert reports[0]["train/sparsity_segmenter"] < reports[-1]["train/sparsity_segmenter"]
    # Batches of 4 and 4 images: step 5 is in epoch 5.
    assert result["discriminator"]["sparsity"] == pytest.approx(0.5, abs=1e-3)
    state = read_checkpoint(folder / "checkpoint.pt")
    for name, mask in state["masks"]["discriminator"].items():
        assert torch.equal(state["method"][name] == 0, mask)


def test_a_training_without_pruning_says_nothing_of_it(finished, tmp_path):
    config, _, _ = finished
    reports: list[dict[str, float]] = []
    plain_config = config.model_copy(update={"pruning": PruningConfig(), "steps": 1})
    train(plain_config, lambda step, metrics, path: reports.append(dict(metrics)), folder=tmp_path)
    assert not any("sparsity" in name for name in reports[-1])
    assert json.loads((tmp_path / "result.json").read_text())["pruning"] == {}


@pytest.mark.usefixtures("narrow_discriminator")
@pytest.mark.parametrize(
    ("method", "settings", "pruning"),
    [
        ("adversarial", {"discriminator": "fcd", "dropout": 0.1}, BOTH),
        ("dacs", {}, {"segmenter": BOTH["segmenter"]}),  # with an averaged teacher
    ],
)
def test_a_pruned_training_that_is_interrupted_ends_as_an_uninterrupted_one(method, settings, pruning, tmp_path):
    check_interrupted_equals_uninterrupted(RunCase(method, settings, {"pruning": pruning}), tmp_path)


def test_masks_that_do_not_fit_are_a_damaged_checkpoint(finished):
    _, folder, _ = finished
    state = read_checkpoint(folder / "checkpoint.pt")
    whole = Whole()
    pruning = pruning_of(whole, segmenter=fixed(0.5))
    with pytest.raises(DamagedCheckpointError, match="has masks of segmenter and discriminator, where segmenter"):
        pruning.restore(state["masks"], step=6)
    with pytest.raises(DamagedCheckpointError, match=r"do not fit: body.0.weight is missing"):
        pruning.restore({"segmenter": state["masks"]["segmenter"]}, step=6)


def test_restored_masks_are_those_of_the_last_step_and_rise_from_there():
    whole = Whole()
    schedule = {"name": "incremental", "per_epoch": 0.1}
    first = pruning_of(whole, segmenter={"schedule": schedule})
    for step in range(5):
        first.advance(step)
    second = pruning_of(whole, segmenter={"schedule": schedule})
    second.restore(first.state(), step=5)
    assert second.sparsity() == first.sparsity()
    for step in range(5, 8):
        first.advance(step)
        second.advance(step)
        assert second.sparsity() == first.sparsity()
        assert all(
            torch.equal(mask, second.state()["segmenter"][name]) for name, mask in first.state()["segmenter"].items()
        )
    assert second.sparsity()["segmenter"] == pytest.approx(0.3, abs=1e-3)


@pytest.mark.slow
def test_two_processes_prune_the_same_weights_as_one(finished, tmp_path):
    config, folder, _ = finished
    train(config, lambda *_: None, folder=tmp_path, processes=2)
    alone, together = (read_checkpoint(each / "checkpoint.pt") for each in (folder, tmp_path))
    for part, masks in alone["masks"].items():
        same = [(mask == together["masks"][part][name]).double().mean().item() for name, mask in masks.items()]
        # Chance would agree on half of them. Ranks draw other dropout, which moves a few weights over the edge.
        assert min(same) > 0.95
    network, _ = load_segmenter(tmp_path / "checkpoint.pt")
    weights = segmenter_weights(network)
    assert zeros(weights) == round(0.6 * size(weights))


def test_every_network_trains_a_step_with_pruning_as_numpy_would_rank_it():
    segmenter = build_segmenter(MODELS["fast_scnn"].Config(name="fast_scnn"), num_classes=NUM_CLASSES, pretrained=False)
    weights = segmenter_weights(segmenter)
    together = np.abs(np.concatenate([weight.detach().double().numpy().ravel() for weight in weights.values()]))
    config = PruningConfig.model_validate({"segmenter": fixed(0.5, largest_layer_share=1.0)})
    pruning = Pruning(config, segmenter, segmenter, steps=1, batch_size=1, images=1)
    pruning.advance(0)
    pruned = np.concatenate([(weight == 0).numpy().ravel() for weight in weights.values()])
    assert pruned.sum() == round(0.5 * together.size)
    assert together[pruned].max() <= together[~pruned].min()
