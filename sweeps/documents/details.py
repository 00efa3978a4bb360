"""Documents about sweeps and trials as they are: `sweeps show`."""

from typing import Any

from segda.documents import document, utc
from sweeps.documents.figures import account_part
from sweeps.documents.parts import metrics_part, shows_oracle, trial_part, without_oracle
from sweeps.documents.selection import selection_part
from sweeps.documents.status import standing_part
from sweeps.planning.counts import planned_trials
from sweeps.reports.sweep_details import SweepDetails
from sweeps.reports.trial_details import MetricHistory, TrialDetails


def sweep_document(found: SweepDetails, *, oracle: bool = False) -> dict[str, Any]:
    """Return a sweep in full.

    Args:
        found: the sweep.
        oracle: see `sweeps.documents.status.status_document`.
    """
    spec, info = found.spec, found.status.record.info
    shows, planned = shows_oracle(spec.selection, asked=oracle), planned_trials(spec)
    winner = None if found.winner is None else dict(found.winner)
    content = {
        "time": utc(found.status.now),
        "has_oracle": shows,
        **standing_part(found.status),
        "file": info.file,
        "fingerprint": spec.fingerprint(),
        "data_fingerprint": info.data_fingerprint,
        "planned": {**planned._asdict(), "total": planned.total},
        "used": account_part(found.account),
        "constraints": [str(item) for item in spec.constraints],
        "references": spec.references,
        "search": {row.path: {"values": row.range, "when": row.condition} for row in spec.space.describe()},
        "sampler": spec.sampler.name,
        "scheduler": spec.scheduler.name,
        "seed": spec.seed,
        "seeds": spec.listed_seeds,
        "pick": selection_part(found.selection),
        "deployed": winner if shows else without_oracle(winner),
        "places": {what: str(place) for what, place in found.places().items()},
        "storage": spec.storage,
        "tracking": spec.tracking.uri,
        "run_id": found.status.record.parent_run_id,
        "next": [{"command": command, "what": what} for command, what in found.next_commands()],
    }
    return document("sweeps.sweep/1", content)


def trial_document(found: TrialDetails, *, oracle: bool = False) -> dict[str, Any]:
    """Return a trial in full.

    Args:
        found: the trial.
        oracle: see `sweeps.documents.status.status_document`.
    """
    record, shows = found.record, shows_oracle(found.spec.selection, asked=oracle)
    histories = {name: _history(item) for name, item in found.metrics.items()}
    content = {
        "has_oracle": shows,
        "sweep": record.sweep,
        **trial_part(record, oracle=shows),
        **metrics_part(histories, oracle=shows),
        "attempts": [
            {
                "number": item.number,
                "worker": item.worker,
                "device": item.device,
                "started": utc(item.started),
                "ended": utc(item.ended),
                "end": item.end,
                "failure": item.failure,
                "message": item.message,
            }
            for item in found.attempts
        ],
        "traceback": found.traceback,
        "config": found.config,
        "folder": str(found.folder),
        "is_here": found.is_here,
        "storage": found.spec.storage,
        "files": [{"name": item.name, "bytes": item.num_bytes, "modified": utc(item.modified)} for item in found.files],
        "log": None if found.log is None else str(found.log),
        "log_command": found.log_command,
        "train_command": found.train_command,
    }
    return document("sweeps.trial/1", content)


def _history(item: MetricHistory) -> dict[str, Any]:
    return {
        "last": item.last,
        "step": item.step,
        "direction": item.direction,
        "best": item.best,
        "best_step": item.best_step,
    }
