"""Score a trained network on labelled splits, class by class."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from segda.config import TrainConfig
from segda.datasets import DATASETS
from segda.datasets.cache import DecodedSplit
from segda.device import Precision
from segda.errors import ConfigError
from segda.inference import score_split
from segda.loading import with_roots
from segda.metrics import SegmentationMetrics, mean_iou
from segda.progress import notices, progress_bar
from segda.splits import open_split
from segda.trained import Trained, make_ready

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Evaluation(Mapping[str, SegmentationMetrics]):
    """Scores by split; those of `target/...` are made from target labels: for reading, not for choosing.

    Attributes:
        scores: split, e.g. `source/val` -> its scores.
        num_images: split -> how many images it has.
        classes: name of each train id.
        unscored: train ids left out of the mean IoU.
        scorings: further sets of scored classes, e.g. `16` -> train ids left out of their mean.
        size: height and width in pixels that images were scored at.
        dtype: what convolutions computed in.
    """

    scores: Mapping[str, SegmentationMetrics]
    num_images: Mapping[str, int]
    classes: tuple[str, ...]
    unscored: frozenset[int]
    scorings: Mapping[str, frozenset[int]]
    size: tuple[int, int]
    dtype: torch.dtype

    def __getitem__(self, split: str) -> SegmentationMetrics:
        return self.scores[split]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)

    def rows(self) -> dict[str, list[float]]:
        """Return what there is to read of every split: IoU of each class, then the means; all in [0, 1]."""
        found = {
            f"{label} (unscored)" if index in self.unscored else label: [
                scores.iou_per_class[index] for scores in self.scores.values()
            ]
            for index, label in enumerate(self.classes)
        }
        for name, attribute in (
            ("mIoU", "miou"),
            ("pixel accuracy", "pixel_accuracy"),
            ("mean class accuracy", "mean_class_accuracy"),
        ):
            found[name] = [getattr(scores, attribute) for scores in self.scores.values()]
        for name, left_out in self.scorings.items():
            found[f"mIoU {name}"] = [mean_iou(scores.iou_per_class, left_out) for scores in self.scores.values()]
        return found

    def frame(self) -> "pd.DataFrame":
        """Return `rows` as a table of pandas, one column per split."""
        import pandas as pd

        return pd.DataFrame.from_dict(self.rows(), orient="index", columns=list(self.scores))

    def __repr__(self) -> str:
        return str(self.frame().to_string(float_format="{:.4f}".format))

    def _repr_html_(self) -> str:
        return str(self.frame().to_html(float_format="{:.4f}".format))


def evaluate(
    trained: Trained,
    config: TrainConfig | None = None,
    *,
    splits: Sequence[str] | None = None,
    data_roots: Mapping[str, Path | str] | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    batch_size: int = 8,
) -> Evaluation:
    """Score a trained network on labelled splits of its source and target domain.

    Images are scored at the height and width of the configuration. Where somebody watches, a progress bar is drawn.

    Args:
        trained: path of a checkpoint, paths of several, whose mean of probabilities is scored, or a segmenter.
        config: says which data; None: the checkpoint's own.
        splits: `source/<split>` or `target/<split>`; None: source/val and the split of both domains that results are reported on.
        data_roots: name of a data set -> its folder; else the configuration's, else the variable SEGDA_<NAME>_ROOT.
        device: `auto`, `cpu`, `cuda` or `cuda:<n>`.
        precision: arithmetic of convolutions.
        batch_size: images at once.

    Raises:
        SegdaError: checkpoint, configuration, data or device cannot be used.
    """
    network = make_ready(trained, config, device=device, precision=precision)
    config = with_roots(network.config, data_roots or {})
    dataset = DATASETS[config.data.source.dataset]
    opened = {name: _open_split(config, name) for name in splits or _reported_splits(config)}
    scores = {}
    for name, split in opened.items():
        with progress_bar(name, total=len(split)) as show:
            done = 0

            def count(images: int) -> None:
                nonlocal done
                done += images
                show(done)

            scores[name] = score_split(
                network.segmenter,
                split,
                num_classes=len(dataset.classes),
                unscored=config.data.unscored,
                device=network.device,
                dtype=network.dtype,
                batch_size=batch_size,
                progress=count,
            )
    return Evaluation(
        scores=scores,
        num_images={name: len(split) for name, split in opened.items()},
        classes=dataset.classes,
        unscored=config.data.unscored,
        scorings=config.data.scorings,
        size=(config.data.height, config.data.width),
        dtype=network.dtype,
    )


def _reported_splits(config: TrainConfig) -> tuple[str, ...]:
    """Return source/val and each domain's split that results are reported on, where the domain has it."""
    names = ["source/val"]
    for role, domain in (("source", config.data.source), ("target", config.data.target)):
        dataset = DATASETS[domain.dataset]
        name = f"{role}/{dataset.report_split}"
        if dataset.report_split in dataset.splits(domain.domain) and name not in names:
            names.append(name)
    return tuple(names)


def _open_split(config: TrainConfig, name: str) -> DecodedSplit:
    """Decode a labelled split named source/<split> or target/<split> at the size of the configuration."""
    role, separator, split = name.partition("/")
    domains = {"source": config.data.source, "target": config.data.target}
    if role not in domains or not separator:
        raise ConfigError(f"a split is named source/<split> or target/<split>, e.g. target/test, got {name!r}")
    domain = domains[role]
    DATASETS[domain.dataset].check_split(domain=domain.domain, split=split)
    return open_split(config, domain, split, with_labels=True, progress=notices().is_terminal)
