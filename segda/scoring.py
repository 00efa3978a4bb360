"""What a run is told about itself: scores during training, and the record that it leaves at the end."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from segda.config import TrainConfig
from segda.datasets import DATASETS
from segda.datasets.cache import DecodedSplit
from segda.datasets.statistics import class_counts, rarest_half
from segda.files import write_json
from segda.inference import class_scores, label_shares, predictions, score_split
from segda.methods import Method
from segda.metrics import SegmentationMetrics, mean_iou
from segda.pictures import example_grid, write_png
from segda.splits import Splits, splits_fingerprint
from segda.validators import VALIDATORS, PixelSample, validator_metric

# A class counts as present in the source, and as forgotten on the target, at these shares of pixels.
PRESENT_SHARE = 0.01
FORGOTTEN_SHARE = 0.001
NUM_EXAMPLES = 4
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
        """Return the scores that are due at every report."""
        scored = {"source/val": self._evaluate(self.splits.source_val)}
        if self.splits.oracle is not None and self.config.oracle == "always":
            scored["oracle/target"] = self._evaluate(self.splits.oracle)
        return self._metrics(scored)

    def final(self, folder: Path, *, step: int, seconds: float) -> dict[str, float]:
        """Return all scores, and write `result.json` and the pictures of examples.

        Args:
            folder: the run folder.
            step: updates made.
            seconds: time spent on them.

        Returns:
            Metric name -> value.
        """
        scored = {"source/val": self._evaluate(self.splits.source_val)}
        if self.splits.source_test is not None:
            scored["source/test"] = self._evaluate(self.splits.source_test)
        if self.splits.oracle is not None:
            scored["oracle/target"] = self._evaluate(self.splits.oracle)
        self._write_result(folder, scored, step=step, seconds=seconds)
        self._write_examples(folder)
        return self._metrics(scored) | self._target_figures()

    @cached_property
    def under_represented(self) -> frozenset[int]:
        """Train ids of the scored classes that are under-represented."""
        given = self.config.data.under_represented
        if given is not None:
            return frozenset(map(self.dataset.classes.index, given))
        counts = class_counts(self.splits.source, num_classes=self.num_classes)
        return frozenset(rarest_half(counts, unscored=self.config.data.unscored))

    def _evaluate(self, split: DecodedSplit) -> SegmentationMetrics:
        return score_split(
            self.method.segmenter,
            split,
            num_classes=self.num_classes,
            unscored=self.config.data.unscored,
            device=self.device,
            dtype=self.dtype,
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

    def _target_figures(self) -> dict[str, float]:
        """Describe the predictions on unlabelled target images: whether the network forgets classes, and the validators."""
        images = self.splits.target
        counts = torch.zeros(self.num_classes, dtype=torch.int64, device=self.device)
        sample = PixelSample(len(images.names))
        for _, logits in class_scores(self.method.segmenter, images, device=self.device, dtype=self.dtype):
            counts += torch.bincount(logits.argmax(dim=1).flatten(), minlength=self.num_classes)
            sample.add(logits)
        shares = (counts / counts.sum()).double().cpu().numpy()
        present = label_shares(self.splits.source_val, num_classes=self.num_classes) > PRESENT_SHARE
        return {
            "target/largest_class_share": float(shares.max()),
            "target/missing_classes": float(np.count_nonzero(present & (shares < FORGOTTEN_SHARE))),
            **{validator_metric(name): float(VALIDATORS[name](sample.probs)) for name in self.config.validators},
        }

    def _write_result(
        self, folder: Path, scored: Mapping[str, SegmentationMetrics], *, step: int, seconds: float
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
            "classes": list(self.dataset.classes),
            "unscored": [self.dataset.classes[train_id] for train_id in sorted(self.config.data.unscored)],
            "under_represented": [self.dataset.classes[train_id] for train_id in sorted(self.under_represented)],
            "class_weights": self._class_weights(),
            "size": [self.config.data.height, self.config.data.width],
            "precision": str(self.dtype).removeprefix("torch."),
            "data_fingerprint": splits_fingerprint(self.splits),
            "num_parameters_trained": trained,
            "num_parameters_frozen": sum(parameter.numel() for parameter in self.method.parameters()) - trained,
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
            picks = np.unique(np.linspace(0, len(split.names) - 1, NUM_EXAMPLES).round().astype(int))
            few = DecodedSplit(
                images=split.images[picks],
                labels=None if split.labels is None else split.labels[picks],
                names=tuple(split.names[pick] for pick in picks),
                fingerprint=split.fingerprint,
            )
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
