"""Places of the Ray that a driver starts: sockets need a short path, `/tmp/ray` may be somebody else's, there may be no home."""

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from segda.errors import ConfigError
from segda.files import locked

_PREFIX = "sweeps-ray-"
_LOCK = "driver"
_PLACES = ("/tmp", "/var/tmp", "/dev/shm")
_LONGEST_SOCKET = 107  # characters that Linux takes
_IN_FOLDER = len("/sweeps-ray-12345678/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store.10")


@contextlib.contextmanager
def ray_folder() -> Iterator[Path]:
    """Make a folder that only this user can read, and delete it at the end; also those whose drivers were killed.

    Raises:
        ConfigError: no place for it can be written and has a short path.
    """
    with contextlib.ExitStack() as stack:
        folder = _make()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        # As long as its driver lives, nobody else can lock it.
        stack.enter_context(locked(folder / _LOCK))
        # One without a lock belongs to a driver that is about to make it.
        for lock in folder.parent.glob(f"{_PREFIX}*/{_LOCK}"):
            with contextlib.suppress(OSError), locked(lock):
                shutil.rmtree(lock.parent, ignore_errors=True)
        yield folder


def ensure_token() -> None:
    """Give this process and its children a token of their own where the home folder, in which Ray keeps one, cannot be written."""
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        return
    try:
        folder = Path.home() / ".ray"
        folder.mkdir(parents=True, exist_ok=True)
        is_ours = os.access(folder, os.R_OK | os.W_OK | os.X_OK)
    except (OSError, RuntimeError):  # the latter: nobody knows where the home is
        is_ours = False
    if not is_ours:
        os.environ["RAY_AUTH_TOKEN"] = uuid.uuid4().hex  # as Ray makes them


def _make() -> Path:
    tried = []
    for place in dict.fromkeys((os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR"), *_PLACES)):
        if not place:
            continue
        if len(str(Path(place).absolute())) + _IN_FOLDER > _LONGEST_SOCKET:
            tried.append(f"{place} is too long")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place)).absolute()
        except OSError as error:
            tried.append(f"{place}: {error.strerror}")
    longest = _LONGEST_SOCKET - _IN_FOLDER
    raise ConfigError(
        f"Ray needs a folder that can be written, with a path of at most {longest} characters ({'; '.join(tried)}); name one "
        "in the variable RAY_TMPDIR"
    )
