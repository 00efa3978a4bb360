import logging
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from segda.errors import WeightsError
from segda.models.base import ModelConfig, Segmenter
from segda.models.official_weights import OfficialNames, OfficialWeightsConfig, load_official_weights
from segda.types import SegmentationOutput

NAMES = OfficialNames(
    own={"encoder": "backbone", "decode_head": "head", "decode_head.pred": "classifier"},
    optional=("head", "classifier"),
    classifiers=("classifier",),
    foreign=("fc.",),
)


class Net(Segmenter):
    """A network of few weights: the loader works on names and shapes."""

    Config: ClassVar[type[ModelConfig]] = ModelConfig
    trunk_module: ClassVar[str | None] = "backbone"

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(ModelConfig(name="net"), num_classes=num_classes)
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 4, 1)
        self.classifier = nn.Conv2d(4, num_classes, 1)

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        raise NotImplementedError


def trunk_state() -> dict[str, Any]:
    return {f"encoder.{name}": torch.rand_like(value.float()) for name, value in Net().backbone.state_dict().items()}


def whole_state(num_classes: int = 3) -> dict[str, Any]:
    return trunk_state() | {
        "decode_head.weight": torch.rand(4, 4, 1, 1),
        "decode_head.bias": torch.rand(4),
        "decode_head.pred.weight": torch.rand(num_classes, 4, 1, 1),
        "decode_head.pred.bias": torch.rand(num_classes),
    }


def saved(folder: Path, content: Any) -> Path:
    for state in (content, content.get("state_dict", {})):
        if "encoder.1.num_batches_tracked" in state:
            state["encoder.1.num_batches_tracked"] = torch.tensor(7)
    torch.save(content, folder / "official.pth")
    return folder / "official.pth"


def named(file: Path | None) -> OfficialWeightsConfig:
    return OfficialWeightsConfig(name="net", pretrained="file" if file else "none", weights_file=file)


def changed(net: Net, before: dict[str, Tensor]) -> set[str]:
    """The parts of which every tensor is another one now; none may be changed halfway."""
    found: dict[str, set[bool]] = {}
    for name, value in net.state_dict().items():
        found.setdefault(name.partition(".")[0], set()).add(not torch.equal(value, before[name]))
    assert all(len(states) == 1 for states in found.values())
    return {part for part, states in found.items() if True in states}


def load(file: Path | None, num_classes: int = 3) -> tuple[Net, set[str]]:
    net = Net(num_classes)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    load_official_weights(net, named(file), NAMES)
    return net, changed(net, before)


def test_a_whole_file_fills_the_whole_network(tmp_path: Path) -> None:
    state = whole_state()
    net, parts = load(saved(tmp_path, state))

    assert parts == {"backbone", "head", "classifier"}
    assert torch.equal(net.backbone[0].weight, state["encoder.0.weight"])
    assert torch.equal(net.head.bias, state["decode_head.bias"])
    assert torch.equal(net.classifier.weight, state["decode_head.pred.weight"])


def test_the_state_may_be_nested(tmp_path: Path) -> None:
    assert load(saved(tmp_path, {"state_dict": whole_state(), "epoch": 3}))[1] == {"backbone", "head", "classifier"}


def test_a_file_of_the_trunk_leaves_the_rest_random(tmp_path: Path) -> None:
    assert load(saved(tmp_path, trunk_state() | {"fc.weight": torch.rand(10, 4)}))[1] == {"backbone"}


def test_other_classes_leave_only_the_last_layer_random_and_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="segda"):
        _, parts = load(saved(tmp_path, whole_state(num_classes=19)))

    assert parts == {"backbone", "head"}
    assert "but classifier from random weights" in caplog.text


def test_without_a_file_nothing_changes_and_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="segda"):
        assert load(None)[1] == set()
    assert "net starts from random weights" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.clear(), r"backbone\.0\.weight is missing"),
        (lambda state: state.pop("encoder.1.running_var"), r"backbone\.1\.running_var is missing"),
        (lambda state: state.pop("decode_head.bias"), r"head\.bias is missing"),
        (
            lambda state: state.update({"neck.weight": torch.zeros(1)}),
            "neck.weight is not a part of net as it is published",
        ),
        (lambda state: state.update({"decode_head.pred.weight": torch.zeros(3, 5, 1, 1)}), r"\[3, 5, 1, 1\] instead"),
        (lambda state: state.update({"encoder.0.weight": "no tensor"}), "is no tensor but str"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line_and_changes_nothing(tmp_path: Path, change: Any, message: str) -> None:
    state = whole_state()
    change(state)
    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items()}

    with pytest.raises(WeightsError, match=message) as caught:
        load_official_weights(net, named(saved(tmp_path, state)), NAMES)

    assert "\n" not in str(caught.value)
    assert "give an official file of this network" in str(caught.value)
    assert changed(net, before) == set()


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights of net at .*absent\.pth; correct model\.weights_file"):
        load(tmp_path / "absent.pth")


def test_a_promised_checksum_is_compared(tmp_path: Path) -> None:
    file = saved(tmp_path, whole_state()).rename(tmp_path / "net-deadbeef.pth")
    with pytest.raises(WeightsError, match="starts with deadbeef"):
        load(file)


@pytest.mark.parametrize("settings", [{"pretrained": "file"}, {"weights_file": "x.pth"}])
def test_a_file_and_the_wish_for_it_come_together(settings: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="give both pretrained: file and weights_file, or neither of them"):
        OfficialWeightsConfig.model_validate({"name": "net", **settings})
