"""Digests of the files that a training leaves, by which an audit finds every later change and loss.

Left out is what is no result: traces of attempts, logs, files in the making, and the maps of rounds that a training goes on from.
"""

from collections.abc import Iterator
from pathlib import Path

from segda.files import sha256_of
from segda.rounds import is_round_file
from sweeps.execution.attempts import ATTEMPT
from sweeps.execution.remote import DAMAGED
from sweeps.execution.remote_folder import PARTIAL
from sweeps.execution.trial_log import LOG_FILES
from sweeps.execution.watchdog import HANG_FILE

_LENGTH = 32  # hexadecimal digits


def digests_of(folder: Path) -> dict[str, str]:
    """Return name -> digest of the results in a trial's folder.

    Args:
        folder: of the trial, on which nobody works.
    """
    return {path.name: file_digest(path) for path in sorted(_results(folder))}


def file_digest(path: Path) -> str:
    """Return the digest of a file's content, 32 hexadecimal digits.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be read.
    """
    return sha256_of(path)[:_LENGTH]


def _results(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        is_trace = path.name in (ATTEMPT, HANG_FILE, DAMAGED, *LOG_FILES) or path.name.startswith(".")
        if path.is_file() and not is_trace and not path.name.endswith(PARTIAL) and not is_round_file(path.name):
            yield path
