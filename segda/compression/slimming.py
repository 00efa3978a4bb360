"""From a checkpoint to that of a smaller network: fewer channels, statistics of the new features, and what both are worth.

What a network is worth right after channels were taken out says little: batch normalization still has the statistics of features
that are gone. On a trained BiSeNet 30 % fewer channels brought mean IoU down from 0.32 to 0.05; one pass over 28 training images,
without a gradient, back to 0.29. So that is a step of its own, before anything is measured and the network is trained on.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from segda.batch_norm import MIN_IMAGES_AT_ONCE, batch_weights, blend_statistics
from segda.checkpoint import Interval, load_segmenter, read_checkpoint, save_checkpoint
from segda.compression.channels import slim
from segda.config import TrainConfig
from segda.datasets import DATASETS
from segda.datasets.cache import DecodedSplit
from segda.datasets.loaders import Styling, normalize, training_batches
from segda.device import PRECISIONS, Precision, autocast, resolve_device, resolve_precision
from segda.device_errors import is_out_of_memory
from segda.efficiency import count_macs, count_parameters
from segda.efficiency.latency import Latency, measure_side_by_side
from segda.errors import ConfigError, OutOfMemoryError
from segda.evaluation import evaluate
from segda.files import expanded
from segda.loading import with_roots
from segda.methods import METHODS
from segda.models import Segmenter
from segda.progress import notices
from segda.splits import open_split, open_target
from segda.transforms.styles import build_style

Statistics = Literal["source", "target", "none"]


@dataclass(frozen=True)
class Worth:
    """What a network costs and how good it is.

    Attributes:
        num_parameters: of what is shipped.
        macs: multiply-accumulates for one image.
        latency: of one image.
        miou: split -> mean IoU in [0, 1]; those of `target/...` are made from target labels: for reading, not for choosing.
    """

    num_parameters: int
    macs: int
    latency: Latency
    miou: Mapping[str, float]


@dataclass(frozen=True)
class Slimmed:
    """What was made, and what from.

    Attributes:
        before: worth of the network that was given.
        after: of the smaller one, with its statistics and before it is trained on.
        config: of the smaller one; its `model` has the widths.
        size: height and width in pixels that both were measured and scored at.
        device: where.
        dtype: what convolutions computed in.
    """

    before: Worth
    after: Worth
    config: TrainConfig
    size: tuple[int, int]
    device: torch.device
    dtype: torch.dtype


def slim_checkpoint(
    checkpoint: Path | str,
    destination: Path | str,
    *,
    ratio: float,
    round_to: int = 1,
    is_global: bool = False,
    statistics: Statistics = "source",
    oracle: bool = False,
    data_roots: Mapping[str, Path | str] | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    runs: int | None = None,
) -> Slimmed:
    """Write the checkpoint of a smaller network, and tell what both are worth.

    The new checkpoint is read like any other: it can be evaluated, predict, teach, and be trained on (`start` of a configuration,
    with any method). It has the configuration that the given network was trained with, but for the widths of its layers.

    Args:
        checkpoint: of a trained network, slimmed before or not.
        destination: the file to write.
        ratio: see `segda.compression.channels.slim`.
        round_to: the same.
        is_global: the same.
        statistics: of which images batch normalization gets new ones. `source`: of the source's training images as the training
            draws them (recipe and style), and then, if the training ended with a share of the target's (`target_batch_norm`), that
            share. `target`: of the unlabelled target training images alone. `none`: it keeps the old ones.
        oracle: whether to score the target's labelled split too.
        data_roots: name of a data set -> its folder; else the configuration's, else the variable SEGDA_<NAME>_ROOT.
        device: `auto`, `cpu`, `cuda` or `cuda:<n>`.
        precision: arithmetic of convolutions, for statistics and scores; latency has it as the type of the weights.
        runs: timed runs of each network; None: enough for the device.

    Raises:
        SegdaError: checkpoint, destination, network, data or device cannot be used, or ratio and rounding make no sense.
    """
    made = _slimmed(
        checkpoint,
        destination,
        ratio=ratio,
        round_to=round_to,
        is_global=is_global,
        statistics=statistics,
        data_roots=data_roots or {},
        device=device,
        precision=precision,
    )
    dense, small, config = made.dense, made.small, made.config
    place, dtype = made.device, made.dtype
    splits = ["source/val", *([f"target/{DATASETS[config.data.target.dataset].report_split}"] if oracle else [])]
    scores = [
        evaluate(network, config, splits=splits, device=device, precision=precision) for network in (dense, small)
    ]
    shape = (1, 3, config.data.height, config.data.width)
    latencies = measure_side_by_side(
        [dense, small], input_shape=shape, device=str(place), precision=PRECISIONS[dtype], runs=runs
    )
    before, after = (
        Worth(
            num_parameters=count_parameters(network),
            macs=count_macs(network, input_shape=shape),
            latency=latency,
            miou={name: found.miou for name, found in scored.items()},
        )
        for network, latency, scored in zip((dense, small), latencies, scores, strict=True)
    )
    result = _save(made, destination)
    return Slimmed(before, after, result, shape[2:], place, dtype)


def write_slimmed(
    checkpoint: Path | str,
    destination: Path | str,
    *,
    ratio: float,
    round_to: int,
    data_roots: Mapping[str, Path | str],
    device: str,
    precision: Precision,
) -> TrainConfig:
    """Write the checkpoint of a smaller network as `slim_checkpoint` does, without measuring what either is worth.

    Each group of layers loses the same share, and the statistics are those that the training ended with.

    Args:
        checkpoint: as in `slim_checkpoint`, like all others.
        destination: the file to write.
        ratio: see there.
        round_to: see there.
        data_roots: see there.
        device: see there.
        precision: see there.

    Returns:
        The configuration of the smaller network; its `model` has the widths.

    Raises:
        SegdaError: as `slim_checkpoint` does.
    """
    made = _slimmed(
        checkpoint,
        destination,
        ratio=ratio,
        round_to=round_to,
        is_global=False,
        statistics="source",
        data_roots=data_roots,
        device=device,
        precision=precision,
    )
    return _save(made, destination)


@dataclass(frozen=True)
class _Made:
    """A network and what was made of it, not written yet."""

    dense: Segmenter
    small: Segmenter
    own: TrainConfig  # as the checkpoint has it
    config: TrainConfig  # the same with the folders of this machine
    state: Mapping[str, Any]
    device: torch.device
    dtype: torch.dtype


def _slimmed(
    checkpoint: Path | str,
    destination: Path | str,
    *,
    ratio: float,
    round_to: int,
    is_global: bool,
    statistics: Statistics,
    data_roots: Mapping[str, Path | str],
    device: str,
    precision: Precision,
) -> _Made:
    path, written = expanded(checkpoint), expanded(destination)
    if written.exists() and written.samefile(path):
        raise ConfigError(f"{destination} is the network that is to be slimmed; write the smaller one elsewhere")
    place = resolve_device(device)
    dtype = resolve_precision(precision, place)
    dense, own = load_segmenter(path)
    small = slim(dense, ratio=ratio, round_to=round_to, is_global=is_global)
    config = with_roots(own, data_roots)
    try:
        with autocast(place, dtype):
            renew_statistics(small.to(place), config, statistics, device=place)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"{place} ran out of memory with {_batch_size(config)} images at once; choose another device"
        ) from error
    return _Made(dense, small, own, config, read_checkpoint(path), place, dtype)


def _save(made: _Made, destination: Path | str) -> TrainConfig:
    """Write the smaller network, and return its configuration."""
    result = made.own.model_copy(update={"model": made.small.config})
    try:
        save_checkpoint(
            expanded(destination),
            config=result,
            step=made.state["step"],
            seconds=made.state["seconds"],
            method=nn.ModuleDict({"segmenter": made.small.cpu()}),
            optimizers={},
            scaler=torch.amp.GradScaler("cpu", enabled=False),
            history=[],
            interval=Interval(),
            round=None,
            masks={},
        )
    except OSError as error:
        raise ConfigError(
            f"{destination} cannot be written ({error.strerror or error}); free space, or choose another place"
        ) from error
    return result


def renew_statistics(
    segmenter: Segmenter, config: TrainConfig, statistics: Statistics, *, device: torch.device
) -> None:
    """Give batch normalization the statistics of a network whose weights have changed.

    Args:
        segmenter: changed in place, on the device.
        config: what it was trained with.
        statistics: see `slim_checkpoint`.
        device: where it computes.

    Raises:
        SegdaError: the images cannot be used.
    """
    if statistics == "none" or not any(
        isinstance(part, nn.modules.batchnorm._BatchNorm) for part in segmenter.modules()
    ):
        return
    data, watched = config.data, notices().is_terminal
    target = open_target(data, progress=watched)
    if statistics == "source":
        labeled = target  # of upper bounds
        if METHODS[config.method.name].supervision == "source":
            labeled = open_split(config, data.source, "train", with_labels=True, progress=watched)
        style = build_style(data.style)
        styling = None if style is None else Styling(style, target)
        with _batches(labeled, config, device, recipe=data.augmentation, styling=styling) as (images, weights):
            blend_statistics(segmenter, images, share=1, weights=weights, images=len(labeled))
    share = 1.0 if statistics == "target" else config.target_batch_norm
    if share == 0:
        return
    part = None
    if statistics == "source" and config.target_batch_norm_layers == "trunk":
        part = segmenter.get_submodule(str(segmenter.trunk_module))
    with _batches(target, config, device, recipe="none", styling=None) as (images, weights):
        blend_statistics(
            segmenter,
            images,
            share=share,
            weights=weights,
            images=len(target),
            variance=config.target_batch_norm_variance,
            part=part,
        )


def _batch_size(config: TrainConfig) -> int:
    return max(config.batch_size, MIN_IMAGES_AT_ONCE)


@contextmanager
def _batches(
    split: DecodedSplit, config: TrainConfig, device: torch.device, *, recipe: str, styling: Styling | None
) -> Iterator[tuple[Iterator[Tensor], list[float]]]:
    """Yield images in the random order of a training, each once, and how much each batch counts."""
    size = _batch_size(config)
    weights = batch_weights("average", images=len(split), batch_size=size)
    whole = recipe == "none"
    batches = training_batches(
        split,
        recipe=recipe,
        size=(config.data.height, config.data.width) if whole else config.data.train_size,
        batch_size=size,
        seed=config.seed,
        steps=math.ceil(len(split) / size),
        pinned=device.type == "cuda",
        styling=styling,
    )
    with closing(batches):
        yield (normalize(batch.image.to(device, non_blocking=True)) for batch in batches), weights
