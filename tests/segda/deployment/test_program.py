import pytest
import torch
from torch import nn

from segda.deployment import Accepts, ShippedNetwork
from segda.deployment.program import capture
from segda.errors import ConfigError, ExportError
from segda.models.pyramids import ParallelAggregationPyramid

from .tiny import Tiny, build, images


class WithPyramid(Tiny):
    """Goes down to a 512th, where nearly all images are one pixel."""

    def __init__(self, config=None, *, num_classes=4) -> None:
        super().__init__(config, num_classes=num_classes)
        self.down = nn.Conv2d(16, 16, 1, stride=8)
        self.pyramid = ParallelAggregationPyramid(16, 8, 16)

    def between(self, features):
        context = self.pyramid(self.down(features))
        return features + nn.functional.interpolate(context, size=features.shape[2:], mode="bilinear")


class ByContent(Tiny):
    def between(self, features):
        return features * 2 if bool(features.mean() > 0) else features


@pytest.mark.slow
def test_a_program_that_has_seen_a_large_image_takes_small_ones() -> None:
    network = ShippedNetwork(build(WithPyramid))
    program = capture(network, Accepts(), example=(640, 1100)).module()
    for count, height, width in ((1, 512, 512), (2, 65, 97), (1, 32, 32), (3, 600, 33)):
        image = images(count, height, width)
        assert torch.equal(program(image), network(image)), (height, width)


def test_what_depends_on_content_is_refused_in_one_line() -> None:
    with pytest.raises(ExportError, match="ByContent cannot be captured for images uint8") as refused:
        capture(ShippedNetwork(build(ByContent)), Accepts())
    assert "\n" not in str(refused.value)


def test_a_program_for_one_size_says_so(tiny) -> None:
    program = capture(ShippedNetwork(tiny), Accepts(batch=1, size=(40, 48)))
    assert program.module()(images(1, 40, 48)).shape == (1, 40, 48)


@pytest.mark.parametrize(
    ("accepts", "image"),
    [
        (Accepts(), torch.zeros(1, 3, 40, 40)),
        (Accepts(), torch.zeros(3, 40, 40, dtype=torch.uint8)),
        (Accepts(), torch.zeros(1, 40, 40, 3, dtype=torch.uint8)),
        (Accepts(), torch.zeros(0, 3, 40, 40, dtype=torch.uint8)),
        (Accepts(), torch.zeros(1, 3, 31, 40, dtype=torch.uint8)),
        (Accepts(size=(40, 48)), torch.zeros(1, 3, 48, 40, dtype=torch.uint8)),
        (Accepts(batch=2), torch.zeros(1, 3, 40, 40, dtype=torch.uint8)),
    ],
)
def test_other_images_are_refused(accepts, image) -> None:
    with pytest.raises(ConfigError, match=r"expected images uint8 \[.*, 3, .*, .*\].*, got (uint8|float32) \["):
        accepts.check(image)


def test_what_is_taken_is_let_through() -> None:
    for accepts in (Accepts(), Accepts(1, (40, 48)), Accepts(batch=1), Accepts(size=(40, 48))):
        accepts.check(torch.zeros(1, 3, 40, 48, dtype=torch.uint8))


@pytest.mark.parametrize(("batch", "size"), [(0, None), (None, (31, 64)), (1, (64, 0))])
def test_what_no_network_takes_is_refused(batch, size) -> None:
    with pytest.raises(ConfigError):
        Accepts(batch, size)


def test_a_last_batch_is_filled_up() -> None:
    several = list(torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 32, 32))
    found = [batch[:, 0, 0, 0].tolist() for batch in Accepts(batch=3).batches(several)]
    assert found == [[0, 1, 2], [3, 4, 0]]
    assert [len(batch) for batch in Accepts().batches(several)] == [1, 2, 2]
    assert [len(batch) for batch in Accepts().batches(several[:1])] == [1]
