"""How failed attempts that others follow are written down and counted."""

from collections import Counter
from collections.abc import Callable, Iterable

from sweeps.failures import FailureClass
from sweeps.ledger.records import RETRIED, Event

_CLASSES = {failure.value: failure for failure in FailureClass}


def retry_message(failure: FailureClass, *, worker: str | None, error: str) -> str:
    """Return the text of the event of a failed attempt, from which `retried_class` reads the class again.

    Args:
        failure: why it failed.
        worker: node and process that had the trial, if any took it.
        error: one line.

    Example:
        >>> retry_message(FailureClass.WORKER_LOST, worker="node1:7", error="killed")
        'worker_lost on node1:7: killed'
    """
    return f"{failure} on {worker or 'an unknown worker'}: {error}"


def retried_class(event: Event) -> FailureClass | None:
    """Return the class of the failed attempt that an event tells of; None: it tells of something else.

    Args:
        event: any event of a sweep.
    """
    return _CLASSES.get(event.message.partition(" ")[0]) if event.kind == RETRIED else None


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
        for event in events:
            failure = retried_class(event)
            if failure is None or event.number is None:
                continue
            if event.number not in since:
                since[event.number] = last_report(event.number)
            if event.timestamp > since[event.number]:
                self.add(event.number, failure)

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
