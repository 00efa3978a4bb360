"""The report of a sweep while it runs: who has no MLflow looks at it in a browser."""

import logging
import threading
import time
from types import TracebackType
from typing import Self

from segda.masking import reason
from sweeps.execution import predictions
from sweeps.execution.coordinator import Listener
from sweeps.ledger.database import Ledger
from sweeps.reports import view
from sweeps.reports.renewal import LONGEST_SECONDS, RENEW_SECONDS
from sweeps.reports.sweep_report import write_view
from sweeps.reports.view import load_view
from sweeps.store import Store
from sweeps.trial import TrialRecord

log = logging.getLogger(__name__)

_REST = 20.0  # pause after a report, in multiples of the processor time that it took: the driver's own thread wants that, too
_PATIENCE_SECONDS = 60.0  # at the end, for a report that is being written
_WARNING = (view.logger, predictions.log)  # what a report lacks is told once, by the last one


class LiveReport:
    """Writes a sweep's report anew while it is driven, in a thread of its own; used as a context manager.

    The driver's thread only says that something has happened. The first report comes with the first trial, and the last is left to
    whoever knows how the sweep ended. One that cannot be written is tried again and ends nothing.
    """

    def __init__(self, ledger: Ledger, store: Store, sweep: str, *, seconds: float = RENEW_SECONDS) -> None:
        """Write nothing yet.

        Args:
            ledger: where the sweep is.
            store: where its report goes.
            sweep: its name.
            seconds: at least so many between two reports.
        """
        self._ledger, self._store, self._sweep = ledger, store, sweep
        self._seconds = seconds
        self._news, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="live-report", daemon=True)

    def hearing(self, listener: Listener | None) -> Listener:
        """Return a listener of a sweep that lets the report be renewed and hands on to another listener, if there is one."""

        def hear(kind: str, record: TrialRecord | None, message: str) -> None:
            if record is not None:
                self._news.set()
            if listener is not None:
                listener(kind, record, message)

        return hear

    def __enter__(self) -> Self:
        for logger in _WARNING:
            logger.addFilter(self._is_heard)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._news.set()
        self._thread.join(_PATIENCE_SECONDS)
        for logger in _WARNING:
            logger.removeFilter(self._is_heard)

    def _is_heard(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread.ident

    def _follow(self) -> None:
        self._news.wait()
        while not self._ended.is_set():
            self._news.clear()
            began = time.thread_time()
            self._write()
            if self._ended.wait(max(self._seconds, _REST * (time.thread_time() - began))):
                return
            self._news.wait(LONGEST_SECONDS)

    def _write(self) -> None:
        try:
            found = load_view(self._ledger, self._store, self._sweep)
            # A ledger or a storage address may have taken minutes: the last report is not to be replaced by an older one.
            if not self._ended.is_set():
                write_view(found, self._store)
        # Training goes on whatever becomes of its report, and the thread must live to try again.
        except Exception as error:
            log.debug("the report was not renewed: %s", reason(error))
