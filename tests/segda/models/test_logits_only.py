import torch
from torch import nn

from segda.models import build_segmenter
from segda.models.bisenet_v1 import BiSeNetV1
from segda.models.logits_only import LogitsOnly, inference_segmenter


def network() -> nn.Module:
    torch.manual_seed(0)
    return build_segmenter(BiSeNetV1.Config(), num_classes=4, pretrained=False)


def test_the_view_returns_the_logits_of_evaluation() -> None:
    segmenter = network()
    image = torch.randn(1, 3, 33, 47)
    view = LogitsOnly(segmenter)

    with torch.no_grad():
        assert torch.equal(view(image), segmenter.eval()(image).logits)


def test_the_view_lacks_the_auxiliary_heads() -> None:
    segmenter = network()
    heads = sum(parameter.numel() for parameter in segmenter.auxiliary_heads.parameters())

    def count(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    view = LogitsOnly(segmenter)

    assert heads > 0
    assert count(view) == count(segmenter) - heads
    assert not any("auxiliary" in name for name in view.state_dict())


def test_the_original_stays_whole_and_in_its_mode() -> None:
    segmenter = network()
    before = {name: value.clone() for name, value in segmenter.state_dict().items()}

    view = LogitsOnly(segmenter)
    with torch.no_grad():
        for parameter in view.parameters():
            parameter.zero_()

    after = segmenter.state_dict()
    assert segmenter.training
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_module_that_declares_nothing_is_copied_whole() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout())

    view = inference_segmenter(module)

    assert not view.training
    assert view.state_dict().keys() == module.state_dict().keys()
