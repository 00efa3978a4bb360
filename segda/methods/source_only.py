"""Train on the labelled source domain alone: what every adaptation method must beat."""

from typing import ClassVar

from segda.methods.base import Method, MethodConfig, StepInput, StepOutput


class SourceOnlyConfig(MethodConfig):
    """Settings of `SourceOnly`; it has none of its own."""

    name: str = "source_only"


class SourceOnly(Method):
    """Supervised training on the source domain; the target is never seen."""

    Config: ClassVar[type[MethodConfig]] = SourceOnlyConfig
    needs_target: ClassVar[bool] = False

    def training_step(self, step: StepInput) -> StepOutput:
        """Return the supervised loss of the source batch; see `Method.training_step`."""
        loss_seg = self.loss(self.segmenter(step.labeled.image), step.labeled.label)
        return StepOutput(losses={"segmenter": loss_seg}, logs={"loss_seg": loss_seg})
