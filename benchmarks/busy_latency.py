"""Is a network's latency right, or said to be unreliable, while another process computes on the same processors?

    python benchmarks/busy_latency.py               # about two minutes; nothing else should run beside it

A ResNet-18 and a ResNet-34 BiSeNet are measured by what `sweeps run` calls, three times: beside processes that keep every processor
busy, as by a sweep that waits 10 s at most; then alone, with the same ledger, which must have kept nothing of the first figures for
good; then alone once more with a new ledger, to see how well figures repeat.

Wanted: what was measured in company is marked and names a busy process; alone nothing is marked, the ResNet-34 takes longer than
the ResNet-18, and figures of the two measurements differ by less than the spread that they state. Exit code 1 if not.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from segda.models.bisenet_v1 import BiSeNetV1
from sweeps.ledger.database import Ledger
from sweeps.metrics import has_doubts
from sweeps.planning.patience import Patience
from sweeps.planning.profiles import Architecture, Profile, describe_device, profile_all

ARCHITECTURES = {
    backbone: Architecture(BiSeNetV1.Config(backbone=backbone), num_classes=11, height=128, width=160, precision="fp32")
    for backbone in ("resnet18", "resnet34")
}


def busy_beside_us() -> None:
    """Compute until ended."""
    torch.set_num_threads(1)
    matrix = torch.rand(512, 512)
    while True:
        matrix = torch.tanh(matrix @ matrix)


@contextmanager
def company() -> Iterator[list[int]]:
    """Keep every processor busy with a process, and give their numbers."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=busy_beside_us, daemon=True) for _ in range(os.cpu_count() or 1)]
    for process in processes:
        process.start()
    time.sleep(5)  # they import torch
    try:
        yield [process.pid for process in processes if process.pid is not None]
    finally:
        for process in processes:
            process.kill()
            process.join()


def measured(ledger: Ledger, *, threads: int, minutes: float) -> dict[str, Profile]:
    device = describe_device("cpu", threads)
    patience = Patience(minutes, say=lambda line: print(f"  {line}", flush=True))
    found = profile_all(ARCHITECTURES.values(), device=device, ledger=ledger, patience=patience)
    return dict(zip(ARCHITECTURES, (profile for _, profile in found), strict=True))


def show(title: str, profiles: dict[str, Profile]) -> None:
    print(title)
    for backbone, profile in profiles.items():
        figures = profile.metrics
        mark = "¶" if has_doubts(figures) else " "
        print(
            f"  {backbone}{mark} median {figures['latency_ms']:7.2f} ms  quartiles {figures['latency_iqr_ms']:6.2f} ms apart  "
            f"blocks {figures['latency_spread']:6.1%} apart"
        )
        for line in profile.doubts:
            print(f"    {line}")
    ratio = profiles["resnet34"].metrics["latency_ms"] / profiles["resnet18"].metrics["latency_ms"]
    print(f"  resnet34 / resnet18: {ratio:.2f}", flush=True)


def main() -> int:
    """Measure, print and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="threads of a measurement")
    threads = parser.parse_args().threads
    with tempfile.TemporaryDirectory() as folder:
        with Ledger.open(Path(folder) / "first.db") as ledger:
            with company() as pids:
                busy = measured(ledger, threads=threads, minutes=1 / 6)
                show("beside busy processes", busy)
            alone = measured(ledger, threads=threads, minutes=0.5)
            show("alone, same ledger", alone)
        with Ledger.open(Path(folder) / "second.db") as ledger:
            again = measured(ledger, threads=threads, minutes=0.5)
            show("alone, new ledger", again)
    latencies = {name: [found[name].metrics["latency_ms"] for found in (busy, alone, again)] for name in ARCHITECTURES}
    claims = {
        "in company every figure is marked": all(has_doubts(profile.metrics) for profile in busy.values()),
        "and a busy process is named": all(
            any(f"(process {pid})" in line for pid in pids for line in profile.doubts) for profile in busy.values()
        ),
        "alone no figure is marked": not any(
            has_doubts(profile.metrics) for found in (alone, again) for profile in found.values()
        ),
        "alone the ResNet-34 takes longer": all(
            found["resnet34"].metrics["latency_ms"] > found["resnet18"].metrics["latency_ms"]
            for found in (alone, again)
        ),
        "alone figures repeat within the spread that is stated": all(
            abs(first - second) / first < max(found[name].metrics["latency_spread"] for found in (alone, again))
            for name, (_, first, second) in latencies.items()
        ),
    }
    for name, (first, second, _) in latencies.items():
        print(f"{name}: in company {first:.1f} ms, alone {second:.1f} ms, {first / second:.2f} times")
    for claim, holds in claims.items():
        print(f"{'holds' if holds else 'FAILS'}: {claim}")
    return 0 if all(claims.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
