"""Trials at a storage address, for nodes that do not share a folder.

Any address that fsspec knows: `s3://bucket/path`, `gs://...`, `file:///...`. It mirrors the store: a trial's folder is
`<address>/<sweep>/trials/<number>-<key>`, and in it lie

    attempt-<attempt>                   says that the attempt has begun; the highest is the newest
    checkpoint-<step>-<attempt>.pt      the last checkpoint
    <attempt>-round-...                 the pseudo-labels that it goes on with (`segda.rounds`)
    <attempt>-metrics.jsonl, ...        the other files of the trial's folder; of each the newest attempt's counts
    <attempt>-log.txt, ...              the trial's log up to the last report, that of earlier attempts included

A file appears there complete or not at all, and a checkpoint last: whoever finds it finds what belongs to it. Every name bears
the number of the attempt, and an attempt replaces and removes nothing of a later one, so a worker that was replaced cannot take
anything from its successor, whenever it goes on.
"""

import contextlib
import logging
import os
import re
import socket
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from segda.files import write_text
from segda.rounds import is_round_file
from sweeps.execution.attempts import ATTEMPT, StaleAttemptError, refuse_before
from sweeps.execution.remote_folder import PARTIAL, RemoteFolder, StorageError
from sweeps.execution.trial_log import LOG_FILES
from sweeps.execution.watchdog import HANG_FILE
from sweeps.store import Store
from sweeps.trial import TrialRecord

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
DAMAGED = "checkpoint.damaged.pt"  # a checkpoint that could not be read, put aside
FETCHED = ".fetched"  # in a copy of a trial's folder: the attempt whose files were fetched
_LOOKS = 3

_CHECKPOINTS = re.compile(r"checkpoint-(?P<step>\d+)-(?P<attempt>\d+)\.pt")
_BEGUN = re.compile(r"attempt-(?P<attempt>\d+)")
_OTHERS = re.compile(r"(?P<attempt>\d+)-(?P<name>.+)")


def check_storage(address: str) -> None:
    """Find out whether a storage address can be written to, before any trial depends on it.

    Args:
        address: any fsspec address.

    Raises:
        StorageError: it cannot; the message says why.
    """
    probe = RemoteFolder(address)
    name = f"probe-{socket.gethostname()}-{os.getpid()}"
    probe.write(name, b"sweeps\n")
    probe.remove(name)


def fetch(record: TrialRecord, *, store: Store, storage: str, with_checkpoint: bool = False) -> list[Path]:
    """Bring a trial's files from the storage address into the store, for whoever is about to read them there.

    That is: report and MLflow, and with the checkpoint the registry and another trial that takes the result over. Costs two looks
    at the local disk if they are there already, because the trial's last attempt ran in this folder or because they were fetched
    before.

    Args:
        record: a trial that nobody works on.
        store: where its folder is; made if need be.
        storage: the sweep's storage address.
        with_checkpoint: also its last checkpoint, which is large.

    Returns:
        The files that were written; none if nothing was missing, or if the address has nothing of the trial.

    Raises:
        StorageError: the address did not answer.
    """
    folder = store.trial(record)
    if has_own_files(record, store=store) or (record.attempt == 0 and record.reused is None):
        return []
    known = _text(folder / FETCHED).split()
    has_files = known[:1] == [str(record.attempt)]
    if has_files and (not with_checkpoint or CHECKPOINT in known):
        return []
    remote = RemoteFolder(_mirror(storage, folder))
    names = remote.names()
    wanted = {} if has_files else _newest_plain(names)
    last = _last_checkpoint(names)
    if with_checkpoint and last is not None:
        wanted[last] = CHECKPOINT
    paths = [remote.read(name, folder / local) for name, local in sorted(wanted.items())]
    if paths:
        has_checkpoint = CHECKPOINT in wanted.values()
        write_text(folder / FETCHED, " ".join([str(record.attempt), *([CHECKPOINT] if has_checkpoint else [])]) + "\n")
    return paths


def has_own_files(record: TrialRecord, *, store: Store) -> bool:
    """Tell whether a trial's files here are those of its last attempt, and not what an earlier one left on this node.

    Args:
        record: the trial.
        store: where its folder is.
    """
    return _text(store.trial(record) / ATTEMPT).strip() == str(record.attempt)


@contextmanager
def files_of(record: TrialRecord, *, store: Store, storage: str | None) -> Iterator[Path]:
    """Give a folder with a trial's files to read, its checkpoint included; the store stays as it is.

    Args:
        record: the trial; somebody may work on it.
        store: where its folder is.
        storage: the sweep's storage address, if it has one.

    Yields:
        The trial's own folder, or a temporary one with what the storage address has if the last attempt did not run here.

    Raises:
        StorageError: the address did not answer.
    """
    if storage is None or has_own_files(record, store=store):
        yield store.trial(record)
        return
    with tempfile.TemporaryDirectory(prefix="sweeps-files-") as temporary:
        copy = Store(Path(temporary))
        for _ in range(_LOOKS):
            # A worker may put a newer checkpoint in the place of the one that was listed.
            with contextlib.suppress(FileNotFoundError):
                fetch(record, store=copy, storage=storage, with_checkpoint=True)
                break
        yield copy.trial(record)


def keep(record: TrialRecord, *, store: Store, storage: str) -> None:
    """Send the files of a trial that was trained nowhere to the storage address, as a worker would have.

    Args:
        record: a trial that was taken over from another one.
        store: where its folder is, with all its files.
        storage: the sweep's storage address.

    Raises:
        StorageError: the address did not answer.
    """
    TrialStorage(storage, folder=store.trial(record), attempt=record.attempt).send(step=record.step)


def missing_at(storage: str, record: TrialRecord, *, store: Store, names: Collection[str]) -> list[str]:
    """Return which of a trial's files are not at the storage address.

    Args:
        storage: the sweep's storage address.
        record: the trial.
        store: decides the trial's place.
        names: of the files in its folder.

    Raises:
        StorageError: the address did not answer.
    """
    there = RemoteFolder(_mirror(storage, store.trial(record))).names()
    checkpoints = {CHECKPOINT} if _last_checkpoint(there) is not None else set()
    return sorted(set(names) - set(_newest_plain(there).values()) - checkpoints)


class TrialStorage:
    """What one attempt at a trial does at the storage address."""

    def __init__(self, storage: str, *, folder: Path, attempt: int) -> None:
        """Open the trial's place; nothing is read or written yet.

        Args:
            storage: the sweep's storage address.
            folder: the trial's folder on this node.
            attempt: number of the attempt.

        Raises:
            StorageError: there is no such kind of address.
        """
        self._remote = RemoteFolder(_mirror(storage, folder))
        self._folder = folder
        self._attempt = attempt
        self._sent: dict[str, tuple[int, int]] = {}
        self._read: str | None = None  # name of the checkpoint that this node's was copied from

    def begin(self, *, local_attempt: int) -> None:
        """Take the trial over, and get its checkpoint if this node's is not the newest.

        Args:
            local_attempt: the attempt that last worked in this node's folder; 0: none did.

        Raises:
            StaleAttemptError: a later attempt has begun there.
            StorageError: the address did not answer.
        """
        refuse_before(_newest_begun(self._remote.names()), attempt=self._attempt, where=str(self._remote))
        self._remote.write(f"attempt-{self._attempt:04d}", b"")
        names = self._remote.names()
        refuse_before(_newest_begun(names), attempt=self._attempt, where=str(self._remote))
        for name in names:
            begun = _BEGUN.match(name)
            # Half-made files are of attempts that died or have lost the trial, unless a later one begins just now.
            if int(begun["attempt"]) < self._attempt if begun is not None else name.endswith(PARTIAL):
                self._remote.remove(name)
        last, local = _last_checkpoint(names), self._folder / CHECKPOINT
        # An attempt writes here before it writes there: this node has more if the same or a later one worked here.
        if last is not None and (not local.is_file() or _step_and_attempt(last)[1] > local_attempt):
            self._get(last, names)
        self._bring_log(names, after=local_attempt)

    def _bring_log(self, names: list[str], *, after: int) -> None:
        """Go on with the log of an attempt that was made elsewhere since; without it, if it is not to be had."""
        found = {(int(match["attempt"]), match["name"]): name for name in names if (match := _OTHERS.fullmatch(name))}
        logs = {key: name for key, name in found.items() if key[1] in LOG_FILES}
        newest = max((attempt for attempt, _ in logs), default=0)
        if newest <= after:
            return
        with contextlib.suppress(StorageError, OSError):
            for local in LOG_FILES:
                if (newest, local) in logs:
                    self._remote.read(logs[newest, local], self._folder / local)
                else:
                    (self._folder / local).unlink(missing_ok=True)

    def replace_damaged(self) -> None:
        """Get the last checkpoint that can replace a damaged one; one that came from the address damaged is removed there.

        Raises:
            StorageError: the address did not answer.
        """
        if self._read is not None:
            self._remote.remove(self._read)
        names = self._remote.names()
        last = _last_checkpoint(names)
        if last is not None:
            self._get(last, names)

    def _get(self, name: str, names: list[str]) -> None:
        log.info("continues from %s", name)
        _, attempt = _step_and_attempt(name)
        for other in names:
            found = _OTHERS.fullmatch(other)
            if found is not None and is_round_file(found["name"]) and int(found["attempt"]) == attempt:
                self._remote.read(other, self._folder / found["name"])
        local = self._folder / CHECKPOINT
        self._remote.read(name, local)
        self._read, self._sent[CHECKPOINT] = name, _signature(local)

    def check_ours(self) -> None:
        """Return if no later attempt has taken the trial over.

        Raises:
            StaleAttemptError: one has.
            StorageError: the address did not answer.
        """
        newest = _newest_begun(self._remote.names())
        if newest not in (0, self._attempt):
            raise StaleAttemptError(
                f"attempt {self._attempt} was replaced by a later one: {self._remote} belongs to attempt {newest}"
            )

    def send(self, *, step: int | None = None) -> None:
        """Send what has changed in the trial's folder.

        Args:
            step: step of the checkpoint; None: leave the checkpoint out.

        Raises:
            StorageError: the address did not answer; every file there is whole, the old or the new one.
        """
        for path in sorted(self._folder.iterdir()):
            if _is_plain(path.name) and path.is_file():
                self._send(path, self._own(path.name))
        checkpoint = self._folder / CHECKPOINT
        if step is not None and checkpoint.is_file() and not self._is_sent(checkpoint):
            self._send_checkpoint(checkpoint, step)

    def _send_checkpoint(self, checkpoint: Path, step: int) -> None:
        rounds = sorted(path for path in self._folder.iterdir() if is_round_file(path.name))
        for path in rounds:
            self._send(path, self._own(path.name))
        last = f"checkpoint-{step:08d}-{self._attempt:04d}.pt"
        self._send(checkpoint, last)
        for other in self._remote.names():
            found = _OTHERS.fullmatch(other)
            if found is not None:
                is_replaced = int(found["attempt"]) < self._attempt and found["name"] in self._sent
                is_past = is_round_file(found["name"]) and int(found["attempt"]) <= self._attempt
                is_old = is_replaced or (is_past and other not in {self._own(path.name) for path in rounds})
            else:
                is_old = bool(_CHECKPOINTS.fullmatch(other)) and _step_and_attempt(other) < _step_and_attempt(last)
            if is_old:
                self._remote.remove(other)

    def _own(self, name: str) -> str:
        return f"{self._attempt:04d}-{name}"

    def _send(self, path: Path, name: str) -> None:
        if not self._is_sent(path):
            signature = _signature(path)
            self._remote.send(path, name)
            self._sent[path.name] = signature

    def _is_sent(self, path: Path) -> bool:
        return self._sent.get(path.name) == _signature(path)


def sweep_at(storage: str, name: str) -> RemoteFolder:
    """Return the folder of a sweep at a storage address.

    Args:
        storage: the sweep's storage address.
        name: the sweep.

    Raises:
        StorageError: there is no such kind of address.
    """
    return RemoteFolder(f"{storage.rstrip('/')}/{name}")


def needless_at(names: Collection[str], *, is_freed: bool) -> dict[str, str]:
    """Return which of a trial's files at a storage address nothing reads any more.

    Args:
        names: of all its files there; nobody works on the trial.
        is_freed: whether it needs no checkpoint any more, nor what would go on from one.

    Returns:
        Name -> `checkpoint`, `replaced` or `partial`.
    """
    newest = {*_newest_plain([*names]), _last_checkpoint([*names]), f"attempt-{_newest_begun([*names]):04d}"}
    found = {}
    for name in names:
        other = _OTHERS.fullmatch(name)
        if name.endswith(PARTIAL):
            found[name] = "partial"
        elif is_freed and (_CHECKPOINTS.fullmatch(name) or (other is not None and is_round_file(other["name"]))):
            found[name] = "checkpoint"
        elif name in newest or (other is not None and is_round_file(other["name"])):
            continue
        elif other is not None or _CHECKPOINTS.fullmatch(name) or _BEGUN.fullmatch(name):
            found[name] = "replaced"
    return found


def log_at(storage: str, record: TrialRecord, *, store: Store) -> str:
    """Return the log of a trial as a storage address has it; empty if there is none.

    Args:
        storage: the sweep's storage address.
        record: the trial; somebody may work on it.
        store: decides the trial's place.

    Raises:
        StorageError: the address did not answer.
    """
    remote = RemoteFolder(_mirror(storage, store.trial(record)))
    there = {name: at for at, name in _newest_plain(remote.names()).items()}
    return "".join(remote.text(there[name]) for name in LOG_FILES if name in there)


def _mirror(storage: str, folder: Path) -> str:
    """Return the address of a trial: its folder's place in the store, under the storage address."""
    return "/".join([storage.rstrip("/"), *folder.parts[-3:]])


def _is_plain(name: str) -> bool:
    """Tell whether a file is sent as it is: no checkpoint, map of a round, attempt number, trace of this node, half-made file."""
    is_checkpoint = name.startswith("checkpoint") and name.endswith(".pt")  # damaged ones included
    is_in_the_making = name.startswith(".") or name.endswith(PARTIAL)
    return not is_checkpoint and not is_round_file(name) and not is_in_the_making and name not in (ATTEMPT, HANG_FILE)


def _newest_plain(names: list[str]) -> dict[str, str]:
    """Return the files that are neither checkpoints nor maps as the newest attempt left them: name there -> name in a folder."""
    found = [(int(match["attempt"]), match["name"], name) for name in names if (match := _OTHERS.fullmatch(name))]
    newest = {name: there for _, name, there in sorted(found) if _is_plain(name)}
    return {there: name for name, there in newest.items()}


def _newest_begun(names: list[str]) -> int:
    return max((int(match["attempt"]) for name in names if (match := _BEGUN.fullmatch(name))), default=0)


def _step_and_attempt(name: str) -> tuple[int, int]:
    match = _CHECKPOINTS.fullmatch(name)
    assert match is not None
    return int(match["step"]), int(match["attempt"])


def _last_checkpoint(names: list[str]) -> str | None:
    return max((name for name in names if _CHECKPOINTS.fullmatch(name)), key=_step_and_attempt, default=None)


def _signature(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""
