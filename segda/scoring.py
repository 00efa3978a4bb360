"""What a run is told about itself: scores during training, and the record that it leaves at the end."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from segda.config import TrainConfig
from segda.datasets import DATASETS
from segda.datasets.cache import DecodedSplit
from segda.datasets.statistics import class_counts, rarest_half
from segda.files import write_json
from segda.image_confusions import (
    ORACLE_CONFUSIONS,
    SOURCE_CONFUSIONS,
    ImageConfusions,
    identity_of_images,
    write_image_confusions,
)
from segda.inference import outputs, predictions, score_split
from segda.methods import Method
from segda.metrics import SegmentationMetrics, mean_iou
from segda.pictures import example_grid, write_png
from segda.splits import Splits, splits_fingerprint
from segda.target_prediction import TARGET_PREDICTION, TargetPrediction, write_target_prediction
from segda.types import SegmentationOutput
from segda.validators import ONLY_AT_THE_END, Evidence, PixelSample, scores
from segda.validators.transport import transport_alarm

# A class counts as present in the source, and as forgotten on the target, at these shares of pixels.
PRESENT_SHARE = 0.01
FORGOTTEN_SHARE = 0.001
NUM_EXAMPLES = 4
# What validators look at: of the source's validation split, and of the target's training split at the end.
SOURCE_SAMPLE = {"max_images": 256, "pixels": 32}
TARGET_SAMPLE = {"max_images": 512, "pixels": 256}
KEPT_PIXELS = 64  # of each of these target images whose predicted classes are kept
# Before the end the network runs over so many target images only: a twentieth of what validation runs over anyway.
INTERIM_SHARE, FEWEST_INTERIM, MOST_INTERIM = 0.05, 4, 32
RESULT = "result.json"


class Scorer:
    """Scores a method's segmenter on the splits of a run."""

    def __init__(
        self, config: TrainConfig, splits: Splits, method: Method, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Keep what is scored and how.

        Args:
            config: the run.
            splits: its decoded images.
            method: holds the segmenter.
            device: where to compute.
            dtype: what convolutions compute in.
        """
        self.config = config
        self.splits = splits
        self.method = method
        self.device = device
        self.dtype = dtype
        self.dataset = DATASETS[config.data.source.dataset]
        self.num_classes = len(self.dataset.classes)

    def interim(self) -> dict[str, float]:
        """Return the scores that are due at every report; those of the target are of a few of its images."""
        sample = PixelSample(len(self.splits.source_val), **SOURCE_SAMPLE)
        scored = {"source/val": self._evaluate(self.splits.source_val, sample.add)}
        if self.splits.oracle is not None and self.config.oracle == "always":
            scored["oracle/target"] = self._evaluate(self.splits.oracle)
        wanted = round(INTERIM_SHARE * len(self.splits.source_val))
        few = _evenly(self.splits.target, max(FEWEST_INTERIM, min(wanted, MOST_INTERIM)))
        validators = [name for name in self.config.validators if name not in ONLY_AT_THE_END]
        evidence, figures = self._look_at(few, sample, scored["source/val"])
        return self._metrics(scored) | figures | scores(validators, evidence)

    def final(
        self, folder: Path, *, step: int, seconds: float, pruning: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, float]:
        """Return all scores, and write `result.json`, and files of predictions, of confusions by image and of example pictures.

        Args:
            folder: the run folder.
            step: updates made.
            seconds: time spent on them.
            pruning: of each pruned part, how much of it is zero (`segda.compression.pruning.Pruning.summary`).

        Returns:
            Metric name -> value.
        """
        sample = PixelSample(len(self.splits.source_val), **SOURCE_SAMPLE)
        with self._keeping(self.splits.source_val, folder / SOURCE_CONFUSIONS) as each:
            scored = {"source/val": self._evaluate(self.splits.source_val, sample.add, each)}
        if self.splits.source_test is not None:
            scored["source/test"] = self._evaluate(self.splits.source_test)
        if self.splits.oracle is not None:
            with self._keeping(self.splits.oracle, folder / ORACLE_CONFUSIONS) as each:
                scored["oracle/target"] = self._evaluate(self.splits.oracle, each=each)
        evidence, figures = self._look_at(self.splits.target, sample, scored["source/val"])
        figures["target/transport_accuracy"] = transport_alarm(evidence)
        kept = kept_prediction(evidence, self.splits.target, classes=self.dataset.classes)
        write_target_prediction(folder / TARGET_PREDICTION, kept)
        # Last: who finds it finds all else.
        self._write_examples(folder)
        self._write_result(folder, scored, step=step, seconds=seconds, pruning=pruning)
        return self._metrics(scored) | figures | scores(self.config.validators, evidence)

    @cached_property
    def under_represented(self) -> frozenset[int]:
        """Train ids of the scored classes that are under-represented."""
        given = self.config.data.under_represented
        if given is not None:
            return frozenset(map(self.dataset.classes.index, given))
        counts = class_counts(self.splits.source, num_classes=self.num_classes)
        return frozenset(rarest_half(counts, unscored=self.config.data.unscored))

    @contextmanager
    def _keeping(self, split: DecodedSplit, path: Path) -> Iterator[Callable[[NDArray[np.int64]], None]]:
        """Write what is called with the confusion matrix of each image of a split to a file at the end."""
        found: list[NDArray[np.int64]] = []
        yield found.append
        height, width = split.images.shape[1:3]
        identity = identity_of_images(fingerprint=split.fingerprint, size=(height, width), classes=self.dataset.classes)
        unscored = tuple(sorted(self.config.data.unscored))
        write_image_confusions(path, ImageConfusions(np.stack(found).astype(np.int32), unscored, identity))

    def _evaluate(
        self,
        split: DecodedSplit,
        observe: Callable[[SegmentationOutput, Tensor], None] | None = None,
        each: Callable[[NDArray[np.int64]], None] | None = None,
    ) -> SegmentationMetrics:
        return score_split(
            self.method.segmenter,
            split,
            num_classes=self.num_classes,
            unscored=self.config.data.unscored,
            device=self.device,
            dtype=self.dtype,
            observe=observe,
            each=each,
        )

    def _metrics(self, scored: Mapping[str, SegmentationMetrics]) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for split, result in scored.items():
            metrics[f"{split}/miou"] = result.miou
            metrics[f"{split}/pixel_accuracy"] = result.pixel_accuracy
            metrics |= {f"{split}/{name}": miou for name, miou in self._further_means(result).items()}
            for name, iou in zip(self.dataset.classes, result.iou_per_class, strict=True):
                if not np.isnan(iou):
                    metrics[f"{split}/iou/{name}"] = iou
        return metrics

    def _further_means(self, result: SegmentationMetrics) -> dict[str, float]:
        """Return the means over other sets of classes: those that the data sets are reported by, and by how rare they are."""
        unscored, under = self.config.data.unscored, self.under_represented
        everything = frozenset(range(self.num_classes))
        sets = {**self.config.data.scorings, "well": unscored | under, "under": everything - under}
        means = {f"miou_{name}": mean_iou(result.iou_per_class, left_out) for name, left_out in sets.items()}
        return {name: miou for name, miou in means.items() if not np.isnan(miou)}

    def _look_at(
        self, images: DecodedSplit, source: PixelSample, scored: SegmentationMetrics
    ) -> tuple[Evidence, dict[str, float]]:
        return look_at(
            self.method.segmenter,
            images,
            source=source,
            scored=scored,
            num_classes=self.num_classes,
            device=self.device,
            dtype=self.dtype,
        )

    def _write_result(
        self,
        folder: Path,
        scored: Mapping[str, SegmentationMetrics],
        *,
        step: int,
        seconds: float,
        pruning: Mapping[str, Mapping[str, Any]],
    ) -> None:
        decoded = {
            "source/val": self.splits.source_val,
            "source/test": self.splits.source_test,
            "oracle/target": self.splits.oracle,
        }
        sizes = {name: len(split.names) for name, split in decoded.items() if split is not None}
        trained = sum(parameter.numel() for group in self.method.parameter_groups().values() for parameter in group)
        result = {
            "step": step,
            "seconds": seconds,
            "method": self.config.method.name,
            "uses_target_labels": self.method.supervision == "target",
            "reconstruction": self.method.reconstruction,
            "few_shot": list(self.splits.few_shot.names) if self.splits.few_shot is not None else [],
            "external_labels": None if self.splits.external is None else self.splits.external.fingerprint,
            "classes": list(self.dataset.classes),
            "unscored": [self.dataset.classes[train_id] for train_id in sorted(self.config.data.unscored)],
            "under_represented": [self.dataset.classes[train_id] for train_id in sorted(self.under_represented)],
            "class_weights": self._class_weights(),
            "size": [self.config.data.height, self.config.data.width],
            "precision": str(self.dtype).removeprefix("torch."),
            "data_fingerprint": splits_fingerprint(self.splits),
            "num_parameters_trained": trained,
            "num_parameters_frozen": sum(parameter.numel() for parameter in self.method.parameters()) - trained,
            "pruning": pruning,
            "splits": {
                name: {
                    "num_images": sizes[name],
                    "miou": metrics.miou,
                    **self._further_means(metrics),
                    "pixel_accuracy": metrics.pixel_accuracy,
                    "mean_class_accuracy": metrics.mean_class_accuracy,
                    "iou": {
                        label: None if np.isnan(iou) else iou
                        for label, iou in zip(self.dataset.classes, metrics.iou_per_class, strict=True)
                    },
                    "confusion": metrics.confusion.tolist(),
                }
                for name, metrics in scored.items()
            },
        }
        write_json(folder / RESULT, result)

    def _class_weights(self) -> dict[str, float] | None:
        """Return how much pixels of each class count in the supervised loss; None if all count alike."""
        weights = self.method.loss.class_weight
        return None if weights is None else dict(zip(self.dataset.classes, weights.tolist(), strict=True))

    def _write_examples(self, folder: Path) -> None:
        """Draw image, label and prediction of a few evenly spaced images of each domain."""
        source = self.splits.source_test or self.splits.source_val
        target = self.splits.oracle or self.splits.target
        for name, split in (("source", source), ("target", target)):
            few = _evenly(split, NUM_EXAMPLES)
            predicted = [
                prediction.to(torch.uint8).cpu().numpy()
                for _, prediction in predictions(self.method.segmenter, few, device=self.device, dtype=self.dtype)
            ]
            picture = example_grid(
                few.images,
                few.labels,
                np.concatenate(predicted),
                palette=self.dataset.palette,
                classes=self.dataset.classes,
            )
            write_png(folder / f"examples_{name}.png", Image.fromarray(picture))


def look_at(
    segmenter: nn.Module,
    images: DecodedSplit,
    *,
    source: PixelSample,
    scored: SegmentationMetrics,
    num_classes: int,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Evidence, dict[str, float]]:
    """Run over unlabelled target images: what validators judge by, and whether the network forgets classes.

    Args:
        segmenter: maps an image to `SegmentationOutput`.
        images: of the target.
        source: what it says of the source's validation images (`SOURCE_SAMPLE`).
        scored: its scores there, for how frequent the classes are.
        num_classes: number of train ids.
        device: where to compute.
        dtype: what convolutions compute in.

    Returns:
        What validators judge by, and metric name -> value of what shows a collapse.
    """
    counts = torch.zeros(num_classes, dtype=torch.int64, device=device)
    sample = PixelSample(len(images), **TARGET_SAMPLE)
    for _, output in outputs(segmenter, images, device=device, dtype=dtype):
        counts += torch.bincount(output.logits.max(1).indices.flatten(), minlength=num_classes)
        sample.add(output)
    shares = (counts / counts.sum()).double().cpu().numpy()
    labels = scored.confusion.sum(axis=1)
    source_shares = labels / max(int(labels.sum()), 1)
    evidence = Evidence(
        target=sample.probs,
        source=source.probs,
        source_labels=source.labels,
        source_shares=torch.from_numpy(source_shares),
        target_features=sample.features,
        source_features=source.features,
    )
    forgotten = (source_shares > PRESENT_SHARE) & (shares < FORGOTTEN_SHARE)
    return evidence, {
        "target/largest_class_share": float(shares.max()),
        "target/missing_classes": float(np.count_nonzero(forgotten)),
    }


def kept_prediction(evidence: Evidence, target: DecodedSplit, *, classes: Sequence[str]) -> TargetPrediction:
    """Return the predicted classes of the pixels by which networks are compared.

    Args:
        evidence: of the network.
        target: the target's training images, all of which it has seen.
        classes: names of the train ids.
    """
    height, width = target.images.shape[1:3]
    pixels = PixelSample(len(target), **TARGET_SAMPLE).identity(
        fingerprint=target.fingerprint, size=(height, width), kept=KEPT_PIXELS, classes=classes
    )
    predicted = evidence.target[:, :KEPT_PIXELS].argmax(dim=-1).flatten().to(torch.uint8).numpy()
    return TargetPrediction(predicted, len(classes), pixels)


def _evenly(split: DecodedSplit, count: int) -> DecodedSplit:
    """Return evenly spaced images of a split, in memory: so many, or all that it has."""
    picks = np.unique(np.linspace(0, len(split) - 1, count).round().astype(int))
    return DecodedSplit(
        images=split.images[picks],
        labels=None if split.labels is None else split.labels[picks],
        names=tuple(split.names[pick] for pick in picks),
        fingerprint=split.fingerprint,
    )
