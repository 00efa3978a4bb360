import pytest
import torch
from torch import nn

from segda.errors import ConfigError
from segda.optim import OPTIMIZERS, OptimizerConfig, build_optimizer, poly_factor, set_learning_rate


def settings(name, **changes):
    return OPTIMIZERS[name].Config(name=name, **changes)


def rates(optimizer):
    return {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_a_quadratic(name):
    weight = nn.Parameter(torch.tensor([[2.0, -3.0]]))
    optimizer = build_optimizer(settings(name, lr=0.05), [weight])
    for _ in range(200):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
    assert float(weight.detach().abs().max()) < 0.2


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        # As the adaptation report's code makes them for its table IV.
        ("sgd", lambda weights: torch.optim.SGD(weights, 2.5e-2, momentum=0.9, weight_decay=1e-4)),
        ("rmsprop", lambda weights: torch.optim.RMSprop(weights, 2.5e-2)),
        ("adam", lambda weights: torch.optim.Adam(weights, 2.5e-2)),
        ("adamw", torch.optim.AdamW),
    ],
)
def test_a_name_alone_means_the_published_settings(name, plain):
    weights = [nn.Parameter(torch.full((2, 3), 2.0)) for _ in range(2)]
    optimizers = [build_optimizer(settings(name), weights[:1]), plain(weights[1:])]
    for step in range(5):
        for weight, optimizer in zip(weights, optimizers, strict=True):
            weight.grad = torch.sin(torch.arange(6.0).view(2, 3) + step)
            optimizer.step()
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "changes", "key", "value"),
    [
        ("sgd", {"momentum": 0.5}, "momentum", 0.5),
        ("rmsprop", {"momentum": 0.5}, "momentum", 0.5),
        ("rmsprop", {"alpha": 0.9}, "alpha", 0.9),
        ("adam", {"beta1": 0.5, "beta2": 0.9}, "betas", (0.5, 0.9)),
        ("adamw", {"beta1": 0.5, "beta2": 0.9}, "betas", (0.5, 0.9)),
        *((name, {"weight_decay": 0.3}, "weight_decay", 0.3) for name in OPTIMIZERS),
    ],
)
def test_settings_reach_the_optimizer(name, changes, key, value):
    optimizer = build_optimizer(settings(name, **changes), [nn.Parameter(torch.zeros(1, 1))])
    assert optimizer.param_groups[0][key] == value


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_spares_biases_and_normalization(name):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    optimizer = build_optimizer(settings(name, weight_decay=0.5), network.parameters())
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay[id(network[0].weight)] == 0.5
    assert decay[id(network[0].bias)] == 0.0
    assert decay[id(network[1].weight)] == 0.0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_heads_learn_at_a_multiple_of_the_trunks_rate_through_the_schedule(name):
    network = nn.ModuleDict({"trunk": nn.Conv2d(3, 4, 1), "head": nn.Conv2d(4, 2, 1)})
    chosen = settings(name, lr=0.01, head_lr_factor=10)
    optimizer = build_optimizer(chosen, network.parameters(), trunk=network["trunk"].parameters())
    for factor in (1.0, 0.5):
        set_learning_rate(optimizer, factor)
        found = rates(optimizer)
        assert [found[id(p)] for p in network["trunk"].parameters()] == pytest.approx([0.01 * factor] * 2)
        assert [found[id(p)] for p in network["head"].parameters()] == pytest.approx([0.1 * factor] * 2)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay[id(network["head"].bias)] == 0.0
    assert decay[id(network["head"].weight)] == chosen.weight_decay


def test_an_unknown_optimizer_is_refused():
    class Lion(OptimizerConfig):
        name: str = "lion"

    with pytest.raises(ConfigError, match="unknown optimizer 'lion'"):
        build_optimizer(Lion(), [nn.Parameter(torch.zeros(1))])


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
