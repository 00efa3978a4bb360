import math

import numpy as np
import pytest
import torch

from segda.losses.adversarial import (
    ADVERSARIAL_KINDS,
    SOURCE_DOMAIN,
    TARGET_DOMAIN,
    adversarial_loss,
    domain_accuracy,
)

every_kind = pytest.mark.parametrize("kind", ADVERSARIAL_KINDS)
every_domain = pytest.mark.parametrize("domain", [SOURCE_DOMAIN, TARGET_DOMAIN])


def _reference(domain_logits, domain, kind):
    x = domain_logits.double().numpy()
    if x.shape[1] > 1:
        one_hot = np.eye(x.shape[1])[domain][None, :, None, None]
        if kind == "least_squares":
            return ((x - one_hot) ** 2).sum(1).mean()
        probs = np.exp(x) / np.exp(x).sum(1, keepdims=True)
        return -np.log((probs * one_hot).sum(1)).mean()
    if kind == "least_squares":
        return ((x - domain) ** 2).mean()
    said_target = 1 / (1 + np.exp(-x))
    return -np.log(said_target if domain == 1 else 1 - said_target).mean()


@every_kind
@every_domain
@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_the_loss_equals_its_float64_form(kind, domain, outputs):
    domain_logits = 2 * torch.randn(2, outputs, 5, 7, generator=torch.Generator().manual_seed(0))
    loss = adversarial_loss(domain_logits, domain, kind=kind).value.item()
    assert loss == pytest.approx(_reference(domain_logits, domain, kind), rel=1e-6)


@every_kind
def test_one_step_moves_the_logits_towards_the_wanted_domain(kind):
    for domain, sign in ((SOURCE_DOMAIN, -1), (TARGET_DOMAIN, 1)):
        domain_logits = torch.full((1, 1, 2, 2), 0.5, requires_grad=True)
        adversarial_loss(domain_logits, domain, kind=kind).value.backward()
        assert (-sign * domain_logits.grad > 0).all()


@every_kind
@every_domain
def test_outputs_that_stand_for_no_domain_are_pushed_down(kind, domain):
    domain_logits = torch.full((1, 5, 2, 2), 0.5, requires_grad=True)
    adversarial_loss(domain_logits, domain, kind=kind).value.backward()
    lowered = domain_logits.grad > 0
    assert not lowered[:, domain].any()
    assert lowered.sum() == 4 * lowered[:, domain].numel()


@every_kind
@every_domain
@pytest.mark.parametrize("outputs", [1, 4])
def test_accuracy_is_the_share_of_outputs_on_the_right_side(kind, domain, outputs):
    scores = 0.4 + torch.randn(3, outputs, 6, 5, generator=torch.Generator().manual_seed(1))
    x = scores.double().numpy()
    border = 0.5 if kind == "least_squares" else 0.0
    says_target = x[:, 0] > border if outputs == 1 else x[:, 1] > x[:, 0]

    accuracy = domain_accuracy(scores, domain, kind=kind)

    assert accuracy.value.item() == pytest.approx((says_target == (domain == TARGET_DOMAIN)).mean())
    assert not accuracy.sums.requires_grad
    undecided = torch.full((1, 1, 2, 2), border)
    assert domain_accuracy(undecided, domain, kind=kind).value == 0.5


def test_an_undecided_discriminator_costs_ln_2_and_a_quarter():
    for domain in (SOURCE_DOMAIN, TARGET_DOMAIN):
        assert adversarial_loss(torch.zeros(1, 1, 3, 3), domain, kind="vanilla").value.item() == pytest.approx(
            math.log(2)
        )
        halfway = torch.full((1, 1, 3, 3), 0.5)
        assert adversarial_loss(halfway, domain, kind="least_squares").value.item() == pytest.approx(0.25)


@every_domain
def test_vanilla_stays_finite_for_huge_logits(domain):
    for value in (-1e4, 1e4):
        domain_logits = torch.full((1, 1, 2, 2), value, requires_grad=True)
        loss = adversarial_loss(domain_logits, domain).value
        loss.backward()
        assert loss.item() == pytest.approx(1e4 if (value > 0) != (domain == TARGET_DOMAIN) else 0)
        assert domain_logits.grad.isfinite().all()


@every_kind
def test_bfloat16_logits_lose_nothing_under_autocast(kind):
    domain_logits = torch.linspace(-3, 3, 64).view(1, 1, 8, 8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = adversarial_loss(domain_logits, TARGET_DOMAIN, kind=kind).value
    assert loss.item() == pytest.approx(_reference(domain_logits.float(), TARGET_DOMAIN, kind), rel=1e-6)


def test_an_unknown_domain_or_kind_is_refused():
    with pytest.raises(ValueError, match="domain must be 0"):
        adversarial_loss(torch.zeros(1, 1, 2, 2), 2)
    with pytest.raises(ValueError, match="kind must be one of vanilla, least_squares, got 'hinge'"):
        adversarial_loss(torch.zeros(1, 1, 2, 2), SOURCE_DOMAIN, kind="hinge")
