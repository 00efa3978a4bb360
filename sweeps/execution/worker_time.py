"""How long workers have had trials, and how long they have been silent."""

from collections.abc import Callable

from sweeps.trial import TrialRecord


class WorkerTime:
    """Adds the time since a worker was heard to what its trial's record has."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin with no worker heard.

        Args:
            clock: seconds from any beginning.
        """
        self._clock = clock
        self._heard: dict[int, float] = {}  # trial -> when its worker last said something that is in the record

    def hear(self, number: int) -> None:
        """Take note of a message; what was before it is in the trial's record now."""
        self._heard[number] = self._clock()

    def forget(self, number: int) -> None:
        """Take note that a trial has no worker any more."""
        self._heard.pop(number, None)

    def silence(self, record: TrialRecord) -> float:
        """Return the seconds since a trial's worker last said something; 0 as long as it has none."""
        heard = self._heard.get(record.number)
        return 0.0 if heard is None else self._clock() - heard

    def seconds(self, record: TrialRecord) -> float:
        """Return how long workers have had a trial, the present attempt included."""
        return record.seconds + self.silence(record)
