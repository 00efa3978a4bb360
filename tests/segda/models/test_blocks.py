import pytest
import torch
from torch import Tensor, nn

from segda.models.blocks import enlarge_scores, resize


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("sizes", [[(40, 56)], [(9, 13), (40, 56)], [(5, 7)], [(3, 4), (41, 55)]])
def test_enlarging_on_a_cpu_in_training_is_bilinear_interpolation_with_its_gradient(sizes, align_corners):
    torch.manual_seed(0)
    scores = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, *sizes[-1], dtype=torch.float64)
    expected = scores
    for size in sizes:
        expected = resize(expected, size=size, align_corners=align_corners)
    (expected_gradient,) = torch.autograd.grad((expected * weight).sum(), scores)

    got = enlarge_scores(scores, sizes=sizes, align_corners=align_corners)
    (gradient,) = torch.autograd.grad((got * weight).sum(), scores)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-12)


def test_enlarging_agrees_with_and_without_a_gradient_and_is_single_precision_under_autocast():
    scores = torch.randn(1, 4, 6, 8, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trained = enlarge_scores(scores.clone().requires_grad_(), sizes=[(48, 64)])
        with torch.no_grad():
            evaluated = enlarge_scores(scores, sizes=[(48, 64)])
    assert trained.dtype == evaluated.dtype == torch.float32
    torch.testing.assert_close(trained.detach(), evaluated, rtol=0, atol=2e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_network_that_was_exported_can_be_trained_afterwards():
    """Exporting runs the network on tensors without numbers; none of them may be kept."""

    class Enlarge(nn.Conv2d):
        def forward(self, image: Tensor) -> Tensor:
            return enlarge_scores(super().forward(image), sizes=[(37, 41)])

    network = Enlarge(3, 4, 3, padding=1)
    image = torch.randn(2, 3, 11, 13)
    exported = torch.export.export(network, (image,)).module()
    scores = network(image)
    assert type(scores.detach()) is Tensor
    scores.sum().backward()
    assert network.weight.grad.abs().sum() > 0
    torch.testing.assert_close(exported(image), scores, rtol=0, atol=2e-6)
