"""How a trial that ran out of memory goes on: the same batch in smaller parts."""

from segda.batch_norm import MIN_IMAGES_AT_ONCE
from segda.gradients import micro_batches


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
