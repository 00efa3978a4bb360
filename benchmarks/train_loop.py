"""How much faster is a training step here than in the usual research loop, and does the loader keep up?

    python benchmarks/train_loop.py                     # procedural tiles of LoveDA's size, 1024 x 1024 PNG, trained at 256 x 256
    python benchmarks/train_loop.py --camvid ROOT       # CamVid, trained at 176 x 240

Ways to train the same BiSeNet-ResNet-18 on the same images take turns, each in a process of its own, so that a change of the
machine's speed hits all and none has the settings of another:

- common: the loop that most research repositories share. Each sample is opened and resized with PIL, float32 NCHW, one-hot dice
  on the softmax, an optimizer step, and the IoU of each training image in NumPy.
- segda: `segda.train`'s own step: cached images, augmentation recipe, normalization on the device, bf16 where the processor has it,
  channels_last. Loader included.
- pre-loaded: segda's step on batches that were put in memory before.
- convolutions: those of the step one by one, forward and backward, on inputs and weights of the same shapes, types and memory
  formats; nothing else. No step is faster than this limit that uses the same kernels.

All claims are ratios: common / segda, wanted at least 3; segda's throughput as a share of the pre-loaded one's, wanted at least
0.9; and segda / convolutions, wanted at most 1.6 on processors with AMX, 1.5 on others. The first depends on how large images are
on disk, because the common loop decodes them in every epoch, and on how much faster than float32 the processor multiplies bf16.
The medians of the parts say where the time goes.
"""

import argparse
import itertools
import multiprocessing
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from segda.allocator import keep_freed_memory
from segda.config import TrainConfig
from segda.datasets import DATASETS, Sample, resolve_root
from segda.datasets.scenes import generate_scenes
from segda.device import resolve_precision
from segda.environment import device_name
from segda.gradients import Sums
from segda.models import build_segmenter
from segda.models.bisenet_v1 import BiSeNetV1
from segda.splits import open_splits
from segda.team import Team
from segda.training_run import TrainingRun
from segda.types import IGNORE_INDEX, IMAGE_MEAN, IMAGE_STD


class CommonLoop:
    """One supervised step as it is usually written."""

    def __init__(self, config: TrainConfig, samples: list[Sample], *, num_classes: int) -> None:
        self.config = config
        self.samples = samples
        self.dataset = DATASETS[config.data.source.dataset]
        self.num_classes = num_classes
        self.network = build_segmenter(BiSeNetV1.Config(), num_classes=num_classes, pretrained=False)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.025, momentum=0.9, weight_decay=1e-4)
        self.draws = np.random.default_rng(0)
        self.spent = {"decode and resize": 0.0, "forward": 0.0, "loss": 0.0, "backward, update": 0.0, "metrics": 0.0}

    def _sample(self) -> tuple[torch.Tensor, torch.Tensor]:
        sample = self.samples[self.draws.integers(len(self.samples))]
        size = (self.config.data.width, self.config.data.height)
        assert sample.label is not None
        image = Image.open(sample.image).convert("RGB").resize(size, Image.Resampling.BILINEAR)
        label = Image.fromarray(self.dataset.decode_label(sample.label)).resize(size, Image.Resampling.NEAREST)
        pixels = (np.asarray(image, dtype=np.float32) - np.array(IMAGE_MEAN)) / np.array(IMAGE_STD)
        return torch.from_numpy(pixels.transpose(2, 0, 1)).float(), torch.from_numpy(np.array(label)).long()

    def step(self) -> None:
        began = time.perf_counter()
        images, labels = zip(*(self._sample() for _ in range(self.config.batch_size)), strict=True)
        image, label = torch.stack(images), torch.stack(labels)
        began = self._note("decode and resize", began)
        self.network.train()
        output = self.network(image)
        began = self._note("forward", began)
        valid = label != IGNORE_INDEX
        one_hot = F.one_hot(torch.where(valid, label, 0), self.num_classes).permute(0, 3, 1, 2).float()
        loss = torch.zeros(())
        for logits in (output.logits, *output.auxiliary):
            probs = logits.softmax(1) * valid[:, None]
            truth = one_hot * valid[:, None]
            overlap = (probs * truth).sum((0, 2, 3))
            loss = loss + 1 - (2 * overlap / ((probs + truth).sum((0, 2, 3)) + 1e-6)).mean()
        began = self._note("loss", began)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        loss.item()
        began = self._note("backward, update", began)
        predictions = output.logits.argmax(1).numpy()
        for prediction, truth_map in zip(predictions, label.numpy(), strict=True):
            keep = truth_map != IGNORE_INDEX
            pairs = self.num_classes * truth_map[keep] + prediction[keep]
            histogram = np.bincount(pairs, minlength=self.num_classes**2).reshape(self.num_classes, -1)
            with np.errstate(divide="ignore", invalid="ignore"):
                np.nanmean(np.diag(histogram) / (histogram.sum(0) + histogram.sum(1) - np.diag(histogram)))
        self._note("metrics", began)

    def _note(self, part: str, began: float) -> float:
        now = time.perf_counter()
        self.spent[part] += now - began
        return now


class SegdaLoop:
    """The library's own step, on its loader or on batches in memory."""

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        alone = Team(rank=0, size=1, device=torch.device("cpu"))
        self.run = TrainingRun(config, open_splits(config, progress=True), alone, folder, resumed=False)
        self.run.method.train()
        keep_freed_memory()  # as `segda.train` does on a CPU
        self.run.feed.open(0, round=None)
        self.read = self.run.feed.read
        self.spent = {"loader": 0.0, "to float, normalize": 0.0, "forward, loss": 0.0, "backward, update": 0.0}

    def step(self) -> None:
        run = self.run
        began = time.perf_counter()
        raw = self.read()
        began = self._note("loader", began)
        part = run.feed.on_device(raw, step=0)
        began = self._note("to float, normalize", began)
        output = run.gradients.forward(part)
        began = self._note("forward, loss", began)
        run.gradients.backward(output, Sums.of(output))
        run.update(1.0)
        self._note("backward, update", began)

    def _note(self, part: str, began: float) -> float:
        now = time.perf_counter()
        self.spent[part] += now - began
        return now


class ConvolutionsAlone:
    """What a step cannot do without: each of its convolutions, forward and backward."""

    def __init__(self, loop: SegdaLoop) -> None:
        self.calls: list[tuple[torch.nn.Conv2d, torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self.spent = {"forward": 0.0, "backward": 0.0}
        network = loop.run.method.segmenter
        hooks = [
            module.register_forward_hook(self._record)
            for module in network.modules()
            if isinstance(module, torch.nn.Conv2d)
        ]
        loop.step()
        for hook in hooks:
            hook.remove()
        loop.run.feed.close()

    def _record(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        assert isinstance(module, torch.nn.Conv2d)
        # Under autocast the output has the type that is computed in, whatever the input had.
        image = torch.randn_like(inputs[0], dtype=output.dtype).requires_grad_(inputs[0].requires_grad)
        weight = module.weight.detach().to(output.dtype).requires_grad_()
        self.calls.append((module, image, weight, torch.randn_like(output)))

    def step(self) -> None:
        for module, image, weight, gradient in self.calls:
            began = time.perf_counter()
            output = F.conv2d(image, weight, None, module.stride, module.padding, module.dilation, module.groups)
            middle = time.perf_counter()
            torch.autograd.grad(output, [weight, image] if image.requires_grad else [weight], gradient)
            self.spent["forward"] += middle - began
            self.spent["backward"] += time.perf_counter() - middle


def serve(way: str, plain: dict[str, Any], folder: Path, connection: Connection) -> None:
    """Make steps when told to, in a process of its own; answer with milliseconds per step and where they went."""
    config = TrainConfig.model_validate(plain)
    loop: CommonLoop | SegdaLoop | ConvolutionsAlone
    if way == "common":
        source = config.data.source
        samples = DATASETS[source.dataset].samples(
            resolve_root(source.dataset, source.root), domain=source.domain, split="train"
        )
        loop = CommonLoop(config, samples, num_classes=len(DATASETS[source.dataset].classes))
    else:
        loop = SegdaLoop(config, folder / way)
        if way == "pre-loaded":
            loop.read = itertools.cycle([loop.read() for _ in range(16)]).__next__
            loop.run.feed.close()
        elif way == "convolutions":
            loop = ConvolutionsAlone(loop)
    while steps := connection.recv():
        loop.spent = dict.fromkeys(loop.spent, 0.0)
        began = time.perf_counter()
        for _ in range(steps):
            loop.step()
        total = (time.perf_counter() - began) / steps * 1000
        connection.send((total, {part: seconds / steps * 1000 for part, seconds in loop.spent.items()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, help="root of CamVid; without it procedural tiles are made")
    parser.add_argument("--loss", choices=("dice", "cross_entropy"), default="dice", help="segda's; common has dice")
    parser.add_argument("--augmentation", default="aug3", help="segda's; common has none")
    parser.add_argument("--height", type=int, help="of training images in pixels")
    parser.add_argument("--width", type=int, help="of training images in pixels")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=5, help="steps of each way per round")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if arguments.camvid:
            dataset, root, source, target = "camvid", arguments.camvid, "day", "dusk"
            height, width = arguments.height or 176, arguments.width or 240
        else:
            root = generate_scenes(folder / "scenes", size=1024, train=12, val=1, progress=True)
            dataset, source, target = "scenes", "urban", "rural"
            height, width = arguments.height or 256, arguments.width or 256
        plain = {
            "data": {
                "source": {"dataset": dataset, "domain": source, "root": root},
                "target": {"dataset": dataset, "domain": target, "root": root},
                "height": height,
                "width": width,
                "augmentation": arguments.augmentation,
                "cache": folder / "cache",
            },
            "model": {"pretrained": "none"},
            "method": {"name": "source_only"},
            "loss": {"name": arguments.loss},
            "steps": 100_000,
            "batch_size": arguments.batch_size,
            "oracle": "never",
        }
        open_splits(TrainConfig.model_validate(plain), progress=True)
        context = multiprocessing.get_context("spawn")
        ways: dict[str, Connection] = {}
        for way in ("common", "segda", "pre-loaded", "convolutions"):
            ways[way], theirs = context.Pipe()
            context.Process(target=serve, args=(way, plain, folder, theirs), daemon=True).start()
        rounds: dict[str, list[float]] = {way: [] for way in ways}
        parts: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for number in range(arguments.rounds + 1):
            for way, connection in ways.items():
                connection.send(arguments.steps)
                total, spent = connection.recv()
                if number > 0:  # the first round warms up
                    rounds[way].append(total)
                    parts[way].append(spent)
        for connection in ways.values():
            connection.send(0)

    precision = str(resolve_precision("auto", torch.device("cpu"))).removeprefix("torch.")
    print(
        f"\nBiSeNet-ResNet-18, supervised, {dataset} {height}x{width}, batch {arguments.batch_size}; "
        f"segda: {arguments.loss}, {arguments.augmentation}, {precision}; {device_name(torch.device('cpu'))}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(f"{arguments.rounds} rounds of {arguments.steps} steps each, in turns; ms per step: median [min, max]")
    for way, values in rounds.items():
        where = ", ".join(
            f"{part} {statistics.median(spent[part] for spent in parts[way]):.1f}" for part in parts[way][0]
        )
        print(f"  {way:<12}{statistics.median(values):8.1f}  [{min(values):.1f}, {max(values):.1f}]  medians: {where}")
    for name, one, other in (
        ("speed-up over the common loop", "common", "segda"),
        ("throughput with loader / pre-loaded", "pre-loaded", "segda"),
        ("step / its convolutions alone", "segda", "convolutions"),
        ("pre-loaded step / its convolutions alone", "pre-loaded", "convolutions"),
    ):
        ratios = [a / b for a, b in zip(rounds[one], rounds[other], strict=True)]
        print(f"{name}, round by round: {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")


if __name__ == "__main__":
    main()
