"""What single precision for depthwise convolutions saves a training step on a processor in bfloat16.

Times forward and backward passes of layers and of networks with `segda.depthwise.Conv2d` and with `nn.Conv2d` in their place, by
turns in one process and by processor time, and prints the ratios.

    python benchmarks/depthwise.py
"""

import copy
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from segda.config import NetworkConfig
from segda.depthwise import Conv2d
from segda.discriminators import build_discriminator
from segda.models import build_segmenter

ROUNDS = 7
NUM_CLASSES = 11


def plain(module: nn.Module) -> nn.Module:
    """Return a copy that computes depthwise convolutions in the precision of all others."""
    copied = copy.deepcopy(module)
    for layer in copied.modules():
        if isinstance(layer, Conv2d):
            layer._conv_forward = nn.Conv2d._conv_forward.__get__(layer)
    return copied


def fastest(steps: Mapping[str, Callable[[], None]]) -> dict[str, float]:
    """Return the least processor time of each, in ms."""
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            began = time.process_time()
            step()
            best[name] = min(best.get(name, float("inf")), 1000 * (time.process_time() - began))
    return best


def step_of(module: nn.Module, image: Tensor) -> Callable[[], None]:
    """Return a forward and backward pass."""

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            output = module(image.clone().requires_grad_())
        tensor = output if isinstance(output, Tensor) else output.logits
        tensor.float().square().mean().backward()

    return step


def report(name: str, module: nn.Module, image: Tensor) -> None:
    """Time a module both ways."""
    module = module.to(memory_format=torch.channels_last).train()
    image = image.to(memory_format=torch.channels_last)
    times = fastest({"single": step_of(module, image), "bfloat16": step_of(plain(module), image)})
    ratio = times["bfloat16"] / times["single"]
    print(f"{name:44} {times['bfloat16']:8.1f} ms -> {times['single']:8.1f} ms  {ratio:4.2f} times as fast")


def main() -> None:
    """Print all."""
    torch.set_num_threads(1)
    for channels, side, kernel, stride in ((96, 60, 3, 2), (144, 30, 5, 2), (240, 15, 5, 1), (480, 8, 3, 1)):
        layer = Conv2d(channels, channels, kernel, stride, padding=kernel // 2, groups=channels)
        report(f"{channels} channels, {kernel}x{kernel}, stride {stride}", layer, torch.randn(4, channels, side, side))
    image = torch.randn(4, 3, 120, 160)
    for model in ({"name": "bisenet_v1", "backbone": "efficientnet_lite0"}, {"name": "fast_scnn"}):
        config = NetworkConfig.model_validate({"model": model}).model
        report(config.label(), build_segmenter(config, num_classes=NUM_CLASSES), image)
    probs = torch.randn(4, NUM_CLASSES, 120, 160).softmax(1)
    for name in ("dwd", "cp"):
        report(name, build_discriminator(name, num_classes=NUM_CLASSES, rank=0.5), probs)


if __name__ == "__main__":
    main()
