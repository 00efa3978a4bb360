"""The log of a trial: two text files in its folder that grow line by line, for whoever looks on from any machine.

Nothing is decided by it, so nothing may depend on it: what cannot be written is lost, no digest is kept of it, and it is the only
file of a trial that is written into where it lies. An entry is one write, so a kill takes nothing of what was said before. When
`log.txt` is full it becomes `log.1.txt`, in place of the one before.

No metric that is made from target labels is in it. What C libraries and the further processes of a trial write to standard error
goes to Ray's logs alone: a pipe in between would lose the last words of a process that is killed.
"""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO, cast

from segda.masking import masked
from sweeps.execution.attempts import newest_attempt
from sweeps.execution.system_metrics import PREFIX
from sweeps.metrics import is_oracle

LOG, FULL_LOG = "log.txt", "log.1.txt"
LOG_FILES = (FULL_LOG, LOG)  # the older one first
MOST_BYTES = 1_000_000  # of each file
_MOST_CHARACTERS = 16_000  # of an entry
_LOCK_SECONDS = 1.0
_OURS = ("segda", "sweeps")  # loggers whose informative messages are kept too
_PER_CLASS = "/iou/"


class TrialLog:
    """The log of a trial, seen from the attempt that writes it. No method raises an `OSError`."""

    def __init__(self, folder: Path, *, attempt: int) -> None:
        """Begin where an earlier attempt ended.

        Args:
            folder: of the trial, which belongs to the attempt.
            attempt: its number, which every entry bears.
        """
        self._folder = folder
        self._attempt = attempt
        # A process that was forked, or something that prints while it is collected, must not wait for ever.
        self._lock = threading.RLock()
        self._file: int | None = None
        self._size = 0
        self._is_ours = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def say(self, text: str) -> None:
        """Add an entry.

        Args:
            text: one line or several, those after the first are indented; passwords are hidden, and of long texts the end is kept.
        """
        # What is cut off here, perhaps within a password, is not shown in any case.
        shown = masked(text[-4 * _MOST_CHARACTERS :].rstrip())
        if len(shown) > _MOST_CHARACTERS:
            shown = f"... {shown[-_MOST_CHARACTERS:]}"
        head = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} attempt {self._attempt}: "
        self._append((head + "\n    ".join(shown.splitlines()) + "\n").encode("utf-8", "replace"))

    def close(self) -> None:
        """Write nothing more."""
        self._is_ours = False
        self._let_go()

    def _append(self, entry: bytes) -> None:
        if not self._lock.acquire(timeout=_LOCK_SECONDS):
            return
        try:
            if self._is_ours and self._file is None:
                self._open()
            if self._is_ours and self._size + len(entry) > MOST_BYTES:
                self._put_aside()
            if self._is_ours and self._file is not None:
                self._write(entry)
        except OSError:
            self._let_go()  # the next entry may find room, or the folder again
        finally:
            self._lock.release()

    def _open(self) -> None:
        self._file = os.open(self._folder / LOG, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._size = os.fstat(self._file).st_size
        if self._size > 0 and os.pread(self._file, 1, self._size - 1) != b"\n":
            self._write(b"\n")  # after a line that was cut off

    def _write(self, entry: bytes) -> None:
        assert self._file is not None
        self._size += len(entry)
        if os.write(self._file, entry) < len(entry):
            self._let_go()  # there was no room for all of it

    def _put_aside(self) -> None:
        self._let_go()
        # A worker that was replaced puts no file of its successor aside.
        self._is_ours = newest_attempt(self._folder) == self._attempt
        if self._is_ours:
            (self._folder / LOG).replace(self._folder / FULL_LOG)
            self._open()

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                os.close(file)


@contextlib.contextmanager
def overheard(log: TrialLog) -> Iterator[None]:
    """Write down what this process logs through `logging` and prints during a block; both still go where they went.

    Args:
        log: where to.
    """
    with _heard_logging(log), _heard_stream("stdout", log), _heard_stream("stderr", log):
        yield


def report_text(step: int, steps: int, metrics: Mapping[str, float]) -> str:
    """Return a report as a line: without figures of the machine, of single classes, and those made from target labels.

    Args:
        step: training step.
        steps: of a full training.
        metrics: name -> value.

    Example:
        >>> report_text(20, 40, {"train/loss_seg": 1.25, "source/val/iou/Sky": 0.4, "oracle/target/miou": 0.3})
        'step 20 of 40: train/loss_seg 1.25'
    """
    shown = [
        f"{name} {value:.4g}"
        for name, value in metrics.items()
        if not is_oracle(name) and not name.startswith(PREFIX) and _PER_CLASS not in name
    ]
    return f"step {step} of {steps}: {', '.join(shown) or 'no metrics'}"


class _Handler(logging.Handler):
    def __init__(self, log: TrialLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._log.say(f"{record.levelname} {record.name}: {self.format(record)}")
        # A message of somebody else's code whose arguments do not fit it.
        except Exception:
            self.handleError(record)


@contextlib.contextmanager
def _heard_logging(log: TrialLog) -> Iterator[None]:
    root = logging.getLogger()
    added: list[logging.Handler] = [_Handler(log)]
    if not root.handlers:
        # Python prints warnings that no handler takes; now one does.
        usual = logging.StreamHandler(sys.stderr)
        usual.setLevel(logging.WARNING)
        added.append(usual)
    levels = {logger: logger.level for logger in map(logging.getLogger, _OURS)}
    for logger in levels:
        if logger.getEffectiveLevel() > logging.INFO:
            logger.setLevel(logging.INFO)
    for handler in added:
        root.addHandler(handler)
    try:
        yield
    finally:
        for handler in added:
            root.removeHandler(handler)
        for logger, level in levels.items():
            logger.setLevel(level)


@contextlib.contextmanager
def _heard_stream(name: str, log: TrialLog) -> Iterator[None]:
    before = getattr(sys, name)
    heard = _HeardStream(before, name, log)
    setattr(sys, name, cast(TextIO, heard))
    try:
        yield
    finally:
        heard.end()
        if getattr(sys, name) is heard:
            setattr(sys, name, before)


class _HeardStream:
    """A standard stream whose lines are written down too; of a line that is drawn anew and anew, the last state."""

    def __init__(self, stream: TextIO | None, name: str, log: TrialLog) -> None:
        self._stream = stream
        self._name = name
        self._log = log
        self._rest = ""

    def write(self, text: str) -> int:
        if self._stream is not None:
            self._stream.write(text)
        *lines, rest = (self._rest + text).split("\n")
        self._rest = rest.rpartition("\r")[2][-_MOST_CHARACTERS:]
        told = [line.rstrip("\r").rpartition("\r")[2] for line in lines]
        if any(line.strip() for line in told):
            self._log.say(f"{self._name}: " + "\n".join(told))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self._stream is not None:
            self._stream.flush()

    def end(self) -> None:
        """Write down what no line break has ended."""
        if self._rest.strip():
            self._log.say(f"{self._name}: {self._rest}")
        self._rest = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
