"""What a new driver takes up again: trials that failed for good through no fault of their configurations, however long ago."""

from segda.file_errors import says_disk_failure
from sweeps.failures import FailureClass
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import REQUEUED
from sweeps.trial import TrialRecord, TrialState


def is_worth_another_try(record: TrialRecord) -> bool:
    """Tell whether a trial failed through no fault of its configuration.

    Args:
        record: the trial. Earlier versions took a full disk for an error of the training where PyTorch wrote to it; the text tells.
    """
    is_error = record.state is TrialState.FAILED and record.failure is FailureClass.ERROR
    return record.is_set_aside or (is_error and says_disk_failure(record.error or ""))


def take_up_again(ledger: Ledger, sweep: str) -> list[TrialRecord]:
    """Queue such trials, to go on from their checkpoints, and write that down.

    Args:
        ledger: where the sweep is.
        sweep: its name.

    Returns:
        The trials as they are now.
    """
    taken = []
    for record in ledger.trials(sweep):
        if is_worth_another_try(record):
            # First, so that a driver that dies in between repeats it.
            ledger.add_event(
                sweep, REQUEUED, f"taken up again after: {record.error}", number=record.number, failure=record.failure
            )
            taken.append(ledger.update_trial(sweep, record.number, state=TrialState.QUEUED, finished=None))
    return taken
