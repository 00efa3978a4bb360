"""Every network of ours goes through every file: what it says is the network's, at sizes that the exporter has not seen."""

import pytest
import torch
from torch import Tensor, nn

from segda.deployment import Accepts, ShippedNetwork
from segda.deployment.artefact import open_run
from segda.deployment.onnx_file import write_onnx
from segda.deployment.program import capture
from segda.deployment.torch_file import write_program
from segda.models import MODELS, build_segmenter, fcn8s
from segda.models.efficientvit_seg import linear_attention

from .tiny import images

# The example has 96 x 160 pixels. At 32 x 32 the deepest maps are single pixels.
SIZES = ((2, 96, 160), (1, 65, 97), (3, 32, 32), (1, 129, 33))
# Their weights take longer to write than all others together, and what they do is done by the smaller ones too.
LARGE = {"deeplab_v2": "deeplab_v2_multi", "segformer": "segformer_b0"}
PLAIN = (bool, int, float, str, tuple)


def without_repetitions(network: nn.Module) -> None:
    """Leave out blocks that repeat the one before them: they show an exporter nothing new, and ResNet-101 has 22 in a row."""

    for blocks in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for number in range(len(blocks) - 1, 0, -1):
            if any(blocks[number].children()) and settings(blocks[number]) == settings(blocks[number - 1]):
                del blocks[number]


def settings(block: nn.Module) -> list[tuple]:
    """Return what makes up a block, but for its weights."""
    return [
        (type(part), part.extra_repr(), {name: value for name, value in vars(part).items() if isinstance(value, PLAIN)})
        for part in block.modules()
    ]


def spread(network: ShippedNetwork) -> None:
    """Let random weights say something of every pixel: statistics of images in the normalizations, and wide margins."""
    segmenter = network.segmenter.train()
    with torch.no_grad():
        for _ in range(2):
            segmenter(torch.randn(4, 3, 64, 96), auxiliary=False)
    segmenter.eval()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [name for name in MODELS if name not in LARGE])
def test_files_say_what_the_network_says_at_every_size(name, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(fcn8s, "_WIDTH", 64)  # in the place of 4096, which are nine tenths of its weights
    torch.manual_seed(0)
    segmenter = build_segmenter(MODELS[name].Config.model_validate({"name": name}), num_classes=5, pretrained=False)
    without_repetitions(segmenter)
    network = ShippedNetwork(segmenter)
    spread(network)
    program = capture(network, Accepts())
    write_onnx(program, tmp_path / "network.onnx", accepts=Accepts(), metadata={})
    write_program(program, tmp_path / "network.pt2", metadata={})

    for file in ("network.onnx", "network.pt2"):
        run, _ = open_run(tmp_path / file, is_onnx=file.endswith("onnx"), device=torch.device("cpu"))
        for count, height, width in SIZES:
            image = images(count, height, width)
            expected = network(image)
            share = float((run(image) == expected).float().mean())
            assert share >= 0.999, f"{file} says the same in {share:.4%} at {height}x{width}"


class Attends(nn.Module):
    """Queries and keys that are positive nowhere in the left half of the image."""

    def forward(self, image: Tensor) -> Tensor:
        return linear_attention(image.float() - 100)


def test_attention_without_any_weight_is_zero_in_a_file_too(tmp_path) -> None:
    image = torch.full((1, 48, 32, 32), 200, dtype=torch.uint8)
    image[..., :16] = 0
    accepts = Accepts(batch=1, size=(32, 32))
    write_onnx(torch.export.export(Attends(), (image,)), tmp_path / "network.onnx", accepts=accepts, metadata={})

    run, _ = open_run(tmp_path / "network.onnx", is_onnx=True, device=torch.device("cpu"))
    found = run(image)
    assert torch.equal(found[..., :16], torch.zeros_like(found[..., :16]))
    torch.testing.assert_close(found, Attends()(image))
