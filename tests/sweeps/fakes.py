"""A small sweep, and training functions with the contract of `segda.train` that need no data and no network.

Workers import this module by name, so it lies on their path (see conftest.py).
"""

import json
import math
import os
import signal
import time
from pathlib import Path

from segda.config import TrainConfig
from segda.errors import ConfigError, DamagedCheckpointError, DatasetNotFoundError, TrainingDivergedError
from segda.files import write_text
from sweeps.planning.profiles import Profile

EXECUTED = "executed.txt"


def plain_spec(**changes):
    """A sweep file as plain data: two parameters, six steps, a report per step."""
    domain = {"dataset": "camvid"}
    plain = {
        "name": "demo",
        "question": "Does the runner work?",
        "base": {
            "data": {
                "source": domain | {"domain": "day"},
                "target": domain | {"domain": "dusk"},
                "height": 32,
                "width": 32,
            },
            "model": {"name": "bisenet_v1", "backbone": "resnet18", "pretrained": "none"},
            "method": {"name": "source_only"},
            "steps": 6,
            "report_every": 1,
            "precision": "fp32",
        },
        "search": {"optimizer.lr": {"low": 1e-3, "high": 1e-1, "log": True}},
        "selection": "source_validation",
        "scheduler": {"name": "none"},
        "sampler": {"name": "random"},
        "budget": {"trials": 3, "concurrency": 2},
        "resources": {"cpus": 1, "gpus": 0},
    }
    return plain | changes


def profile(architecture):
    """Efficiency figures by trunk, without measuring."""
    macs = {"resnet18": 1e9, "resnet101": 8e9}.get(architecture.model.backbone, 3e9)
    return Profile(metrics={"num_parameters": macs / 100, "macs": macs, "latency_ms": macs / 1e8, "fps": 1e11 / macs})


def fingerprint(config: TrainConfig) -> str:
    return "0123456789abcdef"


def quality(config: TrainConfig) -> float:
    """A bump over the learning rate with its top at 0.01."""
    return 0.9 - 0.1 * (math.log10(config.optimizer.lr) + 2) ** 2 - 0.001 * config.seed


def _note(folder: Path, line: str) -> None:
    # One write of one short line is atomic in append mode.
    with (folder.parents[1] / EXECUTED).open("a") as file:
        file.write(f"{folder.name} {line}\n")


def _train(config, report, folder, acknowledged, *, seconds=0.0, before_step=lambda step: None):
    checkpoint = folder / "checkpoint.pt"
    history = _read(checkpoint) if checkpoint.exists() else []
    for step, metrics in history:
        if step > acknowledged:
            report(step, metrics, checkpoint)
    (folder / "config.json").write_text(config.model_dump_json())
    (folder / "environment.json").write_text(json.dumps({"python": "3", "git_commit": "abc"}))
    for step in range(len(history) + 1, config.steps + 1):
        before_step(step)
        time.sleep(seconds)
        _note(folder, f"step {step}")
        value = quality(config) * (0.5 + 0.5 * step / config.steps)
        metrics = {
            "source/val/miou": value,
            "source/val/iou/Road (wet)": value,
            "train/loss_seg": 1 - value,
            "oracle/target/miou": value / 2,
            "target/largest_class_share": 0.5,
            "target/missing_classes": 0.0,
        }
        history.append([step, metrics])
        write_text(checkpoint, json.dumps(history))
        if step % config.report_every == 0 or step == config.steps:
            report(step, metrics, checkpoint)
    split = {"miou": 0.5, "iou": {"Sky": 0.4, "Road": None}, "num_images": 2}
    result = {"classes": ["Sky", "Road"], "splits": {"source/val": split}, "data_fingerprint": "0123456789abcdef"}
    write_text(folder / "result.json", json.dumps(result))


def _read(checkpoint):
    try:
        return json.loads(checkpoint.read_text())
    except ValueError as error:
        raise DamagedCheckpointError(f"{checkpoint}: {error}") from None


def quadratic(config, report, *, folder, acknowledged=0):
    _train(config, report, folder, acknowledged)


def slow(config, report, *, folder, acknowledged=0):
    _train(config, report, folder, acknowledged, seconds=0.1)


def cleans_up_slowly(config, report, *, folder, acknowledged=0):
    try:
        _train(config, report, folder, acknowledged)
    except SystemExit:
        time.sleep(3)  # longer than Tune waits by itself
        raise


def dies_once(config, report, *, folder, acknowledged=0):
    marker = folder / "died"

    def before_step(step):
        if step == 3 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    _train(config, report, folder, acknowledged, before_step=before_step)


def hangs_once(config, report, *, folder, acknowledged=0):
    marker = folder / "hung"

    def before_step(step):
        if step == 3 and not marker.exists():
            marker.touch()
            time.sleep(3600)

    _train(config, report, folder, acknowledged, before_step=before_step)


def needs_small_micro_batches(config, report, *, folder, acknowledged=0, micro_batch=None):
    if (micro_batch or config.batch_size) > 4:
        raise MemoryError("no memory left")
    _train(config, report, folder, acknowledged)


def fails_by_seed(config, report, *, folder, acknowledged=0, micro_batch=None):
    """Fail in the way that the reference's weight decay asks for."""
    match config.optimizer.momentum:
        case 0.1:
            raise TrainingDivergedError("loss became NaN at step 1; use a smaller learning rate")
        case 0.2:
            raise MemoryError("no memory left")
        case 0.3:
            raise ConfigError("class list\nhas two lines")
        case 0.4:
            raise KeyError("bug")
        case 0.5:
            report(1, {"train/loss_seg": 1.0}, folder / "checkpoint.pt")
        case 0.6:
            report(1, {"source/val/miou": float("nan")}, folder / "checkpoint.pt")


def finds_no_data(config, report, *, folder, acknowledged=0):
    raise DatasetNotFoundError("camvid: no such folder: /data")
