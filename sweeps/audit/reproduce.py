"""A trial trained again from its MLflow run alone, and compared with what that says.

On the CPU a training is a function of configuration, data, seed, code, library versions, processor and number of threads: the same
figures come out, bit for bit, however often the trial was interrupted. Kernels of GPUs add in an order that changes from run to
run, so their figures agree to a tolerance only.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from segda.checkpoint import read_checkpoint
from segda.config import DomainConfig, TrainConfig
from segda.device import DTYPES, resolve_device
from segda.environment import describe_environment, describe_guests
from segda.errors import ConfigError
from segda.splits import data_fingerprint
from segda.training import OnStep, train
from sweeps.audit.repetition import Comparison, weights_digest
from sweeps.tracking.reading import RecordedRun

GPU_TOLERANCE = 1e-2


class _Enough(Exception):
    """All recorded reports have been compared."""


def local_config(run: RecordedRun, *, roots: Mapping[str, Path]) -> TrainConfig:
    """Return a run's configuration with this machine's places, on the kind of device and in the precision that it used.

    Args:
        run: the recorded run.
        roots: data set -> its folder here. For others the recorded folder is used if it exists, else the variable
            `SEGDA_<DATASET>_ROOT`.

    Raises:
        ConfigError: a data set is named that the run did not use.
    """
    config = run.config
    used = {config.data.source.dataset, config.data.target.dataset}
    for name in roots:
        if name not in used:
            raise ConfigError(f"--data-root names {name!r}, but run {run.run_id} used {', '.join(sorted(used))}")

    def here(domain: DomainConfig) -> DomainConfig:
        return domain.model_copy(update={"root": roots.get(domain.dataset, _existing(domain.root))})

    data = config.data.model_copy(
        update={
            "source": here(config.data.source),
            "target": here(config.data.target),
            "cache": _existing(config.data.cache),
        }
    )
    own = {name: getattr(config.model, name) for name in config.model.initial_weights}
    places = {name: _existing(value) for name, value in own.items() if isinstance(value, Path)}
    model = config.model.model_copy(update=places)
    names = {str(dtype).removeprefix("torch."): name for name, dtype in DTYPES.items()}
    precision = config.precision if run.precision is None else names[run.precision]
    device = torch.device(str(run.environment["device"])).type
    return config.model_copy(update={"data": data, "model": model, "device": device, "precision": precision})


def check_data(run: RecordedRun, config: TrainConfig, *, progress: bool = False) -> bool:
    """Compare this machine's data with what the run read; decodes what is not in the cache yet.

    Args:
        run: the recorded run.
        config: its configuration with this machine's places.
        progress: whether to draw a progress bar while decoding.

    Returns:
        Whether the run says what it read; one that was stopped early does not.

    Raises:
        ConfigError: the data are others.
        DatasetNotFoundError: they are not here.
    """
    found = data_fingerprint(config, progress=progress)
    if run.data_fingerprint not in (None, found):
        names = sorted({config.data.source.dataset, config.data.target.dataset})
        raise ConfigError(
            f"run {run.run_id} read data with fingerprint {run.data_fingerprint}, here they have {found}: files were added, "
            f"removed or changed; point to the same data with {', '.join(f'--data-root {name}=PATH' for name in names)}"
        )
    return run.data_fingerprint is not None


def environment_differences(run: RecordedRun, config: TrainConfig) -> list[tuple[str, str, str]]:
    """Return what differs between the run's machine and this one: (name, there, here), in a stable order.

    Args:
        run: the recorded run.
        config: its configuration with this machine's places.
    """
    here: dict[str, Any] = describe_environment(resolve_device(config.device)) | describe_guests(config)
    here |= {
        name: run.environment[name] for name in ("num_threads", "micro_batch", "processes") if name in run.environment
    }
    names = sorted(here.keys() | run.environment.keys())
    pairs = ((name, _shown(run.environment.get(name)), _shown(here.get(name))) for name in names)
    return [pair for pair in pairs if pair[1] != pair[2]]


def reproduce(
    run: RecordedRun,
    config: TrainConfig,
    *,
    folder: Path,
    tolerance: float | None = None,
    on_step: OnStep | None = None,
    on_report: Callable[[int], None] | None = None,
) -> Comparison:
    """Train as the run did, up to its last report, and compare report by report.

    Args:
        run: the recorded run.
        config: its configuration with this machine's places, see `local_config`.
        folder: where to train; must hold no checkpoint.
        tolerance: largest difference that is allowed, absolute up to values of 1 and relative above; None: 0 on the CPU,
            `GPU_TOLERANCE` on a GPU.
        on_step: see `segda.train`.
        on_report: called with the step of each report.

    Returns:
        What came out.

    Raises:
        ConfigError: the folder holds a run.
        SegdaError: as `segda.train`.
    """
    if (folder / "checkpoint.pt").exists():
        raise ConfigError(f"{folder} holds a run already, which would be continued; name an empty folder")
    if tolerance is None:
        tolerance = 0.0 if resolve_device(config.device).type == "cpu" else GPU_TOLERANCE
    comparison = Comparison(tolerance)
    last = max(run.reports)
    missing = dict(run.reports)

    def report(step: int, metrics: Mapping[str, float], _checkpoint: Path) -> None:
        if step in missing:
            comparison.add(step, recorded=missing.pop(step), again=metrics)
        if on_report is not None:
            on_report(step)
        if last <= step < config.steps:
            raise _Enough

    threads = torch.get_num_threads()
    ways = _ways(run)
    # Sums over several threads are added up in another order: their number is part of the result. The run noted those of each of
    # its processes, among which training divides what it finds.
    torch.set_num_threads(int(run.environment["num_threads"]) * ways.get("processes", 1))
    try:
        train(config, report, folder=folder, on_step=on_step, **ways)
    except _Enough:
        pass
    finally:
        torch.set_num_threads(threads)
    for step, metrics in missing.items():
        comparison.add(step, recorded=metrics, again={})
    if run.weights is not None and run.weights_step == last:
        comparison.recorded_weights = weights_digest(run.weights)
        comparison.weights = weights_digest(read_checkpoint(folder / "checkpoint.pt")["method"])
    return comparison


def _ways(run: RecordedRun) -> dict[str, int]:
    """Return how each step was computed, where it was not in one piece."""
    processes = int(run.environment.get("processes", 1))
    micro_batch = int(run.environment.get("micro_batch", run.config.batch_size // processes))
    ways = {}
    if processes != 1:
        ways["processes"] = processes
    if micro_batch != run.config.batch_size // processes:
        ways["micro_batch"] = micro_batch
    return ways


def _existing(path: Path | None) -> Path | None:
    return path if path is not None and path.exists() else None


def _shown(value: object) -> str:
    return "-" if value is None else str(value)
