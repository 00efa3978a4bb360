"""Classes of failures, and what is done about each: is it tried again, how soon, and is the sampler to stay away?"""

from dataclasses import dataclass
from enum import StrEnum

from segda.masking import masked

MAX_PAUSE_SECONDS = 60.0


class FailureClass(StrEnum):
    """Why an attempt ended without a result; `POLICIES` says what is done about each."""

    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    INVALID = "invalid"  # the configuration cannot be used
    DATA = "data"  # a file is missing or cannot be read
    DISK = "disk"  # a disk is full, over its quota, read-only or broken
    STORAGE = "storage"  # the storage address did not take or give a trial's files
    ERROR = "error"  # an exception in the training code
    HANG = "hang"  # no report for longer than the watchdog waits
    WORKER_LOST = "worker_lost"  # its process died
    NODE_LOST = "node_lost"  # its machine died or left
    DEVICE_LOST = "device_lost"  # its GPU failed
    PREEMPTED = "preempted"  # its machine was taken away with notice

    @property
    def label(self) -> str:
        """The class for people."""
        return self.value.replace("_", " ")


@dataclass(frozen=True)
class Policy:
    """How a class of failure is handled.

    Attributes:
        retries: failures of the class in a row, without a new report between them, after which the trial is given up; None: never.
        pause_seconds: before the first new attempt; doubled with each further one, up to `MAX_PAUSE_SECONDS`.
        blames_configuration: whether the sampler is told, as a pruned trial with a broken constraint; a trial that the machines
            failed says nothing about its configuration, spends no budget, and is taken up again by the next driver.
        remedy: what people can do about it; empty where a trial's configuration or code is to be changed.
    """

    retries: int | None
    pause_seconds: float
    blames_configuration: bool
    remedy: str = ""

    def pause(self, failures: int) -> float:
        """Return the seconds to wait before the next attempt.

        Args:
            failures: failures of the class in a row so far, at least 1.

        Example:
            >>> [Policy(None, 1.0, False).pause(failures) for failures in (1, 2, 3, 20)]
            [1.0, 2.0, 4.0, 60.0]
        """
        return min(self.pause_seconds * 2.0 ** min(failures - 1, 30), MAX_PAUSE_SECONDS)


# Out of memory is first answered with smaller micro-batches (`sweeps.execution.micro_batches`); this holds when none is left.
POLICIES: dict[FailureClass, Policy] = {
    FailureClass.OUT_OF_MEMORY: Policy(retries=0, pause_seconds=0.0, blames_configuration=True),
    FailureClass.DIVERGED: Policy(retries=0, pause_seconds=0.0, blames_configuration=True),
    FailureClass.INVALID: Policy(retries=0, pause_seconds=0.0, blames_configuration=True),
    FailureClass.ERROR: Policy(retries=0, pause_seconds=0.0, blames_configuration=True),
    # A file that one node cannot read another one may; a file that nobody can read is no fault of the configuration.
    FailureClass.DATA: Policy(3, 5.0, blames_configuration=False, remedy="see that every node can read the data"),
    FailureClass.DISK: Policy(
        3, 5.0, blames_configuration=False, remedy="free space where the store, the cache and temporary files are"
    ),
    FailureClass.STORAGE: Policy(
        3, 5.0, blames_configuration=False, remedy="see that every node reaches the storage address"
    ),
    FailureClass.HANG: Policy(retries=1, pause_seconds=5.0, blames_configuration=True),
    FailureClass.WORKER_LOST: Policy(
        3, 1.0, blames_configuration=False, remedy="see what ends processes there: memory, a time limit, a crash"
    ),
    FailureClass.NODE_LOST: Policy(
        10, 1.0, blames_configuration=False, remedy="see that the cluster's nodes are up and reach each other"
    ),
    # A broken GPU fails at once and is given the next trial at once: pauses long enough that another one may become free.
    FailureClass.DEVICE_LOST: Policy(
        10, 30.0, blames_configuration=False, remedy="see to the GPU and its driver (nvidia-smi)"
    ),
    FailureClass.PREEMPTED: Policy(None, 0.0, blames_configuration=False, remedy="wait for machines"),
}


def summary(error: BaseException) -> str:
    r"""Return an exception as one line of at most 500 characters, without passwords.

    Example:
        >>> summary(ValueError("expected 3 channels,\n got 4"))
        'ValueError: expected 3 channels, got 4'
    """
    # Names of files may hold bytes that no text encoding has; no database takes them.
    text = masked(" ".join(str(error).split())).replace("\0", "").encode("utf-8", "replace").decode()
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__
