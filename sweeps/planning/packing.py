"""How many trials share a GPU when the sweep file says `gpus: auto`.

The configuration that needs the most memory is trained alone for a moment, then by two processes at once on the same GPU, then by
three, as long as they fit and together still make noticeably more steps per second. What fits for the largest fits for all.
The answer is remembered in the ledger: it is found once per configuration and kind of GPU.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch

from segda.config import TrainConfig
from segda.device import resolve_device
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import Allotment, SweepInfo
from sweeps.planning.canary import CanaryResult, CanaryTask, measure
from sweeps.planning.coverage import heaviest
from sweeps.planning.machines import Call, Machines, stated
from sweeps.planning.patience import Patience
from sweeps.planning.plan import canary_of
from sweeps.planning.profiles import Architecture, device_of, infeasible, profile_all, reachable

# Raise it when what is measured changes: older answers are then found anew.
VERSION = 1
USABLE = 0.9  # share of a GPU's memory to fill; fragments and larger scratch space need the rest
MAX_PER_GPU = 8
MIN_GAIN = 1.05
_TIMED_STEPS = 8  # more than the loaders keep ready, so that loading counts as well


@dataclass(frozen=True)
class ProbeResult:
    """Some copies of a training at once on one device.

    Attributes:
        steps_per_second: of all copies together.
        memory_bytes: what they occupied on the device together.
        error: why they cannot run together, in one line.
        doubts: what others did on the machine meanwhile, one line each.
    """

    steps_per_second: float
    memory_bytes: int
    error: str | None = None
    doubts: tuple[str, ...] = ()


Probe = Callable[[int], ProbeResult]


@dataclass(frozen=True)
class Packing:
    """How many trials share a GPU.

    Attributes:
        per_gpu: trials at once.
        reason: why not one more, in one line.
        rows: what was measured, from one copy on.
    """

    per_gpu: int
    reason: str
    rows: tuple[ProbeResult, ...] = ()

    @property
    def doubts(self) -> tuple[str, ...]:
        """What others did meanwhile, one line each."""
        return tuple(line for row in self.rows for line in row.doubts)

    @property
    def gpus_per_trial(self) -> float:
        """The share to ask for; rounded down to Ray's four digits, so that all shares fit.

        Example:
            >>> [Packing(per_gpu, "").gpus_per_trial for per_gpu in (1, 3, 6)]
            [1.0, 0.3333, 0.1666]
        """
        return 10_000 // self.per_gpu / 10_000


def pack(probe: Probe, *, gpu_memory_bytes: int, max_per_gpu: int = MAX_PER_GPU, min_gain: float = MIN_GAIN) -> Packing:
    """Find how many trials share a device.

    Args:
        probe: trains so many copies at once; called with 1, 2, 3, ... until one more does not pay.
        gpu_memory_bytes: of the device; a tenth is left free.
        max_per_gpu: most copies to try.
        min_gain: factor on the steps per second of all copies that one more must bring.

    Returns:
        The packing; a single trial if not even one could be measured, since then it cannot be known what fits.
    """
    alone = probe(1)
    if alone.error is not None:
        return Packing(1, f"the largest configuration fails alone: {alone.error}")
    usable = USABLE * gpu_memory_bytes
    rows = [alone]
    reason = f"more than {max_per_gpu} are not tried"
    for copies in range(2, max_per_gpu + 1):
        before = rows[-1]
        expected = before.memory_bytes + alone.memory_bytes
        if expected > usable:
            reason = f"{copies} would need {_gib(expected)} of {_gib(gpu_memory_bytes)}"
            break
        found = probe(copies)
        rows.append(found)
        if found.error is not None:
            reason = f"{copies} fail together: {found.error}"
        elif found.memory_bytes > usable:
            reason = f"{copies} need {_gib(found.memory_bytes)} of {_gib(gpu_memory_bytes)}"
        elif found.steps_per_second < min_gain * before.steps_per_second:
            reason = f"{copies} make {found.steps_per_second:.3g} steps per second together, {copies - 1} make "
            reason += f"{before.steps_per_second:.3g}"
        else:
            continue
        return Packing(copies - 1, reason, tuple(rows))
    return Packing(len(rows), reason, tuple(rows))


def run_probe(task: CanaryTask, copies: int) -> ProbeResult:
    """Train copies of a configuration at once.

    Args:
        task: the configuration.
        copies: how many.

    Returns:
        What they reach together. On a CPU the memory is the sum of what the processes held.
    """
    # What this process keeps unused since it measured architectures would count as the copies'.
    torch.cuda.empty_cache()
    result: CanaryResult = measure(task, copies)
    if result.error is not None:
        return ProbeResult(0.0, 0, result.error, result.doubts)
    on_device = max(costs.device_bytes for costs in result.copies)
    return ProbeResult(
        steps_per_second=sum(1 / costs.seconds_per_step for costs in result.copies),
        memory_bytes=on_device or sum(costs.memory_bytes for costs in result.copies),
        doubts=result.doubts,
    )


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: the maker's name.
        memory_bytes: all of its memory.
    """

    name: str
    memory_bytes: int


def describe_gpu() -> Gpu:
    """Describe the GPU with the least memory of those that this process sees.

    Raises:
        DeviceError: it sees none.
    """
    resolve_device("cuda")
    seen = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    least = min(seen, key=lambda properties: properties.total_memory)
    return Gpu(name=least.name, memory_bytes=least.total_memory)


def packing_key(tasks: Sequence[CanaryTask], gpu: Gpu) -> str:
    """Return the identity of a packing, 16 hexadecimal digits.

    Args:
        tasks: the configurations of which the largest is probed.
        gpu: where.
    """
    what = []
    for task in tasks:
        config = TrainConfig.model_validate(task.config)
        network = Architecture.of(config).identity()
        # The threads too: loading, style and augmentation may be what limits.
        steps = [config.data.style.name, config.data.augmentation, config.method.name]
        sizes = [config.batch_size, *config.data.train_size, *steps, task.threads]
        what.append([network, sizes])
    text = json.dumps([VERSION, what, asdict(gpu)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def packed(spec: SweepSpec, packing: Packing | None, *, machines: Machines) -> Allotment:
    """Return what trials get with a packing, and as many of them at once as then fit on the machines.

    Args:
        spec: a sweep with `gpus: auto`.
        packing: what was found; None: there are no GPUs.
        machines: where its trials will run.

    Raises:
        DeviceError: the machines cannot run a trial, e.g. for want of processors.
    """
    if packing is None:
        return Allotment(gpus=0.0, concurrency=spec.budget.concurrency)
    gpus = packing.gpus_per_trial
    return Allotment(gpus=gpus, concurrency=machines.concurrency(spec, gpus=gpus))


def allotted(spec: SweepSpec, info: SweepInfo) -> Allotment:
    """Return what a sweep's trials get: what its driver found for `gpus: auto`, or what its file says.

    Args:
        spec: the sweep.
        info: of the sweep in the ledger.
    """
    found = info.allotment if spec.resources.gpus == "auto" else None
    return found or stated(spec)


def pack_trials(
    spec: SweepSpec, *, ledger: Ledger, machines: Machines, say: Callable[[str], None] = lambda line: None
) -> Allotment:
    """Find what trials of a sweep with `gpus: auto` get: what its largest configuration allows on the cluster's GPUs.

    Args:
        spec: the sweep; if it names a number, that is the answer.
        ledger: remembers profiles and packings.
        machines: where its trials will run.
        say: is told the result in one line.

    Returns:
        GPUs of a trial, and how many trials run at the same time.

    Raises:
        ConfigError: no architecture meets the constraints.
        DeviceError: the machines cannot run a trial.
    """
    if spec.resources.gpus != "auto":
        return stated(spec)
    if machines.gpus == 0:
        say("gpus: auto finds no GPU; trials run on processors")
        return packed(spec, None, machines=machines)
    device = device_of(spec, machines.look, gpus=spec.resources.num_gpus)
    patience = Patience.of(spec, say=say)
    measured = profile_all(reachable(spec), device=device, ledger=ledger, patience=patience, call=machines.call)
    profiles = dict(measured)
    candidates = heaviest(spec, profiles, infeasible=infeasible(spec, profiles).keys())
    tasks = [canary_of(spec, case, gpus=spec.resources.num_gpus, timed_steps=_TIMED_STEPS) for case in candidates]
    gpu: Gpu = machines.look(describe_gpu)
    key = packing_key(tasks, gpu)
    known = ledger.packing(key)
    if known is not None:
        packing = Packing(known, "measured before")
    else:
        task = _largest(tasks, call=machines.call)
        packing = pack(lambda copies: machines.call(run_probe, task, copies), gpu_memory_bytes=gpu.memory_bytes)
        if packing.doubts:
            say(f"gpus: auto was found while others computed, and is looked for again next time: {packing.doubts[0]}")
        elif packing.rows:
            ledger.put_packing(key, packing.per_gpu)
    found = packed(spec, packing, machines=machines)
    say(
        f"gpus: auto is {found.gpus:g} GPU per trial on {gpu.name}: {packing.per_gpu} at once ({packing.reason}); "
        f"{found.concurrency} trials at the same time"
    )
    return found


def _largest(tasks: Sequence[CanaryTask], *, call: Call) -> CanaryTask:
    """Return the one of some likely configurations that needs the most memory, by training each for a moment."""
    if len(tasks) == 1:
        return tasks[0]
    results: list[CanaryResult] = [call(measure, task) for task in tasks]
    for task, result in zip(tasks, results, strict=True):
        if result.error is not None and "OutOfMemory" in result.error:
            return task
    # A branch that fails for another reason says nothing about memory.
    sizes = [max((costs.memory_bytes for costs in result.copies), default=-1) for result in results]
    return tasks[sizes.index(max(sizes))]


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
