"""What a training step of each method costs, relative to supervised training on the source alone.

    python benchmarks/method_cost.py                     # procedural tiles, BiSeNet on EfficientNet-Lite0 at 128 x 128
    python benchmarks/method_cost.py --camvid ROOT --height 120 --width 160 --only dacs mic

Every method trains in a process of its own, with its loader, and they take turns, so that a change of the machine's speed hits all.
Methods in rounds are past their warm-up: what is timed is the steps of their first round, not the labelling.

A method pays for passing images through networks, forward and backward, and for what it does besides. The first is counted: images
through the segmenter, through copies of it and through discriminators, with and without a graph, times the multiply-accumulates of
each; a backward pass counts as two forward passes. `explained` is that count relative to source-only's, and what the time exceeds
it by is the method's own work.

Memory is the largest that the process ever had, less what it had before the run was opened.
"""

import argparse
import copy
import multiprocessing
import resource
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segda.config import TrainConfig
from segda.datasets.scenes import generate_scenes
from segda.device import resolve_precision
from segda.discriminators.base import Discriminator
from segda.efficiency import count_macs
from segda.environment import device_name
from segda.methods import METHODS
from segda.models.base import Segmenter
from segda.splits import open_splits
from segda.teaching import teach
from segda.team import Team
from segda.training import train
from segda.training_run import TrainingRun

BASELINE = "source_only"
STEPS = 1_000_000  # of the run that is never finished: the first round lasts as long as anybody measures
WARM_UP = 2  # steps, in which allocators and caches settle

# Begin where the method does all that it does.
_FROM_THE_START = {"warm_up": 0.0, "entropy_from": 0.0}
CASES: dict[str, dict[str, Any]] = {name: {"name": name} for name in METHODS} | {
    "adversarial, dwd": {"name": "adversarial", "discriminator": "dwd"},
    "self_training, constant": {"name": "self_training", "thresholds": "constant"},
}


def settings_of(case: str) -> dict[str, Any]:
    """Return the method's settings, beginning without a warm-up."""
    given = CASES[case]
    fields = METHODS[given["name"]].Config.model_fields
    return {name: value for name, value in _FROM_THE_START.items() if name in fields} | given


class Counted:
    """Counts images through networks; a number of forward passes, with and without a graph."""

    def __init__(self, method: nn.Module) -> None:
        self.images: Counter[tuple[str, bool]] = Counter()
        self.macs: dict[str, int] = {}
        for name, module in method.named_modules():
            if isinstance(module, Segmenter | Discriminator):
                module.register_forward_pre_hook(self._hook(name, copy.deepcopy(module)))

    def _hook(self, name: str, unhooked: nn.Module) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def count(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            image = inputs[0]
            self.images[name, torch.is_grad_enabled()] += len(image)
            if name not in self.macs:
                self.macs[name] = count_macs(unhooked, input_shape=(1, *image.shape[1:]))

        return count

    def work(self) -> float:
        """Return the multiply-accumulates since the last call."""
        done = sum(
            self.macs[name] * number * (3 if has_graph else 1) for (name, has_graph), number in self.images.items()
        )
        self.images.clear()
        return float(done)


def serve(case: str, plain: dict[str, Any], folder: Path, connection: Connection) -> None:
    """Make steps when told to; answer with seconds per step, multiply-accumulates per step and peak memory in bytes."""
    before = _peak()
    method, data = METHODS[CASES[case]["name"]], plain["data"]
    if method.needs_few_shot:
        data |= {"few_shot": {"images": 4}}
    if method.needs_external_labels:
        data |= {"external_labels": {"folder": folder / "labels"}}
    config = TrainConfig.model_validate(plain | {"method": settings_of(case), "data": data})
    alone = Team(rank=0, size=1, device=torch.device("cpu"))
    run = TrainingRun(config, open_splits(config), alone, folder / case.replace(", ", "-"), resumed=False)
    run.folder.mkdir()
    counted = Counted(run.method)
    with run.loading():
        while steps := connection.recv():
            counted.images.clear()
            metrics = run.advance(run.step + steps, None)
            connection.send((metrics["train/seconds_per_step"], counted.work() / steps, _peak() - before))


def write_labels(plain: dict[str, Any], folder: Path) -> None:
    """Let a network of one step label the target, for the methods that learn from labels made before."""
    config = TrainConfig.model_validate(plain | {"method": {"name": BASELINE}, "steps": 1})
    teacher = train(config, lambda *_: None, folder=folder / "teacher")
    teach(plain, folder / "labels", checkpoints=[teacher.checkpoint], device="cpu")


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, help="root of CamVid; without it procedural tiles are made")
    parser.add_argument("--only", nargs="*", choices=list(CASES), help="cases besides source-only; unset: all")
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="steps of each method per round")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if arguments.camvid:
            dataset, root, source, target = "camvid", arguments.camvid, "day", "dusk"
        else:
            root = generate_scenes(folder / "scenes", size=max(arguments.height, arguments.width), train=12, val=1)
            dataset, source, target = "scenes", "urban", "rural"
        plain = {
            "data": {
                "source": {"dataset": dataset, "domain": source, "root": root},
                "target": {"dataset": dataset, "domain": target, "root": root},
                "height": arguments.height,
                "width": arguments.width,
                "cache": folder / "cache",
            },
            "model": {"name": "bisenet_v1", "backbone": "efficientnet_lite0", "pretrained": "none"},
            "steps": STEPS,
            "batch_size": 4,
            "device": "cpu",
            "oracle": "never",
        }
        names = [BASELINE, *(name for name in arguments.only or CASES if name != BASELINE)]
        context = multiprocessing.get_context("spawn")
        seconds: dict[str, list[float]] = {name: [] for name in names}
        work: dict[str, float] = {}
        memory: dict[str, int] = {}
        connections: dict[str, Connection] = {}
        if any(METHODS[CASES[name]["name"]].needs_external_labels for name in names):
            # Not here: what this process has had at most, the others begin with.
            writer = context.Process(target=write_labels, args=(plain, folder))
            writer.start()
            writer.join()
        for name in names:
            connections[name], theirs = context.Pipe()
            context.Process(target=serve, args=(name, plain, folder, theirs), daemon=True).start()
            theirs.close()  # so that a process that fails ends this one, too
            connections[name].send(WARM_UP)
            connections[name].recv()
        for _ in range(arguments.rounds):
            for name, connection in connections.items():
                connection.send(arguments.steps)
                spent, work[name], memory[name] = connection.recv()
                seconds[name].append(spent)
        for connection in connections.values():
            connection.send(0)

    precision = str(resolve_precision("auto", torch.device("cpu"))).removeprefix("torch.")
    print(
        f"BiSeNet on EfficientNet-Lite0, {dataset} {arguments.height}x{arguments.width}, batch 4, {precision}; "
        f"{device_name(torch.device('cpu'))}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(
        f"{arguments.rounds} rounds of {arguments.steps} steps each, in turns; relative to {BASELINE} of the same round\n"
    )
    print("| method | s per step | time: median [min, max] | explained | time / explained | peak memory |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in names:
        ratios = [own / base for own, base in zip(seconds[name], seconds[BASELINE], strict=True)]
        ratio, explained = statistics.median(ratios), work[name] / work[BASELINE]
        print(
            f"| {name} | {statistics.median(seconds[name]):.3f} | {ratio:.2f} [{min(ratios):.2f}, {max(ratios):.2f}] "
            f"| {explained:.2f} | {ratio / explained:.2f} | {memory[name] / memory[BASELINE]:.2f} |"
        )


if __name__ == "__main__":
    main()
