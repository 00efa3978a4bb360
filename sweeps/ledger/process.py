"""Which process holds a lease: told apart from every other one, also from a later process that got the same number."""

import functools
import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Process:
    """A process, as others find it in the ledger.

    Attributes:
        host: name of its machine or container, for people.
        pid: its number.
        place: where that number means this process and no other: one start of one machine, and in it one container.
        start: when it began, see `start_of`.
        token: differs for every claim that one process makes.
    """

    host: str
    pid: int
    place: str
    start: str
    token: str

    @classmethod
    def this(cls) -> "Process":
        """Return this process, under a new token."""
        pid = os.getpid()
        return cls(socket.gethostname(), pid, _place(), start_of(pid) or "", uuid.uuid4().hex[:8])

    @classmethod
    def parse(cls, text: str) -> "Process":
        """Return the process that a text names, see `__str__`."""
        host, pid, identity = text.rsplit(":", 2)
        place, _, rest = identity.partition("/")
        start, _, token = rest.partition("/")
        return cls(host, int(pid), place, start, token)

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.place}/{self.start}/{self.token}"

    @property
    def is_visible(self) -> bool:
        """Whether it can be looked at from here; of a process elsewhere nobody here knows whether it lives."""
        # A restarted container has the same host name and counts its processes from 1 again, in another place.
        return (self.host, self.place) == (socket.gethostname(), _place())

    @property
    def is_running(self) -> bool:
        """Whether it lives; only if it is visible."""
        return start_of(self.pid) == self.start


@functools.cache
def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}.{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:  # no Linux: there are no containers, and the machine is as old as its start
        return f"{psutil.boot_time():.0f}"


def start_of(pid: int) -> str | None:
    """Return when a process began, the same for all who ask on its machine.

    Args:
        pid: its number.

    Returns:
        On Linux clock ticks since the machine's start, which do not change when somebody sets its clock; elsewhere seconds since
        1970. None if no such process lives; one that has ended and was not fetched by its parent does not.
    """
    try:
        if psutil.LINUX:
            # The name, in brackets, may hold anything.
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return None if words[0] in ("Z", "X") else words[19]
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except (OSError, psutil.Error):
        return None
