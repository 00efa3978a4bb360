"""CoRTe, as far as it is known: a light student of a black box, without source images."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import nn

from segda.errors import ConfigError
from segda.losses import SegmentationLoss
from segda.methods.base import MethodConfig
from segda.methods.external_labels import ExternalLabels, ExternalLabelsConfig
from segda.methods.strong import StrongConfig
from segda.tunable import Range


class CorteConfig(StrongConfig):
    """Settings of `Corte`."""

    name: str = "corte"
    alpha: Annotated[float, Range(0.9, 0.999)] = Field(
        0.999, ge=0, lt=1, description="share of the averaged student that stays in each step, once warmed up"
    )
    warm_up: Annotated[float, Range(0.2, 0.7)] = Field(
        0.5, ge=0, lt=1, description="share of the training before the averaged student refines labels"
    )


class Corte(ExternalLabels):
    """Learn from what a black box says of the target alone: relative confidence, refinement, consistent training.

    L = mean over labelled pixels of -log p(augmented target)[y], y as in `ExternalLabels` with filter: relative_margin and refine

    It is `external_labels` with mix: none, lambda_source: 0 and uniform weights.

    This is a RECONSTRUCTION: neither code nor full text of the paper could be had. Known are its setting (softmax of a black box,
    no source images, a light student), the filter (margin of the two most probable classes, threshold of a class = mean margin of
    its pixels; nothing to tune), and that labels are refined by an averaged student and learnt on strongly augmented images. Put
    in here: how the two labellings are put together (the black box where kept, else the student where it is sure by the same
    thresholds, void where both are sure and differ), when the student begins to be asked, alpha, and DACS's jitter and blur. Class
    means are computed once, from the black box, over the whole target training set. With peaked probabilities the filter keeps
    about half of the pixels of every class, whatever they are worth.

    Source: Cuttano, Tavera, Cermelli, Averta and Caputo, Cross-Domain Transfer Learning with CoRTe: Consistent and Reliable
    Transfer from Black-Box to Lightweight Segmentation Model, ICCV workshops 2023, arXiv:2402.13122. Deviation: validation and the
    choice of a trial read the source here as ever; the training does not.
    """

    Config: ClassVar[type[MethodConfig]] = CorteConfig
    reconstruction: ClassVar[bool] = True

    def __init__(self, segmenter: nn.Module, *, config: Any, loss: SegmentationLoss, num_classes: int) -> None:
        """Choose the paper's settings; see `Method.__init__`."""
        super().__init__(segmenter, config=_settings(config), loss=loss, num_classes=num_classes)

    @classmethod
    def fits_source(cls, settings: Mapping[str, Any]) -> bool:
        """Return that it does not: it sees no source image; see `Method.fits_source`."""
        return False

    @classmethod
    def check_external_labels(cls, config: Any, *, has_confidences: bool) -> None:
        """Refuse labels without confidences, by which all of it decides; see `Method.check_external_labels`."""
        if not has_confidences:
            raise ConfigError(
                "corte decides by confidences, and these external labels have none; label again with confidences, or choose "
                "external_labels with filter: none and refine: false"
            )


def _settings(config: CorteConfig) -> ExternalLabelsConfig:
    return ExternalLabelsConfig(
        **config.model_dump(exclude={"name"}),
        filter="relative_margin",
        refine=True,
        weighting="uniform",
        mix="none",
        lambda_source=0.0,
    )
