"""A folder at any address that fsspec knows, used with care: whole files only, and several tries."""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import fsspec
from fsspec.spec import AbstractFileSystem

from segda.errors import SegdaError
from segda.files import replacing
from segda.masking import masked, reason

log = logging.getLogger(__name__)

TRIES = 4
FIRST_PAUSE_SECONDS = 1.0
PARTIAL = ".partial"  # ends the name of a file in the making

# A put shows the whole object or nothing; elsewhere a file is written under another name and moved.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl"})
_Result = TypeVar("_Result")


class StorageError(SegdaError):
    """The storage address cannot be used, or did not answer in several tries."""


class RemoteFolder:
    """A folder at an fsspec address; every call is tried several times."""

    def __init__(self, address: str) -> None:
        self._address = address
        try:
            found: tuple[AbstractFileSystem, str] = fsspec.url_to_fs(address)
        except ImportError as error:
            raise StorageError(
                f"storage {masked(address)} needs a package that is not installed on {socket.gethostname()}: {reason(error)} "
                "(`pip install s3fs` for s3://, gcsfs for gs://, adlfs for abfs://); install it on every node"
            ) from error
        except Exception as error:
            raise StorageError(
                f"storage {masked(address)} cannot be opened: {reason(error)}; expected an fsspec address such as s3://bucket/path"
            ) from error
        self._system, self._root = found[0], found[1].rstrip("/")
        protocol = self._system.protocol
        self._puts_whole = not _OBJECT_STORES.isdisjoint({protocol} if isinstance(protocol, str) else protocol)

    def __str__(self) -> str:
        """Return the address, without a password."""
        return masked(self._address)

    def names(self) -> list[str]:
        """Return the names of the files in it."""

        def listed() -> list[dict[str, Any]]:
            self._system.invalidate_cache()
            found: list[dict[str, Any]] = self._system.ls(self._root, detail=True)
            return found

        try:
            return [PurePosixPath(item["name"]).name for item in self._try("list", listed) if item["type"] == "file"]
        except FileNotFoundError:
            return []

    def sizes(self) -> dict[str, int]:
        """Return the path below it -> bytes of each file in it and in the folders below."""

        def found() -> dict[str, dict[str, Any]]:
            self._system.invalidate_cache()
            whole: dict[str, dict[str, Any]] = self._system.find(self._root, detail=True)
            return whole

        try:
            listed = self._try("list", found)
        except FileNotFoundError:
            return {}
        return {path.removeprefix(f"{self._root}/"): int(item["size"] or 0) for path, item in sorted(listed.items())}

    def move(self, name: str, destination: "RemoteFolder") -> None:
        """Move a file to the same path below another folder of the same storage; it replaces one that is there."""
        place = destination._path(name)

        def moved() -> None:
            self._system.makedirs(place.rpartition("/")[0], exist_ok=True)
            self._system.mv(self._path(name), place)

        self._try("move from", moved)

    def clear(self) -> None:
        """Remove it with everything in it, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._try("remove", lambda: self._system.rm(self._root, recursive=True))

    def text(self, name: str) -> str:
        """Return a small file's text; empty if there is none."""
        try:
            return str(self._try("read", lambda: self._system.cat_file(self._path(name))).decode())
        except FileNotFoundError:
            return ""

    def read(self, name: str, destination: Path) -> Path:
        """Copy a file of it to a path, which it replaces when it is complete."""

        def get() -> None:
            with replacing(destination, durable=True) as temporary:
                self._system.get_file(self._path(name), str(temporary))

        self._try("read", get)
        return destination

    def send(self, path: Path, name: str) -> None:
        """Copy a file into it."""
        self._put(name, lambda place: self._system.put_file(str(path), place))

    def write(self, name: str, content: bytes) -> None:
        """Write a small file into it."""
        self._put(name, lambda place: self._system.pipe_file(place, content))

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._try("remove from", lambda: self._system.rm_file(self._path(name)))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _put(self, name: str, write: Callable[[str], None]) -> None:
        def whole() -> None:
            if self._puts_whole:
                write(self._path(name))
                return
            self._system.makedirs(self._root, exist_ok=True)
            partial = self._path(f"{name}.{socket.gethostname()}-{os.getpid()}{PARTIAL}")
            try:
                write(partial)
                self._system.mv(partial, self._path(name))
            except BaseException:
                with contextlib.suppress(Exception):
                    self._system.rm_file(partial)
                raise

        try:
            self._try("write to", whole)
        except FileNotFoundError as error:
            raise StorageError(f"cannot write to {self}: {reason(error)} does not exist; create it first") from error

    def _try(self, what: str, call: Callable[[], _Result]) -> _Result:
        """Call until it succeeds; what is missing or forbidden will not change by waiting."""
        number = 0
        while True:
            number += 1
            try:
                return call()
            except (FileNotFoundError, SegdaError):
                raise
            # Each kind of storage has errors of its own, and most of them pass.
            except Exception as error:
                if number == TRIES or isinstance(error, PermissionError):
                    raise StorageError(f"cannot {what} {self} (try {number}): {reason(error)}") from error
                log.info("%s: %s; trying again", self, reason(error))
                time.sleep(FIRST_PAUSE_SECONDS * 2 ** (number - 1))
