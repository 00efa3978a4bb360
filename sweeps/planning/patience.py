"""How long a sweep waits for an idle machine, and what it says meanwhile."""

import time
from collections.abc import Callable
from typing import TypeVar

from segda.efficiency import STEADY_SECONDS
from sweeps.file.spec import SweepSpec
from sweeps.metrics import TIMED

_PAUSE_SECONDS = 2.0
_Result = TypeVar("_Result")


class Patience:
    """Time to spend on measuring again what was disturbed, all measurements together.

    Attributes:
        min_seconds: how long each measurement takes at least; as long as a figure needs that something is decided by, or 0.
        left: seconds of it.
    """

    def __init__(
        self,
        minutes: float,
        *,
        say: Callable[[str], None] = lambda line: None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Have all of it.

        Args:
            minutes: how much; 0: whatever comes is kept, and soon.
            say: is told what is waited for and why.
            sleep: waits for seconds.
            clock: returns seconds.
        """
        self.min_seconds = STEADY_SECONDS if minutes > 0 else 0.0
        self.left = 60 * minutes
        self._say = say
        self._sleep = sleep
        self._clock = clock

    @classmethod
    def of(cls, spec: SweepSpec, *, say: Callable[[str], None]) -> "Patience":
        """Return that of a start of a sweep: what its file says where it decides something by latency, else none.

        Args:
            spec: the sweep.
            say: is told what is waited for and why.
        """
        decisive = {*(item.metric for item in spec.objectives), *(item.metric for item in spec.constraints)}
        return cls(spec.resources.idle_wait_minutes if decisive & TIMED else 0, say=say)

    def undisturbed(
        self,
        measure: Callable[[], _Result],
        *,
        doubts: Callable[[_Result], tuple[str, ...]],
        look: Callable[[], tuple[str, ...]],
        what: str,
    ) -> _Result:
        """Measure, and again when the machine is idle as long as something speaks against the result and there is time.

        Args:
            measure: measures.
            doubts: returns what speaks against a result.
            look: returns what would disturb a measurement now.
            what: is measured, for people.

        Returns:
            The last result; there may be doubts about it.
        """
        result = measure()
        found = doubts(result)
        if found and self.left > 0:
            self._say(f"waits up to {self.left:.0f} s for an idle machine to measure {what}: {'; '.join(found)}")
        while found and self.left > 0:
            began = self._clock()
            self._sleep(min(_PAUSE_SECONDS, self.left))
            if not look():
                result = measure()
                found = doubts(result)
            self.left -= self._clock() - began
        return result
