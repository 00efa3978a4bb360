"""Which weights are the smallest, compared with NumPy in float64."""

import numpy as np
import pytest
import torch
from torch.nn.utils import prune

from segda.compression.magnitude import smallest_weights
from segda.errors import ConfigError


def layers(seed: int = 0, *, sizes=((4, 3, 3, 3), (8, 4, 1, 1), (5, 8))) -> dict[str, torch.Tensor]:
    """Weights of a few layers, each of another scale, as fan-in has it."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"layer{number}": torch.randn(*size, generator=generator) * 0.5**number for number, size in enumerate(sizes)
    }


def share(masks) -> float:
    return sum(int(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())


@pytest.mark.parametrize("level", [0.0, 0.05, 0.33, 0.5, 0.85, 1.0])
def test_one_ranking_takes_the_smallest_of_all(level):
    weights = layers()
    together = np.abs(np.concatenate([weight.double().numpy().ravel() for weight in weights.values()]))
    expected = np.zeros(together.size, dtype=bool)
    expected[np.argsort(together, kind="stable")[: round(level * together.size)]] = True

    masks = smallest_weights(weights, level, scope="global")

    assert np.array_equal(np.concatenate([mask.numpy().ravel() for mask in masks.values()]), expected)


@pytest.mark.parametrize("level", [0.05, 0.5, 0.85])
def test_each_layer_by_itself_has_exactly_its_share(level):
    weights = layers()
    masks = smallest_weights(weights, level, scope="module")
    for name, weight in weights.items():
        assert int(masks[name].sum()) == round(level * weight.numel())
        assert weight[masks[name]].abs().max() <= weight[~masks[name]].abs().min()


@pytest.mark.parametrize("scope", ["global", "module"])
def test_repeated_calls_reach_the_level_and_not_one_minus_the_product(scope):
    weights = layers()
    masks = None
    for _ in range(5):
        masks = smallest_weights(weights, 0.2, scope=scope, pruned=masks)
    tolerance = 1 / min(weight.numel() for weight in weights.values())
    assert share(masks) == pytest.approx(0.2, abs=tolerance)

    # The same calls of torch.nn.utils.prune compound, each on what the last one left.
    layer = torch.nn.Linear(40, 50)
    for _ in range(5):
        prune.l1_unstructured(layer, "weight", amount=0.2)
    assert float((layer.weight == 0).float().mean()) == pytest.approx(1 - 0.8**5, abs=1e-3)


@pytest.mark.parametrize("scope", ["global", "module"])
def test_what_was_pruned_stays_pruned_whatever_it_holds_by_now(scope):
    weights = layers()
    before = smallest_weights(weights, 0.3, scope=scope)
    for name, mask in before.items():
        weights[name][mask] = 100.0
    after = smallest_weights(weights, 0.5, scope=scope, pruned=before)
    assert all(bool(after[name][mask].all()) for name, mask in before.items())
    tolerance = 1 / min(weight.numel() for weight in weights.values())
    assert share(after) == pytest.approx(0.5, abs=0 if scope == "global" else tolerance)


def test_equal_weights_are_taken_in_the_order_of_their_places_in_every_memory_format():
    weights = {"a": torch.ones(2, 3, 2, 2), "b": torch.ones(2, 3, 2, 2)}
    other = {name: weight.to(memory_format=torch.channels_last) for name, weight in weights.items()}
    masks, again = (smallest_weights(each, 14 / 48, scope="global") for each in (weights, other))
    assert masks["a"].flatten().tolist() == [True] * 14 + [False] * 10
    assert not masks["b"].any()
    assert all(torch.equal(masks[name], again[name]) for name in masks)
    assert again["a"].stride() == other["a"].stride()  # or applying it would be slow


def test_a_bound_keeps_one_ranking_from_taking_a_layer_whole_and_the_number_stays_exact():
    weights = {"wide": torch.randn(1000), "last": torch.randn(100) * 0.01}
    free = smallest_weights(weights, 0.5, scope="global")
    assert bool(free["last"].all())  # the trap: it is dead

    masks = smallest_weights(weights, 0.5, scope="global", largest_layer_share=0.9)

    assert int(masks["last"].sum()) == 90
    assert share(masks) == 0.5
    assert weights["last"][masks["last"]].abs().max() <= weights["last"][~masks["last"]].abs().min()


def test_a_bound_below_the_level_holds():
    masks = smallest_weights(layers(), 0.9, scope="module", largest_layer_share=0.5)
    assert all(int(mask.sum()) == mask.numel() // 2 for mask in masks.values())


@pytest.mark.parametrize("level", [-0.1, 1.05, float("nan")])
def test_a_level_that_is_no_share_is_refused(level):
    with pytest.raises(ConfigError, match=r"a share of the weights in \[0, 1\]"):
        smallest_weights(layers(), level, scope="global")


def test_nothing_to_prune_is_nothing():
    assert smallest_weights({}, 0.5, scope="global") == {}
