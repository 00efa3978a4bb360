"""What a sweep does while nothing works and no trial is to blame: data, a disk, a storage address, nodes or devices are away.

    working   two trials failed so and nobody reported between, or one as often as it may  ->  waiting
    waiting   the interval is over: one trial is handed out to find out                    ->  probing
    probing   it fails so too                                                              ->  waiting, twice as long
    waiting, probing   any trial reports or ends                                           ->  working
    waiting, probing   the limit is over, and nobody trains                                ->  over

Whatever runs goes on meanwhile, and may be what ends the outage. Trials that fail in it are queued, and it does not count.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from sweeps.failures import POLICIES, FailureClass
from sweeps.labels import duration
from sweeps.ledger.records import OUTAGE, OUTAGE_OVER

FIRST_SECONDS = 5.0  # until the first probe
LONGEST_SECONDS = 300.0  # between two probes, at most
_PROBES = 6  # that the limit has room for at least


@dataclass(frozen=True)
class Failed:
    """An attempt that failed through no fault of its configuration.

    Attributes:
        number: the trial.
        failure: class of the failure.
        error: one line.
        worker: node and process; empty where there was none.
    """

    number: int
    failure: FailureClass
    error: str
    worker: str = ""

    def __str__(self) -> str:
        where = f" on {self.worker}" if self.worker else ""
        return f"trial {self.number}{where}, {self.failure.label}: {self.error}"


class Outage:
    """Finds out from failures and reports whether anything works; says when a trial may be handed out.

    Attributes:
        num_reports: how often anybody has reported or ended; what a failure is held against.
    """

    def __init__(
        self,
        *,
        limit_seconds: float,
        say: Callable[[str, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with everything at work.

        Args:
            limit_seconds: how long to go on without any success.
            say: is told what is waited for, and that it is over: one line and a kind of event.
            clock: seconds from any beginning.
        """
        self.num_reports = 0
        self._limit = limit_seconds
        self._say = say
        self._clock = clock
        self._longest = min(LONGEST_SECONDS, limit_seconds / _PROBES)
        self._failures: Counter[int] = Counter()  # trial -> failures since anybody reported
        self._last: Failed | None = None
        self._since: float | None = None  # when the outage began; None: there is none
        self._interval = 0.0
        self._next = 0.0  # when the next probe may be handed out
        self._probe: int | None = None  # the trial that is out

    @property
    def is_on(self) -> bool:
        """Whether nothing works, as far as is known."""
        return self._since is not None

    @property
    def may_hand_out(self) -> bool:
        """Whether a trial may be handed out now; in an outage one at a time."""
        return not self.is_on or (self._probe is None and self._clock() >= self._next)

    def failures(self, number: int) -> int:
        """Return how often a trial has failed since anybody reported."""
        return self._failures[number]

    def failed(self, failed: Failed, *, in_vain: bool) -> None:
        """Take note of a failure.

        Args:
            failed: what failed.
            in_vain: whether its trial has failed as often as it may, and nobody else has shown that it is alone with that.
        """
        self._failures[failed.number] += 1
        self._last = failed
        if self.is_on:
            if self._probe == failed.number:
                self._wait(min(2 * self._interval, self._longest))
                self._say(f"nothing works yet after {self._lasted()}: {failed}; {self._plan()}", OUTAGE)
        elif in_vain or len(self._failures) > 1:
            self._since = self._clock()
            self._wait(min(FIRST_SECONDS, self._longest))
            self._say(
                f"nothing works now, last {failed}; what runs goes on, {self._plan()}, and after {duration(self._limit)} without "
                f"success the sweep ends to be resumed; {POLICIES[failed.failure].remedy}",
                OUTAGE,
            )

    def handed_out(self, number: int) -> None:
        """Take note of a trial that was handed out; in an outage it is the probe."""
        if self.is_on:
            self._probe = number

    def reported(self, number: int) -> None:
        """Take note of a trial that has reported something new, or was trained to its end."""
        self.num_reports += 1
        self._failures.clear()
        if self.is_on:
            self._say(f"trial {number} works again after {self._lasted()}; the others follow", OUTAGE_OVER)
            self._since = self._probe = None

    def ended(self, number: int) -> None:
        """Take note of a trial that ended for a reason of its own: as a probe it has said nothing."""
        if self._probe == number:
            self._wait(0.0)

    def verdict(self, *, anybody_trains: bool) -> str | None:
        """Return why the sweep must end, as one line, or None.

        Args:
            anybody_trains: whether any worker has a trial: it may succeed, and its watchdog ends it if it does not.
        """
        if self._since is None or self._last is None or anybody_trains or self._clock() < self._since + self._limit:
            return None
        return f"nothing has worked for {self._lasted()}, last {self._last}; {POLICIES[self._last.failure].remedy}"

    def _wait(self, seconds: float) -> None:
        self._probe = None
        self._interval = seconds or self._interval
        self._next = self._clock() + seconds

    def _plan(self) -> str:
        return f"one trial is tried in {duration(self._interval)}"

    def _lasted(self) -> str:
        return duration(0.0 if self._since is None else self._clock() - self._since)
