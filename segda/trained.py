"""A trained network as whoever uses it has it: as the path of its checkpoint or of a file exported from it, or in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from segda.checkpoint import load_segmenter
from segda.config import TrainConfig
from segda.config_problems import validated
from segda.datasets import DATASETS
from segda.deployment.artefact import is_artefact, load_artefact
from segda.deployment.segmenter import ArtefactSegmenter
from segda.device import Precision, resolve_device, resolve_precision
from segda.ensemble import Ensemble
from segda.errors import ConfigError
from segda.files import expanded
from segda.models import Segmenter
from segda.predecessors import check_classes

Trained = Path | str | Segmenter | Sequence[Path | str]  # of several checkpoints the mean of their probabilities counts


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


def make_ready(trained: Trained, config: TrainConfig | None, *, device: str, precision: Precision) -> TrainedNetwork:
    """Return a trained network on its device.

    Args:
        trained: path of a checkpoint or paths of several, which then segment together; path of a file that `segda export` wrote; or
            a segmenter, which is moved.
        config: says data sets, classes and size; None: the checkpoint's.
        device: `auto`, `cpu`, `cuda` or `cuda:<n>`.
        precision: arithmetic of convolutions; an exported file has its own.

    Raises:
        ConfigError: a segmenter came without a configuration, the configuration has other classes than a checkpoint's, or
            checkpoints were trained for different things.
        WeightsError: a checkpoint is missing, damaged or none.
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
    paths = [expanded(path) for path in ([trained] if isinstance(trained, Path | str) else trained)]
    if not paths:
        raise ConfigError("no checkpoint was given; give the path of one or more")
    if any(map(is_artefact, paths)):
        return _artefact(paths, config, device=device, precision=precision)
    loaded = [load_segmenter(path) for path in paths]
    for path, (_, own) in zip(paths, loaded, strict=True):
        if config is not None:
            check_classes(path, own.data, config.data)
        _check_together(path, own, paths[0], loaded[0][1])
    segmenters = [segmenter for segmenter, _ in loaded]
    segmenter = segmenters[0] if len(segmenters) == 1 else Ensemble(segmenters)
    return TrainedNetwork(segmenter.to(chosen), config or loaded[0][1], chosen, dtype)


def _artefact(
    paths: Sequence[Path], config: TrainConfig | None, *, device: str, precision: Precision
) -> TrainedNetwork:
    """Open a file that `segda export` wrote; one for a single size is used at that size."""
    path = next(filter(is_artefact, paths))
    if len(paths) > 1:
        raise ConfigError(
            f"{path} says classes and no probabilities, so it is used alone; give checkpoints to use several"
        )
    # `auto` is a GPU for checkpoints; whether there is one for a file depends on what runs it.
    artefact = load_artefact(path, device="cpu" if device == "auto" else device)
    record = artefact.record
    if precision not in ("auto", record.precision):
        raise ConfigError(f"{path} computes in {record.precision}, not in {precision}; export it in that precision")
    own = validated(TrainConfig, record.config, where=str(path))
    if config is not None:
        check_classes(path, own.data, config.data)
    elif record.size is not None:
        height, width = record.size
        own = own.model_copy(update={"data": own.data.model_copy(update={"height": height, "width": width})})
    segmenter = ArtefactSegmenter(artefact, own.model)
    return TrainedNetwork(segmenter, config or own, artefact.runtime.device, _ARITHMETIC[record.precision])


_ARITHMETIC = {"fp32": torch.float32, "fp16": torch.float16, "int8": torch.int8}


def _check_together(path: Path, own: TrainConfig, first_path: Path, first: TrainConfig) -> None:
    """Refuse checkpoints whose mean says nothing: of other classes, or trained between other domains or at another size."""
    for what, wanted, found in zip(_PURPOSE, _purpose(first), _purpose(own), strict=True):
        if found != wanted:
            raise ConfigError(
                f"checkpoints that are used together must be trained for the same thing: {first_path} has the {what} {wanted}, "
                f"{path} has {found}; leave one of them out"
            )


_PURPOSE = ("classes", "source", "target", "image size")


def _purpose(config: TrainConfig) -> tuple[str, ...]:
    data = config.data
    return (
        ", ".join(DATASETS[data.source.dataset].classes),
        f"{data.source.dataset}/{data.source.domain}",
        f"{data.target.dataset}/{data.target.domain}",
        f"{data.height}x{data.width}",
    )
