"""What every supervised loss must show, on random logits: a second in all.

from segda.testing.losses import LOSS_CHECKS, LossCase

@pytest.mark.parametrize("check", LOSS_CHECKS.values(), ids=LOSS_CHECKS)
def test_my_loss(check):
    check(LossCase("my_module:my_loss"))
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from segda.losses import LOSSES, Loss
from segda.losses.additive import differentiate
from segda.types import IGNORE_INDEX

NUM_CLASSES = 5
IMAGES = 4


@dataclass(frozen=True)
class LossCase:
    """A loss by name, with settings.

    Attributes:
        loss: key of `LOSSES`, or `module:Attribute`.
        settings: beyond the defaults of its `Config`.
    """

    loss: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def class_weights(self) -> list[Tensor | None]:
        """Return none, and weights of classes if the loss knows any."""
        try:
            LOSSES[self.loss].Config.model_validate({"name": self.loss, "class_weights": "enet"})
        except ValidationError:
            return [None]
        return [None, torch.tensor([0.4, 3.0, 1.0, 9.0, 0.2])]

    def of(
        self, logits: Tensor, label: Tensor, *, weight: Tensor | None = None, class_weight: Tensor | None = None
    ) -> Loss:
        """Return the loss."""
        rule = LOSSES[self.loss]
        settings = rule.Config.model_validate({"name": self.loss, **self.settings})
        return rule.loss(logits, label, weight=weight, class_weight=class_weight, settings=settings)


def _batch() -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, label and weights of pixels; images differ much in how many labelled pixels they have."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(IMAGES, NUM_CLASSES, 6, 7, generator=generator)
    label = torch.randint(NUM_CLASSES, (IMAGES, 6, 7), generator=generator)
    label[0, 1:] = IGNORE_INDEX
    label[1] = IGNORE_INDEX
    return logits, label, torch.rand(IMAGES, 6, 7, generator=generator)


def check_parts_equal_the_whole(case: LossCase) -> None:
    """The sums of the images of a batch give the loss and the gradient of the whole batch, with and without weights.

    A mean that is not written as a sum and a count fails here.
    """
    logits, label, weights = _batch()
    for class_weight in case.class_weights():
        for weight in (None, weights):
            leaf = logits.clone().requires_grad_()
            whole = case.of(leaf, label, weight=weight, class_weight=class_weight)
            (expected,) = torch.autograd.grad(whole.value, leaf)
            leaf = logits.clone().requires_grad_()
            parts = [
                case.of(
                    leaf[image : image + 1],
                    label[image : image + 1],
                    weight=None if weight is None else weight[image : image + 1],
                    class_weight=class_weight,
                )
                for image in range(IMAGES)
            ]
            sums = torch.stack([part.sums.detach() for part in parts]).sum(0)
            got = torch.zeros_like(leaf)
            for part in parts:
                value, derivatives = differentiate(part, sums)
                got += torch.autograd.grad(part.sums, leaf, derivatives)[0]
                assert torch.allclose(value, whole.value.detach(), rtol=1e-5, atol=1e-7), (
                    f"the sums of the images give {value.item():.6g}, the whole batch {whole.value.item():.6g}"
                )
            assert torch.allclose(got, expected, rtol=1e-4, atol=1e-6), (
                "the gradient differs if images are taken one by one"
            )


def check_void_pixels_are_no_part_of_it(case: LossCase) -> None:
    """What is predicted at void pixels changes nothing, and gets no gradient."""
    logits, label, _ = _batch()
    void = (label == IGNORE_INDEX).unsqueeze(1)
    for class_weight in case.class_weights():
        leaf = logits.clone().requires_grad_()
        loss = case.of(leaf, label, class_weight=class_weight).value
        loss.backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        assert not leaf.grad[void.expand_as(leaf)].any(), "void pixels get a gradient"
        other = case.of(torch.where(void, 20 * logits.flip(0), logits), label, class_weight=class_weight).value
        assert torch.allclose(other, loss, rtol=1e-5), "what is predicted at void pixels changes the loss"


def check_a_void_batch_costs_nothing(case: LossCase) -> None:
    """Where every pixel is void the loss is zero and the gradient is zero: no NaN."""
    logits, label, _ = _batch()
    for class_weight in case.class_weights():
        leaf = logits.clone().requires_grad_()
        loss = case.of(leaf, torch.full_like(label, IGNORE_INDEX), class_weight=class_weight).value
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.item() == 0, f"a batch of void pixels costs {loss.item()}"
        assert leaf.grad is not None
        assert not leaf.grad.any(), "a batch of void pixels has a gradient"


def check_a_gradient_step_lowers_it(case: LossCase) -> None:
    """A step against the gradient lowers the loss, also in half precision under autocast."""
    logits, label, _ = _batch()
    for class_weight in case.class_weights():
        leaf = logits.clone().requires_grad_()
        before = case.of(leaf, label, class_weight=class_weight).value
        before.backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        after = case.of(leaf.detach() - leaf.grad, label, class_weight=class_weight).value
        assert after < before, f"a gradient step moved the loss from {before.item():.6g} to {after.item():.6g}"
        half = logits.bfloat16()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = case.of(half, label, class_weight=class_weight).value
        exact = case.of(half.float(), label, class_weight=class_weight).value
        assert torch.allclose(rounded, exact, rtol=1e-5), (
            "sums are made in half precision; see torch.autocast(enabled=False)"
        )


LOSS_CHECKS: dict[str, Callable[[LossCase], None]] = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_parts_equal_the_whole,
        check_void_pixels_are_no_part_of_it,
        check_a_void_batch_costs_nothing,
        check_a_gradient_step_lowers_it,
    )
}
