"""What a trial is: its number, its parameters, its state, and its identity."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from segda.tunable import Scalar


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


class FailureClass(StrEnum):
    """Why an attempt ended without a result."""

    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    INVALID = "invalid"  # the configuration or the data cannot be used
    ERROR = "error"  # an exception in the training code
    WORKER_LOST = "worker_lost"  # process or node died; tried again

    @property
    def is_retried(self) -> bool:
        """Whether another attempt may succeed: the machine failed, not the configuration."""
        return self is FailureClass.WORKER_LOST


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


def trial_key(config: Mapping[str, Any], data_fingerprint: str) -> str:
    """Return the identity of a training run.

    Args:
        config: `TrainConfig.canonical()`, which holds seed and fidelity (`steps`) too.
        data_fingerprint: hash of the data sets' contents.

    Returns:
        16 hexadecimal digits; equal for runs that compute the same thing.
    """
    text = json.dumps({"config": config, "data": data_fingerprint}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
