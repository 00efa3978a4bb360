import pytest
import torch
from torch import nn

from segda.optim import build_optimizer, poly_factor, set_learning_rate


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_every_optimizer_lowers_a_quadratic(name):
    weight = nn.Parameter(torch.tensor([[2.0, -3.0]]))
    optimizer = build_optimizer([weight], name=name, lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
    assert float(weight.detach().abs().max()) < 0.2


def test_weight_decay_spares_biases_and_normalization():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    optimizer = build_optimizer(network.parameters(), name="sgd", lr=0.1, weight_decay=0.5)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay[id(network[0].weight)] == 0.5
    assert decay[id(network[0].bias)] == 0.0
    assert decay[id(network[1].weight)] == 0.0


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="got 'lion'"):
        build_optimizer([nn.Parameter(torch.zeros(1))], name="lion", lr=0.1)


@pytest.mark.parametrize("step", [0, 1, 37, 99, 100])
def test_poly_follows_its_formula(step):
    assert poly_factor(step, horizon=100, power=0.9) == pytest.approx((1 - step / 100) ** 0.9)


def test_warmup_rises_linearly_and_then_leaves_the_poly_schedule_alone():
    factors = [poly_factor(step, horizon=10**9, warmup_steps=4) for step in range(6)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


def test_a_step_behind_the_horizon_has_rate_zero_not_a_complex_number():
    assert poly_factor(120, horizon=100) == 0.0


def test_every_group_is_scaled_by_its_own_base_rate():
    optimizer = torch.optim.SGD(
        [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr, "initial_lr": lr} for lr in (0.1, 1.0)]
    )
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.5]
