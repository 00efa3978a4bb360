"""Batch normalization with two domains: which images it normalizes by, and which its running averages follow."""

import copy
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segda.batch_norm import FEWEST_POOLED, UBNA_SHARE, batch_weights, blend_statistics, forward_domains
from segda.checkpoint import read_checkpoint
from segda.config import TrainConfig
from segda.datasets.scenes import generate_scenes
from segda.testing.methods import ToySegmenter
from segda.training import train
from segda.types import Boundary, SegmentationOutput


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


def test_joint_cuts_the_boundary_too_and_leaves_it_out_where_it_is_not_wanted():
    class Bounded(ToySegmenter):
        def forward(self, image, *, auxiliary=None):
            output = super().forward(image, auxiliary=auxiliary)
            return output._replace(boundary=Boundary(output.auxiliary[0][:, :1], "balanced"))

    source, target = images()
    segmenter = Bounded().train()
    both = forward_domains(segmenter, source, target, mixing="joint", target_auxiliary=True)
    for output in both:
        assert torch.equal(output.boundary.logits, output.auxiliary[0][:, :1])
        assert output.boundary.rule == "balanced"
    of_source, of_target = forward_domains(segmenter, source, target, mixing="joint", target_auxiliary=False)
    assert of_source.boundary is not None
    assert of_target.boundary is None


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


def halves_seen(segmenter: ToySegmenter, target: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and unbiased variance of each half of the images at the normalization, float64 [2, channels]."""
    features = segmenter.trunk[0](target).detach().double().numpy()
    halves = features.reshape(2, 2, *features.shape[1:]).transpose(0, 2, 1, 3, 4).reshape(2, 8, -1)
    return halves.mean(-1), halves.var(-1, ddof=1)


@pytest.mark.parametrize("variance", ["linear", "mixture"])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_blend_moves_the_statistics_by_its_share(share, variance):
    source, target = images()
    segmenter = network()
    for _ in range(3):
        segmenter(source)
    segmenter.eval()
    before = copy.deepcopy(segmenter.trunk[1])
    blend_statistics(segmenter, [target[:2], target[2:]], share=share, weights=[0.7, 0.3], images=4, variance=variance)
    means, variances = halves_seen(segmenter, target)
    mean, spread = 0.7 * means[0] + 0.3 * means[1], 0.7 * variances[0] + 0.3 * variances[1]
    old_mean, old_spread = before.running_mean.double().numpy(), before.running_var.double().numpy()
    expected = (1 - share) * old_spread + share * spread
    if variance == "mixture":
        expected = expected + share * (1 - share) * (mean - old_mean) ** 2
    layer = segmenter.trunk[1]
    np.testing.assert_allclose(layer.running_mean, (1 - share) * old_mean + share * mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.running_var, expected, rtol=1e-4, atol=1e-5)
    assert layer.momentum == before.momentum
    assert layer.num_batches_tracked == before.num_batches_tracked
    assert not segmenter.training


def test_the_variance_of_a_mixture_has_the_distance_of_the_means_in_it():
    """Means 0 and 2, variances 1 and 0.25, share 0.3: 0.775 linearly, 1.615 of values that are mixed so."""
    values = np.random.default_rng(0).normal(size=200_000)
    mixed = np.concatenate([values[:140_000], 2 + 0.5 * values[140_000:]])
    assert mixed.var() == pytest.approx(1.615, abs=0.02)
    for variance, expected in (("linear", 0.775), ("mixture", 1.615)):
        layer = nn.BatchNorm2d(1)
        target = torch.from_numpy(2 + 0.5 * values[:20_000]).float().view(2, 1, 100, 100)
        segmenter = nn.Module()
        segmenter.layer = layer
        segmenter.forward = lambda image, *, auxiliary, layer=layer: layer(image)
        blend_statistics(segmenter, [target], share=0.3, weights=[1.0], images=2, variance=variance)
        assert layer.running_var.item() == pytest.approx(expected, abs=0.02)


def test_ubna_leaves_0_269_of_the_source_and_counts_early_batches_more():
    assert pytest.approx(0.2692, abs=1e-4) == 1 - UBNA_SHARE
    weights = batch_weights("ubna", images=7, batch_size=4)
    assert len(weights) == 50
    assert sum(weights) == pytest.approx(1)
    # The published form: statistics that move by a momentum that decays.
    mean, values = 5.0, np.random.default_rng(0).normal(size=50)
    for number, value in enumerate(values):
        momentum = 0.1 * np.exp(-0.08 * number)
        mean = (1 - momentum) * mean + momentum * value
    assert mean == pytest.approx((1 - UBNA_SHARE) * 5.0 + UBNA_SHARE * float(np.dot(weights, values)))
    assert batch_weights("average", images=7, batch_size=4) == [0.5, 0.5]


class Pooling(ToySegmenter):
    """A network that normalizes pooled maps as well, under a name that says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.thing = nn.BatchNorm2d(8)

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        output = super().forward(image, auxiliary=auxiliary)
        gate = self.thing(output.features.mean((2, 3), keepdim=True)).sigmoid().mean()
        return output._replace(logits=output.logits * gate)


@pytest.mark.parametrize("count", [4, FEWEST_POOLED - 1, FEWEST_POOLED])
def test_layers_on_pooled_maps_follow_where_there_are_enough_images(count):
    source, target = images()
    segmenter = Pooling().train()
    segmenter(source)
    before = copy.deepcopy(segmenter)
    blend_statistics(segmenter, [target], share=0.5, weights=[1.0], images=count)
    moved = {
        name for name, value in segmenter.state_dict().items() if not torch.equal(value, before.state_dict()[name])
    }
    expected = {"trunk.1.running_mean", "trunk.1.running_var"}
    assert moved == (expected | {"thing.running_mean", "thing.running_var"} if count == FEWEST_POOLED else expected)
    assert all(module.training for module in segmenter.modules())


def test_a_blend_of_a_part_leaves_the_other_layers_alone():
    source, target = images()
    segmenter = Pooling().train()
    segmenter(source)
    before = copy.deepcopy(segmenter.trunk)
    blend_statistics(segmenter, [target], share=0.5, weights=[1.0], images=1000, part=segmenter.thing)
    assert all(torch.equal(got, kept) for got, kept in zip(segmenter.trunk.buffers(), before.buffers(), strict=True))
    assert not torch.equal(segmenter.thing.running_mean, torch.zeros(8))


def test_a_blend_leaves_weights_alone():
    _, target = images()
    segmenter = network()
    weights = [parameter.clone() for parameter in segmenter.parameters()]
    blend_statistics(segmenter, [target], share=1.0, weights=[1.0], images=4)
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
            "model": {"pretrained": "none", "width": 0.25},
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
    ends = [plain]
    for number, changes in enumerate(
        (
            {"target_batch_norm": 1.0},
            {"target_batch_norm": 0.5},
            {"target_batch_norm": 0.5, "target_batch_norm_variance": "mixture"},
            {"target_batch_norm": 0.5, "target_batch_norm_schedule": "ubna", "target_batch_norm_layers": "trunk"},
        )
    ):
        blended = segmenter_of(scenes, tmp_path / f"blended-{number}", **changes)
        other = {name for name in plain if not torch.equal(plain[name], blended[name])}
        assert other
        assert all(name.endswith(("running_mean", "running_var")) for name in other)
        of_trunk = {name for name in other if name.startswith("segmenter.backbone.")}
        assert of_trunk
        assert (of_trunk == other) == ("target_batch_norm_layers" in changes)
        # Four images tell nothing of what is pooled.
        assert not any(".refine_" in name for name in other)
        ends.append(blended)
    for one, two in itertools.combinations(ends, 2):
        assert any(not torch.equal(one[name], two[name]) for name in one)


def test_a_trunk_that_is_not_there_cannot_be_blended_alone(scenes, tmp_path):
    with pytest.raises(ValueError, match="fast_scnn has no trunk to blend alone"):
        segmenter_of(scenes, tmp_path, model={"name": "fast_scnn"}, target_batch_norm_layers="trunk")
