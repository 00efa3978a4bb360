"""Trunks of the package timm (PyTorch Image Models): `timm/<name>` is any of its models with features at 1/8, 1/16 and 1/32.

timm is an extra, `pip install 'segda[timm]'`; it needs a torchvision that was built for the installed torch. Everything else is as
with trunks of ours: the network converts images to the normalization that the model's weights expect, and the state dict of a file
is checked before it is used. Nothing is downloaded: weights come from a file that the configuration names or, with
`pretrained: imagenet`, from the cache of Hugging Face, where timm itself puts what it downloads.

An image is padded on the right and at the bottom to multiples of 32, with the mean color of the model's training, and features are
cut to the image's size rounded up: models differ in how they round, and some fail at other sizes.
"""

import functools
import importlib
from collections.abc import Callable
from importlib import metadata
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from segda.errors import ConfigError, GuestError, UnknownNameError
from segda.guests import Guest
from segda.models.trunks.base import Normalization, PublishedWeights, Pyramid, Trunk
from segda.names import nearest
from segda.torch_files import misfits

_STRIDES = (8, 16, 32)
# What a model is tried with, on no memory.
_TRIED_SIZE = (64, 96)


@functools.cache
def timm_family(name: str) -> tuple[Callable[[], Trunk], Guest]:
    """Return what makes a trunk of a timm model, and where it comes from.

    Args:
        name: of the model, with or without a tag of its weights, e.g. `resnet26d` or `resnet26d.bt_in1k`.

    Raises:
        UnknownNameError: timm has no such model.
        GuestError: timm or what it needs is not there.
    """
    timm = _import_timm(name)
    version = metadata.version("timm")
    if not timm.is_model(name):
        raise UnknownNameError(
            f"timm {version} has no model {name!r}{nearest(name, timm.list_models())}; timm.list_models() names all of them"
        )
    guest = Guest(name=f"timm/{name}", module="timm", package=f"timm {version}", sha256=None)
    return functools.partial(TimmTrunk, name), guest


def _import_timm(name: str) -> Any:
    try:
        return importlib.import_module("timm")
    # A torchvision for another torch raises what torch says of its missing operators.
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "timm":
            raise GuestError(
                f"backbone 'timm/{name}' needs the package timm, which is not installed; get it with `pip install 'segda[timm]'`"
            ) from None
        said = " ".join(str(error).split())
        raise GuestError(
            f"backbone 'timm/{name}' needs timm, which cannot be imported here ({type(error).__name__}: {said}); it needs a "
            f"torchvision that was built for torch {torch.__version__}: install it from where that torch came from"
        ) from None


class TimmTrunk(Trunk):
    """A timm model's features.

    Attributes:
        network: the model, which returns a list of the features at 1/8, 1/16 and 1/32.
    """

    def __init__(self, name: str) -> None:
        """Build the trunk with timm's random weights.

        Args:
            name: of a model that timm has.

        Raises:
            ConfigError: it has no features at these scales, or does not take images of any size.
        """
        super().__init__()
        self._name = name
        self._levels: tuple[int, ...] | None = None
        with torch.device("meta"):
            self._levels = self._find_levels()
        self.network = self._create()
        settings = self.network.pretrained_cfg
        self.normalization = _normalization(settings)
        self.channels = tuple(self.network.feature_info.channels())
        repository = settings.get("hf_hub_id")
        if repository:
            file = settings.get("hf_hub_filename") or "model.safetensors"
            self.published = PublishedWeights(file, classifier=(), hub=repository)

    def forward(self, image: Tensor) -> Pyramid:
        """Compute the features; see `Trunk.forward`."""
        height, width = image.shape[2], image.shape[3]
        coarsest = _STRIDES[-1]
        right, below = (_parts(side, coarsest) * coarsest - side for side in (width, height))
        padded = functional.pad(image, (0, right, 0, below))
        levels = zip(self.network(padded), _STRIDES, strict=True)
        return Pyramid(*(_cut(level, _parts(height, stride), _parts(width, stride)) for level, stride in levels))

    def converted(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return weights under the trunk's names; timm knows what became of its own names, and leaves out the classifier.

        Args:
            state: a state dict of the whole model, as timm publishes or saves it; its classifier may be missing or another one.

        Raises:
            ValueError: it is none of this model.
        """
        # timm itself leaves random what it does not find when it builds features.
        with torch.device("meta"):
            whole = _import_timm(self._name).create_model(self._name)
        classifier = _listed(whole.pretrained_cfg.get("classifier") or ())
        expected = {name: value for name, value in whole.state_dict().items() if not _is_of(name, classifier)}
        state = {name: value for name, value in state.items() if not _is_of(name, classifier)}
        for name, value in expected.items():
            if name.endswith("num_batches_tracked"):
                state.setdefault(name, torch.zeros_like(value, device="cpu"))
        problems = misfits(state, expected, of=f"timm's {self._name}", are_finite=False)
        if problems:
            raise ValueError(problems)
        try:
            loaded = self._create(pretrained=True, pretrained_cfg_overlay={"state_dict": state})
        except (RuntimeError, KeyError, ValueError, AttributeError) as error:
            raise ValueError(" ".join(str(error).split())) from None
        return {f"network.{name}": value for name, value in loaded.state_dict().items()}

    def _create(self, **settings: Any) -> Any:
        levels = {} if self._levels is None else {"out_indices": self._levels}
        return _import_timm(self._name).create_model(self._name, features_only=True, **levels, **settings)

    def _find_levels(self) -> tuple[int, ...]:
        """Return which of the model's features are the deepest ones at 1/8, 1/16 and 1/32."""
        shown = f"backbone 'timm/{self._name}'"
        try:
            network = self._create()
            strides = network.feature_info.reduction()
            levels = {stride: index for index, stride in enumerate(strides)}
            if not set(_STRIDES) <= levels.keys():
                found = ", ".join(f"1/{stride}" for stride in dict.fromkeys(strides))
                raise ConfigError(
                    f"{shown} has features at {found}; a trunk needs them at 1/8, 1/16 and 1/32: take another one"
                )
            maps = network.eval()(torch.empty(1, 3, *_TRIED_SIZE))
        except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError) as error:
            if isinstance(error, ConfigError):
                raise
            said = " ".join(str(error).split())
            raise ConfigError(
                f"{shown} cannot be a trunk for images of any size: timm says {said!r}; take a convolutional one"
            ) from None
        chosen = tuple(levels[stride] for stride in _STRIDES)
        channels = network.feature_info.channels()
        for stride, index in zip(_STRIDES, chosen, strict=True):
            wanted = (1, channels[index], *(side // stride for side in _TRIED_SIZE))
            if tuple(maps[index].shape) != wanted:
                raise ConfigError(
                    f"{shown} gives features of the shape {tuple(maps[index].shape)} where a trunk has {wanted}; take another one"
                )
        return chosen


def _parts(side: int, stride: int) -> int:
    """Divide and round up, without negative numbers, which ONNX divides in another way."""
    return (side + stride - 1) // stride


def _cut(features: Tensor, height: int, width: int) -> Tensor:
    """Return the first rows and columns; as a copy, since an exported program is for sizes with and without something to cut."""
    return functional.pad(features, (0, width - features.shape[3], 0, height - features.shape[2]))


def _listed(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _is_of(name: str, modules: tuple[str, ...]) -> bool:
    return name.startswith(tuple(f"{module}." for module in modules))


def _normalization(settings: Any) -> Normalization:
    """Return what a model's weights expect; timm gives it for pixels in 0..1."""
    mean, std = (tuple(round(255 * value, 6) for value in settings[key]) for key in ("mean", "std"))
    return Normalization(mean, std)
