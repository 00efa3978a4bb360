"""What ends a driver through no fault of its sweep: its ledger or its disk is away, and the sweep can be resumed."""

import contextlib
from collections.abc import Iterator

import sqlalchemy as sa

from segda.errors import SegdaError
from segda.file_errors import disk_failure_in
from segda.masking import reason

_LONGEST = 300  # characters of somebody else's message


class CutShortError(SegdaError):
    """A driver cannot go on now; the sweep can, later."""


class LedgerGoneError(CutShortError):
    """The ledger's database went away while a sweep was driven."""


class DiskFailedError(CutShortError):
    """A disk that the driver writes to is full, read-only or broken."""


@contextlib.contextmanager
def cut_short_told(how: str, *, why: str | None = None) -> Iterator[None]:
    """Raise what the machines did to the driver in the block as one line that says how to go on.

    Args:
        how: what to do when that is mended, e.g. "go on with `sweeps resume demo`".
        why: what had ended the sweep before, if anything did; it is told first.

    Raises:
        LedgerGoneError: the ledger's database went away.
        DiskFailedError: a disk is full, read-only or broken. Whatever lies there is whole: files take their place when they are
            complete, and so do the ledger's transactions.
    """
    try:
        yield
    except CutShortError:
        raise
    except Exception as error:
        before = "" if why is None else f"{why}; besides, "
        of_disk = disk_failure_in(error)
        if of_disk is not None:
            raise DiskFailedError(
                f"{before}a disk failed ({of_disk[:_LONGEST]}); see that it has room and can be written, and {how}"
            ) from error
        if isinstance(error, sa.exc.OperationalError):
            raise LedgerGoneError(
                f"{before}the ledger's database went away ({reason(error.orig or error)}); when it is back, {how}"
            ) from error
        raise
