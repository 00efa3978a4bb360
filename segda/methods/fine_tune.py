"""Train on the labelled source domain, then on a few labelled target images alone."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from segda.methods.base import Method, MethodConfig, StepInput, StepOutput
from segda.tunable import Range


class FineTuneConfig(MethodConfig):
    """Settings of `FineTune`."""

    name: str = "fine_tune"
    warm_up: Annotated[float, Range(0.5, 0.95)] = Field(
        0.8,
        ge=0,
        lt=1,
        description="share of the training's steps that see source images; the rest see the few target images",
    )


class FineTune(Method):
    """Supervised training on source images, then on the few labelled target images and nothing else.

    L = L_seg(source) while less than `warm_up` of the steps have passed, L_seg(few labelled target images) from then on

    Source: the row "fine-tuning" of the few-shot tables of Tavera et al., PixDA, WACV 2022: a source-only model goes on with the
    few target images. There these are two trainings, the second one with a schedule of its own, whose length and rate are not
    published. Here they are the two parts of one training, so that its cost is that of the other rows and a sweep can search where
    one ends: the optimizer keeps its momentum, and the learning rate goes on falling as the run's schedule says (with the usual
    polynomial it is a quarter of its first value after 0.8 of the steps), which keeps it small for few images.

    Of both domains one passes through the network in each step, so it costs what source-only training does. BatchNorm's running
    averages end as those of the few images.
    """

    Config: ClassVar[type[MethodConfig]] = FineTuneConfig
    needs_target: ClassVar[bool] = False
    needs_few_shot: ClassVar[bool] = True

    @classmethod
    def fits_source(cls, settings: Mapping[str, Any]) -> bool:
        """Return that it does not: the few target images come last; see `Method.fits_source`."""
        return False

    def training_step(self, step: StepInput) -> StepOutput:
        """Return the supervised loss of the domain whose turn it is; see `Method.training_step`."""
        assert step.few_shot is not None
        batch = step.labeled if step.progress < self.config.warm_up else step.few_shot
        loss_seg = self.loss(self.segmenter(batch.image), batch.label)
        return StepOutput(losses={"segmenter": loss_seg}, logs={"loss_seg": loss_seg})
