"""The lease to drive a sweep: at most one process decides about a sweep, wherever the processes are.

It lies in the ledger, is renewed every few seconds, and names its holder. A holder that died on this machine is noticed at once;
one on another machine, or in another container, loses the lease when it was not renewed for `LEASE_SECONDS`. A driver whose lease
was taken, because it was suspended or did not reach the ledger, changes nothing any more: the ledger refuses what it writes.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

import sqlalchemy as sa

from segda.errors import ConfigError
from sweeps.ledger.connection import survives_restart
from sweeps.ledger.database import Ledger, unknown_sweep
from sweeps.ledger.process import Process
from sweeps.ledger.tables import SWEEP

log = logging.getLogger(__name__)

RENEW_SECONDS = 3.0
LEASE_SECONDS = 60.0  # clocks of the machines that drive sweeps must agree to well within this
_POLL_SECONDS = 0.5


class Lease:
    """One process's claim to drive one sweep.

    Attributes:
        holder: this claim, as the ledger names it; see `sweeps.ledger.process.Process`.
        is_lost: whether another process took the lease, because this one did not renew it in time.
        stop_requested: whether somebody asked this driver to end.
        has_server: see `sweeps.ledger.database.Ledger`.
    """

    def __init__(self, ledger: Ledger, sweep: str) -> None:
        """Claim nothing yet.

        Args:
            ledger: where the sweep is.
            sweep: its name.
        """
        self.holder = str(Process.this())
        self.is_lost = False
        self.stop_requested = False
        self.has_server = ledger.has_server
        self._ledger = ledger
        self._sweep = sweep

    def check_free(self) -> None:
        """Find out early whether this process may drive the sweep; `held` decides.

        The lease of a driver that cannot be looked at from here is waited for, up to `LEASE_SECONDS`: one that lives renews it
        within seconds, and one that died with its container or node is replaced without anybody's help.

        Raises:
            ConfigError: another process drives it, or there is no such sweep.
        """
        first = record = self._ledger.sweep(self._sweep)
        deadline = time.monotonic() + LEASE_SECONDS
        while (
            record.driver is not None and record.driver != self.holder and is_alive(record.driver, record.driver_seen)
        ):
            holder, seen = Process.parse(record.driver), float(record.driver_seen or 0.0)
            is_renewed = (record.driver, record.driver_seen) != (first.driver, first.driver_seen)
            if is_renewed or holder.is_visible or time.monotonic() > deadline:
                raise _driven_elsewhere(self._sweep, holder, seen)
            if record is first:
                log.warning(
                    "sweep %s was being run by process %d on %s %.0f s ago; waiting up to %.0f s to see whether that is still so",
                    *(self._sweep, holder.pid, holder.host, time.time() - seen, LEASE_SECONDS),
                )
            time.sleep(_POLL_SECONDS)
            record = self._ledger.sweep(self._sweep)

    @survives_restart
    def take(self) -> None:
        """Become the only driver of the sweep.

        Raises:
            ConfigError: another process is, or there is no such sweep.
        """
        with self._ledger.writing() as connection:
            query = sa.select(SWEEP.c.driver, SWEEP.c.driver_seen).where(SWEEP.c.name == self._sweep)
            row = connection.execute(query.with_for_update()).first()
            if row is None:
                raise unknown_sweep(connection, self._sweep)
            if row.driver != self.holder and is_alive(row.driver, row.driver_seen):
                raise _driven_elsewhere(self._sweep, Process.parse(row.driver), row.driver_seen)
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


def _driven_elsewhere(sweep: str, holder: Process, seen: float) -> ConfigError:
    return ConfigError(
        f"sweep {sweep!r} is being run by process {holder.pid} on {holder.host}, last seen {time.time() - seen:.0f} s ago; wait "
        f"for it or stop it with `sweeps stop {sweep}` (one that died on another machine is given up after {LEASE_SECONDS:.0f} s)"
    )


def is_alive(driver: str | None, seen: float | None) -> bool:
    """Return whether a sweep's driver lives, as far as can be told from here.

    Args:
        driver: `SweepRecord.driver`.
        seen: `SweepRecord.driver_seen`.
    """
    if driver is None or seen is None or time.time() - seen > LEASE_SECONDS:
        return False
    holder = Process.parse(driver)
    return not holder.is_visible or holder.is_running
