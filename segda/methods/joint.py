"""Train on the labelled source domain and a few labelled target images together: the plainest use of few labels."""

from typing import Annotated, ClassVar

from pydantic import Field

from segda.batch_norm import forward_domains
from segda.methods.base import Method, MethodConfig, StepInput, StepOutput, TwoDomainConfig
from segda.tunable import Range


class JointConfig(TwoDomainConfig):
    """Settings of `Joint`."""

    name: str = "joint"
    lambda_few: Annotated[float, Range(0.1, 10.0, log=True)] = Field(
        1.0, ge=0, description="weight of the supervised loss on the few labelled target images"
    )


class Joint(Method):
    """Supervised training on source images and few target images from the start.

    L = L_seg(source) + lambda_few * L_seg(few labelled target images)

    Every step sees as many target images as source images, so the few come again and again, augmented anew each time. Unlabelled
    target images are not used.
    """

    Config: ClassVar[type[MethodConfig]] = JointConfig
    needs_target: ClassVar[bool] = False
    needs_few_shot: ClassVar[bool] = True

    def training_step(self, step: StepInput) -> StepOutput:
        """Return the sum of both supervised losses; see `Method.training_step`."""
        assert step.few_shot is not None
        source, few = forward_domains(
            self.segmenter, step.labeled.image, step.few_shot.image, mixing=self.config.batch_norm
        )
        loss_seg = self.loss(source, step.labeled.label)
        loss_few = self.loss(few, step.few_shot.label)
        return StepOutput(
            losses={"segmenter": loss_seg + self.config.lambda_few * loss_few},
            logs={"loss_seg": loss_seg, "loss_few": loss_few},
        )
