"""The processes of one data-parallel training: how they start, meet and end together.

Rank 0 is the process that called `segda.train`. It starts the others (`segda.rank`), one for every further part of the batch,
on the same node. They meet through a file in a temporary folder, where their task lies too.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from segda.config import TrainConfig
from segda.device import resolve_device
from segda.distributed import joined
from segda.errors import ConfigError, DeviceError, ProcessLostError, SegdaError
from segda.files import write_json
from segda.team import SILENCE, First, Team

_GOODBYE = 10.0  # seconds that a peer gets to end when it is told to


@dataclass(frozen=True)
class Task:
    """What a peer has to know.

    Attributes:
        config: the run.
        folder: where it lives.
        micro_batch: images of each domain at once, or None for all of a rank's.
        processes: number of ranks.
        threads: threads that the peer may compute with.
    """

    config: TrainConfig
    folder: Path
    micro_batch: int | None
    processes: int
    threads: int

    def write(self, place: Path) -> None:
        """Write the task where its peers read it."""
        plain: dict[str, Any] = {
            "config": self.config.model_dump(mode="json"),
            "folder": str(self.folder.absolute()),
            "micro_batch": self.micro_batch,
            "processes": self.processes,
            "threads": self.threads,
        }
        write_json(place / "task.json", plain)

    @classmethod
    def read(cls, place: Path) -> "Task":
        """Read what `write` wrote."""
        plain = json.loads((place / "task.json").read_text())
        config = TrainConfig.model_validate(plain.pop("config"))
        return cls(config=config, folder=Path(plain.pop("folder")), **plain)


@contextlib.contextmanager
def assembled(config: TrainConfig, *, folder: Path, micro_batch: int | None, processes: int) -> Iterator[Team]:
    """Start the other ranks and join them; for one process, nothing is started.

    Threads of the CPU are divided among the ranks for the time of the block. Whatever leaves the block, an exception that `report`
    raised included, ends the other ranks.

    Args:
        config: the run; its device is `cpu`, or `cuda` or `auto` with one visible GPU per rank.
        folder: where it lives.
        micro_batch: images of each domain at once, or None.
        processes: number of ranks, this process included.

    Yields:
        This process's view of the team.

    Raises:
        ConfigError: one GPU is named for several ranks, or this process belongs to another group already.
        DeviceError: there are fewer GPUs than ranks.
        ProcessLostError: another rank died.
        SegdaError: whatever ended another rank, e.g. OutOfMemoryError.
        OSError: another rank could not read or write a file, e.g. because the disk is full.
    """
    if processes == 1:
        yield Team(rank=0, size=1, device=resolve_device(config.device))
        return
    device = rank_device(config.device, rank=0, processes=processes)
    if dist.is_initialized():
        raise ConfigError(
            "this process belongs to a group of torch.distributed already; train in a process of its own, or with processes 1"
        )
    threads = torch.get_num_threads()
    share = max(1, threads // processes)
    with tempfile.TemporaryDirectory(prefix="segda-ranks-") as temporary, contextlib.ExitStack() as cleanup:
        place = Path(temporary)
        Task(config, folder, micro_batch, processes, share).write(place)
        team = First(device, [_start(place, rank, threads=share) for rank in range(1, processes)], place)
        cleanup.callback(torch.set_num_threads, threads)
        cleanup.callback(team.end, patience=_GOODBYE)
        torch.set_num_threads(share)
        try:
            team.wait_until_ready()
            with member(place, team) as group:
                with team.watching(group):
                    yield team
                team.dismiss()
        except SegdaError:
            raise
        except (RuntimeError, BrokenPipeError) as error:
            # What a collective operation or a pipe raises when the other end is gone.
            failure = team.failure()
            if failure is None and "timed out" in str(error).lower():
                failure = ProcessLostError(
                    f"a process of the training has been silent for {SILENCE}; start again to go on"
                )
            if failure is None:
                raise
            raise failure from error


def rank_device(name: str, *, rank: int, processes: int) -> torch.device:
    """Return the device of one rank: the CPU, or the GPU of the rank's number.

    Args:
        name: `auto`, `cpu` or `cuda`.
        rank: number of the process.
        processes: number of ranks.

    Raises:
        ConfigError: the name is that of a single GPU.
        DeviceError: there are fewer GPUs than ranks.
    """
    device = resolve_device(name)
    if device.type == "cpu":
        return device
    if device.index is not None:
        raise ConfigError(f"{processes} processes need a GPU each, device {name} is a single one; use device: cuda")
    count = torch.cuda.device_count()
    if count < processes:
        raise DeviceError(
            f"{processes} processes need a GPU each, {count} can be seen; use fewer processes or device: cpu"
        )
    return torch.device("cuda", rank)


@contextlib.contextmanager
def member(place: Path, team: Team) -> Iterator[dist.ProcessGroup]:
    """Belong to the group of all ranks: NCCL on GPUs, Gloo on the CPU.

    Args:
        place: folder in which the ranks meet.
        team: this process's view of them.

    Yields:
        The group.
    """
    cuda = team.device.type == "cuda"
    if cuda:
        torch.cuda.set_device(team.device)
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        store=dist.FileStore(str(place / "rendezvous"), team.size),  # type: ignore[attr-defined]
        rank=team.rank,
        world_size=team.size,
        timeout=SILENCE,
        device_id=team.device if cuda else None,
    )
    group = dist.group.WORLD
    assert group is not None
    try:
        with joined(group):
            yield group
    except BaseException:
        # Leaving in good order can mean to wait for operations that others are not going to join.
        group.abort()
        raise
    finally:
        dist.destroy_process_group()


def _start(place: Path, rank: int, *, threads: int) -> subprocess.Popen[bytes]:
    # The peer imports from where this process does, whatever put that there (-P: and not from the working folder before).
    places = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    environment = os.environ | {"PYTHONPATH": places, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-P", "-m", "segda.rank", str(place), str(rank)]
    # What it prints must not mix with the output of this process.
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2, env=environment)
