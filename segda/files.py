"""Files that are there completely or not at all, and only while their folder is ours."""

import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from segda.errors import ConfigError

log = logging.getLogger(__name__)

_PARTIAL = ".partial"  # ends the name of a file in the making
_GENERATION = re.compile(r"\.(?P<generation>\d+)-[0-9a-f]+\.partial$")


class _Claim(NamedTuple):
    folder: Path
    check: Callable[[], None]
    generation: int


_claim: ContextVar[_Claim | None] = ContextVar("claim", default=None)


@contextmanager
def claiming(folder: Path, check_claim: Callable[[], None], *, generation: int = 0) -> Iterator[None]:
    """Replace files in a folder only as long as it is ours, for a folder that another process may take over at any time.

    A process that was thought dead may have been suspended only, in the middle of whatever it did. When it goes on, nothing that
    its successor has written since may be lost. So the functions of this module ask right before each file takes its place. Who
    takes a folder over first sees to it that earlier claims do not hold any more, and then calls `remove_unfinished`: what was
    about to take its place is gone.

    Args:
        folder: the files are in it or below; those elsewhere are written as ever.
        check_claim: returns while the folder is ours and raises when it is not; the file that is there stays then.
        generation: grows with every process that takes the folder over.

    Yields:
        Nothing. What the thread replaces during the block is asked for.
    """
    token = _claim.set(_Claim(folder, check_claim, generation))
    try:
        yield
    finally:
        _claim.reset(token)


@contextmanager
def replacing(destination: Path, *, durable: bool = False) -> Iterator[Path]:
    """Give a temporary path in the same folder that takes the destination's place once the block has succeeded.

    Args:
        destination: file to write or replace; missing folders are made.
        durable: whether to return only when a loss of power cannot undo it. That takes as long as the disk needs to write the
            file: worth it for what something else will rely on, not for many files that can be made again.

    Yields:
        The path to write to. Nothing is left of it when the block fails or is interrupted.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    # Process numbers are not enough: threads share one, and containers on a shared folder all have a number 1.
    claim = _claim_on(destination)
    generation = 0 if claim is None else claim.generation
    partial = destination.with_name(f".{destination.name}.{generation}-{secrets.token_hex(4)}{_PARTIAL}")
    try:
        yield partial
        if durable:
            flush(partial)
        if claim is not None:
            claim.check()
        try:
            partial.replace(destination)
        except FileNotFoundError:
            if claim is not None:
                claim.check()  # whoever has taken the folder over has removed it
            raise
        if durable:
            # Some file systems cannot do this for a folder; they keep a name with its file.
            with suppress(OSError):
                flush(destination.parent)
    finally:
        partial.unlink(missing_ok=True)


def expanded(path: Path | str) -> Path:
    """Return a path whose leading `~` or `~user` is replaced by the home folder.

    Raises:
        ConfigError: it is not known.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path}: the home folder that ~ stands for is not known; write the path out") from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, 64 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_private_folder(folder: Path) -> None:
    """Make a folder that only its owner can look into; one that is there keeps its permissions."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def touch_private(path: Path, *, shared_as: Path) -> None:
    """Make an empty file that only its owner can read; one that is there keeps its permissions.

    Args:
        path: the file, in a folder that exists.
        shared_as: folder that decides: where its group may write, people share it, and the file is the group's as well.
    """
    mode = 0o660 if shared_as.stat().st_mode & stat.S_IWGRP else 0o600
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            os.fchmod(descriptor, mode)  # the process's mask would take the group's part away
        finally:
            os.close(descriptor)


@contextmanager
def locked(path: Path, *, waiting: str | None = None) -> Iterator[None]:
    """Hold an exclusive lock that the system releases even if this process is killed.

    Args:
        path: the lock's file, made if it is missing. It stays: whoever deletes one while another process opens it lets two in.
        waiting: what to log if another process holds it; unset: it is not waited for.

    Raises:
        BlockingIOError: another process holds it, and it is not waited for.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is None:
                raise
            log.info("%s", waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _claim_on(path: Path) -> _Claim | None:
    claim = _claim.get()
    return claim if claim is not None and path.is_relative_to(claim.folder) else None


def remove_unfinished(folder: Path) -> None:
    """Remove files in the making that processes left which were killed, or which have lost the folder without knowing it yet.

    Args:
        folder: it and the folders below are searched; nobody else may write there, unless it was claimed. Then what earlier
            generations were writing is removed.
    """
    claim = _claim_on(folder)
    for path in folder.rglob(f".*{_PARTIAL}"):
        match = _GENERATION.search(path.name)
        if claim is None or match is None or int(match["generation"]) < claim.generation:
            path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Return when a loss of power cannot undo any more what was written to a file, or renamed in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8, completely or not at all.

    It is on the disk then (`durable`): such files are small and few, and others compare them or go on from what they say.
    """
    with replacing(path, durable=True) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write plain data as indented JSON, completely or not at all; see `write_text`."""
    write_text(path, json.dumps(content, indent=2) + "\n")
