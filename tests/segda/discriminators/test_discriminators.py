from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from segda.discriminators import CP, DISCRIMINATORS, FCD, TFD, build_discriminator
from segda.discriminators.cp import cp_rank
from segda.discriminators.tfd import tucker_ranks
from segda.efficiency import count_macs
from segda.errors import ConfigError
from segda.losses.adversarial import SOURCE_DOMAIN, TARGET_DOMAIN, adversarial_loss, domain_accuracy


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def random_probs(num_classes: int = 19, side: int = 64, seed: int = 0) -> Tensor:
    """Blocky softmax maps, about as confident as a trained network's."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 3 * torch.randn(4, num_classes, side // 8, side // 8, generator=generator)
    return functional.interpolate(coarse, scale_factor=8, mode="nearest").softmax(dim=1)


# name: stride, side of the neighborhood of one output, parameters by number of classes
PUBLISHED = {
    "fcd": (32, 94, {19: 2_781_121, 12: 2_773_953, 7: 2_768_833}),
    "tfd": (32, 94, {}),
    "cp": (32, 94, {}),
    "dwd": (32, 94, {19: 191_364, 12: 190_797, 7: 190_392}),
    "multi_class_light": (16, 46, {19: 55_446}),
    "light_light": (8, 22, {19: 13_316}),
    "pixel": (1, 5, {19: 84_993}),
}


def test_every_discriminator_has_a_line_in_the_table_of_published_figures() -> None:
    assert set(PUBLISHED) == set(DISCRIMINATORS)


@pytest.mark.parametrize("name", DISCRIMINATORS)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (65, 127), (176, 240)])
def test_the_output_is_one_logit_per_stride(name: str, height: int, width: int) -> None:
    with torch.device("meta"):
        discriminator = build_discriminator(name, num_classes=5)
    stride = PUBLISHED[name][0]

    logits = discriminator(torch.empty(2, 5, height, width, device="meta"))

    assert discriminator.stride == stride
    assert logits.shape == (2, 5 if name == "multi_class_light" else 1, height // stride, width // stride)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_an_output_sees_as_many_pixels_as_published(name: str) -> None:
    torch.manual_seed(0)
    discriminator = build_discriminator(name, num_classes=3).double()
    maps = torch.randn(1, 3, 192, 192, dtype=torch.float64, requires_grad=True)
    logits = discriminator(maps)

    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()

    assert maps.grad is not None
    seen = maps.grad[0].abs().sum(0) > 0
    assert (seen.any(0).sum(), seen.any(1).sum()) == (PUBLISHED[name][1],) * 2


@pytest.mark.parametrize("name", [name for name in DISCRIMINATORS if name != "pixel"])
def test_an_input_smaller_than_the_stride_is_refused(name: str) -> None:
    stride = PUBLISHED[name][0]
    with pytest.raises(ValueError, match=f"needs at least {stride} x {stride} pixels, got {stride - 1} x 64"):
        build_discriminator(name, num_classes=5)(torch.zeros(1, 5, stride - 1, 64))


@pytest.mark.parametrize(
    ("name", "num_classes", "expected"),
    [(name, classes, number) for name, (_, _, counts) in PUBLISHED.items() for classes, number in counts.items()],
)
def test_the_number_of_parameters_is_the_published_one(name: str, num_classes: int, expected: int) -> None:
    assert count(build_discriminator(name, num_classes=num_classes)) == expected


# A complete Tucker decomposition also has two 4x4 factors over kernel positions in each of the five layers.
@pytest.mark.parametrize(("rank", "published"), [(0.5, 1_389_763), (0.25, 698_442), (0.1, 279_006)])
def test_tucker_counts_equal_the_published_ones_less_the_absorbed_factors(rank: float, published: int) -> None:
    assert count(TFD(19, rank=rank)) == published - 5 * 2 * 4 * 4


def test_tucker_ranks_equal_the_published_ones() -> None:
    widths = (19, 64, 128, 256, 512, 1)
    ranks = [tucker_ranks(i, o, fraction=0.5) for i, o in pairwise(widths)]

    assert ranks == [(11, 38), (41, 81), (81, 162), (162, 324), (8, 1)]


# A complete CP decomposition also has one weight per term.
@pytest.mark.parametrize(
    ("rank", "terms", "published"),
    [
        (0.5, [107, 328, 669, 1351, 8], 1_393_553),
        (0.25, [53, 164, 334, 676, 4], 697_403),
        (0.1, [21, 66, 134, 270, 2], 279_655),
    ],
)
def test_cp_ranks_and_counts_equal_the_published_ones(rank: float, terms: list[int], published: int) -> None:
    widths = (19, 64, 128, 256, 512, 1)

    assert [cp_rank(i, o, fraction=rank) for i, o in pairwise(widths)] == terms
    assert count(CP(19, rank=rank)) == published - sum(terms)


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(("in_channels", "out_channels"), [(19, 64), (256, 512), (512, 1), (2, 64)])
def test_tucker_ranks_stay_within_the_channels_and_keep_the_fraction(
    in_channels: int, out_channels: int, fraction: float
) -> None:
    in_rank, out_rank = tucker_ranks(in_channels, out_channels, fraction=fraction)

    assert 1 <= in_rank <= in_channels
    assert 1 <= out_rank <= out_channels
    if in_channels > 100 and out_channels > 100:
        kept = in_channels * in_rank + in_rank * out_rank * 16 + out_rank * out_channels
        assert kept == pytest.approx(fraction * in_channels * out_channels * 16, rel=0.05)


def test_multiply_accumulates_at_512_x_1024_equal_the_published_ones() -> None:
    # A sixteenth of the area in each, because all layers are convolutions.
    macs = {
        name: 16 * count_macs(build_discriminator(name, num_classes=19, rank=rank), input_shape=(1, 19, 128, 256))
        for name, rank in (
            *((name, 1.0) for name in DISCRIMINATORS if name not in ("tfd", "cp")),
            ("tfd", 0.5),
            ("cp", 0.1),
        )
    }

    assert macs["fcd"] == pytest.approx(15.44e9, rel=1e-3)
    assert macs["dwd"] == pytest.approx(1.068e9, rel=1e-3)
    assert macs["multi_class_light"] == pytest.approx(0.805e9, rel=1e-3)
    assert macs["light_light"] == pytest.approx(0.519e9, rel=1e-3)
    assert macs["pixel"] == pytest.approx(44.5e9, rel=1e-3)
    assert macs["cp"] == pytest.approx(2.99e9, rel=1e-3)
    assert macs["tfd"] < 0.6 * macs["fcd"]


def dense_kernel(layer: nn.Sequential) -> Tensor:
    """Multiply the factors of a layer out, with the layer itself: the kernel is its answer to unit impulses."""
    in_channels = layer[0].in_channels
    impulses = torch.zeros(in_channels, in_channels, 10, 10)
    impulses[range(in_channels), range(in_channels), 4, 4] = 1
    with torch.no_grad():
        # Stride 2 shows every other position: four shifts of the impulse show all 16.
        shifted = [impulses.roll((row, column), dims=(2, 3)) for row in range(2) for column in range(2)]
        answers = [layer(image) - layer(torch.zeros_like(image)) for image in shifted]
    values = torch.stack(answers)
    return values[values != 0]


@pytest.mark.parametrize(("name", "rank"), [("tfd", 0.5), ("tfd", 0.1), ("cp", 0.5), ("cp", 0.1), ("dwd", 0.5)])
def test_factors_start_with_the_spread_of_a_dense_kernel(name: str, rank: float) -> None:
    torch.manual_seed(0)
    discriminator = build_discriminator(name, num_classes=19, rank=rank)
    factorized, dense = discriminator.layers[4], FCD(19).layers[4]

    kernel = dense_kernel(factorized)

    assert kernel.numel() >= 0.95 * dense.weight.numel()
    assert kernel.square().mean().sqrt().item() == pytest.approx(dense.weight.square().mean().sqrt().item(), rel=0.2)


@pytest.mark.parametrize(("name", "rank"), [("tfd", 0.5), ("tfd", 0.1), ("cp", 0.5), ("cp", 0.1), ("dwd", 0.5)])
def test_outputs_vary_with_the_input_as_much_as_those_of_the_dense_discriminator(name: str, rank: float) -> None:
    probs = random_probs()

    def spread(name: str, rank: float) -> float:
        spreads = []
        for seed in range(5):
            torch.manual_seed(seed)
            with torch.no_grad():
                logits = build_discriminator(name, num_classes=19, rank=rank)(probs)
            spreads.append(logits.var(dim=0).mean())
        return torch.stack(spreads).mean().sqrt().item()

    ratio = spread(name, rank) / spread("fcd", 1.0)

    assert 1 / 3 < ratio < 3


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_a_discriminator_learns_to_tell_confident_from_uncertain(name: str) -> None:
    torch.manual_seed(0)
    discriminator = build_discriminator(name, num_classes=5, rank=0.1)
    confident = (random_probs(5, side=32, seed=1) * 50).softmax(dim=1)
    uncertain = torch.full_like(confident, 0.2)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-3)

    for _ in range(50):
        optimizer.zero_grad()
        said = discriminator(confident), discriminator(uncertain)
        loss = adversarial_loss(said[0], TARGET_DOMAIN) + adversarial_loss(said[1], SOURCE_DOMAIN)
        loss.value.backward()
        optimizer.step()

    assert domain_accuracy(discriminator(confident), TARGET_DOMAIN).value > 0.95
    assert domain_accuracy(discriminator(uncertain), SOURCE_DOMAIN).value > 0.95


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    discriminator = build_discriminator(name, num_classes=4, rank=0.3)
    discriminator(random_probs(4, side=32)).sum().backward()

    assert all(parameter.grad is not None for parameter in discriminator.parameters())


@pytest.mark.parametrize("name", ["tfd", "cp"])
@pytest.mark.parametrize("rank", [0.0, -0.5, 1.5])
def test_a_rank_outside_of_its_range_is_refused(name: str, rank: float) -> None:
    with pytest.raises(ConfigError, match=r"in \(0, 1\], got"):
        build_discriminator(name, num_classes=5, rank=rank)


def test_only_factorized_discriminators_read_the_rank() -> None:
    sizes = {
        name: [count(build_discriminator(name, num_classes=5, rank=rank)) for rank in (0.2, 0.6)]
        for name in DISCRIMINATORS
    }

    assert {name for name, (few, many) in sizes.items() if few < many} == {
        name for name, kind in DISCRIMINATORS.items() if kind.has_rank
    }
    assert {name for name, (few, many) in sizes.items() if few == many} == {
        name for name, kind in DISCRIMINATORS.items() if not kind.has_rank
    }


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'dwd'"):
        build_discriminator("dwf", num_classes=5)


def test_one_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 2 classes, got 1"):
        build_discriminator("fcd", num_classes=1)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_dropout_follows_every_activation_and_changes_no_name(name: str) -> None:
    plain, dropping = (build_discriminator(name, num_classes=5, dropout=p) for p in (0.0, 0.5))
    activations = [part for part in dropping.modules() if isinstance(part, nn.LeakyReLU)]
    drops = [part for part in dropping.modules() if isinstance(part, nn.Dropout)]

    assert len(drops) == len(activations) == len(dropping.hidden)
    assert all(drop.p == 0.5 for drop in drops)
    assert not any(isinstance(part, nn.Dropout) for part in plain.modules())
    dropping.load_state_dict(plain.state_dict())
    maps = random_probs(5)
    assert torch.equal(dropping.eval()(maps), plain.eval()(maps))
    assert not torch.equal(dropping.train()(maps), plain.train()(maps))


def test_a_dropout_that_is_no_probability_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a probability in \[0, 1\), got 1.0"):
        build_discriminator("fcd", num_classes=5, dropout=1.0)
