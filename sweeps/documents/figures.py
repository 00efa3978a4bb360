"""Figures that several documents have: what was spent, what was expected, means over seeds."""

from collections.abc import Iterable
from typing import Any

from sweeps.planning.account import Account
from sweeps.planning.estimate import Estimate
from sweeps.selection.seeds import MeanInterval
from sweeps.trial import TrialRecord


def account_part(account: Account) -> dict[str, Any]:
    """Return what was spent.

    Args:
        account: of a sweep.
    """
    return {
        "steps": account.steps,
        "worker_seconds": account.worker_seconds,
        "gpu_seconds": account.gpu_seconds,
        "failed_seconds": account.failed_seconds,
        "retried_seconds": account.retried_seconds,
        "retries": account.retries,
        "cost": account.cost,
        "paid": account.paid,
        "reused": account.reused,
        "drivers": account.drivers,
        "wall_seconds": account.wall_seconds,
        "concurrency": account.concurrency,
        "busy_share": account.busy_share,
        "planned": None if account.planned is None else estimate_part(account.planned),
    }


def estimate_part(found: Estimate) -> dict[str, Any]:
    """Return what a sweep was, or is, expected to take; spans are lists of the least and the most."""
    return {
        "trials": found.trials,
        "concurrency": found.concurrency,
        "gpus_per_trial": found.gpus_per_trial,
        "steps": list(found.steps),
        "worker_seconds": list(found.worker_seconds),
        "wall_seconds": list(found.wall_seconds),
        "gpu_seconds": list(found.gpu_seconds),
        "disk_bytes": found.disk_bytes,
        "cost": None if found.cost is None else list(found.cost),
    }


def interval_part(found: MeanInterval | None) -> dict[str, Any] | None:
    """Return a mean over seeds with its 95 % interval."""
    return (
        None
        if found is None
        else {"n": found.n, "mean": found.mean, "std": found.std, "low": found.low, "high": found.high}
    )


def numbers(trials: Iterable[TrialRecord]) -> list[int]:
    """Return the numbers of trials."""
    return [trial.number for trial in trials]
