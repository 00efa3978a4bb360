"""What the literal versions of whole networks do not show of the pyramids: precision, and programs for every size."""

import pytest
import torch

from segda.models.pyramids import DeepAggregationPyramid, ParallelAggregationPyramid, PoolingPyramid

KINDS = pytest.mark.parametrize("kind", [DeepAggregationPyramid, ParallelAggregationPyramid])


@KINDS
def test_averages_are_normalized_in_single_precision_under_autocast(kind: type[PoolingPyramid]) -> None:
    torch.manual_seed(0)
    pyramid, features = kind(8, 4, 6), torch.randn(2, 8, 9, 7)
    seen = []
    for scale in pyramid.scales:
        scale[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].dtype))

    with torch.autocast("cpu", torch.bfloat16):
        result = pyramid(features.bfloat16())

    assert sorted(map(str, seen)) == ["torch.bfloat16"] + 4 * ["torch.float32"]
    assert result.dtype == torch.bfloat16


@KINDS
def test_the_global_average_reaches_where_windows_do_not(kind: type[PoolingPyramid]) -> None:
    torch.manual_seed(0)
    pyramid, features = kind(8, 4, 6).eval(), torch.randn(1, 8, 40, 40)
    far = features.clone()
    far[..., 0, 0] += 30

    with torch.no_grad():
        difference = (pyramid(features) - pyramid(far)).abs().amax((0, 1))

    assert difference[-10:, -10:].max() > 0
    pyramid.scales[4][2].weight.data.zero_()
    with torch.no_grad():
        difference = (pyramid(features) - pyramid(far)).abs().amax((0, 1))
    assert difference[-10:, -10:].max() == 0


@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")  # the exporter's own
@KINDS
def test_an_exported_program_takes_features_of_other_sizes(kind: type[PoolingPyramid]) -> None:
    torch.manual_seed(0)
    pyramid = kind(8, 4, 6).eval()
    sizes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(pyramid, (torch.randn(2, 8, 12, 18),), dynamic_shapes={"features": sizes})
    exported = program.run_decompositions().module()

    # No map has a single pixel in one direction: a program with such ones is another one to this exporter, and it says so.
    for shape in ((1, 8, 9, 9), (3, 8, 17, 11), (2, 8, 10, 31)):
        features = torch.randn(shape)
        torch.testing.assert_close(exported(features), pyramid(features))
