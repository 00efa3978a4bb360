"""Which attempt a trial's folder belongs to: the newest that began in it.

The folder says so itself, in the file `attempt`. A worker that was given up for dead may only have been suspended; when it goes on
it finds a larger number there, and stops before it replaces anything. If it had looked already, it finds that what it was about to
put in place is gone: its successor writes its number first, then removes files in the making, and only then reads what is there.
"""

import re
from pathlib import Path

from segda.errors import SegdaError
from segda.files import claiming, remove_unfinished, write_text

ATTEMPT = "attempt"  # file in a trial's folder, here and at a storage address


class StaleAttemptError(SegdaError):
    """Another worker has taken the trial over."""


def attempt_in(text: str) -> int:
    r"""Return the number of the newest attempt in a file `attempt`; 0 for none: no worker's attempt has that number.

    Example:
        >>> attempt_in("3\n"), attempt_in("3 after 1\n"), attempt_in("")
        (3, 3, 0)
    """
    return int((re.findall(r"\d+", text) or ["0"])[0])


def files_of_attempt(folder: Path) -> int:
    """Return the attempt whose files a trial's folder has: the newest, or an earlier one while that brings files from elsewhere.

    Args:
        folder: of the trial.

    Raises:
        OSError: the folder cannot be read.
    """
    return int((re.findall(r"\d+", _text_in(folder)) or ["0"])[-1])


def newest_attempt(folder: Path) -> int:
    """Return the attempt that a trial's folder belongs to; 0: none has begun there.

    Args:
        folder: of the trial.

    Raises:
        OSError: the folder cannot be read.
    """
    return attempt_in(_text_in(folder))


def _text_in(folder: Path) -> str:
    try:
        return (folder / ATTEMPT).read_text()
    except FileNotFoundError:
        return ""


def refuse_before(newest: int, *, attempt: int, where: str) -> None:
    """Let an attempt begin, unless a later one has begun.

    Args:
        newest: the newest attempt so far.
        attempt: the attempt that is about to begin.
        where: folder or address.

    Raises:
        StaleAttemptError: the newest one is later.
    """
    if newest > attempt:
        raise StaleAttemptError(
            f"attempt {attempt} begins after attempt {newest} began in {where}; if that is left over from a ledger that was "
            "deleted, delete it too"
        )


def check_beginning(folder: Path, *, attempt: int) -> None:
    """Return if an attempt may begin in a folder.

    Args:
        folder: of the trial.
        attempt: the attempt that is about to begin.

    Raises:
        StaleAttemptError: a later one has begun there.
    """
    refuse_before(newest_attempt(folder), attempt=attempt, where=str(folder))


def take_over(folder: Path, *, attempt: int, files_of: int | None = None) -> None:
    """Make a folder that of an attempt.

    Args:
        folder: of the trial.
        attempt: the attempt that begins.
        files_of: the attempt whose files are in it, if those that this one goes on from are still to be brought.

    Raises:
        StaleAttemptError: a later one has begun there.
    """
    text = f"{attempt}\n" if files_of is None else f"{attempt} after {files_of}\n"
    with claiming(folder, lambda: check_beginning(folder, attempt=attempt), generation=attempt):
        write_text(folder / ATTEMPT, text)
        remove_unfinished(folder)


def check_ours(folder: Path, *, attempt: int) -> None:
    """Return if a folder still belongs to an attempt.

    Args:
        folder: of the trial.
        attempt: the attempt that took it over.

    Raises:
        StaleAttemptError: it does not.
    """
    newest = newest_attempt(folder)
    if newest != attempt:
        raise StaleAttemptError(f"attempt {attempt} was replaced by a later one: {folder} belongs to attempt {newest}")
