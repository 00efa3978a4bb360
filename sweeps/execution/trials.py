"""A sweep's trials as its driver knows them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from sweeps.trial import TrialRecord, TrialState


class Trials:
    """The newest record of each trial.

    What is asked for with every message takes no longer when many trials have ended.

    Attributes:
        records: the trials by number, a view.
        finished_seconds: how long workers have had the trials that have ended, summed by the device that had each last.
    """

    def __init__(self, records: Iterable[TrialRecord]) -> None:
        """Begin with what the ledger has.

        Args:
            records: all trials of the sweep.
        """
        self._records: dict[int, TrialRecord] = {}
        self._open: set[int] = set()
        self.records: Mapping[int, TrialRecord] = MappingProxyType(self._records)
        self.finished_seconds: defaultdict[str | None, float] = defaultdict(float)
        for record in records:
            self.put(record)

    def put(self, record: TrialRecord) -> TrialRecord:
        """Replace what was known of a trial, or add a new one; return it."""
        if not record.state.is_finished:
            self._open.add(record.number)
        elif record.number in self._open or record.number not in self._records:
            self._open.discard(record.number)
            self.finished_seconds[record.device] += record.seconds
        self._records[record.number] = record
        return record

    def __getitem__(self, number: int) -> TrialRecord:
        return self._records[number]

    @property
    def in_order(self) -> list[TrialRecord]:
        """All trials, ordered by number."""
        return [self._records[number] for number in sorted(self._records)]

    @property
    def unfinished(self) -> list[TrialRecord]:
        """Trials that have not ended, ordered by number."""
        return [self._records[number] for number in sorted(self._open)]

    @property
    def running(self) -> list[TrialRecord]:
        """Trials that a worker has, or waits to have, ordered by number."""
        return [record for record in self.unfinished if record.state is TrialState.RUNNING]

    @property
    def queued(self) -> list[TrialRecord]:
        """Trials that wait to be continued, ordered by number."""
        return [record for record in self.unfinished if record.state is TrialState.QUEUED]
