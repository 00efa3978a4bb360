"""How the processes of one data-parallel training keep in step and learn of each other's end, seen from each of them.

Rank 0 holds a pipe to every peer. A line in it tells the peer to go on after a report; the end of the pipe, which comes even when
rank 0 is killed, ends it. The other way, rank 0 watches the peers: one that ends early has the group's operations aborted, and
what it died of is raised.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from segda import errors
from segda.device_errors import is_out_of_memory
from segda.errors import ProcessLostError, SegdaError
from segda.file_errors import is_file_error
from segda.files import write_json

# The ranks wait for each other inside a step only, not while rank 0 scores: longer than this, one hangs.
SILENCE = timedelta(minutes=10)
_WATCH_EVERY = 0.2  # seconds
_LAST_WORDS = 3.0  # seconds that a peer whose connection is lost gets to end
_GO, _END = "go", "end"


class Team:
    """The processes of a training, seen from one of them.

    Attributes:
        rank: number of this process; 0 reports, scores and writes files.
        size: number of processes.
        device: what this process computes on.
    """

    def __init__(self, *, rank: int, size: int, device: torch.device) -> None:
        """Keep what this process is among the others."""
        self.rank = rank
        self.size = size
        self.device = device

    def start_together(self) -> None:
        """Return when rank 0 calls it too, however long that takes; it is called before every stretch of steps."""

    def check(self) -> None:
        """Raise what a peer died of, if one did: what was computed with it since is not to be kept."""


class First(Team):
    """Rank 0 and its pipes to the other ranks."""

    def __init__(self, device: torch.device, peers: Sequence[subprocess.Popen[bytes]], place: Path) -> None:
        """Keep the peers.

        Args:
            device: what rank 0 computes on.
            peers: processes of the ranks from 1, with a pipe to each one's standard input.
            place: folder in which the ranks meet.
        """
        super().__init__(rank=0, size=len(peers) + 1, device=device)
        self._peers = peers
        self._place = place

    def start_together(self) -> None:
        """Tell the peers to go on; see `Team`."""
        self.check()
        self._tell(_GO)

    def check(self) -> None:
        """Raise `ProcessLostError`, or what a peer told of, if one ended; see `Team`."""
        if any(peer.poll() is not None for peer in self._peers):
            raise self.failure() or ProcessLostError("a process of the training ended")

    def wait_until_ready(self) -> None:
        """Wait for the peers to be about to join: joining itself would not notice that one is gone."""
        deadline = time.monotonic() + SILENCE.total_seconds()
        while not all(_ready(self._place, rank).exists() for rank in range(1, self.size)):
            self.check()
            if time.monotonic() > deadline:
                raise ProcessLostError(f"the processes of the training were not ready after {SILENCE}")
            time.sleep(0.02)

    @contextlib.contextmanager
    def watching(self, group: dist.ProcessGroup) -> Iterator[None]:
        """Abort the group's operations when a peer ends, since a GPU would wait in them forever, and raise what it died of."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(_WATCH_EVERY):
                if any(peer.poll() is not None for peer in self._peers):
                    group.abort()
                    return

        watcher = threading.Thread(target=watch, name="segda-watch", daemon=True)
        watcher.start()
        try:
            yield
        except Exception:
            # Of two threads that ask whether a process has ended at the same time, one is told that it has not.
            over.set()
            watcher.join()
            # What rank 0 read out of an aborted operation may be anything, and so may be what it raised over that.
            self.check()
            raise
        finally:
            over.set()
            watcher.join()

    def failure(self) -> SegdaError | OSError | None:
        """Return the first cause of the peers' deaths, if any died: what one told, before what a signal or a lost peer did."""
        deadline = time.monotonic() + _LAST_WORDS
        while time.monotonic() < deadline and all(peer.poll() is None for peer in self._peers):
            time.sleep(0.02)
        lost = None
        for rank, peer in enumerate(self._peers, start=1):
            told = _failure(self._place, rank)
            if told.exists():
                content = json.loads(told.read_text())
                kind = getattr(errors, content["error"], None)
                if kind is not None:
                    return kind(content["message"])  # type: ignore[no-any-return]
                found = f"rank {rank} of {self.size} failed: {content['message']}"
                if content["errno"] is not None:
                    return OSError(content["errno"], found)  # of the subclass that the number stands for
                lost = lost or ProcessLostError(found)
            elif peer.poll() is not None:
                code = peer.returncode
                end = f"was ended by signal {-code}" if code < 0 else f"exited with {code}"
                lost = ProcessLostError(f"rank {rank} of {self.size} {end}; start again to go on from the checkpoint")
        return lost

    def dismiss(self) -> None:
        """Tell the peers that all is done."""
        with contextlib.suppress(BrokenPipeError):
            self._tell(_END)

    def end(self, *, patience: float) -> None:
        """Close the pipes, which ends the peers, and see that they are gone."""
        for peer in self._peers:
            assert peer.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                peer.stdin.close()
        for peer in self._peers:
            try:
                peer.wait(patience)
            except subprocess.TimeoutExpired:
                peer.kill()
                peer.wait()

    def _tell(self, order: str) -> None:
        for peer in self._peers:
            assert peer.stdin is not None
            peer.stdin.write(f"{order}\n".encode())
            peer.stdin.flush()


class Peer(Team):
    """A further rank and its pipe from rank 0."""

    def __init__(self, *, rank: int, size: int, device: torch.device) -> None:
        """Listen to rank 0 from now on; the process ends at once when it is gone."""
        super().__init__(rank=rank, size=size, device=device)
        self._orders: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name="segda-listen", daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            self._orders.put(line.strip())
        os._exit(1)

    def start_together(self) -> None:
        """Wait for rank 0's word; see `Team`."""
        assert self._orders.get() == _GO

    def wait_for_end(self) -> None:
        """Wait until rank 0 has scored and reported the last step."""
        assert self._orders.get() == _END


def tell_ready(place: Path, rank: int) -> None:
    """Say that a rank is about to join."""
    _ready(place, rank).touch()


def tell_failure(place: Path, rank: int, error: Exception) -> None:
    """Leave for rank 0 what a rank dies of.

    Errors of this library arrive as what they are, and so do files that cannot be read or written: who runs the training treats a
    full disk in another way than a lost process. Whatever else a rank dies of may follow from the loss of another one.
    """
    kind = "OutOfMemoryError" if is_out_of_memory(error) else type(error).__name__
    message = str(error) if isinstance(error, SegdaError) else f"{type(error).__name__}: {error}"
    number = error.errno if isinstance(error, OSError) and is_file_error(error) else None
    write_json(_failure(place, rank), {"error": kind, "message": message, "errno": number})


def _ready(place: Path, rank: int) -> Path:
    return place / f"ready-{rank}"


def _failure(place: Path, rank: int) -> Path:
    return place / f"failure-{rank}.json"
