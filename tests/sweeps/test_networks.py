"""Sweeps over networks with different settings: each is searched, priced and named by all of its own, and by no other's."""

from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field
from records import trial
from torch import Tensor, nn

from segda.models import MODELS, ModelConfig, Segmenter
from segda.models.blocks import resize
from segda.tunable import Choice
from segda.types import SegmentationOutput
from sweeps.labels import model_label
from sweeps.ledger.records import Device
from sweeps.planning.profiles import Architecture, describe_device, measure, profile_key, reachable

BOTH = ["bisenet_v1", "pocket"]
BACKBONE = {"choices": ["resnet18", "resnet34"], "when": {"model.name": "bisenet_v1"}}
CHANNELS = {"choices": [4, 8], "when": {"model.name": "pocket"}}


class PocketConfig(ModelConfig):
    name: Literal["pocket"] = "pocket"
    channels: Annotated[int, Choice(4, 8, 16)] = Field(4, ge=1)


class Pocket(Segmenter):
    """One convolution and a classifier; no trunk, and a field that no other network has."""

    Config: ClassVar[type[ModelConfig]] = PocketConfig

    def __init__(self, config: Any, *, num_classes: int) -> None:
        super().__init__(config, num_classes=num_classes)
        self.stem = nn.Conv2d(3, config.channels, 3, stride=2, padding=1)
        self.classifier = nn.Conv2d(config.channels, num_classes, 1)

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        features = self.stem(image).relu()
        logits = resize(self.classifier(features), size=(image.shape[2], image.shape[3]))
        return SegmentationOutput(logits, (), features)


@pytest.fixture(autouse=True)
def pocket(monkeypatch):
    monkeypatch.setitem(MODELS._built_in, "pocket", Pocket)


def plain(spec, **params):
    return spec.train_config({"optimizer.lr": 0.01, **params}, seed=0).model.model_dump()


def test_settings_of_networks_are_searched_where_the_network_is(make_spec):
    spec = make_spec(search={"model.name": BOTH, "model.backbone": BACKBONE, "model.channels": CHANNELS})
    networks = [architecture.model.label() for architecture in reachable(spec)]
    assert networks == ["bisenet_v1 (resnet18)", "bisenet_v1 (resnet34)", "pocket (channels 4)", "pocket (channels 8)"]
    assert spec.space.num_combinations() == 4


def test_a_setting_that_not_all_networks_have_asks_for_its_condition(make_spec):
    with pytest.raises(ValueError, match=r"network pocket has no such field; add `when: \{model.name: bisenet_v1\}`"):
        make_spec(search={"model.name": BOTH, "model.backbone": ["resnet18", "resnet34"]})


def test_a_setting_of_an_unreachable_network_names_its_owner(make_spec):
    with pytest.raises(ValueError, match=r"no network of this sweep has it, but pocket; add that to model\.name"):
        make_spec(search={"model.channels": [4, 8]})


def test_settings_of_networks_in_base_reach_those_that_have_them(make_spec):
    base = make_spec().base | {"model": {"backbone": "resnet34", "pretrained": "none", "channels": 8}}
    spec = make_spec(base=base, search={"model.name": BOTH})
    assert plain(spec, **{"model.name": "pocket"}) == {"name": "pocket", "channels": 8}
    assert plain(spec, **{"model.name": "bisenet_v1"}) == {
        "name": "bisenet_v1",
        "backbone": "resnet34",
        "pretrained": "none",
        "weights_file": None,
    }


def test_a_setting_in_base_that_no_network_of_the_sweep_has_is_refused(make_spec):
    base = make_spec().base | {"model": {"name": "bisenet_v1", "bakbone": "resnet34"}}
    with pytest.raises(ValueError, match=r"no network of this sweep has it \(did you mean 'backbone'\?\)"):
        make_spec(base=base)


def test_all_networks_are_the_default_choice(make_spec):
    assert make_spec(search={"model.name": "default"}).search["model.name"].choices == tuple(MODELS)


def test_an_unknown_network_is_told_wherever_it_stands(make_spec):
    with pytest.raises(ValueError, match=r"unknown network 'pockt' \(did you mean 'pocket'\?\)"):
        make_spec(search={"model.name": ["pockt"]})
    with pytest.raises(ValueError, match=r"unknown network 'pockt' \(did you mean 'pocket'\?\)"):
        make_spec(base=make_spec().base | {"model": {"name": "pockt"}})
    with pytest.raises(ValueError, match=r"unknown network 'pockt' \(did you mean 'pocket'\?\)"):
        make_spec(references={"small": {"model.name": "pockt"}})


def test_networks_that_differ_in_a_field_of_their_own_share_no_cost(make_spec):
    base = make_spec().base | {"model": {"name": "pocket"}}
    found = reachable(make_spec(base=base, search={"model.channels": [4, 8]}))
    device = Device(kind="cpu", name="some processor", threads=1)
    assert len({profile_key(architecture, device) for architecture in found}) == 2
    narrow, wide = (measure(architecture, describe_device("cpu", 1)).metrics for architecture in found)
    assert (narrow["num_parameters"], wide["num_parameters"]) == (28 * 4 + 11 * 5, 28 * 8 + 11 * 9)


def test_where_weights_come_from_changes_no_cost(make_spec, tmp_path):
    spec = make_spec()
    models = [{"pretrained": "none"}, {"pretrained": "imagenet"}, {"weights_file": tmp_path / "x.pth"}]
    configs = [
        make_spec(base=spec.base | {"model": model}).train_config({"optimizer.lr": 0.1}, seed=0) for model in models
    ]
    assert len({Architecture.of(config) for config in configs}) == 1


def test_tables_name_a_network_by_all_that_makes_its_architecture(make_spec):
    base = make_spec().base | {"model": {"name": "pocket"}}
    config = make_spec(base=base).train_config({"optimizer.lr": 0.1}, seed=0).model_dump(mode="json")
    assert model_label(trial(0, config=config)) == "pocket (channels 4)"
    config["model"] = {"name": "gone", "depth": 3}
    assert model_label(trial(0, config=config)) == "gone"


PRETRAINED = ["bisenet_v1", "fast_scnn", "pidnet_s"]


def test_initial_weights_that_not_all_networks_know_are_told_with_what_to_write(make_spec):
    base = make_spec().base | {"model": {"pretrained": "imagenet"}}
    remedy = (
        r"only bisenet_v1 can have imagenet, pidnet_s cannot: leave it out of base, where each keeps its own default, or say for "
        r"which it is meant, under search: "
        r"`model\.pretrained: \{choices: \[imagenet\], when: \{model\.name: \[bisenet_v1\]\}\}`"
    )
    with pytest.raises(ValueError, match=remedy):
        make_spec(base=base, search={"model.name": PRETRAINED})
    # The same where conditions make branches of the networks.
    conditional = {"choices": ["resnet18", "resnet34"], "when": {"model.name": "bisenet_v1"}}
    with pytest.raises(ValueError, match=remedy):
        make_spec(base=base, search={"model.name": PRETRAINED, "model.backbone": conditional})


def test_what_is_said_about_initial_weights_works(make_spec):
    def pretrained(spec):
        return [plain(spec, **{"model.name": name}).get("pretrained") for name in PRETRAINED]

    without = make_spec().base | {"model": {}}
    assert pretrained(make_spec(base=without, search={"model.name": PRETRAINED})) == ["imagenet", None, "none"]

    wanted = {"choices": ["imagenet"], "when": {"model.name": ["bisenet_v1"]}}
    spec = make_spec(base=without, search={"model.name": PRETRAINED, "model.pretrained": wanted})
    first = [spec.space.first(branch) for branch in spec.space.branches()]
    assert [params.get("model.pretrained") for params in first] == ["imagenet", None, None]


def test_a_value_that_no_network_of_the_sweep_takes_is_refused_as_it_is(make_spec):
    base = make_spec().base | {"model": {"pretrained": "imagnet"}}
    with pytest.raises(ValueError, match=r"must be one of .*got 'imagnet'") as caught:
        make_spec(base=base, search={"model.name": PRETRAINED})
    assert "under search" not in str(caught.value)


def test_widths_are_searched_and_each_is_a_network_of_its_own(make_spec):
    base = make_spec().base | {"model": {"pretrained": "none"}}
    spec = make_spec(base=base, search={"model.name": ["fast_scnn", "pidnet_s"], "model.width": "default"})
    assert [architecture.model.label() for architecture in reachable(spec)] == [
        "fast_scnn (width 0.5)",
        "fast_scnn (width 0.75)",
        "fast_scnn",
        "pidnet_s (width 0.5)",
        "pidnet_s (width 0.75)",
        "pidnet_s",
    ]


def test_a_width_without_published_weights_is_refused_before_the_sweep_begins(make_spec):
    base = make_spec().base | {"model": {"name": "bisenet_v1"}}
    with pytest.raises(ValueError, match=r"no ImageNet weights are known for resnet18 at width 0\.5; say none"):
        make_spec(base=base, search={"model.width": [0.5, 1.0]})
