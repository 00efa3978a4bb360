"""Judge a network as the end of its training did: by everything that needs no label of the target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segda.config import TrainConfig
from segda.datasets import DATASETS
from segda.deployment.segmenter import ArtefactSegmenter
from segda.device import Precision
from segda.inference import score_split
from segda.loading import with_roots
from segda.progress import notices
from segda.scoring import SOURCE_SAMPLE, kept_prediction, look_at
from segda.splits import open_split, open_target
from segda.target_prediction import TargetPrediction
from segda.trained import Trained, make_ready
from segda.validators import PixelSample, scores
from segda.validators.transport import transport_alarm


@dataclass(frozen=True, eq=False)
class Judgement:
    """What can be said of a network without a label of the target.

    Attributes:
        metrics: name -> value, under the names that a training reports. What is made from probabilities (validators, the alarm
            by transport) is missing for a file that says classes alone.
        prediction: its classes at the pixels by which networks are compared.
    """

    metrics: Mapping[str, float]
    prediction: TargetPrediction


def judge(
    trained: Trained,
    config: TrainConfig | None = None,
    *,
    validators: Sequence[str] = (),
    data_roots: Mapping[str, Path | str] | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> Judgement:
    """Run a network over the source's validation and the target's training images, and judge it.

    Args:
        trained: path of a checkpoint or of an exported file, or a segmenter.
        config: says which data; None: the checkpoint's own.
        validators: names of those to compute; of an exported file none can be.
        data_roots: name of a data set -> its folder; else the configuration's, else the variable SEGDA_<NAME>_ROOT.
        device: `auto`, `cpu`, `cuda` or `cuda:<n>`.
        precision: arithmetic of convolutions; an exported file has its own.

    Raises:
        SegdaError: network, data or device cannot be used.
    """
    network = make_ready(trained, config, device=device, precision=precision)
    config = with_roots(network.config, data_roots or {})
    classes = DATASETS[config.data.source.dataset].classes
    watched = notices().is_terminal
    source = open_split(config, config.data.source, "val", with_labels=True, progress=watched)
    target = open_target(config.data, progress=watched)
    sample = PixelSample(len(source), **SOURCE_SAMPLE)
    scored = score_split(
        network.segmenter,
        source,
        num_classes=len(classes),
        unscored=config.data.unscored,
        device=network.device,
        dtype=network.dtype,
        observe=sample.add,
    )
    evidence, figures = look_at(
        network.segmenter,
        target,
        source=sample,
        scored=scored,
        num_classes=len(classes),
        device=network.device,
        dtype=network.dtype,
    )
    metrics = {"source/val/miou": scored.miou, "source/val/pixel_accuracy": scored.pixel_accuracy, **figures}
    if not isinstance(network.segmenter, ArtefactSegmenter):
        metrics |= {"target/transport_accuracy": transport_alarm(evidence), **scores(validators, evidence)}
    return Judgement(metrics, kept_prediction(evidence, target, classes=classes))
