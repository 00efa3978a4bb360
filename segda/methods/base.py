"""The contract that every adaptation method keeps."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field
from torch import Tensor, nn

from segda.batch_norm import Mixing
from segda.draws import Draws
from segda.losses import Loss, SegmentationLoss
from segda.settings import Settings
from segda.tunable import Choice
from segda.types import LabeledBatch, PseudoLabel, UnlabeledBatch


class MethodConfig(Settings):
    """Settings of one method; each method extends it and gives `name` its own default."""

    name: str

    def check_classes(self, num_classes: int) -> None:
        """Refuse settings that name a class which the data do not have.

        Args:
            num_classes: number of train ids.

        Raises:
            LocatedError: which setting, and what was expected; its keys are relative to these settings.
        """


class TwoDomainConfig(MethodConfig):
    """Settings of a method that passes images of both domains through the network in training."""

    batch_norm: Annotated[Mixing, Choice("separate", "source", "joint")] = Field(
        "separate",
        description="statistics of batch normalization: of each domain by itself, with running averages of both (separate) or "
        "of the source alone (source), or of all images together (joint)",
    )


class StepInput(NamedTuple):
    """What a method is given for one step, or for the part of a step that passes through the network at once.

    Attributes:
        labeled: supervised batch, of the source domain unless the method's `supervision` says otherwise.
        target: unlabelled batch of the target domain, without images if the method's `needs_target` is false.
        few_shot: the few labelled target images, if the method `needs_few_shot`; as many as `labeled` has, repeated in turn.
        progress: share of the training that has passed, in [0, 1).
        draws: where random draws come from; nothing else may be drawn from.
        round: number of the round that goes on, from 1; 0 before the first one, and for methods without rounds.
    """

    labeled: LabeledBatch
    target: UnlabeledBatch
    few_shot: LabeledBatch | None
    progress: float
    draws: Draws
    round: int = 0

    def parts(self, size: int) -> list["StepInput"]:
        """Cut the batch into parts of `size` images of each domain; the last one may be smaller."""
        return [self._part(first, size) for first in range(0, len(self.labeled.image), size)]

    def _part(self, first: int, size: int) -> "StepInput":
        def cut(tensor: Tensor) -> Tensor:
            return tensor[first : first + size]

        pseudo = self.target.pseudo_label
        if pseudo is not None:
            weight = None if pseudo.weight is None else cut(pseudo.weight)
            pseudo = pseudo._replace(label=cut(pseudo.label), weight=weight)
        few, valid = self.few_shot, self.target.valid
        return StepInput(
            labeled=LabeledBatch(cut(self.labeled.image), cut(self.labeled.label)),
            target=UnlabeledBatch(cut(self.target.image), pseudo, None if valid is None else cut(valid)),
            few_shot=None if few is None else LabeledBatch(cut(few.image), cut(few.label)),
            progress=self.progress,
            draws=self.draws.part(first),
            round=self.round,
        )


class StepOutput(NamedTuple):
    """What one training step asks the loop to do.

    Attributes:
        losses: parameter group -> loss to minimize, written as sums so that parts of a batch add up (`segda.losses.additive`). The
            loop back-propagates each loss into its own group only, in this order; the last one frees the graph, so the segmenter's
            belongs at the end.
        logs: name -> loss, or a detached scalar on the device; the loop reads them when it reports. Losses are those of the whole
            batch then, scalars are averaged over its parts.
        pseudo_label: what an averaged teacher says of the target images, with probabilities as weights, if the method has asked
            one: a method on top of this one need not ask it again.
    """

    losses: Mapping[str, Loss]
    logs: Mapping[str, Loss | Tensor]
    pseudo_label: PseudoLabel | None = None


def equal_rounds(first: float, time: float, *, rounds: int) -> tuple[float, ...]:
    """Return where rounds of equal length begin; see `Method.round_starts`.

    Args:
        first: share of the training that precedes the first one.
        time: share that they have together.
        rounds: how many there are.

    Example:
        >>> equal_rounds(0.5, 0.5, rounds=2)
        (0.5, 0.75)
    """
    return tuple(first + time * number / rounds for number in range(rounds))


class Method(nn.Module, ABC):
    """A way of training a segmenter on labelled source and unlabelled target images.

    It is a module, so that an averaged teacher or a discriminator is moved, saved and resumed with it. Parameters that no optimizer
    moves (a teacher's) belong to no group and have `requires_grad` off. It sees no optimizer, device, logger, file or label of the
    target; `progress` and `round` are all it knows of time, and `draws` all that it draws from.

    `training_step` may be called for parts of a batch, twice for each, and on several processes at once: it changes nothing of the
    method but what BatchNorm keeps by itself. What changes from step to step lives in buffers and changes in `after_step`, what
    changes from round to round changes in `begin_round`.

    Attributes:
        Config: the method's settings; weights of loss terms are named `lambda_...`.
        supervision: which domain's labelled training images arrive as the first batch. `target` is for upper bounds; their
            results are marked as having used target labels.
        needs_target: whether unlabelled target images are used; if not, the target batch holds no images.
        needs_few_shot: whether a few labelled target images are used; the run's configuration says which, and its results are
            marked as having used target labels.
        reconstruction: whether parts of it are put in by us because neither code nor full text of its paper could be had; reports
            say so.
        draws_labeled_only: whether target images whose pseudo-label is void everywhere are left out of a round's draws. If no image
            has a label, all are drawn, and losses on pseudo-labels must be zero.
        needs_external_labels: whether labels of the target images that something else has made (`segda teach`) come with them, as
            their `pseudo_label`; such a method has no rounds.
        has_discriminator: whether it trains discriminators (`segda.discriminators.Discriminator`), which can then be pruned.
    """

    Config: ClassVar[type[MethodConfig]]
    supervision: ClassVar[Literal["source", "target"]] = "source"
    needs_target: ClassVar[bool] = True
    needs_few_shot: ClassVar[bool] = False
    reconstruction: ClassVar[bool] = False
    draws_labeled_only: ClassVar[bool] = False
    needs_external_labels: ClassVar[bool] = False
    has_discriminator: ClassVar[bool] = False

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

    @classmethod
    def uses_few_shot(cls, settings: Mapping[str, Any]) -> bool:
        """Return whether a few labelled target images are used, which a method on top of another one leaves to that.

        Args:
            settings: of the method, as plain data; perhaps incomplete.
        """
        return cls.needs_few_shot

    @classmethod
    def uses_external_labels(cls, settings: Mapping[str, Any]) -> bool:
        """Return whether external labels are used; see `uses_few_shot`."""
        return cls.needs_external_labels

    @classmethod
    def fits_source(cls, settings: Mapping[str, Any]) -> bool:
        """Return whether the segmenter learns, to the end of the training, from source images as the loader gives them.

        Source validation falls where it does not, which is no sign of a collapse then: guards of a choice without target labels
        ask.

        Args:
            settings: of the method, as plain data; perhaps incomplete.
        """
        return cls.supervision == "source"

    @classmethod
    def uses_discriminator(cls, settings: Mapping[str, Any]) -> bool:
        """Return whether discriminators are trained; see `uses_few_shot`."""
        return cls.has_discriminator

    @classmethod
    def check_external_labels(cls, config: Any, *, has_confidences: bool) -> None:
        """Refuse settings that ask more of external labels than these have; by default they do not.

        Args:
            config: an instance of the method's `Config`.
            has_confidences: whether every pixel has a confidence.

        Raises:
            ConfigError: one line.
        """

    @abstractmethod
    def training_step(self, step: StepInput) -> StepOutput:
        """Compute the losses of one step, or of a part of it.

        Args:
            step: images, labels and what else there is.

        Returns:
            One loss per parameter group and what to log.
        """

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters by group; each group has its own optimizer and its own loss."""
        return {"segmenter": list(self.segmenter.parameters())}

    def after_step(self) -> None:
        """Run once after the optimizers' update, e.g. to move an averaged teacher."""

    def round_starts(self) -> tuple[float, ...]:
        """Return at which shares of the training rounds begin, ascending in [0, 1); by default never.

        A method with rounds overrides at least one of `begin_round`, `pseudo_labels` and `choose_source`, which the loop calls in
        this order at the beginning of each. In a training of few steps rounds may begin at the same step; only the last of them
        takes place then.
        """
        return ()

    def begin_round(self, number: int) -> None:
        """Change what changes from round to round, such as the weights of a frozen copy of the segmenter.

        The loop calls this on every process, without gradients. What it leaves is saved with the round: a run that is resumed in
        the middle of it does not begin it again. Parameters and buffers are changed in place, because optimizers and processes hold
        them, and as their values and the number say: rounds may have been left out, and nothing may be drawn.

        Args:
            number: of the round, from 1.
        """

    def pseudo_labels(self, images: Iterable[Tensor], *, number: int) -> Iterator[PseudoLabel] | None:
        """Label the target's training images at the beginning of a round.

        The loop writes down what comes, finds it again after a restart, and gives it back with the images (`UnlabeledBatch`). It
        calls this in evaluation and inference mode, and of several processes in one: nothing of the method may change.

        Args:
            images: batches of all target training images in order, normalized float [B, 3, H, W]; can be gone through several
                times.
            number: of the round, from 1.

        Returns:
            The pseudo-labels of each batch, at the images' size; with weights in every batch or in none. Weights are kept in
            255ths. None, as by default: this round has no pseudo-labels.
        """
        return None

    def choose_source(self, images: Iterable[Tensor], *, number: int) -> Tensor | None:
        """Choose which of the images that arrive as `StepInput.labeled` the steps of a round draw from.

        The loop writes down the choice as it does pseudo-labels, and calls this in the same way: nothing of the method may change.

        Args:
            images: batches of all these training images in order, normalized float [B, 3, H, W]; can be gone through several times.
            number: of the round, from 1.

        Returns:
            Which images to draw, bool [N], at least one. None, as by default: all.
        """
        return None
