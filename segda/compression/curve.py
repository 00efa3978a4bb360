"""How good a trained network stays when more and more of its weights are zero, without any further training.

Networks are scored as they are after pruning, and again with statistics of batch normalization that were estimated anew: zeros
make what a layer passes on smaller, the statistics of the layers behind it are still those of before, and the network pays for
that without having to.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from segda.batch_norm import batch_weights, blend_statistics
from segda.compression.curve_pictures import draw_curves
from segda.compression.curve_points import DENSE, GLOBAL, MODULE, Point, PruneCurve
from segda.compression.magnitude import smallest_weights
from segda.compression.weights import segmenter_weights, stages
from segda.config import DomainConfig, TrainConfig
from segda.config_problems import validated
from segda.datasets import DATASETS
from segda.datasets.cache import DecodedSplit
from segda.datasets.loaders import normalize, training_batches
from segda.device import Precision, autocast
from segda.errors import ConfigError
from segda.files import expanded, remove_unfinished, sha256_of, write_json, write_text
from segda.inference import score_split
from segda.loading import with_roots
from segda.metrics import SegmentationMetrics
from segda.models import Segmenter
from segda.progress import notices, progress_bar
from segda.splits import open_split, open_target
from segda.trained import TrainedNetwork, make_ready

Recalibration = Literal["none", "source", "target"]

LEVELS = tuple(round(0.05 * number, 2) for number in range(18))  # 0, 0.05, ..., 0.85: the adaptation report's
RECALIBRATION_IMAGES = 64  # from so many on, layers on pooled maps follow too
_BATCH = 8  # images, for the statistics of batch normalization

CURVE, TABLE = "curve.json", "curve.csv"


class _Task(NamedTuple):
    scope: str
    level: float
    recalibrated: bool


def prune_curve(
    checkpoint: Path | str,
    folder: Path | str,
    *,
    levels: Sequence[float] = LEVELS,
    scopes: Sequence[str] | None = None,
    recalibration: Recalibration = "source",
    protect_ends: bool = True,
    oracle: bool = True,
    data_roots: Mapping[str, Path | str] | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    batch_size: int = 8,
) -> PruneCurve:
    """Score a trained network at levels of pruning, for all layers and for each module alone, and draw the curves.

    At every level the smallest weights of the trained network become zero (`segda.compression.magnitude`), and nothing is
    trained. There is no bound on the share of a layer here: that a ranking takes a layer whole is what a curve is to show.
    Recalibration replaces the statistics of batch normalization by those of 64 training images, without labels
    (`segda.batch_norm`).

    The folder receives `curve.json`, `curve.csv`, `global.png` (both scopes over all layers) and `modules.png` (each module
    alone). Each point is on disk once it is known; a call that was interrupted is gone on with when it is given again.

    Args:
        checkpoint: that `segda train` wrote.
        folder: where nothing is yet, or what the same call has written before.
        levels: shares of the weights, each in (0, 1); 0 is always there.
        scopes: `global`, `module` and names of modules; None: both, and the modules of `segda.compression.weights.stages`.
        recalibration: which domain's training images the statistics are estimated from, as further points; none: no such points.
        protect_ends: whether first and last layers are left alone.
        oracle: whether the target's labelled split is scored too, for reading only.
        data_roots: name of a data set -> its folder.
        device: `auto`, `cpu`, `cuda` or `cuda:<n>`.
        precision: arithmetic of convolutions.
        batch_size: images at once.

    Returns:
        All points.

    Raises:
        SegdaError: checkpoint, data, folder or device cannot be used, a level is none, or there is no such module.

    Source: Benfenati, Scarano and Vacca's adaptation report, figures 3 (modules) and 4 (whole network). Deviations: first and
    last layers are protected by default; the points with new statistics are ours.
    """
    if not all(0 <= level < 1 for level in levels) or not levels:
        raise ConfigError(f"levels of pruning are shares of the weights in [0, 1), got {list(levels)}")
    checkpoint, folder = expanded(checkpoint), expanded(folder)
    network = make_ready(checkpoint, None, device=device, precision=precision)
    config = with_roots(network.config, data_roots or {})
    pruned = _Pruned(network.segmenter, protect_ends=protect_ends)
    chosen = pruned.choose(scopes)
    scored = _open_scored(config, oracle=oracle)
    calibration = _open_calibration(config, recalibration)
    job = {
        "checkpoint": sha256_of(checkpoint),
        "levels": sorted({round(float(level), 6) for level in levels if level}),
        "scopes": list(chosen),
        "recalibration": recalibration,
        "calibration": None if calibration is None else calibration.fingerprint,
        "protect_ends": protect_ends,
        "splits": {name: split.fingerprint for name, split in scored.items()},
        "size": [config.data.height, config.data.width],
        "precision": str(network.dtype).removeprefix("torch."),
    }
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    sizes = {scope: pruned.size(names) for scope, names in chosen.items()}
    fresh = PruneCurve(job=job, num_weights=pruned.size(pruned.weights), scopes=sizes, points=())
    curve = _begun(folder / CURVE, fresh)
    tasks = _tasks(job)
    known = {(point.scope, point.level, point.recalibrated) for point in curve.points}
    with progress_bar("pruning", total=len(tasks)) as show:
        for done, task in enumerate(tasks):
            show(done, text=f"{task.scope} {task.level:.0%}")
            if task in known:
                continue
            pruned.prune(task.scope, chosen.get(task.scope, ()), task.level)
            if task.recalibrated:
                assert calibration is not None
                _recalibrate(network, calibration, config)
            scores = {name: _score(network, split, config, batch_size) for name, split in scored.items()}
            point = _point(task, scores, sparsity=pruned.sparsity())
            curve = curve.model_copy(update={"points": (*curve.points, point)})
            write_json(folder / CURVE, curve.model_dump(mode="json"))
        show(len(tasks))
    write_text(folder / TABLE, _csv(curve))
    draw_curves(curve, folder)
    return curve


class _Pruned:
    """A network some of whose weights are zero, and what it was before."""

    def __init__(self, segmenter: Segmenter, *, protect_ends: bool) -> None:
        self._segmenter = segmenter
        self.weights = segmenter_weights(segmenter, protect_ends=protect_ends)
        if not self.weights:
            raise ConfigError(
                "no weight of this network lies between its first and its last layers; do not protect them"
            )
        self._before = {name: value.clone() for name, value in segmenter.state_dict().items()}

    def choose(self, scopes: Sequence[str] | None) -> dict[str, list[str]]:
        """Return scope -> names of the weights in it."""
        known = {GLOBAL: list(self.weights), MODULE: list(self.weights), **stages(self._segmenter, list(self.weights))}
        if scopes is None:
            return known
        return {scope: known[scope] if scope in known else self._below(scope, list(known)) for scope in scopes}

    def _below(self, module: str, known: Sequence[str]) -> list[str]:
        inside = [name for name in self.weights if name.startswith(f"{module}.")]
        if not inside:
            raise ConfigError(
                f"{module!r} is no module with weights that may become zero; give one or more of: {', '.join(known)}, or a module "
                "inside of these"
            )
        return inside

    @torch.no_grad()
    def prune(self, scope: str, names: Sequence[str], level: float) -> None:
        """Make the smallest weights of a scope zero, and all else what it was."""
        self.restore()
        weights = {name: self.weights[name] for name in names}
        masks = smallest_weights(weights, level, scope="module" if scope == MODULE else "global")
        for name, mask in masks.items():
            weights[name].masked_fill_(mask, 0.0)

    @torch.no_grad()
    def restore(self) -> None:
        """Bring weights and statistics back."""
        for name, value in self._segmenter.state_dict().items():
            value.copy_(self._before[name])

    def sparsity(self) -> float:
        """Return the share of zeros among all weights that may become zero."""
        zeros = sum(int((weight == 0).sum().item()) for weight in self.weights.values())
        return zeros / self.size(self.weights)

    def size(self, names: Iterable[str]) -> int:
        """Return how many weights some parameters have together."""
        return sum(self.weights[name].numel() for name in names)


def _tasks(job: Mapping[str, Any]) -> list[_Task]:
    """Return what there is to score: the dense network once, then each scope by level."""
    ways = (False,) if job["recalibration"] == "none" else (False, True)
    dense = [_Task(DENSE, 0.0, recalibrated) for recalibrated in ways]
    levels = [(scope, level) for scope in job["scopes"] for level in job["levels"]]
    return dense + [_Task(scope, level, recalibrated) for scope, level in levels for recalibrated in ways]


def _open_scored(config: TrainConfig, *, oracle: bool) -> dict[str, DecodedSplit]:
    """Open the labelled splits that networks are scored on, by name."""

    def opened(domain: DomainConfig, name: str) -> DecodedSplit:
        return open_split(config, domain, name, with_labels=True, progress=notices().is_terminal)

    source, target = config.data.source, config.data.target
    DATASETS[source.dataset].check_split(domain=source.domain, split="val")
    found = {"source/val": opened(source, "val")}
    reported = DATASETS[target.dataset].report_split
    if oracle and reported in DATASETS[target.dataset].splits(target.domain):
        found["oracle/target"] = opened(target, reported)
    return found


def _open_calibration(config: TrainConfig, recalibration: Recalibration) -> DecodedSplit | None:
    """Open the images that statistics are estimated from, without labels; None if they are to stay."""
    progress = notices().is_terminal
    if recalibration == "source":
        return open_split(config, config.data.source, "train", with_labels=False, progress=progress)
    return open_target(config.data, progress=progress) if recalibration == "target" else None


def _begun(path: Path, fresh: PruneCurve) -> PruneCurve:
    """Return the points that an earlier call has found, or none; refuse those of another job."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return fresh
    except (ValueError, RecursionError):
        raise ConfigError(f"{path} is damaged; delete it to begin anew, or choose another folder") from None
    found = validated(PruneCurve, content, where=str(path))
    if (found.job, found.scopes) != (fresh.job, fresh.scopes):
        different = sorted(key for key in fresh.job if found.job.get(key) != fresh.job[key]) or ["scopes"]
        raise ConfigError(
            f"{path} was made with other {' and '.join(different)}; delete it to begin anew, or choose another folder"
        )
    return found


def _recalibrate(network: TrainedNetwork, images: DecodedSplit, config: TrainConfig) -> None:
    """Replace the statistics of batch normalization by those of training images."""
    number = min(RECALIBRATION_IMAGES, len(images))
    weights = batch_weights("average", images=number, batch_size=_BATCH)
    with (
        closing(
            training_batches(
                images,
                recipe="none",
                size=(config.data.height, config.data.width),
                batch_size=_BATCH,
                seed=config.seed,
                steps=len(weights),
            )
        ) as batches,
        autocast(network.device, network.dtype),
    ):
        blend_statistics(
            network.segmenter,
            (normalize(batch.image.to(network.device)) for batch in batches),
            share=1.0,
            weights=weights,
            images=number,
        )


def _score(network: TrainedNetwork, split: DecodedSplit, config: TrainConfig, batch_size: int) -> SegmentationMetrics:
    return score_split(
        network.segmenter,
        split,
        num_classes=len(DATASETS[config.data.source.dataset].classes),
        unscored=config.data.unscored,
        device=network.device,
        dtype=network.dtype,
        batch_size=batch_size,
    )


def _point(task: _Task, scores: Mapping[str, SegmentationMetrics], *, sparsity: float) -> Point:
    source, target = scores["source/val"], scores.get("oracle/target")
    return Point(
        scope=task.scope,
        level=task.level,
        recalibrated=task.recalibrated,
        sparsity=sparsity,
        source_val_miou=source.miou,
        source_val_pixel_accuracy=source.pixel_accuracy,
        oracle_target_miou=None if target is None else target.miou,
        oracle_target_pixel_accuracy=None if target is None else target.pixel_accuracy,
    )


def _csv(curve: PruneCurve) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Point.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(point.model_dump() for point in curve.points)
    return text.getvalue()
