"""The process of a canary: trains, scores and saves for a moment, and tells its parent what that took.

It trains two steps with a report after each, the last with everything that the end of a training brings; so scoring, checkpoint and
pictures are tried and timed too. Then it trains without reports until it has warmed up, waits until all copies have come as far,
and takes the time.
"""

import contextlib
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import torch

from segda.config import TrainConfig
from segda.device import resolve_device
from segda.environment import device_name
from segda.training import train
from sweeps.failures import summary
from sweeps.planning.canary import GO, READY, CanaryTask, Costs

WINDOW_SECONDS = 2.0  # shortest time over which steps are counted
_FOREVER = 1_000_000  # steps; more than a measurement ever makes


class _EnoughError(Exception):
    """Ends a training whose speed is known."""


def observe(task: CanaryTask, folder: Path, *, ready: Callable[[], None]) -> Costs:
    """Train in this process and take the time.

    Args:
        task: what to train.
        folder: an empty one.
        ready: called when all is warm; returns when the timing is to begin.

    Returns:
        The costs.

    Raises:
        Exception: whatever the training raises.
    """
    torch.set_num_threads(task.threads)
    config = TrainConfig.model_validate(task.config)
    device = resolve_device(config.device)
    age = time.time() - psutil.Process().create_time()
    begun = time.perf_counter()
    stepped: list[float] = []
    reported: list[float] = []
    train(
        _shortened(config, steps=2, report_every=1),
        lambda *_: reported.append(time.perf_counter()),
        folder=folder / "reports",
        on_step=lambda *_: stepped.append(time.perf_counter()),
        **_options(task),
    )
    at_first, at_end = (end - begin for begin, end in zip(stepped, reported, strict=True))
    disk_bytes = sum(path.stat().st_size for path in (folder / "reports").rglob("*") if path.is_file())
    gc.collect()

    began = time.perf_counter()
    is_gpu = device.type == "cuda"
    timing = _Timing(task, ready, is_gpu=is_gpu)
    with contextlib.suppress(_EnoughError):
        train(
            _shortened(config, steps=_FOREVER, report_every=_FOREVER),
            lambda *_: None,
            folder=folder / "steps",
            on_step=timing,
            **_options(task),
        )
    warm = timing.first_seen - began - timing.first_step * timing.seconds_per_step
    return Costs(
        seconds_per_step=timing.seconds_per_step,
        # The end scores everything that a report scores, and the first scoring of a process warms up.
        seconds_per_report=min(at_first, at_end),
        seconds_at_end=at_end,
        seconds_to_start=age + stepped[0] - begun if is_gpu else max(0.0, warm),
        memory_bytes=torch.cuda.max_memory_reserved(device) if is_gpu else _peak_resident_bytes(),
        device_bytes=timing.device_bytes,
        disk_bytes=disk_bytes,
        device=device_name(device),
    )


def _shortened(config: TrainConfig, *, steps: int, report_every: int) -> TrainConfig:
    """Return a configuration of another length; the learning rate begins as it would."""
    schedule = config.schedule.model_copy(
        update={
            "horizon": max(steps, config.schedule.horizon or config.steps),
            "warmup_steps": min(config.schedule.warmup_steps, steps - 1),
        }
    )
    return config.model_copy(update={"steps": steps, "report_every": report_every, "schedule": schedule})


def _options(task: CanaryTask) -> dict[str, Any]:
    return {} if task.processes == 1 else {"processes": task.processes}


class _Timing:
    """Counts steps from the first call on, when caches are warm and kernels chosen, and ends the training."""

    def __init__(self, task: CanaryTask, ready: Callable[[], None], *, is_gpu: bool) -> None:
        self._task = task
        self._ready = ready
        self._is_gpu = is_gpu
        self._began: float | None = None
        self.first_seen = 0.0
        self.first_step = 0
        self.seconds_per_step = 0.0
        self.device_bytes = 0

    def __call__(self, step: int, loss: float) -> None:
        del loss  # reading it has waited for the device
        if self._began is None:
            self.first_seen, self.first_step = time.perf_counter(), step
            self._ready()
            if self._is_gpu:
                free, total = torch.cuda.mem_get_info()
                self.device_bytes = total - free
            self._began = time.perf_counter()
            return
        seconds, steps = time.perf_counter() - self._began, step - self.first_step
        self.seconds_per_step = seconds / steps
        if seconds >= WINDOW_SECONDS and steps >= self._task.timed_steps:
            raise _EnoughError


def _peak_resident_bytes() -> int:
    """Return the most memory that this process was given; the system's `ru_maxrss` would count the parent's as well."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)


def _main() -> None:
    # Only answers may reach the parent, whatever libraries print.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(content: Mapping[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    def wait_for_the_others() -> None:
        answer({READY: True})
        if sys.stdin.readline() != GO:
            sys.exit("the process that asked for the measurement is gone")

    order = json.loads(sys.stdin.readline())
    try:
        costs = observe(CanaryTask(**order["task"]), Path(order["folder"]), ready=wait_for_the_others)
    except Exception as error:
        answer({"error": summary(error)})
    else:
        answer(asdict(costs))


if __name__ == "__main__":
    _main()
