"""How much faster is a training step here than in the usual research loop, and does the loader keep up?

    python benchmarks/train_loop.py [--camvid PATH] [--rounds 5] [--steps 8]

Three ways to train the same BiSeNet-ResNet-18 on the same images take turns, so that a change of the machine's speed hits all:

- common: the loop that most research repositories share. Each sample is opened and resized with PIL, float32 NCHW, one-hot dice
  on the softmax, an optimizer step, and the IoU of each training image in NumPy.
- segda: `segda.train`'s own step: cached images, augmentation recipe, normalization on the device, bf16 where the processor has it,
  channels_last. Loader included.
- segda, pre-loaded: the same step on batches that were put in memory before.

Both claims are ratios: common / segda (larger is better, at least 3), and pre-loaded / segda time (at least 0.9). A breakdown says
where the time of each goes. Without --camvid (or SEGDA_CAMVID_ROOT) the procedural scenes are used.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from segda.config import TrainConfig
from segda.datasets import DATASETS, Sample, resolve_root
from segda.datasets.loaders import RawBatch
from segda.datasets.scenes import generate_scenes
from segda.environment import device_name
from segda.models import build_segmenter
from segda.splits import open_splits
from segda.train import _Run
from segda.types import IGNORE_INDEX, IMAGE_MEAN, IMAGE_STD, LabeledBatch, UnlabeledBatch


class CommonLoop:
    """One supervised step as it is usually written."""

    def __init__(self, config: TrainConfig, samples: list[Sample], *, num_classes: int) -> None:
        self.config = config
        self.samples = samples
        self.dataset = DATASETS[config.data.source.dataset]
        self.num_classes = num_classes
        self.network = build_segmenter("bisenet_v1", num_classes=num_classes, backbone="resnet18", pretrained="none")
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
        self.run = _Run(config, open_splits(config, progress=True), torch.device("cpu"), folder, resumed=False)
        self.run.method.train()
        self.spent = {"loader": 0.0, "to float, normalize": 0.0, "forward, loss": 0.0, "backward, update": 0.0}

    def step(self, batches: Iterator[RawBatch]) -> None:
        run = self.run
        began = time.perf_counter()
        raw = next(batches)
        began = self._note("loader", began)
        assert raw.label is not None
        labeled = LabeledBatch(run._image(raw), raw.label.long())
        target = UnlabeledBatch(labeled.image[:0])
        began = self._note("to float, normalize", began)
        with torch.autocast("cpu", dtype=run.dtype, enabled=run.dtype != torch.float32):
            output = run.method.training_step(labeled, target, progress=0.0)
        began = self._note("forward, loss", began)
        run._update(output.losses, 1.0)
        self._note("backward, update", began)

    def _note(self, part: str, began: float) -> float:
        now = time.perf_counter()
        self.spent[part] += now - began
        return now


def timed(step: Callable[[], None], steps: int) -> float:
    began = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - began) / steps * 1000


def repeat(batches: list[RawBatch]) -> Iterator[RawBatch]:
    while True:
        yield from batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, default=os.environ.get("SEGDA_CAMVID_ROOT"), help="root of CamVid")
    parser.add_argument("--augmentation", default="aug3")
    parser.add_argument("--height", type=int, default=176)
    parser.add_argument("--width", type=int, default=240)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="steps of each way per round")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if arguments.camvid:
            names = ("camvid", arguments.camvid, "day", "dusk")
        else:
            names = ("scenes", generate_scenes(folder / "scenes", size=256, train=32, val=4), "urban", "rural")
        dataset, root, source, target = names
        config = TrainConfig.model_validate(
            {
                "data": {
                    "source": {"dataset": dataset, "domain": source, "root": root},
                    "target": {"dataset": dataset, "domain": target, "root": root},
                    "height": arguments.height,
                    "width": arguments.width,
                    "augmentation": arguments.augmentation,
                    "cache": folder / "cache",
                },
                "model": {"pretrained": "none"},
                "method": {"name": "source_only"},
                "loss": {"name": "dice"},
                "steps": 100_000,
                "batch_size": arguments.batch_size,
                "oracle": "never",
            }
        )
        samples = DATASETS[dataset].samples(resolve_root(dataset, root), domain=source, split="train")
        common = CommonLoop(config, samples, num_classes=len(DATASETS[dataset].classes))
        ours, preloaded = SegdaLoop(config, folder), SegdaLoop(config, folder)
        with preloaded.run.loading():
            memory = repeat([next(preloaded.run.labeled_batches) for _ in range(16)])
        with ours.run.loading():
            ways: dict[str, Callable[[], None]] = {
                "common": common.step,
                "segda": lambda: ours.step(ours.run.labeled_batches),
                "pre-loaded": lambda: preloaded.step(memory),
            }
            for step in ways.values():
                timed(step, 3)
            for loop in (common, ours, preloaded):
                loop.spent = dict.fromkeys(loop.spent, 0.0)
            rounds: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(arguments.rounds):
                for name, step in ways.items():
                    rounds[name].append(timed(step, arguments.steps))

        print(
            f"\nBiSeNet-ResNet-18, supervised, {dataset} {arguments.height}x{arguments.width}, batch {arguments.batch_size}, "
            f"dice, {arguments.augmentation}; {device_name(torch.device('cpu'))}, {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}, {str(ours.run.dtype).removeprefix('torch.')}"
        )
        print(f"{arguments.rounds} rounds of {arguments.steps} steps each, in turns; ms per step: median [min, max]")
        for name, values in rounds.items():
            print(f"  {name:<12}{statistics.median(values):8.1f}  [{min(values):.1f}, {max(values):.1f}]")
        speedups = [a / b for a, b in zip(rounds["common"], rounds["segda"], strict=True)]
        shares = [a / b for a, b in zip(rounds["pre-loaded"], rounds["segda"], strict=True)]
        print(
            f"common / segda, round by round: {statistics.median(speedups):.2f} [{min(speedups):.2f}, {max(speedups):.2f}]"
        )
        print(
            f"throughput with loader / pre-loaded: {statistics.median(shares):.3f} [{min(shares):.3f}, {max(shares):.3f}]"
        )
        total = arguments.rounds * arguments.steps
        for name, loop in (("common", common), ("segda", ours), ("pre-loaded", preloaded)):
            parts = ", ".join(f"{part} {seconds / total * 1000:.1f}" for part, seconds in loop.spent.items())
            print(f"where the time goes, {name}: {parts} ms")


if __name__ == "__main__":
    main()
