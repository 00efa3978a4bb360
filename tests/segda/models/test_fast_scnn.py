import math

import numpy as np
import pytest
import torch

from segda.efficiency import count_macs, count_parameters
from segda.errors import ConfigError
from segda.models.fast_scnn import FastSCNN, PyramidPooling, pool_to_bins


def averages(maps: np.ndarray, bins: int) -> np.ndarray:
    """The averages over a grid of bins, bin by bin."""
    height, width = maps.shape[-2:]
    rows = [slice(math.floor(i * height / bins), math.ceil((i + 1) * height / bins)) for i in range(bins)]
    columns = [slice(math.floor(i * width / bins), math.ceil((i + 1) * width / bins)) for i in range(bins)]
    return np.stack([np.stack([maps[..., r, c].mean((-2, -1)) for c in columns], -1) for r in rows], -2)


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (6, 12), (7, 13), (5, 23)])
def test_bins_are_averages_whether_they_divide_the_size_or_not(bins: int, height: int, width: int) -> None:
    maps = np.random.default_rng(0).normal(size=(2, 3, height, width))

    pooled = pool_to_bins(torch.from_numpy(maps), bins=bins)

    np.testing.assert_allclose(pooled.numpy(), averages(maps, bins), rtol=1e-12, atol=1e-12)


def test_pooling_sums_in_single_precision_under_autocast() -> None:
    # In bfloat16 a sum of a thousand numbers near 1 would lose every third digit.
    maps = 1 + torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        pooled = pool_to_bins(maps, bins=1)
        assert pool_to_bins(maps.bfloat16(), bins=2).dtype == torch.float32
    assert pooled.item() == pytest.approx(maps.double().mean().item(), rel=1e-6)


@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")  # the exporter's own
def test_an_exported_program_pools_images_of_other_sizes() -> None:
    torch.manual_seed(0)
    pyramid = PyramidPooling(8).eval()
    sizes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(pyramid, (torch.randn(2, 8, 12, 18),), dynamic_shapes={"features": sizes})
    exported = program.run_decompositions().module()

    for shape in ((1, 8, 6, 6), (3, 8, 17, 9), (2, 8, 4, 31)):
        features = torch.randn(shape)
        torch.testing.assert_close(exported(features), pyramid(features))


@pytest.mark.parametrize(("num_classes", "in_use"), [(19, 1_138_051), (7, 1_136_503)])
def test_parameters_in_use_equal_the_published_ones(num_classes: int, in_use: int) -> None:
    with torch.device("meta"):
        network = FastSCNN(FastSCNN.Config(), num_classes=num_classes)

    assert count_parameters(network) == in_use


def test_the_network_costs_what_is_published_for_it() -> None:
    network = FastSCNN(FastSCNN.Config(), num_classes=19)

    # Published: 7.1 G at 1024 x 2048; a 64th of the area.
    assert 64 * count_macs(network, input_shape=(1, 3, 128, 256)) == pytest.approx(7.1e9, rel=0.01)


def test_features_are_those_of_the_classifier_at_an_eighth() -> None:
    with torch.device("meta"):
        network = FastSCNN(FastSCNN.Config(), num_classes=6)

    assert network(torch.empty(2, 3, 65, 95, device="meta")).features.shape == (2, 128, 9, 12)


def test_coarse_features_reach_the_whole_image_through_the_pyramid() -> None:
    torch.manual_seed(0)
    network = FastSCNN(FastSCNN.Config(), num_classes=3).eval()
    image = torch.randn(1, 3, 256, 256)
    far = image.clone()
    far[..., :8, :8] += 3

    with torch.no_grad():
        difference = (network(image).features - network(far).features).abs().amax((0, 1))

    assert difference[-4:, -4:].min() > 0


def test_one_image_in_training_is_refused_with_the_remedy() -> None:
    network = FastSCNN(FastSCNN.Config(), num_classes=3)

    with pytest.raises(ConfigError, match=r"FastSCNN needs at least 2 images per batch, got 1.*batch_size"):
        network(torch.zeros(1, 3, 32, 32))
