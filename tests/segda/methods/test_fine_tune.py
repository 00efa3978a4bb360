"""Fine-tuning: which images each part of the training sees."""

import pytest
import torch

from segda.methods import METHODS
from segda.testing.methods import MethodCase
from segda.types import LabeledBatch


@pytest.mark.parametrize(("progress", "on_source"), [(0.0, True), (0.74, True), (0.75, False), (0.99, False)])
def test_the_source_is_trained_on_before_the_switch_and_the_few_alone_from_then_on(progress, on_source):
    """Images of the other domain are NaN: neither the loss nor BatchNorm's averages may see them."""
    case = MethodCase(METHODS["fine_tune"], {"warm_up": 0.75})
    step = case.step()._replace(progress=progress)
    wanted = step.labeled if on_source else step.few_shot
    method, reference = case.build(), case.build()
    expected = reference.loss(reference.segmenter(wanted.image), wanted.label).value

    broken = LabeledBatch(torch.full_like(wanted.image, float("nan")), wanted.label)
    step = step._replace(few_shot=broken) if on_source else step._replace(labeled=broken)
    output = method.training_step(step)
    assert output.losses["segmenter"].value.item() == pytest.approx(expected.item())
    for name, value in method.state_dict().items():
        assert torch.equal(value, reference.state_dict()[name]), name


def test_it_needs_a_few_labels_and_no_unlabelled_target_image():
    assert METHODS["fine_tune"].needs_few_shot
    assert not METHODS["fine_tune"].needs_target
    with pytest.raises(ValueError, match="less than 1"):  # nothing would be left for the few
        METHODS["fine_tune"].Config(warm_up=1.0)
