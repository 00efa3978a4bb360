"""Does `segda predict` take a raster of any size: in how much memory, how fast, through a kill, and without borders of windows?

    python benchmarks/big_raster.py                          # 4,000 x 4,000 pixels
    python benchmarks/big_raster.py --side 20000             # 400 megapixels
    python benchmarks/big_raster.py --part seams
    python benchmarks/big_raster.py --folder F --minutes 12  # in stages: run again, it goes on with what is in F

A Fast-SCNN is trained on procedural scenes for some minutes, and a raster is made of such scenes, with a corner without data.

kill    predicts the raster once, and once more in a process that is killed by SIGKILL when half of the strips are done and in one
        that goes on. Wanted: the same bytes, and less than 2 GB at the peak (largest resident set of each process, as the system
        counts it). Megapixels per second are those of the raster, by the clock and by the processor's time, which does not depend
        on who else computes.
seams   predicts 2,000 x 2,000 pixels in one pass, in windows that are blended, and in windows that are cut in the middle of their
        overlap. A network with global pooling sees another whole in each, so some difference to one pass is right; what is not is
        that classes change more often along the borders of windows than elsewhere. Wanted: no such excess over that of one pass,
        which has no borders, and no larger difference to one pass than that of cut windows.

Exit code 1 if something else comes out, 75 if the time is over before the end.
"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.windows import Window

from segda.blending import spans
from segda.checkpoint import load_segmenter
from segda.datasets.scenes import generate_scene, generate_scenes
from segda.files import replacing, sha256_of, write_json
from segda.prediction import predict_image
from segda.raster import predict_raster

Map = npt.NDArray[np.uint8]

PALETTE = [(25 * number, 0, 0) for number in range(7)]
MOST_BYTES = 2 * 10**9
WINDOW, OVERLAP = 512, 128
TILE = 1024  # pixels of a scene in the raster


@dataclass(frozen=True)
class Run:
    """One process of `segda predict`."""

    seconds: float
    processor_seconds: float
    peak_bytes: int
    code: int
    work_bytes: int  # largest size of the work file that was seen


def segda(*words: object) -> list[str]:
    return [sys.executable, "-c", "from segda.cli import main; main()", *map(str, words)]


def trained_network(folder: Path, steps: int) -> Path:
    """Train a Fast-SCNN on scenes, unless it is there."""
    scenes = generate_scenes(folder / "scenes", size=128, train=48, val=4)
    data = {"dataset": "scenes", "root": str(scenes)}
    config = {
        "data": {
            "source": data | {"domain": "urban"},
            "target": data | {"domain": "rural"},
            "height": 128,
            "width": 128,
        },
        "model": {"name": "fast_scnn"},
        "method": {"name": "source_only"},
        "optimizer": {"name": "sgd", "lr": 0.02},
        "steps": steps,
        "batch_size": 4,
        "report_every": 50,
    }
    run = folder / "network"
    if not (run / "result.json").exists():
        (folder / "network.json").write_text(json.dumps(config))
        subprocess.run(segda("train", folder / "network.json", "--folder", run), check=True)
    return run / "checkpoint.pt"


def some_scenes(path: Path) -> Map:
    """Return eight scenes, uint8 [8, TILE, TILE, 3]; they are made once."""
    if not path.exists():
        made = [generate_scene("urban", np.random.default_rng(number), TILE).image for number in range(8)]
        with replacing(path) as partial, partial.open("wb") as file:
            np.save(file, np.stack(made))
    return np.load(path)


def raster_of_scenes(path: Path, side: int) -> Path:
    """Write a raster of scenes, turned and mirrored, whose lower right corner holds no data."""
    if path.exists():
        return path
    generator = np.random.default_rng(0)
    scenes = some_scenes(path.with_name("scenes.npy"))
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "height": side, "width": side, "nodata": 0}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "zstd", "zstd_level": 1}
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(0.6, 0, 500_000, 0, -0.6, 5_300_000)}
    with replacing(path) as partial, rasterio.open(partial, "w", **profile, **layout, **place) as writer:
        for top in range(0, side, TILE):
            strip = np.concatenate(
                [np.rot90(scenes[generator.integers(8)], generator.integers(4)) for _ in range(0, side, TILE)], axis=1
            )
            strip = np.maximum(strip[: side - top, :side], 1)
            beyond = np.arange(top, top + len(strip))[:, None] + np.arange(side) > 1.8 * side
            strip[beyond] = 0
            writer.write(strip.transpose(2, 0, 1), window=Window(0, top, *strip.shape[1::-1]))
    return path


def predict(words: list[str], work: Path, *, deadline: float, kill_at: float = math.inf) -> Run:
    """Run a prediction, and kill it when its work file has so many bytes or when time is over."""
    began = time.monotonic()
    process = subprocess.Popen(words)
    size, is_killed = 0, False
    while True:
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            seconds = usage.ru_utime + usage.ru_stime
            code = os.waitstatus_to_exitcode(status)
            return Run(time.monotonic() - began, seconds, usage.ru_maxrss * 1024, code, size)
        with suppress(FileNotFoundError):
            size = max(size, work.stat().st_size)
        if not is_killed and (size >= kill_at or time.monotonic() > deadline):
            process.kill()
            is_killed = True
        time.sleep(0.1)


def measure_kill(folder: Path, checkpoint: Path, side: int, options: list[str], deadline: float) -> bool:
    source = raster_of_scenes(folder / f"raster-{side}.tif", side)
    results = folder / f"results-{side}.json"
    found = json.loads(results.read_text()) if results.exists() else {"once": [], "killed": []}
    ways = {name: [Run(**run) for run in runs] for name, runs in found.items()}
    outputs = {name: folder / f"{name}-{side}.tif" for name in ways}
    for name, runs in ways.items():
        while not runs or runs[-1].code != 0:
            kill_at = math.inf
            if name == "killed" and not any(run.work_bytes * 2 >= ways["once"][-1].work_bytes for run in runs):
                kill_at = ways["once"][-1].work_bytes / 2
            words = segda("predict", checkpoint, source, outputs[name], *options)
            work = outputs[name].with_name(f".{outputs[name].name}.work")
            runs.append(predict(words, work, deadline=deadline, kill_at=kill_at))
            write_json(results, {name: [asdict(run) for run in runs] for name, runs in ways.items()})
            if time.monotonic() > deadline and runs[-1].code != 0:
                print("time is over; the same command goes on")
                sys.exit(75)
            if runs[-1].code not in (0, -signal.SIGKILL):
                return False
    print(f"\n{side:,} x {side:,} pixels, {source.stat().st_size / 1e6:.0f} MB")
    for name, runs in ways.items():
        for run in runs:
            print(
                f"{name:6}  exit {run.code:2}  {run.seconds:7.1f} s, processor {run.processor_seconds:7.1f} s, "
                f"peak {run.peak_bytes / 1e9:.2f} GB"
            )
        by_clock, by_processor = (
            side**2 / 1e6 / sum(times)
            for times in zip(*((run.seconds, run.processor_seconds) for run in runs), strict=True)
        )
        print(f"{name:6}  {by_clock:.2f} megapixels/s by the clock, {by_processor:.2f} by the processor")
    is_same = sha256_of(outputs["once"]) == sha256_of(outputs["killed"])
    print(f"the same bytes: {is_same} ({outputs['once'].stat().st_size / 1e6:.1f} MB)")
    return is_same and all(run.peak_bytes < MOST_BYTES for runs in ways.values() for run in runs)


def cut_windows(segmenter: object, image: Map) -> Map:
    """Predict in windows that are cut in the middle of their overlap: each pixel is decided by one."""
    rows, columns = (spans(length, window=WINDOW, overlap=OVERLAP) for length in image.shape[:2])
    result = np.zeros(image.shape[:2], np.uint8)
    for row in rows:
        for column in columns:
            seen = np.ascontiguousarray(image[row.start : row.stop, column.start : column.stop])
            top, left = (OVERLAP // 2 if span.start else 0 for span in (row, column))
            result[row.start + top : row.stop, column.start + left : column.stop] = predict_image(segmenter, seen)[
                top:, left:
            ]
    return result


def excess(classes: Map) -> tuple[float, float]:
    """Return how much more often classes change where windows meet than elsewhere: in the middle of overlaps, and within them."""
    middles, within, elsewhere = [], [], []
    for turned in (classes, classes.T):
        changes = (turned[:, 1:] != turned[:, :-1]).mean(axis=0)
        windows = spans(turned.shape[1], window=WINDOW, overlap=OVERLAP)
        is_within = np.zeros(len(changes), bool)
        for before, after in pairwise(windows):
            is_within[after.start : before.stop] = True
            middles.append(changes[after.start + OVERLAP // 2 - 1])
        within.append(changes[is_within])
        elsewhere.append(changes[~is_within])
    usual = np.concatenate(elsewhere).mean()
    return float(np.mean(middles) / usual), float(np.concatenate(within).mean() / usual)


def measure_seams(folder: Path, checkpoint: Path, side: int = 2000) -> bool:
    source = raster_of_scenes(folder / f"crop-{side}.tif", side)
    segmenter, _ = load_segmenter(checkpoint)
    with rasterio.open(source) as reader:
        image = np.ascontiguousarray(reader.read().transpose(1, 2, 0))
    valid = (image > 0).any(axis=2)
    image[~valid] = (124, 116, 104)  # as in windows
    predict_raster(segmenter, source, folder / "blended.tif", palette=PALETTE, window=WINDOW, overlap=OVERLAP)
    with rasterio.open(folder / "blended.tif") as reader:
        blended = reader.read(1)
    ways = {"one pass": predict_image(segmenter, image), "cut": cut_windows(segmenter, image), "blended": blended}
    print(f"\n{side:,} x {side:,} pixels, windows of {WINDOW}, overlap {OVERLAP}")
    found = {}
    for name, classes in ways.items():
        classes[~valid] = 255
        differing = float((classes != ways["one pass"])[valid].mean())
        found[name] = (differing, *excess(classes))
        print(
            f"{name:9} differs from one pass in {100 * differing:5.2f} % of pixels; changes of class, elsewhere = 1: "
            f"{found[name][1]:5.2f} in the middle of overlaps, {found[name][2]:5.2f} within them"
        )
    # A line of 2,000 pixels is a sample: one pass itself deviates from 1 where there are no borders.
    return found["blended"][1] < found["one pass"][1] + 0.15 and found["blended"][0] <= found["cut"][0]


def main() -> None:
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4000, help="pixels")
    parser.add_argument("--folder", type=Path, help="where everything is kept; default: nowhere")
    parser.add_argument("--steps", type=int, default=200, help="of training")
    parser.add_argument("--part", choices=("kill", "seams"), help="default: both")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="end after so many, to go on later; with --folder"
    )
    parser.add_argument("options", nargs="*", help="further options of `segda predict`, after --")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = trained_network(folder, arguments.steps)
        right = []
        if arguments.part != "kill":
            right.append(measure_seams(folder, checkpoint))
        if arguments.part != "seams":
            deadline = began + 60 * arguments.minutes
            right.append(measure_kill(folder, checkpoint, arguments.side, arguments.options, deadline))
    sys.exit(0 if all(right) else 1)


if __name__ == "__main__":
    main()
