"""What is done about each class of failure: whether it is tried again, how soon, and whether the sampler is to stay away."""

from dataclasses import dataclass

from segda.gradients import MIN_IMAGES_AT_ONCE, micro_batches
from sweeps.trial import FailureClass

MAX_PAUSE_SECONDS = 60.0


@dataclass(frozen=True)
class Policy:
    """How a class of failure is handled.

    Attributes:
        retries: failures of the class in a row, without a new report between them, after which the trial is given up; None: never.
        pause_seconds: before the first new attempt; doubled with each further one, up to `MAX_PAUSE_SECONDS`.
        blames_configuration: whether the sampler is told, as a pruned trial with a broken constraint; a trial that the machines
            failed says nothing about its configuration.
    """

    retries: int | None
    pause_seconds: float
    blames_configuration: bool

    def pause(self, failures: int) -> float:
        """Return the seconds to wait before the next attempt.

        Args:
            failures: failures of the class in a row so far, at least 1.

        Example:
            >>> [Policy(None, 1.0, False).pause(failures) for failures in (1, 2, 3, 20)]
            [1.0, 2.0, 4.0, 60.0]
        """
        return min(self.pause_seconds * 2.0 ** min(failures - 1, 30), MAX_PAUSE_SECONDS)


# Out of memory is first answered with smaller micro-batches, see `smaller_micro_batch`; what is here holds when none is left.
POLICIES: dict[FailureClass, Policy] = {
    FailureClass.OUT_OF_MEMORY: Policy(retries=0, pause_seconds=0.0, blames_configuration=True),
    FailureClass.DIVERGED: Policy(retries=0, pause_seconds=0.0, blames_configuration=True),
    FailureClass.INVALID: Policy(retries=0, pause_seconds=0.0, blames_configuration=True),
    FailureClass.ERROR: Policy(retries=0, pause_seconds=0.0, blames_configuration=True),
    # A file that one node cannot read another one may; a file that nobody can read is no fault of the configuration.
    FailureClass.DATA: Policy(retries=1, pause_seconds=5.0, blames_configuration=False),
    FailureClass.STORAGE: Policy(retries=3, pause_seconds=5.0, blames_configuration=False),
    FailureClass.HANG: Policy(retries=1, pause_seconds=5.0, blames_configuration=True),
    FailureClass.WORKER_LOST: Policy(retries=3, pause_seconds=1.0, blames_configuration=False),
    FailureClass.NODE_LOST: Policy(retries=10, pause_seconds=1.0, blames_configuration=False),
    # A broken GPU fails at once and is given the next trial at once: pauses long enough that another one may become free.
    FailureClass.DEVICE_LOST: Policy(retries=10, pause_seconds=30.0, blames_configuration=False),
    FailureClass.PREEMPTED: Policy(retries=None, pause_seconds=0.0, blames_configuration=False),
}


def smaller_micro_batch(batch_size: int, micro_batch: int | None, *, processes: int = 1) -> int | None:
    """Return the next smaller number of images per forward and backward pass: about half as many, of those that training accepts.

    Args:
        batch_size: images of each domain per update, which stays as it is: gradients are accumulated.
        micro_batch: the present number; unset: the whole share of a process.
        processes: processes that share a batch.

    Returns:
        The largest allowed number (`segda.gradients.micro_batches`) that is at most half of the present one, or the smallest of all
        if none is; None at the floor, see `why_no_smaller`.

    Example:
        >>> [smaller_micro_batch(batch, present) for batch, present in ((16, None), (16, 8), (16, 4), (12, 6), (6, None))]
        [8, 4, None, 4, None]
    """
    present = micro_batch or batch_size // processes
    smaller = [size for size in micro_batches(batch_size, processes=processes) if size < present]
    halves = [size for size in smaller if size <= present // 2]
    return max(halves, default=min(smaller, default=None))


def why_no_smaller(batch_size: int) -> str:
    """Return why a batch is not cut into smaller parts, in one line, with what to do.

    Args:
        batch_size: images of each domain per update.
    """
    floor = min(MIN_IMAGES_AT_ONCE, batch_size)
    return (
        f"no smaller micro-batch is tried: smaller equal parts of batch_size {batch_size} do not leave batch normalization {floor} "
        "images at once, and with fewer it would train another network; a smaller batch, image or network needs less memory"
    )
