"""Brings MLflow up to date with the ledger, in a thread of its own, and goes on after an outage."""

import logging
import threading
import time
from urllib.parse import urlsplit

from mlflow import MlflowClient

from segda.masking import masked, reason
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import is_driven
from sweeps.store import Store
from sweeps.suggestions import remembered
from sweeps.tracking.database import file_identity
from sweeps.tracking.limits import Refusals
from sweeps.tracking.projection import Projection
from sweeps.tracking.runs import locate
from sweeps.tracking.saved_views import view_keys, view_path
from sweeps.tracking.server import (
    FAILURES,
    TrackingError,
    check_port,
    default_uri,
    not_usable,
    open_client,
)

log = logging.getLogger(__name__)

PERIOD_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 5.0  # between two tries to reach an MLflow that is gone
SUMMARY_SECONDS = 300.0  # between two updates of what the sweep's run shows of a running sweep
_REST = 20.0  # pause after a pass, in multiples of the processor time that it took


class Tracker:
    """Keeps the MLflow runs of one sweep up to date.

    Attributes:
        uri: where MLflow is.
        last_error: why the last try did not succeed; None when MLflow has everything.
    """

    def __init__(
        self, uri: str | None, *, experiment: str | None, ledger: Ledger, spec: SweepSpec, store: Store
    ) -> None:
        """Connect nothing yet.

        Args:
            uri: MLflow's tracking URI: http(s) server, PostgreSQL or SQLite; unset: a SQLite file in the store.
            experiment: name of the MLflow experiment; unset: the sweep's name.
            ledger: what is projected.
            spec: the sweep.
            store: where the trials' files are.
        """
        self.uri = uri or default_uri(store)
        self.last_error: str | None = None
        # A server has its own place; for a database that is written to directly MLflow would take the present folder.
        is_server = urlsplit(self.uri).scheme in ("http", "https")
        self._artifacts = None if is_server else store.mlartifacts.as_uri()
        self._experiment = experiment or spec.name
        self._link = ""  # to the sweep's view, behind the server's address
        self._refusals = Refusals()
        self._ledger = ledger
        self._spec = spec
        self._store = store
        self._client: MlflowClient | None = None
        self._file: tuple[int, int] | None = None  # which SQLite file the client has open
        self._projection: Projection | None = None  # None: MLflow is looked at before anything is sent
        self._summary_tried = time.monotonic()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    # Life

    def connect(self) -> None:
        """Reach MLflow, and find or make the sweep's runs.

        Raises:
            TrackingError: it cannot be reached within a few seconds or refuses the experiment.
        """
        try:
            self._locate()
        except FAILURES as error:
            self.last_error = reason(error)
            raise not_usable(self.uri, error) from error

    def start(self, *, required: bool = True) -> None:
        """Connect, then follow the ledger in a background thread until `stop`.

        Args:
            required: whether MLflow must be there now. A new sweep may have a wrong address; one that goes on has results to
                add to, and MLflow gets them when it is there again.

        Raises:
            TrackingError: see `connect`; only if it is required.
        """
        try:
            self.connect()
        except TrackingError:
            if required:
                raise
            log.warning(
                "MLflow at %s cannot be reached (%s); the sweep goes on, and MLflow gets everything when it is back",
                masked(self.uri),
                self.last_error,
            )
        self._thread = threading.Thread(target=self._follow, name="mlflow-tracker", daemon=True)
        self._thread.start()

    def stop(self, *, timeout: float = 60.0) -> bool:
        """Send what is left and end the runs.

        Args:
            timeout: seconds to try for.

        Returns:
            Whether MLflow has everything; if not, `last_error` says why and `sweeps sync` sends the rest later.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                self.last_error = self.last_error or f"MLflow did not answer within {timeout:.0f} s"
                return False
        return self.last_error is None

    @property
    def where(self) -> str:
        """How to look at the runs: the link to the sweep's view at a server, or the command that serves its database."""
        if urlsplit(self.uri).scheme in ("http", "https"):
            return f"{masked(self.uri).rstrip('/')}/{self._link}"
        return remembered().command("ui", self._spec.name)

    @property
    def refused(self) -> dict[str, str]:
        """What MLflow refuses for good and goes without -> what it said."""
        return dict(self._refusals.reasons)

    def send(self, *, final: bool, again: bool = True) -> None:
        """Send everything from the beginning, for a command that waits for it.

        Args:
            final: see `sync`.
            again: whether to repair, and to send also what MLflow had before.

        Raises:
            TrackingError: something could not be sent.
        """
        try:
            projection = self._locate(repair=again)
            if again:
                projection.forget()
            self.sync(final=final)
        except FAILURES as error:
            raise TrackingError(
                f"MLflow at {masked(self.uri)} did not take everything: {reason(error)}; try again later"
            ) from error

    def _follow(self) -> None:
        pause = PERIOD_SECONDS
        while not self._stopping.wait(pause):
            began = time.thread_time()
            if self._try_sync():
                # Reading a large sweep takes time that the driver's own thread wants.
                pause = min(max(PERIOD_SECONDS, _REST * (time.thread_time() - began)), LONGEST_PAUSE_SECONDS)
            else:
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        self._try_sync(at_end=True)

    def _try_sync(self, *, at_end: bool = False) -> bool:
        try:
            # A driver that was refused because another one is at work must not end that one's runs.
            self.sync(final=at_end and not self._is_driven())
        # Training goes on whatever MLflow or the network do, and the thread must live to try again.
        except Exception as error:
            self.last_error = reason(error)
            log.debug("MLflow is not up to date: %s", self.last_error)
            return False
        self.last_error = None
        return True

    # The projection

    def sync(self, *, final: bool = False) -> None:
        """Send everything that the ledger has and MLflow has not.

        Args:
            final: whether no driver works on the sweep any more: then no run stays RUNNING, and the checkpoint of the picked
                trial is sent and registered if the sweep asks for it.

        Raises:
            MlflowException: a call failed; what was sent before stays. The next call looks first at what MLflow has.
        """
        if self._projection is not None and file_identity(self.uri) != self._file:
            # Somebody deleted or replaced it; what is written to the old one is lost.
            self._client = self._projection = None
        projection = self._projection or self._locate()
        is_summary_due = time.monotonic() - self._summary_tried > SUMMARY_SECONDS
        if is_summary_due:
            self._summary_tried = time.monotonic()
        try:
            projection.send(final=final, with_summary=is_summary_due)
        except BaseException:
            # What the failed call did to MLflow is not known.
            self._projection = None
            raise

    def _locate(self, *, repair: bool = False) -> Projection:
        if self._client is None:
            self._client = open_client(self.uri, store=self._store)
        else:
            check_port(self.uri)
        runs = locate(
            self._client,
            experiment=self._experiment,
            artifacts=self._artifacts,
            ledger=self._ledger,
            spec=self._spec,
            refusals=self._refusals,
            repair=repair,
        )
        self._link = view_path(runs.experiment.experiment_id, view_keys(self._ledger.sweep(self._spec.name))[0])
        self._file = file_identity(self.uri)
        projection = Projection(self._client, runs, ledger=self._ledger, spec=self._spec, store=self._store)
        projection.show(self._ledger.trials(self._spec.name))
        self._projection = projection
        return projection

    def _is_driven(self) -> bool:
        return is_driven(self._ledger, self._spec.name)
