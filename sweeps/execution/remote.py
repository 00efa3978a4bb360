"""Trials at a storage address, for nodes that do not share a folder.

Any address that fsspec knows: `s3://bucket/path`, `gs://...`, `file:///...`. It mirrors the store: a trial's folder is
`<address>/<sweep>/trials/<number>-<key>`, and in it lie

    attempt                             number of the newest attempt
    checkpoint-<step>-<attempt>.pt      the last checkpoint
    metrics.jsonl, result.json, ...     the other files of the trial's folder

A file appears there complete or not at all, and a checkpoint last: whoever finds it finds what belongs to it. Checkpoints are
never written over, so a worker that was replaced cannot take anything from its successor.
"""

import logging
import os
import re
import socket
from pathlib import Path

from segda.files import write_text
from sweeps.execution.remote_folder import PARTIAL, RemoteFolder
from sweeps.execution.watchdog import HANG_FILE
from sweeps.store import Store
from sweeps.trial import TrialRecord

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
ATTEMPT = "attempt"
FETCHED = ".fetched"  # in the driver's copy of a trial's folder: the attempt whose files were fetched

_CHECKPOINTS = re.compile(r"checkpoint-(?P<step>\d+)-(?P<attempt>\d+)\.pt")


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
    """Bring a trial's files from the storage address into the store, for report, MLflow and audit.

    Costs two looks at the local disk if they are there already, because the trial's last attempt ran in this folder or because
    they were fetched before.

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
    fetched = folder / FETCHED
    known = _text(fetched).split()
    if _text(folder / ATTEMPT).strip() == str(record.attempt):
        return []
    has_files = known[:1] == [str(record.attempt)]
    if has_files and (not with_checkpoint or CHECKPOINT in known):
        return []
    remote = RemoteFolder(_mirror(storage, folder))
    names = remote.names()
    wanted = {} if has_files else {name: name for name in names if _is_plain(name)}
    last = _last_checkpoint(names)
    if with_checkpoint and last is not None:
        wanted[last] = CHECKPOINT
    paths = [remote.read(name, folder / local) for name, local in sorted(wanted.items())]
    write_text(fetched, " ".join([str(record.attempt), *([CHECKPOINT] if with_checkpoint else [])]) + "\n")
    return paths


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

    def begin(self, *, local_attempt: int) -> None:
        """Take the trial over, and get its checkpoint if this node's is not the newest.

        Args:
            local_attempt: the attempt that last worked in this node's folder; 0: none did.

        Raises:
            StorageError: the address did not answer.
        """
        self._remote.write(ATTEMPT, f"{self._attempt}\n".encode())
        names = self._remote.names()
        for name in names:
            if name.endswith(PARTIAL):  # of an attempt that died while it wrote
                self._remote.remove(name)
        last, local = _last_checkpoint(names), self._folder / CHECKPOINT
        # An attempt writes here before it writes there: this node has more if the same or a later one worked here.
        if last is not None and (not local.is_file() or _step_and_attempt(last)[1] > local_attempt):
            log.info("continues from %s", last)
            self._remote.read(last, local)
            self._sent[CHECKPOINT] = _signature(local)

    def is_ours(self) -> bool:
        """Return whether no later attempt has taken the trial over.

        Raises:
            StorageError: the address did not answer.
        """
        return self._remote.text(ATTEMPT).strip() in ("", str(self._attempt))

    def send(self, *, step: int | None = None) -> None:
        """Send what has changed in the trial's folder.

        Args:
            step: step of the checkpoint; None: leave the checkpoint out.

        Raises:
            StorageError: the address did not answer; every file there is whole, the old or the new one.
        """
        for path in sorted(self._folder.iterdir()):
            if _is_plain(path.name) and path.is_file():
                self._send(path, path.name)
        checkpoint = self._folder / CHECKPOINT
        if step is not None and checkpoint.is_file():
            name = f"checkpoint-{step:08d}-{self._attempt:04d}.pt"
            if self._send(checkpoint, name):
                ours = _step_and_attempt(name)
                for other in self._remote.names():
                    if _CHECKPOINTS.fullmatch(other) and _step_and_attempt(other) < ours:
                        self._remote.remove(other)

    def _send(self, path: Path, name: str) -> bool:
        signature = _signature(path)
        if self._sent.get(path.name) == signature:
            return False
        self._remote.send(path, name)
        self._sent[path.name] = signature
        return True


def _mirror(storage: str, folder: Path) -> str:
    """Return the address of a trial: its folder's place in the store, under the storage address."""
    return "/".join([storage.rstrip("/"), *folder.parts[-3:]])


def _is_plain(name: str) -> bool:
    """Tell whether a file is sent as it is: no checkpoint, fence, trace of this node alone, or file in the making."""
    return name not in (CHECKPOINT, ATTEMPT, HANG_FILE) and not (
        name.startswith(".") or name.endswith(PARTIAL) or _CHECKPOINTS.fullmatch(name)
    )


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
