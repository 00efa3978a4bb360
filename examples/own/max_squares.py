"""A method of one's own: source training, and predictions on the target that are pushed towards certainty."""

from typing import Annotated, ClassVar

from pydantic import Field

from segda.batch_norm import forward_domains
from segda.losses import mean
from segda.methods import Method, MethodConfig, StepInput, StepOutput, TwoDomainConfig
from segda.tunable import Range


class MaxSquaresConfig(TwoDomainConfig):
    """Settings of `MaxSquares`; a sweep can search every field that declares a range."""

    name: str = "max_squares"
    lambda_squares: Annotated[float, Range(1e-3, 1.0, log=True)] = Field(
        0.1, ge=0, description="weight of the squares of the target's probabilities"
    )


class MaxSquares(Method):
    """L = L_seg(source) - lambda_squares / 2 * mean over target pixels of sum_c p_c^2.

    Unlike the entropy, the squares have a gradient that grows only linearly with certainty, so easy pixels do not drown hard ones.

    Source: Chen, Xue and Cai, Domain Adaptation for Semantic Segmentation with Maximum Squares Loss, ICCV 2019, eq. 8. Deviation:
    without the weights of classes by image.
    """

    Config: ClassVar[type[MethodConfig]] = MaxSquaresConfig

    def training_step(self, step: StepInput) -> StepOutput:
        """Return the loss of the segmenter; see `Method.training_step`."""
        source, target = forward_domains(
            self.segmenter, step.labeled.image, step.target.image, mixing=self.config.batch_norm, target_auxiliary=False
        )
        loss_seg = self.loss(source, step.labeled.label)
        squares = target.logits.float().softmax(dim=1).square().sum(dim=1)
        # A sum and a count instead of a mean: parts of a batch then add up to the whole, however it is cut.
        loss_squares = mean(-0.5 * squares.sum(), squares.numel())
        return StepOutput(
            losses={"segmenter": loss_seg + self.config.lambda_squares * loss_squares},
            logs={"loss_seg": loss_seg, "loss_squares": loss_squares},
        )
