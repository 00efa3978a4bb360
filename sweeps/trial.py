"""What a trial is: its number, its parameters, its state, and its identity."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from segda.tunable import Scalar
from sweeps.failures import POLICIES, FailureClass

if TYPE_CHECKING:
    from segda.config import TrainConfig  # imports PyTorch, which who only looks at a sweep does without


class TrialState(StrEnum):
    """Where a trial stands."""

    QUEUED = "queued"  # known, not running: fresh, or to be continued from its checkpoint
    RUNNING = "running"
    COMPLETE = "complete"  # trained in full; the only state that enters tables and fronts
    PRUNED = "pruned"  # stopped early by the scheduler
    INFEASIBLE = "infeasible"  # its architecture breaks a constraint; never trained
    FAILED = "failed"  # ended with an error that trying again would repeat

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen to the trial."""
        return self not in (TrialState.QUEUED, TrialState.RUNNING)


class TrialKind(StrEnum):
    """Why a trial exists."""

    SEARCH = "search"  # proposed by the sampler
    REFERENCE = "reference"  # fixed by the sweep file to read the others against, e.g. an upper bound; never picked
    REPLICATE = "replicate"  # a finalist trained again with another seed


@dataclass(frozen=True)
class TrialRecord:
    """One trial as the ledger knows it.

    Attributes:
        sweep: name of the sweep.
        number: position in the sweep, from 0; never reused.
        key: identity of what is computed: configuration, data, seed and fidelity. Folder of the trial's files.
        kind: why it exists.
        params: searched dotted path -> value.
        config: full resolved training configuration, plain data.
        seed: the training seed.
        state: where it stands.
        attempt: how many times it was handed to a worker; a worker with a smaller attempt is stale.
        parent: for a replicate, the number of the trial that it repeats.
        name: for a reference, its name in the sweep file.
        metrics: the last reported values by metric name.
        step: last acknowledged training step.
        profile: efficiency of its architecture (`num_parameters`, `macs`, `latency_ms`, `fps`, ...).
        failure: class of the last failure.
        error: one line about the last failure.
        run_id: MLflow run.
        created, started, finished: seconds since 1970.
        worker: node and process that runs or ran it, e.g. `host:1234`.
        device: what it computes on there, e.g. `cpu` or `GPU 0`.
        seconds: how long workers have had it so far, over all attempts.
        micro_batch: images of each domain per forward and backward pass after it ran out of memory; None: the whole batch.
        reused: where its result was taken from, `sweep/number`, because the same had been computed there.
    """

    sweep: str
    number: int
    key: str
    kind: TrialKind
    params: Mapping[str, Scalar]
    config: Mapping[str, Any]
    seed: int
    state: TrialState = TrialState.QUEUED
    attempt: int = 0
    parent: int | None = None
    name: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    step: int = 0
    profile: Mapping[str, float] = field(default_factory=dict)
    failure: FailureClass | None = None
    error: str | None = None
    run_id: str | None = None
    created: float = 0.0
    started: float | None = None
    finished: float | None = None
    worker: str | None = None
    device: str | None = None
    seconds: float = 0.0
    micro_batch: int | None = None
    reused: str | None = None

    @property
    def is_set_aside(self) -> bool:
        """Whether the machines failed it: that says nothing about it and spends no budget, and the next driver tries again."""
        if self.state is not TrialState.FAILED or self.failure is None:
            return False
        return not POLICIES[self.failure].blames_configuration


def code_of(config: "TrainConfig", *, train: str) -> str:
    """Return the identity of the code that computes a training run.

    Args:
        config: the run.
        train: training function as `module:name`.
    """
    from segda.environment import code_fingerprint

    return f"{train} {code_fingerprint(config)}"


def trial_key(config: Mapping[str, Any], data_fingerprint: str, code: str) -> str:
    """Return the identity of a training run.

    Args:
        config: `TrainConfig.canonical()`, which holds seed and fidelity (`steps`) too.
        data_fingerprint: hash of the data sets' contents.
        code: identity of the code that computes it.

    Returns:
        16 hexadecimal digits; equal for runs that compute the same thing.
    """
    text = json.dumps({"config": config, "data": data_fingerprint, "code": code}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
