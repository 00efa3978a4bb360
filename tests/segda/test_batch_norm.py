"""Batch normalization with two domains: which images it normalizes by, and which its running averages follow."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segda.batch_norm import blend_statistics, forward_domains
from segda.checkpoint import read_checkpoint
from segda.config import TrainConfig
from segda.datasets.scenes import generate_scenes
from segda.testing.methods import ToySegmenter
from segda.training import train


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, 16, 16, generator=generator), 3 + 2 * torch.randn(4, 3, 16, 16, generator=generator)


def network() -> ToySegmenter:
    torch.manual_seed(0)
    return ToySegmenter().train()


def statistics(segmenter: nn.Module) -> list[Tensor]:
    return [buffer.clone() for buffer in segmenter.buffers()]


def seen(segmenter: ToySegmenter, *batches: Tensor) -> nn.BatchNorm2d:
    """Return a normalization whose running averages have followed these batches, one after the other."""
    fresh = nn.BatchNorm2d(8)
    with torch.no_grad():
        for batch in batches:
            fresh(segmenter.trunk[0](batch))
    return fresh


def test_separate_normalizes_each_domain_by_itself_and_follows_both():
    source, target = images()
    segmenter, alone = network(), network()
    of_source, of_target = forward_domains(segmenter, source, target, mixing="separate")
    assert torch.equal(of_source.logits, alone(source).logits)
    assert torch.equal(of_target.logits, alone(target).logits)
    expected = seen(network(), source, target)
    torch.testing.assert_close(segmenter.trunk[1].running_mean, expected.running_mean)
    torch.testing.assert_close(segmenter.trunk[1].running_var, expected.running_var)


def test_source_normalizes_each_domain_by_itself_and_follows_the_source_bit_for_bit():
    source, target = images()
    segmenter, alone = network(), network()
    _, of_target = forward_domains(segmenter, source, target, mixing="source")
    alone(source)
    assert all(torch.equal(got, kept) for got, kept in zip(statistics(segmenter), statistics(alone), strict=True))
    assert torch.equal(of_target.logits, network()(target).logits)
    segmenter(target)  # afterwards it follows again
    assert not torch.equal(segmenter.trunk[1].running_mean, alone.trunk[1].running_mean)


def test_joint_normalizes_all_images_together_and_cuts_the_result():
    source, target = images()
    segmenter = network()
    of_source, of_target = forward_domains(segmenter, source, target, mixing="joint", target_auxiliary=False)
    together = network()(torch.cat([source, target]))
    assert torch.equal(of_source.logits, together.logits[:4])
    assert torch.equal(of_target.logits, together.logits[4:])
    assert torch.equal(of_source.auxiliary[0], together.auxiliary[0][:4])
    assert of_target.auxiliary == ()
    assert torch.equal(of_target.features, together.features[4:])
    expected = seen(network(), torch.cat([source, target]))
    torch.testing.assert_close(segmenter.trunk[1].running_mean, expected.running_mean)


def test_gradients_flow_through_all_mixings():
    source, target = images()
    norms = {}
    for mixing in ("separate", "source", "joint"):
        segmenter = network()
        of_source, of_target = forward_domains(segmenter, source, target, mixing=mixing)
        (of_source.logits.square().mean() + of_target.logits.square().mean()).backward()
        norms[mixing] = segmenter.trunk[0].weight.grad.norm().item()
    assert norms["separate"] == norms["source"]
    assert norms["joint"] != pytest.approx(norms["separate"], rel=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_blend_moves_the_statistics_by_its_share(share):
    source, target = images()
    segmenter = network()
    for _ in range(3):
        segmenter(source)
    segmenter.eval()
    before = copy.deepcopy(segmenter.trunk[1])
    blend_statistics(segmenter, [target[:2], target[2:]], share=share)
    features = segmenter.trunk[0](target).detach().double().numpy()
    halves = features.reshape(2, 2, *features.shape[1:])
    mean = halves.mean(axis=(0, 1, 3, 4))
    variance = np.stack([half.transpose(1, 0, 2, 3).reshape(8, -1).var(axis=1, ddof=1) for half in halves]).mean(axis=0)
    layer = segmenter.trunk[1]
    for got, kept, target_value in (
        (layer.running_mean, before.running_mean, mean),
        (layer.running_var, before.running_var, variance),
    ):
        np.testing.assert_allclose(got.numpy(), (1 - share) * kept.numpy() + share * target_value, rtol=1e-4, atol=1e-5)
    assert layer.momentum == before.momentum
    assert layer.num_batches_tracked == before.num_batches_tracked
    assert not segmenter.training


def test_a_blend_leaves_weights_alone():
    _, target = images()
    segmenter = network()
    weights = [parameter.clone() for parameter in segmenter.parameters()]
    blend_statistics(segmenter, [target], share=1.0)
    assert all(torch.equal(got, kept) for got, kept in zip(segmenter.parameters(), weights, strict=True))
    assert segmenter.training


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return generate_scenes(tmp_path_factory.mktemp("data") / "scenes", size=64, train=4, val=1, seed=1)


def segmenter_of(scenes: Path, folder: Path, **changes: object) -> dict[str, Tensor]:
    domain = {"dataset": "scenes", "root": scenes}
    config = TrainConfig.model_validate(
        {
            "data": {
                "source": domain | {"domain": "urban"},
                "target": domain | {"domain": "rural"},
                "height": 64,
                "width": 64,
                "cache": scenes.parent / "cache",
            },
            "model": {"pretrained": "none"},
            "method": {"name": "source_only"},
            "optimizer": {"lr": 0.01},
            "steps": 3,
            "batch_size": 4,
            "precision": "fp32",
            "device": "cpu",
            "oracle": "never",
            **changes,
        }
    )
    train(config, lambda *_: None, folder=folder)
    state = read_checkpoint(folder / "checkpoint.pt")["method"]
    return {name: value for name, value in state.items() if name.startswith("segmenter.")}


def test_adversarial_without_weight_and_with_source_statistics_is_source_only_bit_for_bit(scenes, tmp_path):
    """The control: what is left of an adversarial result when its loss has no weight is what the mixing of statistics does."""
    plain = segmenter_of(scenes, tmp_path / "plain")
    same = segmenter_of(
        scenes, tmp_path / "same", method={"name": "adversarial", "lambda_adv": 0.0, "batch_norm": "source"}
    )
    mixed = segmenter_of(scenes, tmp_path / "mixed", method={"name": "adversarial", "lambda_adv": 0.0})
    assert plain.keys() == same.keys()
    assert [name for name in plain if not torch.equal(plain[name], same[name])] == []
    other = {name for name in plain if not torch.equal(plain[name], mixed[name])}
    assert other
    assert all(name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked") for name in other)


def test_a_run_blends_statistics_after_training_alone(scenes, tmp_path):
    plain = segmenter_of(scenes, tmp_path / "plain")
    blended = segmenter_of(scenes, tmp_path / "blended", target_batch_norm=1.0)
    other = {name for name in plain if not torch.equal(plain[name], blended[name])}
    assert other
    assert all(name.endswith(("running_mean", "running_var")) for name in other)
