"""What does each way of making a network lighter cost, and what does it save?

    python benchmarks/compression.py --camvid ROOT                       # one seed
    python benchmarks/compression.py --camvid ROOT --seeds 3 --folder F  # in stages: run again, it goes on with what is in F

BiSeNet v1 on EfficientNet-Lite0 is trained on CamVid by day and made lighter in every way that there is, each from the same dense
network and with the same number of steps behind it: pruned while it is trained on; with weights that share their values; with
channels taken out, then trained on, alone or taught by the dense network; and in int8. `dense` is trained on, too, so that no row
has seen more than another.

The first table has mean IoU on the source's validation images and on the target's test images (labels of dusk are read for this
table alone), mean and standard deviation over seeds; the pixels that are classified as the network in single precision does it;
bytes of the file; parameters, multiply-accumulates; and latency of one image, of all files in turns within one run.

The second one has the dense network in all runtimes, likewise in turns. Wanted of int8 beside PyTorch's eager mode in single
precision: at least 2 times as fast in ONNX Runtime and 3 times by PT2E, agreement of at least .98, and no more than .5 points of
mean IoU lost.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from segda.checkpoint import load_segmenter
from segda.compression.sharing import COMPACT, share_weights
from segda.compression.slimming import slim_checkpoint
from segda.config import TrainConfig
from segda.datasets import DATASETS
from segda.deployment import Accepts, Runtime, build_runtime, load_artefact
from segda.deployment.agreement import compare
from segda.efficiency import count_macs, count_parameters
from segda.efficiency.latency import Latency, measure_runtimes_side_by_side
from segda.environment import device_name
from segda.evaluation import evaluate
from segda.exporting import export
from segda.splits import open_split
from segda.training import train

BASE = Path(__file__).resolve().parents[1] / "examples" / "camvid_teacher.yaml"
ZEROS, BITS, CHANNELS = 0.6, 6, (0.3, 0.5)
RUNTIMES = (
    ("eager", "fp32"),
    ("eager", "bf16"),
    ("torch_compile", "fp32"),
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
    ("pt2e", "int8"),
)


class Ways:
    """One seed's networks, each in a folder of its own; what is there already is taken."""

    def __init__(self, folder: Path, plain: dict[str, Any], *, steps: int, more: int) -> None:
        self.folder, self.plain, self.more = folder, plain, more
        self.start = self._trained("start", {**plain, "steps": steps})

    def networks(self) -> dict[str, Path]:
        """Return row -> checkpoint."""
        dense = self._on("dense", self.start)
        found = {"dense": dense}
        zeros = {"schedule": {"name": "cubic", "end": ZEROS}}
        found[f"{ZEROS:.0%} zeros"] = self._on("zeros", self.start, pruning={"segmenter": zeros})
        shared = self.folder / "shared"
        if not (shared / COMPACT).exists():
            share_weights(dense, shared, bits=BITS)
        found[f"shared values, {BITS} bits"] = shared / "checkpoint.pt"
        for share in CHANNELS:
            slim = self.folder / f"slim_{share:g}.pt"
            if not slim.exists():
                slim_checkpoint(self.start, slim, ratio=share, round_to=8, runs=1)
            found[f"{share:.0%} of channels out"] = self._on(f"slim_{share:g}", slim)
        taught = {"checkpoint": str(dense)}
        found[f"{CHANNELS[-1]:.0%} of channels out, taught"] = self._on("taught", slim, distillation=taught)
        return found

    def _on(self, name: str, start: Path, **more: Any) -> Path:
        plain = {key: value for key, value in self.plain.items() if key != "model"}
        optimizer = {**plain["optimizer"], "lr": plain["optimizer"]["lr"] / 2}
        return self._trained(
            name, {**plain, "start": {"checkpoint": str(start)}, "optimizer": optimizer, "steps": self.more, **more}
        )

    def _trained(self, name: str, plain: dict[str, Any]) -> Path:
        train(TrainConfig.model_validate(plain), folder=self.folder / name)
        return self.folder / name / "checkpoint.pt"


def exported(checkpoint: Path, destination: Path, precision: Any) -> Path:
    if not destination.exists():
        # How far int8 agrees is what this is about, so nothing is refused.
        export(checkpoint, destination, precision=precision, agreement=0.0)
    return destination


def agreement(run: Runtime, reference: Runtime, images: Sequence[Tensor]) -> float:
    names = [str(number) for number in range(len(images))]
    return compare(run, reference, images=images, names=names, accepts=Accepts(batch=1)).mean


def spread(values: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def timing(latency: Latency) -> str:
    mark = " !" if latency.doubts else ""
    return f"{latency.median_ms:.2f} (p90 {latency.p90_ms:.2f}, spread {latency.spread:.0%}){mark}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, required=True, help="root of CamVid")
    parser.add_argument("--folder", type=Path, help="where networks and files stay; without it they are thrown away")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=400, help="of the network that all others start from")
    parser.add_argument("--more", type=int, default=200, help="steps of each way, from there")
    parser.add_argument("--height", type=int, default=180, help="of images in pixels")
    parser.add_argument("--width", type=int, default=240, help="of images in pixels")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(arguments, arguments.folder or Path(scratch))


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    plain = yaml.safe_load(BASE.read_text())
    for role in ("source", "target"):
        plain["data"][role]["root"] = str(arguments.camvid)
    plain["data"] |= {"height": arguments.height, "width": arguments.width}
    files: dict[str, list[Path]] = {}
    networks: dict[str, list[Path]] = {}
    for seed in range(arguments.seeds):
        place = folder / str(seed)
        ways = Ways(place, {**plain, "seed": seed}, steps=arguments.steps, more=arguments.more)
        for number, (name, checkpoint) in enumerate(ways.networks().items()):
            precisions = ["fp32"] if "zeros" in name or "shared" in name else ["fp32", "int8"]
            for precision in precisions:
                row = name if precision == "fp32" else f"{name}, int8"
                networks.setdefault(row, []).append(checkpoint)
                files.setdefault(row, []).append(exported(checkpoint, place / f"{number}_{precision}.onnx", precision))
    config = load_segmenter(networks["dense"][0])[1]
    size, classes = (arguments.height, arguments.width), DATASETS["camvid"].classes
    shape = (1, 3, *size)
    shown = images(config, "target", count=32)
    runs = {row: load_artefact(found[0]).runtime for row, found in files.items()}
    latencies = dict(zip(files, measure_runtimes_side_by_side([(run, shape) for run in runs.values()]), strict=True))
    rows = []
    for row, found in files.items():
        scores = [evaluate(path, config, splits=["source/val", "target/test"], batch_size=1).scores for path in found]
        segmenter, _ = load_segmenter(networks[row][0])
        eager = build_runtime(segmenter, runtime="eager", size=size)
        stored = found[0] if "shared" not in row else networks[row][0].parent / COMPACT
        rows.append(
            [
                row,
                *(spread([100 * score[name].miou for score in scores]) for name in ("source/val", "target/test")),
                f"{agreement(runs[row], eager, shown):.4f}",
                f"{stored.stat().st_size / 1e6:.2f}",
                f"{count_parameters(segmenter) / 1e6:.2f}",
                f"{count_macs(segmenter, input_shape=shape) / 1e9:.2f}",
                timing(latencies[row]),
            ]
        )
    threads = torch.get_num_threads()
    print(
        f"\n{config.model.label()}, {len(classes)} classes, CamVid {size[0]}x{size[1]}, day to dusk, {arguments.seeds} seeds; "
        f"{arguments.steps} steps and {arguments.more} more of each way\n{device_name(torch.device('cpu'))}, {threads} threads, "
        f"torch {torch.__version__}; latency in ONNX Runtime, all in turns; !: not reliable\n"
    )
    table(
        ["", "source mIoU %", "target mIoU %", "same pixels", "MB", "M parameters", "GMAC", "latency, ms"],
        rows,
    )
    tell_doubts(latencies.values())
    compare_runtimes(networks["dense"][0], config, shown=shown, size=size)


def compare_runtimes(checkpoint: Path, config: TrainConfig, *, shown: Sequence[Tensor], size: tuple[int, int]) -> None:
    segmenter, _ = load_segmenter(checkpoint)
    calibration = images(config, "source", count=32)
    built = {
        (runtime, precision): build_runtime(
            segmenter,
            runtime=runtime,
            precision=precision,  # type: ignore[arg-type]
            size=size,
            calibration=calibration if precision == "int8" else (),
        )
        for runtime, precision in RUNTIMES
    }
    latencies = measure_runtimes_side_by_side([(run, (1, 3, *size)) for run in built.values()])
    eager = latencies[0].median_ms
    print("\nThe dense network, from the bytes of an image to its class map, all in turns\n")
    table(
        ["runtime", "latency, ms", "times as fast as eager fp32", "same pixels"],
        [
            [
                " ".join(name),
                timing(latency),
                f"{eager / latency.median_ms:.2f}",
                f"{agreement(run, built[RUNTIMES[0]], shown):.4f}",
            ]
            for (name, run), latency in zip(built.items(), latencies, strict=True)
        ],
    )

    tell_doubts(latencies)


def tell_doubts(latencies: Iterable[Latency]) -> None:
    for doubt in sorted({doubt for latency in latencies for doubt in latency.doubts}):
        print(f"not reliable: {doubt}")


def images(config: TrainConfig, role: str, *, count: int) -> list[Tensor]:
    """Return training images spread over a domain, uint8 [3, H, W] each."""
    domain = config.data.source if role == "source" else config.data.target
    split = open_split(config, domain, "train", with_labels=False, progress=True)
    chosen = torch.linspace(0, len(split) - 1, count).long().tolist()
    return [torch.from_numpy(np.array(split.images[index]).transpose(2, 0, 1).copy()) for index in chosen]


if __name__ == "__main__":
    main()
