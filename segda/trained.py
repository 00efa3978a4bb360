"""A trained network as whoever uses it has it: as the path of its checkpoint, or in memory."""

from dataclasses import dataclass
from pathlib import Path

import torch

from segda.checkpoint import load_segmenter
from segda.config import TrainConfig
from segda.datasets import DATASETS
from segda.device import Precision, resolve_device, resolve_precision
from segda.errors import ConfigError
from segda.files import expanded
from segda.models import Segmenter


@dataclass(frozen=True)
class TrainedNetwork:
    """A network that is ready for use.

    Attributes:
        segmenter: in evaluation mode, on `device`.
        config: what it was trained with, or is used with.
        device: where it computes.
        dtype: what its convolutions compute in.
    """

    segmenter: Segmenter
    config: TrainConfig
    device: torch.device
    dtype: torch.dtype


def make_ready(
    trained: Path | str | Segmenter, config: TrainConfig | None, *, device: str, precision: Precision
) -> TrainedNetwork:
    """Return a trained network on its device.

    Args:
        trained: path of a checkpoint, or a segmenter, which is moved.
        config: says data sets, classes and size; None: the checkpoint's.
        device: `auto`, `cpu`, `cuda` or `cuda:<n>`.
        precision: arithmetic of convolutions.

    Raises:
        ConfigError: a segmenter came without a configuration, or the configuration has other classes than the checkpoint's.
        WeightsError: the checkpoint is missing, damaged or none.
        DeviceError: the device does not exist.
    """
    chosen = resolve_device(device)
    dtype = resolve_precision(precision, chosen)
    if isinstance(trained, Segmenter):
        if config is None:
            raise ConfigError(
                "a segmenter does not know what it was trained with; give `config` too, or the checkpoint's path"
            )
        return TrainedNetwork(trained.to(chosen).eval(), config, chosen, dtype)
    path = expanded(trained)
    segmenter, own = load_segmenter(path)
    if config is not None:
        has, wanted = (DATASETS[each.data.source.dataset].classes for each in (own, config))
        if has != wanted:
            raise ConfigError(f"{path} knows the classes {', '.join(has)}, the configuration has {', '.join(wanted)}")
    return TrainedNetwork(segmenter.to(chosen), config or own, chosen, dtype)
