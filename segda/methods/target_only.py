"""Train on the labelled target domain: the upper bound that adaptation is measured against."""

from typing import ClassVar, Literal

from segda.methods.base import Method, MethodConfig, StepInput, StepOutput


class TargetOnlyConfig(MethodConfig):
    """Settings of `TargetOnly`; it has none of its own."""

    name: str = "target_only"


class TargetOnly(Method):
    """Supervised training on the target's labelled training images.

    It answers what the network could reach if the target were labelled. It is a reference, not an answer: nobody who needs
    adaptation has these labels, and every result of it says that it used them.
    """

    Config: ClassVar[type[MethodConfig]] = TargetOnlyConfig
    supervision: ClassVar[Literal["source", "target"]] = "target"
    needs_target: ClassVar[bool] = False

    def training_step(self, step: StepInput) -> StepOutput:
        """Return the supervised loss of the labelled target batch; see `Method.training_step`."""
        loss_seg = self.loss(self.segmenter(step.labeled.image), step.labeled.label)
        return StepOutput(losses={"segmenter": loss_seg}, logs={"loss_seg": loss_seg})
