"""Weights of whole networks that their authors published, under the names that their code gave them.

Such files lie where no program can fetch them, so a configuration names a local copy. They come in layers: a checkpoint around the
state dict, wrappers around the network, a classifier of ImageNet where this library has a head, losses with weights of their own.
An `OfficialNames` says of one network how to get through them.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from segda.config_problems import LocatedError
from segda.errors import WeightsError
from segda.models.base import ModelConfig
from segda.models.trunks.pretrained import check_digest, read_state_dict
from segda.models.width import Width
from segda.torch_files import misfits

_logger = logging.getLogger(__name__)

# What trainings wrap around a network, in any order.
_WRAPPERS = re.compile(r"^(module\.|model\.)+")


class OfficialWeightsConfig(ModelConfig):
    """Settings of a network whose official weights have no stable address; it says in `weights_file` where to get them."""

    initial_weights: ClassVar[frozenset[str]] = frozenset({"pretrained", "weights_file"})

    pretrained: Literal["none", "file"] = Field(
        "none", description="initial weights; none: random initialization; file: those in weights_file"
    )
    weights_file: Path | None = Field(None, description="local copy of an official file with weights")

    @model_validator(mode="after")
    def _file_and_wish_agree(self) -> Self:
        if (self.weights_file is None) == (self.pretrained == "file"):
            what = "names no file" if self.weights_file is None else "is read with pretrained: file only"
            raise LocatedError(
                ("weights_file",), f"{what}; give both pretrained: file and weights_file, or neither of them"
            )
        return self


class ScaledWeightsConfig(OfficialWeightsConfig):
    """Settings of a network with official weights, which are those of width 1."""

    unnamed_defaults: ClassVar[frozenset[str]] = frozenset({"width"})

    width: Width = Field(1.0, description="factor on the channels of every layer, see the network's file")

    @model_validator(mode="after")
    def _published_weights_have_width_1(self) -> Self:
        if self.pretrained == "file" and self.width != 1:
            raise LocatedError(
                ("width",),
                f"published weights of {self.name} are for width 1, got {self.width:g}; say pretrained: none, or leave width at 1",
            )
        return self


class OfficialNames(NamedTuple):
    """How the names of tensors in official files become those of a network.

    Attributes:
        own: name of a module in the file, without wrappers -> name of the same module in the network. The longest one that a
            tensor's name begins with is exchanged; a name without one stays.
        optional: modules of the network that a file may lack, e.g. the heads in a file from ImageNet. Each of them is there as a
            whole or not at all; what is in none of them has to be there.
        classifiers: modules with one output per class: they start anew where the file was trained for another number.
        foreign: beginnings of names in the file, without wrappers, of what the network does not have.
    """

    own: Mapping[str, str]
    optional: tuple[str, ...]
    classifiers: tuple[str, ...]
    foreign: tuple[str, ...] = ()

    def translate(self, name: str) -> str | None:
        """Return a tensor's name in the network, or None if it does not have it.

        Args:
            name: in the file, wrappers included.
        """
        name = _WRAPPERS.sub("", name)
        if name.startswith(self.foreign):
            return None
        module = name
        while module:
            if module in self.own:
                return self.own[module] + name[len(module) :]
            module = module.rpartition(".")[0]
        return name


def unit_names(official: str, own: str) -> dict[str, str]:
    """Return how a convolution with normalization and ReLU is called in the files of its authors, for `OfficialNames`.

    Args:
        official: what the unit is called there.
        own: what the `ConvBNReLU` is called here.
    """
    return {f"{official}.conv": f"{own}.0", f"{official}.bn": f"{own}.1"}


def load_official_weights(network: nn.Module, config: OfficialWeightsConfig, names: OfficialNames) -> None:
    """Give a network the initial weights that its configuration names.

    Args:
        network: changed in place.
        config: its settings; without a file the random weights stay.
        names: how to read the file.

    Raises:
        WeightsError: there is no such file, it cannot be read, or names or shapes do not fit.
    """
    path = config.weights_file
    if path is None:
        _logger.info("%s starts from random weights, as the configuration asks", config.name)
        return
    if not path.is_file():
        raise WeightsError(
            f"no weights of {config.name} at {path}; correct model.weights_file or leave it out with model.pretrained"
        )
    check_digest(path)
    state = _translated(_unwrapped(read_state_dict(path)), names)
    expected = network.state_dict()
    random = _random_modules(state, expected, names)
    state = {name: value for name, value in state.items() if not _is_of(name, random)}
    expected = {name: value for name, value in expected.items() if not _is_of(name, random)}
    # Files from before PyTorch 0.4.1 lack these counters, which momentum-based statistics never read.
    for name, value in expected.items():
        if name.endswith("num_batches_tracked"):
            state.setdefault(name, value)
    problems = misfits(state, expected, of=f"{config.name} as it is published", are_finite=True)
    if problems:
        raise WeightsError(f"{path} does not fit {config.name}: {problems}; give an official file of this network")
    network.load_state_dict(state, strict=False)
    rest = f", but {', '.join(random)} from random weights" if random else ""
    _logger.info("%s starts from %s%s", config.name, path, rest)


def _unwrapped(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state dict within a checkpoint; some files have one for each part of the network, which are joined."""
    inner = state.get("state_dict")
    found = inner if isinstance(inner, dict) and all(isinstance(name, str) for name in inner) else state
    joined: dict[str, Any] = {}
    for name, value in found.items():
        joined |= (
            {f"{name}.{key}": tensor for key, tensor in value.items()} if isinstance(value, dict) else {name: value}
        )
    return joined


def _translated(state: Mapping[str, Any], names: OfficialNames) -> dict[str, Any]:
    translated = ((names.translate(name), value) for name, value in state.items())
    return {name: value for name, value in translated if name is not None}


def _random_modules(state: Mapping[str, Any], expected: Mapping[str, Any], names: OfficialNames) -> tuple[str, ...]:
    """Return the modules that the file lacks or has for another number of classes."""
    lacking = [module for module in names.optional if not any(_is_of(name, (module,)) for name in state)]
    others = [
        module
        for module in names.classifiers
        if not _is_of(module, lacking) and _has_other_classes(state, expected, module)
    ]
    return (*lacking, *others)


def _has_other_classes(state: Mapping[str, Any], expected: Mapping[str, Any], module: str) -> bool:
    """Return whether the tensors of a classifier differ from the network's in their first dimension and in nothing else."""
    differs = False
    for name, wanted in expected.items():
        if _is_of(name, (module,)):
            value = state.get(name)
            if not isinstance(value, Tensor) or value.shape[1:] != wanted.shape[1:]:
                return False
            differs = differs or value.shape != wanted.shape
    return differs


def _is_of(name: str, modules: Iterable[str]) -> bool:
    return any(f"{name}.".startswith(f"{module}.") for module in modules)
