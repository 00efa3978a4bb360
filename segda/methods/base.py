"""The contract that every adaptation method keeps."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from segda.losses import SegmentationLoss
from segda.types import LabeledBatch, UnlabeledBatch


class MethodConfig(BaseModel):
    """Settings of one method; each method extends it and fixes `name`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str


class StepOutput(NamedTuple):
    """What one training step asks the loop to do.

    Attributes:
        losses: parameter group -> scalar to minimize. The loop back-propagates each loss into its own group only, in this
            order; the last one frees the graph, so the segmenter's belongs at the end.
        logs: name -> detached scalar on the device; the loop reads them when it reports.
    """

    losses: Mapping[str, Tensor]
    logs: Mapping[str, Tensor]


class Method(nn.Module, ABC):
    """A way of training a segmenter on labelled source and unlabelled target images.

    It is a module, so a teacher or a discriminator is moved, saved and resumed with it. It sees no optimizer, device,
    logger or file. `progress` is all it knows of time.

    Attributes:
        Config: the method's settings; weights of loss terms are named `lambda_...` and read from `config` in every step, since they
            may change in the middle of a run.
        supervision: which domain's labelled training images arrive as the first batch. `target` is for upper bounds; their
            results are marked as having used target labels.
        needs_target: whether unlabelled target images are used; if not, the target batch holds no images.
    """

    Config: ClassVar[type[MethodConfig]]
    supervision: ClassVar[Literal["source", "target"]] = "source"
    needs_target: ClassVar[bool] = True

    def __init__(self, segmenter: nn.Module, *, config: Any, loss: SegmentationLoss, num_classes: int) -> None:
        """Keep the parts that all methods share.

        Args:
            segmenter: maps an image float [B, 3, H, W] to `SegmentationOutput`; `num_auxiliary` says how many auxiliary
                outputs it has in training mode, and the argument `auxiliary=False` leaves them out.
            config: an instance of the method's `Config`.
            loss: supervised loss over main and auxiliary outputs.
            num_classes: number of train ids.
        """
        super().__init__()
        self.segmenter = segmenter
        self.config = config
        self.loss = loss
        self.num_classes = num_classes

    @abstractmethod
    def training_step(self, labeled: LabeledBatch, target: UnlabeledBatch, *, progress: float) -> StepOutput:
        """Compute the losses of one step.

        Args:
            labeled: supervised batch, of the source domain unless `supervision` says otherwise.
            target: unlabelled batch of the target domain.
            progress: share of the training that has passed, in [0, 1].

        Returns:
            One loss per parameter group and scalars to log.
        """

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters by group; each group has its own optimizer and its own loss."""
        return {"segmenter": list(self.segmenter.parameters())}

    def after_step(self) -> None:
        """Run once after the optimizers' update, e.g. to move an averaged teacher."""
