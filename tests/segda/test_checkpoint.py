"""What a checkpoint must hold: a file that says something else is one clear error, whoever reads it."""

import json
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from segda.checkpoint import FORMAT, Interval, load_segmenter, read_checkpoint, restore_checkpoint, save_checkpoint
from segda.cli import cli
from segda.config import TrainConfig
from segda.errors import DamagedCheckpointError, SegdaError, WeightsError
from segda.losses import SegmentationLoss
from segda.methods import METHODS
from segda.models import Segmenter
from segda.optim import AdamConfig, build_optimizer

DOMAIN = {"dataset": "scenes", "root": "/nowhere"}


class Tiny(Segmenter):
    def __init__(self, config, *, num_classes, pretrained=False):
        super().__init__(config, num_classes=num_classes)
        self.layer = nn.Conv2d(3, num_classes, 1)
        self.norm = nn.BatchNorm2d(num_classes)

    def forward(self, image, *, auxiliary=None):
        raise NotImplementedError


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """What takes its weights from the checkpoint is built in no time."""
    monkeypatch.setattr("segda.checkpoint.build_segmenter", Tiny)


def parts():
    """Return what `restore_checkpoint` fills, freshly built."""
    config = TrainConfig.model_validate(
        {
            "data": {
                "source": DOMAIN | {"domain": "urban"},
                "target": DOMAIN | {"domain": "rural"},
                "height": 64,
                "width": 64,
            },
            "model": {"name": "fast_scnn"},
            "method": {"name": "source_only"},
            "steps": 4,
        }
    )
    method = METHODS["source_only"](
        Tiny(config.model, num_classes=7),
        config=config.method,
        loss=SegmentationLoss(config.loss.name, auxiliary_weight=0.0),
        num_classes=7,
    )
    optimizer = build_optimizer(AdamConfig(lr=0.1), method.parameters())
    return {
        "config": config,
        "method": method,
        "optimizers": {"segmenter": optimizer},
        "scaler": torch.amp.GradScaler("cpu", enabled=False),
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "checkpoint.pt"
    made = parts()
    for parameter in made["method"].parameters():
        parameter.grad = torch.ones_like(parameter)
    made["optimizers"]["segmenter"].step()
    history = [{"step": 2, "time": 1.0, "seconds": 2.0, "metrics": {"a": 0.5, "b": float("nan")}}]
    save_checkpoint(
        path, **made, step=2, seconds=3.0, history=history, interval=Interval(), round=(1, "0" * 64), masks={}
    )
    return SimpleNamespace(path=path, method=made["method"], state=torch.load(path, weights_only=True))


def without(*names):
    return lambda state: {name: value for name, value in state.items() if name not in names}


def replaced(**values):
    return lambda state: state | values


def with_weight(change):
    """Change the first weight of the network."""

    def changed(state):
        weights = dict(state["method"])
        name = next(iter(weights))
        change(weights, name)
        return state | {"method": weights}

    return changed


NO_CHECKPOINTS = {
    "dict": lambda state: {"a": 1},
    "list": lambda state: [state],
    "tensor": lambda state: torch.zeros(3),
    "number": lambda state: 7,
    "text": lambda state: "checkpoint",
    "none": lambda state: None,
    "state dict": lambda state: state["method"],
    "empty state dict": lambda state: OrderedDict(),
    "module": lambda state: nn.Linear(2, 2),
    "code": lambda state: state | {"step": print},
    "format as text": replaced(format="2"),
    "format as tensor": lambda state: state | {"format": torch.zeros(2)},
    "later format": replaced(format=FORMAT + 1),
    "only a format": lambda state: {"format": FORMAT},
    "numbered": lambda state: {"format": FORMAT} | dict(enumerate(state.values())),
    **{
        f"no {name}": without(name) for name in ("config", "step", "method", "optimizers", "random", "history", "round")
    },
    "config as dict": lambda state: state | {"config": json.loads(state["config"])},
    "config no JSON": replaced(config="{"),
    "config a list": replaced(config="[]"),
    "config too deep": replaced(config="[" * 100_000),
    "step as text": replaced(step="two"),
    "step as tensor": lambda state: state | {"step": torch.zeros(2)},
    "method a list": replaced(method=[]),
    "method numbered": replaced(method={1: torch.zeros(1)}),
    "history no JSON": replaced(history="x"),
    "history of numbers": replaced(history="[1]"),
    "history without metrics": replaced(history='[{"step": 2}]'),
    "interval a list": replaced(interval=[]),
    "interval of texts": replaced(interval={"steps": 0, "seconds": 0.0, "sums": {"a": "b"}}),
    "round a number": replaced(round=1),
    "masks a list": replaced(masks=[]),
    "masks of numbers": replaced(masks={"segmenter": {"layer.weight": 1}}),
}
NO_CONFIGURATIONS = {
    "config empty": replaced(config="{}"),
    "config unknown key": lambda state: state | {"config": json.dumps(json.loads(state["config"]) | {"x": 1})},
}
OTHER_WEIGHTS = {
    "no weights": replaced(method={}),
    "weights of others": replaced(method={"teacher.weight": torch.zeros(3)}),
    "one missing": with_weight(lambda weights, name: weights.pop(name)),
    "one more": with_weight(lambda weights, name: weights.update({"segmenter.more": torch.zeros(1)})),
    "shape": with_weight(lambda weights, name: weights.update({name: weights[name][:1]})),
    "transposed": with_weight(lambda weights, name: weights.update({name: weights[name].transpose(0, 1)})),
    "integers": with_weight(lambda weights, name: weights.update({name: weights[name].to(torch.int8)})),
    "complex": with_weight(lambda weights, name: weights.update({name: weights[name].to(torch.complex64)})),
    "sparse": with_weight(lambda weights, name: weights.update({name: weights[name].to_sparse()})),
    "no tensor": with_weight(lambda weights, name: weights.update({name: [1.0]})),
}
NOT_FINITE = {
    "nan": with_weight(lambda weights, name: weights.update({name: weights[name] * float("nan")})),
    "infinity": with_weight(lambda weights, name: weights.update({name: weights[name] / 0})),
    "nan of eight bits": with_weight(
        lambda weights, name: weights.update({name: (weights[name] * float("nan")).to(torch.float8_e4m3fn)})
    ),
}


def with_setting(**values):
    """Change the settings of the optimizer."""

    def changed(state):
        kept = state["optimizers"]["segmenter"]
        groups = [group | values for group in kept["param_groups"]]
        return state | {"optimizers": {"segmenter": kept | {"param_groups": groups}}}

    return changed


NO_STATE = {
    "step before the first": replaced(step=-5),
    "step after the last": replaced(step=5),
    "learning rate as text": with_setting(initial_lr="x"),
    "learning rate missing": with_setting(initial_lr=None),
    "learning rate not finite": with_setting(initial_lr=float("nan")),
    "optimizer of another group": lambda state: state | {"optimizers": {"other": state["optimizers"]["segmenter"]}},
    "optimizer empty": replaced(optimizers={"segmenter": {}}),
    "optimizer without moments": lambda state: (
        state | {"optimizers": {"segmenter": state["optimizers"]["segmenter"] | {"param_groups": []}}}
    ),
    "moments of another network": lambda state: (
        state | {"optimizers": {"segmenter": state["optimizers"]["segmenter"] | {"state": {0: {"m": torch.ones(9)}}}}}
    ),
    "random state of another length": replaced(random={"cpu": torch.zeros(3, dtype=torch.uint8), "cuda": []}),
    "random state of floats": replaced(random={"cpu": torch.zeros(3), "cuda": []}),
}


@pytest.fixture
def change(written, tmp_path):
    """Write a checkpoint whose bytes are sound and whose content is another."""

    def changed(how):
        path = tmp_path / "checkpoint.pt"
        torch.save(how(written.state), path)
        return path

    return changed


def restore(path):
    return restore_checkpoint(read_checkpoint(path), **parts())


def test_what_was_written_is_restored(written):
    kept = restore(written.path)
    assert (kept.step, kept.seconds, kept.round) == (2, 3.0, (1, "0" * 64))
    assert kept.history[0]["metrics"]["a"] == 0.5
    segmenter, _ = load_segmenter(str(written.path))  # as a notebook would name it
    assert all(
        torch.equal(value, written.method.segmenter.state_dict()[name])
        for name, value in segmenter.state_dict().items()
    )


@pytest.mark.parametrize("kind", NO_CHECKPOINTS)
def test_a_sound_file_that_is_no_checkpoint_is_named_by_every_reader(change, kind):
    path = change(NO_CHECKPOINTS[kind])
    for read in (read_checkpoint, load_segmenter, restore):
        with pytest.raises(DamagedCheckpointError, match=r"checkpoint\.pt") as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", NO_CONFIGURATIONS)
def test_a_configuration_that_cannot_be_used_is_told_with_its_place(change, kind):
    path = change(NO_CONFIGURATIONS[kind])
    with pytest.raises(SegdaError, match=r"checkpoint\.pt: "):
        load_segmenter(path)


@pytest.mark.parametrize("kind", OTHER_WEIGHTS | NOT_FINITE)
def test_weights_of_another_network_and_such_that_are_no_numbers_are_refused(change, kind):
    path = change((OTHER_WEIGHTS | NOT_FINITE)[kind])
    with pytest.raises(WeightsError, match=r"checkpoint\.pt does not fit fast_scnn with 7 classes: segmenter|: \w"):
        load_segmenter(path)


@pytest.mark.parametrize("kind", OTHER_WEIGHTS | NO_STATE)
def test_a_run_goes_on_from_what_fits_it_alone(change, kind):
    with pytest.raises(DamagedCheckpointError, match="delete it to train again"):
        restore(change((OTHER_WEIGHTS | NO_STATE)[kind]))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
    ],
)
def test_a_device_that_fails_meanwhile_is_no_damage(written, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(torch.optim.Adam, "load_state_dict", fail)
    with pytest.raises(type(error)) as caught:
        restore(written.path)
    assert caught.value is error


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_commands_tell_it_in_one_line(change, tmp_path, command):
    picture = tmp_path / "a.png"
    picture.touch()
    words = [picture, tmp_path / "b.png"] if command == "predict" else []
    for how in (NO_CHECKPOINTS["module"], NO_CHECKPOINTS["config a list"], OTHER_WEIGHTS["shape"]):
        with pytest.raises(SegdaError, match=r"checkpoint\.pt"):
            CliRunner().invoke(
                cli, [command, str(change(how)), *map(str, words)], catch_exceptions=False, standalone_mode=False
            )
