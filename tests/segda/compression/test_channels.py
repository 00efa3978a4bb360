"""What is left of every network after channels were taken out: the right weights, in a network that its settings describe."""

from functools import lru_cache
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from segda.compression.channels import MOST_OF_A_GROUP, new_width, slim
from segda.efficiency import count_parameters
from segda.errors import ConfigError
from segda.models import MODELS, ModelConfig, Segmenter, build_segmenter, fcn8s
from segda.models.widths import is_grouped, layers_of, narrow, width_of
from segda.types import SegmentationOutput

NUM_CLASSES = 5
RATIO = 0.3
# What each keeps of its parameters; where more than half, attention, its surroundings, or groups of channels keep their width.
CASES = {
    "bisenet_v1": ({}, 0.49),
    "bisenet_v1 efficientnet_lite0": ({"backbone": "efficientnet_lite0"}, 0.51),
    "bisenet_v1 mobilenet_v3_large": ({"backbone": "mobilenet_v3_large"}, 0.50),
    "bisenet_v2": ({}, 0.56),
    "ddrnet_23_slim": ({}, 0.49),
    "deeplab_v2": ({}, 0.49),
    "deeplab_v2_multi": ({}, 0.49),
    "efficientvit_seg": ({}, 0.60),
    "fast_scnn": ({}, 0.51),
    "fcn8s": ({}, 0.57),
    "pidnet_s": ({}, 0.52),
    "sctnet": ({}, 0.73),
    "segformer": ({}, 0.54),
    "segformer_b0": ({}, 0.54),
    "stdc": ({}, 0.49),
}
LARGE = ("deeplab_v2", "deeplab_v2_multi", "fcn8s", "segformer")


@pytest.fixture(scope="module", autouse=True)
def _narrow_fcn8s():
    """Its linear layers keep their width, which is nine tenths of its weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcn8s, "_WIDTH", 64)
        yield


class Pair(NamedTuple):
    dense: Segmenter
    small: Segmenter


def build(case: str) -> Segmenter:
    """Return a network whose weights are all different, with statistics that fit them."""
    name = case.split()[0]
    torch.manual_seed(0)
    network = build_segmenter(
        MODELS[name].Config.model_validate({"name": name, **CASES[case][0]}), num_classes=NUM_CLASSES, pretrained=False
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=float(parameter.abs().mean().clamp(min=0.01)) / 2)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None  # an average over all batches
        network(torch.randn(4, 3, 64, 64))
    return network


@lru_cache(maxsize=1)
def pair(case: str) -> Pair:
    dense = build(case)
    return Pair(dense, slim(dense, ratio=RATIO))


def scores_of(output: SegmentationOutput) -> list[Tensor]:
    edges = [] if output.boundary is None else [output.boundary.logits]
    return [output.logits, *output.auxiliary, *edges]


def kept(dense: Tensor, small: Tensor) -> Tensor:
    """Return which values of a tensor are in its smaller version, whose rows and columns are some of its own."""
    found = torch.isin(dense, small)
    if found.ndim == 1:
        return found
    # Among millions some are equal by chance.
    found = found.flatten(2).all(2) if found.ndim > 2 else found
    rows, columns = found.double().mean(1) > 0.2, found.double().mean(0) > 0.2
    assert (int(rows.sum()), int(columns.sum())) == tuple(small.shape[:2])
    return (rows[:, None] & columns).view(*dense.shape[:2], *[1] * (dense.ndim - 2)).expand_as(dense)


def test_every_network_is_a_case() -> None:
    assert {case.split()[0] for case in CASES} == set(MODELS)


@pytest.mark.parametrize("case", CASES)
def test_every_network_is_smaller_and_trains_and_is_read_back(case: str, tmp_path) -> None:
    dense, small = pair(case)
    share = count_parameters(small) / count_parameters(dense)
    assert share == pytest.approx(CASES[case][1], abs=0.02)
    again = build_segmenter(
        type(small.config).model_validate_json(small.config.model_dump_json()), num_classes=NUM_CLASSES
    )
    torch.save(small.state_dict(), tmp_path / "weights.pt")
    again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    image = torch.randn(2, 3, 65, 97)
    with torch.no_grad():
        of_both = [network.eval()(image, auxiliary=True) for network in (small, again)]
    for first, second in zip(*map(scores_of, of_both), strict=True):
        assert torch.equal(first, second)
        assert first.shape[2:] == (65, 97)
        assert first.isfinite().all()
    assert of_both[0].logits.shape[1] == NUM_CLASSES
    if case in LARGE:
        return
    output = again.train()(image)
    assert len(output.auxiliary) == again.num_auxiliary
    torch.stack([(scores * torch.randn_like(scores)).sum() for scores in scores_of(output)]).sum().backward()
    assert not [name for name, parameter in again.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("case", [case for case in CASES if case not in LARGE])
def test_what_is_left_computes_what_the_whole_does_without_the_rest(case: str, monkeypatch) -> None:
    """Whatever was cut wrongly, at a concatenation, a shortcut or in attention, gives other scores."""
    dense, small = pair(case)
    # The mean over channels depends on how many there are: that is left out of the comparison.
    monkeypatch.setattr(nn.LayerNorm, "forward", lambda self, features: features * self.weight + self.bias)
    whole = build_segmenter(dense.config, num_classes=NUM_CLASSES, pretrained=False)
    whole.load_state_dict(dense.state_dict())
    state = small.state_dict()
    with torch.no_grad():
        for name, value in whole.state_dict().items():
            if state[name].shape != value.shape:
                value.mul_(kept(value, state[name]))
        image = torch.randn(2, 3, 65, 97, dtype=torch.float64)
        outputs = [network.double().eval()(image, auxiliary=True) for network in (whole, small)]
    small.float()
    for expected, got in zip(*map(scores_of, outputs), strict=True):
        assert torch.allclose(got, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))


def test_what_keeps_its_width_keeps_it() -> None:
    _, small = pair("efficientvit_seg")
    before = dict(layers_of(build_segmenter(MODELS["efficientvit_seg"].Config(), num_classes=NUM_CLASSES)))
    layers = dict(layers_of(small))
    assert any(is_grouped(layer) for layer in layers.values())
    for name, layer in layers.items():
        if ".qkv" in name or ".aggregate." in name:
            assert width_of(layer)[0] == width_of(before[name])[0]
    fusion = dict(layers_of(pair("bisenet_v1")[1]))["fusion.project.0"]
    assert width_of(fusion)[0] == NUM_CLASSES


def test_frozen_weights_are_cut_too() -> None:
    """The trace of a network follows gradients: alone it would pass frozen layers by."""
    network = build("fast_scnn")
    expected = slim(network, ratio=0.5)
    frozen = slim(network.requires_grad_(False), ratio=0.5)
    assert frozen.config.widths == expected.config.widths
    assert all(parameter.requires_grad for parameter in frozen.parameters())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_the_network_that_was_given_stays_as_it_is() -> None:
    network = build("fast_scnn")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    slim(network, ratio=0.5)
    assert torch.equal(torch.rand(1), expected)
    assert network.training
    assert network.config.widths is None
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_least_important_channels_go() -> None:
    network = build("ddrnet_23_slim")
    weak = torch.tensor([1, 4, 6, 20])
    with torch.no_grad():
        layer = network.backbone.stem[0]  # into a normalization and another convolution
        for parameter in (layer.weight, network.backbone.stem[1].weight):
            parameter[weak] *= 1e-3
        network.backbone.stem[3].weight[:, weak] *= 1e-3
    small = slim(network, ratio=4 / 32)
    remaining = [number for number in range(32) if number not in weak.tolist()]
    assert torch.equal(small.backbone.stem[0].weight, layer.weight[remaining])


def test_widths_are_rounded_and_never_to_nothing() -> None:
    assert [new_width(64, removed=0.3, round_to=step) for step in (1, 8, 16, 32)] == [45, 48, 48, 32]
    assert [new_width(width, removed=0.3, round_to=16) for width in (8, 16, 24, 40)] == [8, 16, 16, 32]
    assert new_width(3, removed=0.99, round_to=1) == 1
    # The smaller of two that are equally near; no rounding up by what floating point has left over.
    assert [new_width(20, removed=0.4, round_to=8), new_width(10, removed=0.3, round_to=1)] == [8, 7]
    small = slim(build("fast_scnn"), ratio=RATIO, round_to=8)
    for _, outputs, _ in small.config.widths:
        assert outputs % 8 == 0 or outputs == NUM_CLASSES


def test_ranked_together_groups_lose_different_shares() -> None:
    network = build("ddrnet_23_slim")
    with torch.no_grad():
        # Importance is relative to a group's own mean: a group of a few strong channels loses more of the others.
        network.backbone.stem[0].weight[4:] *= 1e-3
        network.backbone.stem[1].weight[4:] *= 1e-3
        network.backbone.stem[3].weight[:, 4:] *= 1e-3
    alone, together = (slim(network, ratio=RATIO, is_global=is_global) for is_global in (False, True))
    shares = {}
    before = dict(layers_of(network))
    for name, outputs, _ in together.config.widths:
        shares[name] = 1 - outputs / width_of(before[name])[0]
    assert shares["backbone.stem.0"] == pytest.approx(28 / 32, abs=0.01)
    assert max(shares.values()) <= MOST_OF_A_GROUP + 1e-9
    assert len({round(share, 2) for share in shares.values()}) > 5
    assert dict(layers_of(alone))["backbone.stem.0"].out_channels == 22


def test_a_smaller_network_can_be_made_smaller_again() -> None:
    once = slim(build("fast_scnn"), ratio=0.2)
    twice = slim(once, ratio=0.2)
    assert count_parameters(twice) < count_parameters(once)
    again = build_segmenter(twice.config, num_classes=NUM_CLASSES)
    again.load_state_dict(twice.state_dict())
    named = {name for name, *_ in once.config.widths}
    assert named <= {name for name, *_ in twice.config.widths}


def test_widths_are_a_part_of_the_architecture_and_other_networks_have_none() -> None:
    plain = MODELS["fast_scnn"].Config()
    assert "widths" not in {**plain.model_dump(), **plain.architecture()}
    assert plain.label() == "fast_scnn"
    labels = {plain.label()}
    for ratio in (0.3, 0.5):
        config = slim(build("fast_scnn"), ratio=ratio).config
        assert config.architecture()["widths"]
        assert hash(config) == hash(type(config).model_validate(config.model_dump(mode="json")))
        labels.add(config.label())
    assert len(labels) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 0.0}, "between 0 and 1"),
        ({"ratio": 1.0}, "between 0 and 1"),
        ({"ratio": 0.3, "round_to": 0}, "at least 1"),
        ({"ratio": 0.01, "round_to": 5000}, "takes nothing out"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, message) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        slim(build("fast_scnn"), **settings)
    assert "\n" not in str(raised.value)


class SplittingConfig(ModelConfig):
    name: str = "splitting"


class Splitting(Segmenter):
    """A network whose forward pass counts on widths and does not say so."""

    Config = SplittingConfig

    def __init__(self, config, *, num_classes):
        super().__init__(config, num_classes=num_classes)
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.classifier = nn.Conv2d(8, num_classes, 1)

    def forward(self, image, *, auxiliary=None):
        features = self.first(image)
        features = features.reshape(len(image), 2, 8, *image.shape[2:]).sum(1)
        return SegmentationOutput(self.classifier(features), (), features)


def test_a_network_that_hides_its_widths_is_refused_in_one_line(monkeypatch) -> None:
    monkeypatch.setitem(MODELS._built_in, "splitting", Splitting)
    network = Splitting(SplittingConfig(), num_classes=NUM_CLASSES)
    with pytest.raises(ConfigError, match=r"no channels can be taken out of splitting.*fixed_width") as raised:
        slim(network, ratio=RATIO)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("width", "message"),
    [
        (("nowhere", 3, 3), "has no"),
        (("shared.0.0", 33, 3), "only become narrower"),
        (("shared.0.0", 0, 3), "only become narrower"),
        (("shared.0.1", 16, 8), "cannot"),
        (("shared.1.0.0", 16, 8), "cannot"),  # depthwise
    ],
)
def test_widths_that_do_not_fit_are_refused(width, message) -> None:
    network = build_segmenter(MODELS["fast_scnn"].Config(), num_classes=NUM_CLASSES)
    with pytest.raises(ConfigError, match=message):
        narrow(network, [width])
