"""PIDNet-S against a second, literal version with the names of its authors' code."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from segda.errors import ConfigError, WeightsError
from segda.models import build_segmenter
from segda.models.pidnet import PIDNetS

from .reference import Official, basic_block, bottleneck, enlarge, head, pappm, stage, stem

CLASSES = 5

Outputs = tuple[Tensor, Tensor, Tensor, Tensor]


def step(w: Official, x: Tensor, name: str, channels: int, side: int = 1) -> Tensor:
    return w.norm(w.conv(x, f"{name}.0", channels, side), f"{name}.1")


def literal_guide(w: Official, x: Tensor, y: Tensor, name: str) -> Tensor:
    resemblance = step(w, x, f"{name}.f_x", 32) * enlarge(step(w, y, f"{name}.f_y", 32), x)
    trust = torch.sigmoid(resemblance.sum(1, keepdim=True))
    return (1 - trust) * x + trust * enlarge(y, x)


def literal_forward(w: Official, image: Tensor) -> Outputs:
    """Return auxiliary, main and boundary scores at 1/8, and the features before the main ones."""
    x = stage(w, stem(w, image, "conv1", 32), "layer1", 32).relu()
    x = stage(w, x, "layer2", 64, stride=2).relu()
    p, d = stage(w, x, "layer3_", 64), basic_block(w, x, "layer3_d", 32)
    i = stage(w, x, "layer3", 128, 3, stride=2).relu()
    # These ReLU work in place in the code, so that the heads below see what they leave.
    p = literal_guide(w, p, step(w, i, "compression3", 64), "pag3").relu()
    d = (d + enlarge(step(w, i, "diff3", 32, 3), d)).relu()
    p_head = head(w, p, "seghead_p", 128, CLASSES)
    i = stage(w, i, "layer4", 256, 3, stride=2).relu()
    p, d = stage(w, p, "layer4_", 64), bottleneck(w, d, "layer4_d.0", 32)
    p = literal_guide(w, p, step(w, i, "compression4", 64), "pag4").relu()
    d = (d + enlarge(step(w, i, "diff4", 64, 3), d)).relu()
    d_head = head(w, d, "seghead_d", 32, 1)
    p, d = bottleneck(w, p, "layer5_.0", 64), bottleneck(w, d, "layer5_d.0", 64)
    i = bottleneck(w, bottleneck(w, i, "layer5.0", 256, stride=2), "layer5.1", 256)
    i = enlarge(pappm(w, i, "spp", 96, 128), p)
    a = torch.sigmoid(d)
    fused = step(w, (1 - a) * i + p, "dfm.conv_p", 128) + step(w, i + a * p, "dfm.conv_i", 128)
    return p_head, head(w, fused, "final_layer", 128, CLASSES), d_head, fused


@pytest.fixture(scope="module")
def image() -> Tensor:
    # At 1/64 more than one pixel, and a multiple of no stride.
    return torch.randn(1, 3, 200, 133, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def published(image: Tensor) -> tuple[Official, Outputs]:
    weights = Official()
    return weights, literal_forward(weights, image)


def saved(state: object, folder: Path) -> PIDNetS.Config:
    torch.save(state, folder / "weights.pth")
    return PIDNetS.Config(pretrained="file", weights_file=folder / "weights.pth")


def test_with_official_weights_it_is_the_network_of_its_authors(
    published: tuple[Official, Outputs], image: Tensor, tmp_path: Path
) -> None:
    official, (p_head, scores, d_head, fused) = published
    wrapped = {f"model.{name}": value for name, value in official.state.items()}
    losses = {"sem_loss.criterion.weight": torch.ones(19), "sb_loss.criterion.weight": torch.ones(19)}
    network = build_segmenter(saved(wrapped | losses, tmp_path), num_classes=CLASSES).double().eval()

    with torch.no_grad():
        output = network(image, auxiliary=True)

    torch.testing.assert_close(output.features, fused, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(output.logits, enlarge(scores, image), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(output.auxiliary[0], enlarge(p_head, image), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(output.boundary.logits, enlarge(d_head, image), rtol=1e-9, atol=1e-9)
    assert output.boundary.rule == "balanced"
    assert scores.std() > 0.1


def test_the_official_file_has_the_published_number_of_tensors(published: tuple[Official, Outputs]) -> None:
    official, _ = published

    # 453 in use, and 13 of each head that only training has.
    assert len(official.state) == 453 + 13 + 13
    with torch.device("meta"):
        network = PIDNetS(PIDNetS.Config(), num_classes=CLASSES)
    assert len(network.state_dict()) == len(official.state)
    assert sum(parameter.numel() for parameter in network.parameters()) == official.parameters()


def test_a_file_from_imagenet_needs_the_branch_for_context_alone(
    published: tuple[Official, Outputs], tmp_path: Path
) -> None:
    official, _ = published
    context = ("conv1.", "layer1.", "layer2.", "layer3.", "layer4.", "layer5.")
    state = {name: value for name, value in official.state.items() if name.startswith(context)}
    network = build_segmenter(saved({"state_dict": state | {"linear.bias": torch.zeros(2)}}, tmp_path), num_classes=4)

    assert torch.equal(network.backbone.context5[1].conv2.weight, official.state["layer5.1.conv2.weight"])

    del state["layer3.2.conv2.weight"]
    with pytest.raises(WeightsError, match=r"backbone\.context3\.2\.conv2\.weight is missing"):
        build_segmenter(saved({"state_dict": state}, tmp_path), num_classes=4)


def test_one_image_in_training_is_refused_with_the_remedy() -> None:
    network = PIDNetS(PIDNetS.Config(), num_classes=3)

    with pytest.raises(ConfigError, match=r"PIDNetS needs at least 2 images per batch, got 1.*batch_size"):
        network(torch.zeros(1, 3, 32, 32))
