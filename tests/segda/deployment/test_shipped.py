import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from segda.datasets.loaders import normalize
from segda.deployment import ShippedNetwork, build_runtime
from segda.errors import ExportError
from segda.models import MODELS
from segda.types import IMAGE_MEAN, IMAGE_STD

from .tiny import Tiny, build, images

pytestmark = pytest.mark.usefixtures("_no_grad")


@pytest.fixture
def _no_grad():
    with torch.no_grad():
        yield


def test_classes_are_those_of_the_largest_logits_of_the_normalized_image(tiny) -> None:
    image = images(2, 45, 61)
    logits = tiny(normalize(image)).logits.numpy()

    classes = ShippedNetwork(tiny)(image)

    assert classes.dtype == torch.uint8
    assert np.array_equal(classes.numpy(), logits.argmax(axis=1))
    assert len(np.unique(classes)) > 1


def test_of_equal_logits_the_first_counts_as_with_argmax() -> None:
    logits = torch.tensor([1.0, 3.0, 3.0, 2.0]).repeat(2, 5, 7, 1).permute(0, 3, 1, 2)
    for layout in (logits, logits.contiguous(), logits.contiguous(memory_format=torch.channels_last)):
        assert (layout.max(1).indices == 1).all()
        assert torch.equal(layout.max(1).indices, layout.argmax(dim=1))


def test_normalization_is_that_of_training(tiny) -> None:
    network, image = ShippedNetwork(tiny), images(1, 40, 40)
    inside = torch.addcmul(network.offset, image.float(), network.scale).double()

    reference = (image.double() - torch.tensor(IMAGE_MEAN)[:, None, None]) / torch.tensor(IMAGE_STD)[:, None, None]

    torch.testing.assert_close(inside, reference, rtol=0, atol=1e-6)
    assert torch.equal(inside.float(), normalize(image))


def test_what_only_training_needs_is_not_there_and_the_network_is_left_as_it_is(tiny) -> None:
    tiny.train()
    network = ShippedNetwork(tiny, precision="bf16")
    assert not any("auxiliary" in name for name in network.state_dict())
    assert tiny.training
    assert tiny.head.weight.dtype == torch.float32
    assert network.segmenter.head.weight.dtype == torch.bfloat16
    assert network(images(1, 40, 40)).shape == (1, 40, 40)


def test_argmax_at_a_quarter_is_that_of_scores_enlarged_to_a_quarter(tiny) -> None:
    image = images(2, 64, 96)
    features = tiny.layers(normalize(image))
    scores = functional.interpolate(tiny.head(features), size=(16, 24), mode="bilinear", align_corners=False)
    expected = scores.numpy().argmax(axis=1).repeat(4, axis=1).repeat(4, axis=2)

    network = ShippedNetwork(tiny, argmax="quarter")

    assert np.array_equal(network(image).numpy(), expected)
    assert not torch.equal(network(image), ShippedNetwork(tiny)(image))


@pytest.mark.parametrize("size", [(33, 47), (65, 98), (32, 32)])
def test_a_quarter_of_odd_sizes_is_enlarged_to_the_whole_image(tiny, size) -> None:
    assert ShippedNetwork(tiny, argmax="quarter")(images(1, *size)).shape == (1, *size)


def test_a_network_that_enlarges_its_scores_in_its_own_way_is_stopped_neither_at_a_quarter_nor_before() -> None:
    class Convolves(Tiny):
        def forward(self, image, *, auxiliary=None):
            output = super().forward(image, auxiliary=auxiliary)
            return output._replace(logits=nn.functional.interpolate(output.features[:, :4], size=image.shape[2:]))

    with pytest.raises(ExportError, match=r"Convolves does not, so use argmax: full"):
        ShippedNetwork(build(Convolves), argmax="quarter")(images(1, 40, 40))
    with pytest.raises(ExportError, match="Convolves does not enlarge its scores bilinearly at its end"):
        ShippedNetwork(build(Convolves), argmax=None)(images(1, 40, 40))


def test_where_no_class_is_decided_scores_of_the_head_come_out(tiny) -> None:
    image = images(2, 45, 61)
    expected = tiny.head(tiny.layers(normalize(image)))
    scores = ShippedNetwork(tiny, argmax=None)(image)
    assert scores.shape == (2, 4, 6, 8)
    torch.testing.assert_close(scores, expected)


@pytest.mark.parametrize("runtime", ["eager", "onnxruntime"])
def test_a_runtime_can_stop_at_the_scores_of_the_head(tiny, runtime) -> None:
    image = images(1, 40, 48)
    scores = build_runtime(tiny, runtime=runtime, size=(40, 48), argmax=None)(image)
    assert scores.shape == (1, 4, 5, 6)
    torch.testing.assert_close(scores, tiny.head(tiny.layers(normalize(image))), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"fcn8s"}))
def test_networks_can_stop_at_their_head(name) -> None:
    network = MODELS[name](MODELS[name].Config.model_validate({"name": name}), num_classes=4)
    _, classes, height, width = ShippedNetwork(network, argmax=None)(images(1, 64, 96)).shape
    assert classes == 4
    assert height in (8, 9, 16)
    assert width in (12, 13, 24)


def test_more_classes_than_a_byte_can_tell_are_refused() -> None:
    with pytest.raises(ExportError, match="256 classes apart, not 257"):
        ShippedNetwork(Tiny(num_classes=257))


@pytest.mark.parametrize("name", ["bisenet_v1", "segformer_b0", "stdc"])
def test_networks_can_stop_at_a_quarter(name) -> None:
    network = MODELS[name](MODELS[name].Config.model_validate({"name": name}), num_classes=4)
    assert ShippedNetwork(network, argmax="quarter").scores(images(1, 65, 97)).shape == (1, 4, 17, 25)
