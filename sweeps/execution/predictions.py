"""What trials predicted for the target, from their files: the candidates of a sweep are compared by it."""

import logging
from collections.abc import Sequence

from segda.target_prediction import TARGET_PREDICTION, TargetPrediction, read_target_prediction
from sweeps.execution.remote import fetch
from sweeps.selection.pool import with_pool_figures
from sweeps.store import Store
from sweeps.trial import TrialRecord, TrialState

log = logging.getLogger(__name__)


def compared(trials: Sequence[TrialRecord], *, store: Store, storage: str | None) -> list[TrialRecord]:
    """Return the trials of a sweep with their pool figures among their metrics (`sweeps.selection.pool`).

    A trial whose prediction is missing or damaged is compared with nobody, and votes for nobody.

    Args:
        trials: records of one sweep.
        store: where their folders are.
        storage: the sweep's storage address, if files that are not here are to be brought from there.

    Raises:
        StorageError: the address did not answer.
    """
    if storage is not None:
        for trial in trials:
            if trial.state is TrialState.COMPLETE:
                fetch(trial, store=store, storage=storage)

    def read(trial: TrialRecord) -> TargetPrediction | None:
        try:
            return read_target_prediction(store.trial(trial) / TARGET_PREDICTION)
        except FileNotFoundError:
            return None
        except ValueError as error:
            log.warning("trial %d is compared with no other one: %s", trial.number, error)
            return None

    return with_pool_figures(trials, read)
