"""Reading the log of a trial, from any machine that sees its folder or the sweep's storage address, also while it grows."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile

from segda.errors import ConfigError
from segda.masking import masked
from sweeps.execution.remote import has_own_files, log_at
from sweeps.execution.trial_log import LOG_FILES
from sweeps.ledger.database import Ledger
from sweeps.reports.status import DriverStatus
from sweeps.store import Store
from sweeps.suggestions import suggest
from sweeps.trial import TrialRecord, TrialState

_EVERY_SECONDS = 1.0
_EVERY_SECONDS_AT_STORAGE = 10.0
_ANCHOR = 4000  # characters by which the end of what was shown is found again


@dataclass(frozen=True)
class LogText:
    """A log as it is now.

    Attributes:
        text: whole lines; empty if there is none yet.
        origin: where it was read if that is not the trial's folder, for people; empty otherwise.
    """

    text: str
    origin: str = ""


def read_log(record: TrialRecord, *, store: Store, storage: str | None) -> LogText:
    """Read the log of a trial.

    Args:
        record: the trial; somebody may work on it.
        store: where its folder is.
        storage: the sweep's storage address, if it has one. It counts where the last attempt did not run in this store, and has the
            log up to the last report.

    Raises:
        StorageError: the address did not answer.
    """
    if storage is not None and not has_own_files(record, store=store):
        text = log_at(storage, record, store=store)
        return LogText(_whole_lines(text), f"{masked(storage)}, which has it up to the last report")
    parts = []
    for name in LOG_FILES:
        path = store.trial(record) / name
        try:
            parts.append(path.read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    return LogText(_whole_lines("".join(parts)))


def why_no_log(record: TrialRecord, *, store: Store) -> str:
    """Return why a trial has no log, and what to do, in one line.

    Args:
        record: the trial.
        store: where its folder is.
    """
    which = f"trial {record.number} of {record.sweep!r} has no log"
    if record.reused is not None:
        sweep, _, number = record.reused.rpartition("/")
        return f"{which}: its result was taken from trial {number} of {sweep!r}; see {suggest('logs', sweep, number)}"
    if record.state is TrialState.INFEASIBLE:
        return f"{which}: it was never trained ({record.error})"
    if record.attempt == 0 or (not record.state.is_finished and not record.worker):
        return f"{which} yet: no worker has begun with it; -f waits for one"
    if not record.state.is_finished:
        return (
            f"{which} in {store.trial(record)} yet, and runs on {record.worker}; if that folder is not where the sweep's files "
            "are, name the right one with --store"
        )
    return (
        f"{which} in {store.trial(record)}: it was trained on {record.worker or 'another machine'}, or by a version that wrote "
        "none; name the folder that has the sweep's files with --store"
    )


def followed(
    ledger: Ledger,
    store: Store,
    name: str,
    number: int,
    *,
    note: Callable[[str], None],
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """Yield the log of a trial as it grows, through new attempts, until the trial or its sweep has ended.

    Args:
        ledger: where the trial is.
        store: where its folder is.
        name: its sweep.
        number: the trial.
        note: is told what is not of the log, one line each.
        pause: waits for so many seconds.

    Yields:
        What is new, whole lines.

    Raises:
        ConfigError: there is no such sweep or trial.
        StorageError: the sweep's storage address did not answer.
    """
    shown, told = "", set[str]()

    def tell(line: str) -> None:
        if line not in told:
            told.add(line)
            note(line)

    while True:
        # Before the log, which has all of a trial's last words when the ledger has its end.
        sweep, record = ledger.sweep(name), ledger.trial(name, number)
        has_ended = record.state.is_finished or DriverStatus(record=sweep).has_ended
        found = read_log(record, store=store, storage=sweep.spec.get("storage"))
        if found.origin:
            tell(f"read from {found.origin}")
        new = _after(shown, found.text)
        if new:
            shown = found.text
            yield new
        elif not shown:
            tell(why_no_log(record, store=store))
        if has_ended:
            if not record.state.is_finished:
                tell(f"the sweep has ended before the trial did; {suggest('resume', name)} goes on with it")
            return
        pause(_EVERY_SECONDS_AT_STORAGE if found.origin else _EVERY_SECONDS)


def _after(shown: str, text: str) -> str:
    """Return what a log has after what was shown of it; files may have been put aside, or come from another node, in between."""
    if text.startswith(shown):
        return text[len(shown) :]
    if shown.startswith(text):
        return ""
    end = shown[-_ANCHOR:]
    place = text.rfind(end)
    if place >= 0:
        return text[place + len(end) :]
    # A worker that was killed on another node had not sent all that was seen of it here.
    lines, known = text.splitlines(keepends=True), shown.splitlines()
    alike = takewhile(lambda pair: pair[0].rstrip("\n") == pair[1], zip(lines, known, strict=False))
    return "".join(lines[len(list(alike)) :])


def _whole_lines(text: str) -> str:
    return text[: text.rfind("\n") + 1]
