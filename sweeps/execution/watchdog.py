"""Ends a process that makes no progress any more."""

import faulthandler
from pathlib import Path

HANG_FILE = "hang.txt"  # in a trial's folder: where the stacks go


class Watchdog:
    """Ends the process when nothing has been reported for too long; the stacks of all threads stay behind in `hang.txt`.

    A thread of the interpreter's own counts, which runs even while a call into a driver or a kernel holds Python's lock.
    """

    def __init__(self, folder: Path, *, seconds: float | None) -> None:
        """Start counting.

        Args:
            folder: of the trial; an earlier `hang.txt` in it is removed.
            seconds: how long to wait for a report; None: never end anything.
        """
        self._path = folder / HANG_FILE
        self._seconds = seconds
        self._path.unlink(missing_ok=True)
        # Opened ahead, because nothing can be opened any more when it is needed.
        self._file = None if seconds is None else self._path.open("w")
        self.restart()

    def restart(self) -> None:
        """Start counting again."""
        if self._file is not None and self._seconds is not None:
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=self._file)

    def pause(self) -> None:
        """Stop counting, while somebody else is waited for."""
        if self._file is not None:
            faulthandler.cancel_dump_traceback_later()

    def close(self) -> None:
        """Stop counting for good and remove the empty file."""
        if self._file is not None:
            faulthandler.cancel_dump_traceback_later()
            self._file.close()
            self._path.unlink(missing_ok=True)
