import pytest
import torch

from segda.deployment import Accepts
from segda.deployment.agreement import USUAL_BAR, compare, require
from segda.errors import ExportError


def _images(count):
    return [torch.full((3, 40, 50), value, dtype=torch.uint8) for value in range(count)]


def _network(image):
    return image[:, 0]


def test_shares_are_counted_image_by_image_and_what_fills_a_batch_up_counts_not() -> None:
    def wrong_in_places(image):
        classes = _network(image).clone()
        classes[image[:, 0, 0, 0] == 4, :10] = 77  # a quarter of the rows of the last image
        classes[image[:, 0, 0, 0] == 1, :1, :25] = 77
        return classes

    seen = []
    found = compare(
        wrong_in_places,
        _network,
        images=_images(5),
        names=["a", "b", "c", "d", "e"],
        accepts=Accepts(batch=3),
        progress=seen.append,
    )

    assert (found.images, found.size, found.worst_image, found.worst) == (5, (40, 50), "e", 0.75)
    assert found.mean == pytest.approx((3 + (1 - 25 / 2000) + 0.75) / 5, abs=1e-12)
    assert seen == [3, 5]


def test_too_little_agreement_is_refused_with_what_was_seen() -> None:
    found = compare(_network, lambda image: 0 * image[:, 0], images=_images(2), names=["a", "b"], accepts=Accepts())
    assert (found.mean, found.worst, found.worst_image) == (0.5, 0.0, "b")
    require(found, 0.5, of="it")
    with pytest.raises(ExportError) as refused:
        require(found, 0.97, of="street.onnx (int8)")
    assert str(refused.value) == (
        "street.onnx (int8) says the same as the network in 50.0000% of the pixels of 2 images of 40x50 (worst image: b, 0.0000%), "
        "expected at least 97.0000%; nothing was written"
    )


def test_bars_lie_between_what_rounding_does_and_what_errors_do() -> None:
    # Measured: fp32 2 of 10.2 million pixels, bf16 .0034, int8 .0201 of a network with flat margins; frozen pooling .07 and more.
    assert 1 - 2 / 10.2e6 > USUAL_BAR["fp32"] > 1 - 0.0034
    assert 1 - 0.0034 > USUAL_BAR["fp16"] > 0.98
    assert 1 - 0.0201 > USUAL_BAR["int8"] > 1 - 0.07


def test_nothing_to_compare_is_no_agreement() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        compare(_network, _network, images=[], names=[], accepts=Accepts())
