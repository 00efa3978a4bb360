"""How the ledger reaches its database: addresses, file systems that SQLite cannot trust, and servers that restart."""

import functools
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil
import sqlalchemy as sa

from segda.config_problems import shortened
from segda.errors import ConfigError
from segda.masking import masked, reason
from sweeps.suggestions import suggest

log = logging.getLogger(__name__)

RECONNECT_SECONDS = 120.0
# A checkpoint that found no room is removed again, and so are Ray's temporary files: a full disk may have room a moment later.
FULL_SECONDS = 20.0
_PAUSE_SECONDS = 0.5
_LONGEST_ADDRESS = 200  # characters of one that messages repeat
# Their locks are not reliable, and SQLite loses data without locks (https://www.sqlite.org/faq.html, question 5).
_NETWORK_FILE_SYSTEMS = frozenset(
    {
        *("nfs", "nfs3", "nfs4", "cifs", "smbfs", "smb2", "smb3", "afs", "ncpfs", "9p", "virtiofs"),
        *("lustre", "beegfs", "gpfs", "wekafs", "panfs", "pvfs2", "orangefs", "ceph", "glusterfs", "moosefs", "davfs"),
    }
)
# Programs that show a network's storage as a folder; FUSE's own name says nothing, local disks come that way too (`fuseblk`, ...).
_FUSE_OVER_NETWORK = frozenset(
    {
        *(
            "sshfs",
            "davfs",
            "davfs2",
            "curlftpfs",
            "rclone",
            "nfs",
            "smbnetfs",
            "gvfsd-fuse",
            "vmhgfs-fuse",
            "grpcfuse",
        ),
        *("s3fs", "mount-s3", "goofys", "geesefs", "gcsfuse", "blobfuse", "blobfuse2", "ossfs", "cosfs", "obsfs"),
        *(
            "glusterfs",
            "ceph",
            "ceph-fuse",
            "cephfs-fuse",
            "juicefs",
            "seaweedfs",
            "weed",
            "alluxio-fuse",
            "moosefs",
            "mfs",
        ),
        *("lizardfs", "beegfs", "dfuse", "hdfs", "fuse_dfs", "cvmfs2", "quobyte", "xtreemfs"),
    }
)

Method = TypeVar("Method", bound=Callable[..., Any])


def database_url(address: str) -> sa.URL:
    """Return the address of a database in its parts.

    Raises:
        ConfigError: its password has an unquoted @: the rest of it would be taken for the host, and be shown as such.
        sqlalchemy.exc.ArgumentError: it is no address.
    """
    url = sa.make_url(address)
    if url.host is not None and "@" in url.host:
        raise ConfigError(f"{masked(address)} has an @ in its password; write %40 there")
    return url


def file_system_of(path: Path) -> str:
    """Return the type of the file system that a path lies on, e.g. `ext4` or `nfs4`; empty if it cannot be told.

    Args:
        path: need not exist yet.
    """
    place = os.path.realpath(path)
    best = ("", "")
    for partition in psutil.disk_partitions(all=True):
        mount = partition.mountpoint
        inside = place == mount or place.startswith(mount.rstrip("/") + "/")
        # The last of equals: a later mount hides an earlier one.
        if inside and len(mount) >= len(best[0]):
            best = (mount, partition.fstype)
    return best[1]


def check_file_system(path: Path) -> None:
    """Refuse a SQLite file on a network file system.

    Args:
        path: the file, which need not exist yet.

    Raises:
        ConfigError: it lies on such a file system.
    """
    kind = file_system_of(path)
    if _is_network(kind):
        raise ConfigError(
            f"the ledger {path} would lie on a network file system ({kind}), where SQLite loses data; keep the store on a local "
            "disk of the driver's machine, or name a PostgreSQL database with --ledger"
        )


def _is_network(kind: str) -> bool:
    """Return whether a type of file system is one of a network; FUSE's are `fuse.PROGRAM`, or the program's name alone."""
    name = kind.lower()
    return name in _NETWORK_FILE_SYSTEMS or name.removeprefix("fuse.") in _FUSE_OVER_NETWORK


def survives_restart(method: Method) -> Method:
    """Let a method of the ledger try again while a server is away, for up to `RECONNECT_SECONDS`, or a disk full, `FULL_SECONDS`.

    The method must do no harm when its transaction was committed and only the answer was lost.
    """

    @functools.wraps(method)
    def patient(self: Any, *arguments: Any, **options: Any) -> Any:
        deadline: float | None = None
        while True:
            try:
                return method(self, *arguments, **options)
            except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
                now = time.monotonic()
                patience = RECONNECT_SECONDS if self.has_server else FULL_SECONDS if _is_full(error) else 0.0
                if deadline is None:
                    deadline = now + patience
                    if patience:
                        log.warning("the ledger's database does not answer (%s); trying again", _line(error))
                if not patience or now > deadline:
                    raise
                time.sleep(_PAUSE_SECONDS)

    return patient  # type: ignore[return-value]


def _is_full(error: sa.exc.DBAPIError) -> bool:
    return getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _line(error: sa.exc.DBAPIError) -> str:
    return reason(error.orig or error)


def address(location: Path | str) -> tuple[sa.URL, str]:
    """Return where a ledger is, and the same for people, without a password.

    Raises:
        ConfigError: it can lie nowhere, or something else than a file is there.
    """
    is_url = isinstance(location, str) and "://" in location
    try:
        url = database_url(str(location)) if is_url else sa.URL.create("sqlite", database=str(location))
        is_sqlite = url.get_backend_name() == "sqlite"
        str(location).encode()  # a name that is no text reaches no database
    except ConfigError:
        raise
    except (ValueError, sa.exc.ArgumentError) as error:
        raise ConfigError("what is given for the ledger is no address; name a file or a database") from error
    shown = shortened(masked(str(location)), longest=_LONGEST_ADDRESS)
    if is_sqlite and url.database in (None, "", ":memory:"):
        raise ConfigError(f"the ledger {shown} would be gone with its process; name a file or a database")
    if is_sqlite and not _may_be_file(Path(str(url.database))):
        raise ConfigError(f"cannot open the ledger {shown}: no file can be there; name another file or database")
    return url, shown


def _may_be_file(path: Path) -> bool:
    """Return whether a path is that of a file or of nothing yet; whoever opens a pipe waits for its other end."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False


def no_ledger(shown: str) -> ConfigError:
    """Return the error for a ledger that is not there.

    Args:
        shown: its place, for people.
    """
    return ConfigError(
        f"there is no ledger at {shown}; start a sweep with {suggest('run', 'FILE')} or name its --store"
    )
