"""What a further process of a data-parallel training runs: `python -m segda.rank PLACE RANK`, started by `segda.processes`."""

import os
import signal
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path

import torch

from segda.errors import SegdaError
from segda.processes import Task, member, rank_device
from segda.splits import open_splits
from segda.team import Peer, tell_failure, tell_ready
from segda.training import take_part


def main(place: Path, rank: int) -> None:
    """Train along with rank 0 until it says that all is done, or is gone.

    Args:
        place: folder with the task, in which the ranks meet.
        rank: number of this process, from 1.
    """
    # A terminal sends Ctrl-C and a cluster SIGTERM to all processes: rank 0 decides what becomes of the run.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    membership = ExitStack()
    try:
        task = Task.read(place)
        torch.set_num_threads(task.threads)
        device = rank_device(task.config.device, rank=rank, processes=task.processes)
        team = Peer(rank=rank, size=task.processes, device=device)
        tell_ready(place, rank)
        membership.enter_context(member(place, team))
        team.start_together()
        splits = open_splits(task.config)
        take_part(task.config, splits, team, _say_nothing, folder=task.folder, micro_batch=task.micro_batch)
        team.wait_for_end()
    except Exception as error:
        if not isinstance(error, SegdaError):
            traceback.print_exc()
        tell_failure(place, rank, error)
        # Before the others see it leave, so that they do not seem to be the cause, and without the usual way out, which waits for
        # operations that others will never join.
        os._exit(1)
    membership.close()


def _say_nothing(_step: int, _metrics: object, _checkpoint: Path) -> None:
    """Stand in for the report, which is rank 0's."""


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
