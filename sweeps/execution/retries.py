"""How failed attempts that others follow are written down and counted."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from sweeps.failures import FailureClass
from sweeps.ledger.records import RETRIED, Event


def retries(events: Iterable[Event]) -> Iterator[tuple[int, FailureClass, float]]:
    """Yield the failed attempts that others followed: trial, class of the failure, seconds since 1970.

    Args:
        events: what happened to a sweep.
    """
    for event in events:
        if event.kind == RETRIED and event.number is not None and event.failure is not None:
            yield event.number, event.failure, event.timestamp


class FailuresInARow:
    """Failed attempts of each trial since its last new report, class by class: a policy bounds its own class alone."""

    def __init__(self, events: Iterable[Event], *, last_report: Callable[[int], float]) -> None:
        """Count those of earlier drivers.

        Args:
            events: what happened to the sweep.
            last_report: returns the time of a trial's last report, seconds since 1970, or 0; asked once per trial that failed.
        """
        self._counts: dict[int, Counter[FailureClass]] = {}
        since: dict[int, float] = {}
        for number, failure, timestamp in retries(events):
            if number not in since:
                since[number] = last_report(number)
            if timestamp > since[number]:
                self.add(number, failure)

    def add(self, number: int, failure: FailureClass) -> int:
        """Count a failed attempt, and return how many of its class the trial has had in a row.

        Args:
            number: the trial.
            failure: why the attempt failed.
        """
        counts = self._counts.setdefault(number, Counter())
        counts[failure] += 1
        return counts[failure]

    def clear(self, number: int) -> None:
        """Forget a trial's failures, since it has made progress."""
        self._counts.pop(number, None)
