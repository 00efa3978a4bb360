"""Trained networks that a training takes over from: the one that it starts from, and the one that teaches it."""

from pathlib import Path

from segda.checkpoint import load_segmenter
from segda.config import DataConfig, OtherNetworkConfig, TrainConfig
from segda.datasets import DATASETS
from segda.errors import ConfigError, WeightsError
from segda.files import expanded, sha256_of
from segda.methods import METHODS
from segda.models import Segmenter

_TAUGHT = "its students would be trained on target labels; choose a teacher that has seen none"
_STARTED = "what goes on from it would be trained on target labels, and no report would say so; start from one that has seen none"


def load_start(config: TrainConfig) -> Segmenter:
    """Return the network that a training starts from, on the CPU.

    Args:
        config: with `start`.

    Raises:
        ConfigError: the file is another one than the configuration was made with, it knows other classes or is another network, or
            it has seen labels of the target and the training's results would not say so.
        WeightsError: the file is missing, damaged or no checkpoint.
    """
    assert config.start is not None
    segmenter, own = _load(config.start, what="start", data=config.data)
    if own.model.architecture() != config.model.architecture():
        raise ConfigError(
            f"{config.start.checkpoint} is {own.model.label()}, the configuration has {config.model.label()}; leave model "
            "out, then it is that of the checkpoint"
        )
    if METHODS[config.method.name].supervision != "target":
        check_unseen(expanded(str(config.start.checkpoint)), own, config.data, so=_STARTED)
    return segmenter


def load_teacher(config: TrainConfig) -> Segmenter:
    """Return the network that teaches in a training, on the CPU; it may be any network.

    Args:
        config: with `distillation`.

    Raises:
        ConfigError: the file is another one than the configuration was made with, it knows other classes, or it has seen labels of
            the target.
        WeightsError: the file is missing, damaged or no checkpoint.
    """
    assert config.distillation is not None
    segmenter, own = _load(config.distillation, what="distillation", data=config.data)
    check_unseen(expanded(str(config.distillation.checkpoint)), own, config.data)
    return segmenter


def _load(chosen: OtherNetworkConfig, *, what: str, data: DataConfig) -> tuple[Segmenter, TrainConfig]:
    if chosen.checkpoint is None:
        raise WeightsError(f"where is the checkpoint with the digest {chosen.digest[:16]}? say it in {what}.checkpoint")
    path = expanded(chosen.checkpoint)
    segmenter, own = load_segmenter(path)
    found = sha256_of(path)
    if found != chosen.digest:
        raise ConfigError(
            f"{path} is not the checkpoint that the configuration was made with: its digest is {found[:16]}, {what}.digest says "
            f"{chosen.digest[:16]}; bring that file back, or begin another training with this one"
        )
    check_classes(path, own.data, data)
    return segmenter, own


def check_classes(path: Path, own: DataConfig, data: DataConfig) -> None:
    """Refuse a checkpoint that knows other classes than a configuration has.

    Args:
        path: of the checkpoint, for the message.
        own: what it was trained on.
        data: what it is used on.

    Raises:
        ConfigError: names both.
    """
    has, wanted = (DATASETS[each.source.dataset].classes for each in (own, data))
    if has != wanted:
        raise ConfigError(f"{path} knows the classes {', '.join(has)}, the configuration has {', '.join(wanted)}")


def check_unseen(path: Path, own: TrainConfig, data: DataConfig, *, so: str = _TAUGHT) -> None:
    """Refuse a network that has seen labels of the target: they would reach the next ones through it.

    Args:
        path: of the checkpoint, for the message.
        own: what it was trained with.
        data: what it is used on.
        so: what follows from that, for the message.

    Raises:
        ConfigError: says which labels.
    """
    source, target = own.data.source, data.target
    seen = "is supervised by the target" if METHODS[own.method.name].supervision == "target" else ""
    seen = seen or ("has had the labels of some target images" if own.data.few_shot is not None else "")
    if (source.dataset, source.domain) == (target.dataset, target.domain):
        seen = "had as its source what is the target here"
    if seen:
        raise ConfigError(f"{path} {seen}: {so}")
