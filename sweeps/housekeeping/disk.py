"""Files that are taken away: what they take up, and their end."""

import contextlib
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from segda.errors import ConfigError
from segda.files import locked
from sweeps.reports.deployed import LOCK
from sweeps.store import Store


def files_below(folder: Path) -> list[Path]:
    """Return all files of a folder and of those in it, sorted; none if there is no such folder."""
    found = (Path(parent) / name for parent, _, names in os.walk(folder) for name in names)
    return sorted(found)


def freed_bytes(files: Iterable[Path]) -> int:
    """Return what the disk has more once files are gone; one that is in other folders too (hard links) keeps its place.

    Args:
        files: those that go.
    """
    links: dict[tuple[int, int], list[os.stat_result]] = defaultdict(list)
    for path in files:
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            links[status.st_dev, status.st_ino].append(status)
    return sum(found[0].st_size for found in links.values() if found[0].st_nlink <= len(found))


def remove_folder(folder: Path) -> None:
    """Remove a folder with everything in it, if it is there; one that is a link elsewhere loses its content there too.

    Raises:
        ConfigError: something of it cannot be removed; the rest of what was not reached is still there.
    """
    try:
        if folder.is_symlink():
            shutil.rmtree(folder.resolve())
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be removed ({error}); see to it, and the same command goes on") from error


@contextlib.contextmanager
def no_deployment(store: Store, name: str) -> Iterator[None]:
    """Keep `sweeps deploy` away from a sweep's files for a block.

    Args:
        store: where they are.
        name: the sweep.

    Raises:
        ConfigError: it is at work.
    """
    lock = store.deployment(name) / LOCK
    if not lock.is_file():
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(lock))
        except BlockingIOError:
            raise ConfigError(f"another process deploys {name!r} now; wait until it has ended") from None
        yield
