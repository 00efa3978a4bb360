"""The lease to drive a sweep: at most one process decides about a sweep, wherever the processes are.

It lies in the ledger, is renewed every few seconds, and names its holder. A holder that died on this machine is noticed at once.
Of one on another machine, or in another container, nothing but its renewals can be seen, and when it made them is by its own clock,
which may differ from ours or be set at any time. So whoever wants the lease watches it: what was not renewed while we looked on for
`LEASE_SECONDS`, by our own monotonic clock, is dead. A driver whose lease was taken, because it was suspended or did not reach the
ledger, changes nothing any more: the ledger refuses what it writes.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

import sqlalchemy as sa

from segda.errors import ConfigError
from sweeps.labels import ago
from sweeps.ledger.connection import survives_restart
from sweeps.ledger.database import Ledger
from sweeps.ledger.process import Process
from sweeps.ledger.queries import unknown_sweep
from sweeps.ledger.records import DELETE, SweepRecord, sweep_record
from sweeps.ledger.tables import SWEEP
from sweeps.suggestions import suggest

log = logging.getLogger(__name__)

RENEW_SECONDS = 3.0
LEASE_SECONDS = 60.0
_POLL_SECONDS = 0.5
_GAP_SECONDS = 3.0  # between two looks; after a longer one, whoever holds a lease may have been held up as well


class Watch:
    """How long a lease was looked at without a renewal, by this process's own monotonic clock."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self._claim: tuple[str | None, float | None] = (None, None)
        self._since = self._looked = time.monotonic()

    def silence(self, record: SweepRecord) -> float:
        """Return for how many seconds the lease in a record has not been renewed, as far as somebody looked.

        Args:
            record: the sweep as it was read just now. Who could not read it for a while, because this machine or the ledger's
                database was away, begins anew: the holder may have been as unable to renew.
        """
        now = time.monotonic()
        claim = _claim_of(record)
        if claim != self._claim or now - self._looked > _GAP_SECONDS:
            self._claim, self._since = claim, now
        self._looked = now
        return now - self._since


def _claim_of(record: SweepRecord) -> tuple[str | None, float | None]:
    """Return what changes with every renewal."""
    return record.driver, record.driver_seen


class Lease:
    """One process's claim to drive one sweep.

    Attributes:
        holder: this claim, as the ledger names it; see `sweeps.ledger.process.Process`.
        is_lost: whether another process took the lease, because this one did not renew it in time.
        stop_requested: whether somebody asked this driver to end.
        has_server: see `sweeps.ledger.database.Ledger`.
    """

    def __init__(self, ledger: Ledger, sweep: str, *, chore: tuple[str, ...] = ()) -> None:
        """Claim nothing yet.

        Args:
            ledger: where the sweep is.
            sweep: its name.
            chore: of `SweepInfo.pending`, what the holder has come to finish; empty: to drive the sweep, or for a command that
                leaves a whole sweep wherever it is ended.
        """
        self.holder = str(Process.this())
        self.is_lost = False
        self.stop_requested = False
        self.has_server = ledger.has_server
        self._ledger = ledger
        self._sweep = sweep
        self._chore = chore

    def check_free(self) -> None:
        """Find out early whether this process may drive the sweep; `held` decides.

        A holder that cannot be looked at from here, or was not heard of for a while by this clock, is watched: one that lives
        renews its lease within seconds, and from one that did not for `LEASE_SECONDS` the lease is taken.

        Raises:
            ConfigError: another process drives it, there is no such sweep, or a command that changes it as a whole was ended in
                the middle.
        """
        record = self._ledger.sweep(self._sweep)
        self._check_whole(record)
        if record.driver is None or record.driver == self.holder or is_free(record.driver):
            return
        holder = Process.parse(record.driver)
        if holder.is_visible and _is_recent(record.driver_seen):
            raise driven_elsewhere(self._sweep, record)
        log.warning(
            "sweep %s was run by process %d on %s, last heard of %s; watching for %.0f s whether it still is",
            *(self._sweep, holder.pid, holder.host, ago(time.time() - float(record.driver_seen or 0.0)), LEASE_SECONDS),
        )
        watch = Watch()
        while watch.silence(record) < LEASE_SECONDS:
            time.sleep(_POLL_SECONDS)
            before, record = record, self._ledger.sweep(self._sweep)
            if is_free(record.driver):
                return
            if _claim_of(record) != _claim_of(before):
                raise driven_elsewhere(self._sweep, record)
        self._take_from_dead(record)

    def _check_whole(self, record: SweepRecord) -> None:
        """Refuse a sweep that is half deleted or half renamed, unless that is what is to be finished."""
        pending = record.info.pending
        if pending in ((), self._chore) or not is_free(record.driver):
            return  # of one that another process has, that is told
        what = unfinished(record)
        raise ConfigError(
            f"sweep {self._sweep!r} is not whole, since {what} was ended in the middle; finish that first"
        )

    @survives_restart
    def _take_from_dead(self, record: SweepRecord) -> None:
        """Free the lease of a holder that did not renew it, unless it does so at the last moment."""
        is_same = sa.and_(
            SWEEP.c.name == self._sweep,
            SWEEP.c.driver == record.driver,
            SWEEP.c.driver_seen.is_not_distinct_from(record.driver_seen),
        )
        with self._ledger.writing() as connection:
            connection.execute(SWEEP.update().where(is_same).values(driver=None, driver_seen=None))

    @survives_restart
    def take(self) -> None:
        """Become the only driver of the sweep; nobody is waited for.

        Raises:
            ConfigError: another process has the lease, there is no such sweep, or it is not whole, see `check_free`.
        """
        with self._ledger.writing() as connection:
            query = sa.select(SWEEP).where(SWEEP.c.name == self._sweep).with_for_update()
            row = connection.execute(query).mappings().first()
            if row is None:
                raise unknown_sweep(connection, self._sweep)
            record = sweep_record(row)
            if record.driver != self.holder and not is_free(record.driver):
                raise driven_elsewhere(self._sweep, record)
            self._check_whole(record)
            connection.execute(
                SWEEP.update()
                .where(SWEEP.c.name == self._sweep)
                .values(driver=self.holder, driver_seen=time.time(), stop_requested=None)
            )

    @contextlib.contextmanager
    def held(self, seconds: Callable[[], float]) -> Iterator[None]:
        """Take the lease, renew it from a thread while the block runs, and release it.

        A thread, because a driver may be busy for minutes: it measures architectures, or decodes data. What this process writes
        about the sweep meanwhile is refused by the ledger if another process has taken the lease; after a loss that remains so.

        Args:
            seconds: returns the wall-clock time that the sweep has taken over all its drivers; kept in its record.

        Raises:
            ConfigError: another process drives the sweep, or there is no such sweep.
        """
        self.check_free()
        self.take()
        self._ledger.holders[self._sweep] = self.holder
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(RENEW_SECONDS):
                try:
                    self._renew(seconds())
                except sa.exc.SQLAlchemyError as error:
                    log.warning("the lease of sweep %s could not be renewed: %s", self._sweep, error)

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._renew(seconds())
            if not self.is_lost:
                self.release()
                del self._ledger.holders[self._sweep]

    @survives_restart
    def _renew(self, seconds: float) -> None:
        with self._ledger.writing() as connection:
            query = sa.select(SWEEP.c.driver, SWEEP.c.stop_requested).where(SWEEP.c.name == self._sweep)
            row = connection.execute(query.with_for_update()).first()
            if row is None or row.driver != self.holder:
                self.is_lost = True
                return
            self.stop_requested = row.stop_requested is not None
            connection.execute(
                SWEEP.update().where(SWEEP.c.name == self._sweep).values(driver_seen=time.time(), seconds=seconds)
            )

    @survives_restart
    def release(self) -> None:
        """Let others drive the sweep; nothing happens if another process has the lease already."""
        with self._ledger.writing() as connection:
            is_ours = sa.and_(SWEEP.c.name == self._sweep, SWEEP.c.driver == self.holder)
            connection.execute(SWEEP.update().where(is_ours).values(driver=None, driver_seen=None))


def driven_elsewhere(sweep: str, record: SweepRecord) -> ConfigError:
    """Return the error for a sweep that another process drives, which says which one and how to end it."""
    holder = Process.parse(str(record.driver))
    seen = ago(time.time() - float(record.driver_seen or 0.0))
    return ConfigError(
        f"sweep {sweep!r} is being run by process {holder.pid} on {holder.host}, last seen {seen}; wait for it or stop it with "
        f"{suggest('stop', sweep)} (one that died on another machine is given up after {LEASE_SECONDS:.0f} s)"
    )


def unfinished(record: SweepRecord) -> str | None:
    """Return the command that changes a sweep as a whole and has not come to its end, as it stands in a sentence; None without.

    Args:
        record: the sweep.
    """
    pending = record.info.pending
    if not pending:
        return None
    return suggest("delete", record.name) if pending[0] == DELETE else suggest("rename", record.name, pending[1])


def is_free(driver: str | None) -> bool:
    """Return whether nobody has a lease for certain: no process, or one that has ended in sight of this one.

    Args:
        driver: `SweepRecord.driver`.
    """
    if driver is None:
        return True
    holder = Process.parse(driver)
    return holder.is_visible and not holder.is_running


def is_alive(driver: str | None, seen: float | None) -> bool:
    """Return whether a sweep's driver lives, as far as one look can tell.

    Out of sight that depends on the clocks of two machines: a driver whose clock is an hour ahead or behind looks dead. `is_driven`
    knows better, and takes longer where it must.

    Args:
        driver: `SweepRecord.driver`.
        seen: `SweepRecord.driver_seen`.
    """
    if driver is None or is_free(driver):
        return False
    return Process.parse(driver).is_visible or _is_recent(seen)


def is_driven(ledger: Ledger, sweep: str) -> bool:
    """Return whether a process drives a sweep; one that looks dead is watched for as long as it takes to renew its lease.

    Args:
        ledger: where the sweep is.
        sweep: its name.

    Raises:
        ConfigError: there is no such sweep.
    """
    watch = Watch()
    first = record = ledger.sweep(sweep)
    while not is_free(record.driver):
        if is_alive(record.driver, record.driver_seen) or _claim_of(record) != _claim_of(first):
            return True
        if watch.silence(record) >= 3 * RENEW_SECONDS:
            return False
        time.sleep(_POLL_SECONDS)
        record = ledger.sweep(sweep)
    return False


def _is_recent(seen: float | None) -> bool:
    return seen is not None and abs(time.time() - seen) <= LEASE_SECONDS
