"""At which steps trials are compared."""

from segda.config_problems import LocatedError


def geometric_rungs(min_steps: int, *, factor: int, steps: int, report_every: int) -> tuple[int, ...]:
    """Return the rungs `min_steps * factor ** k` below the last step.

    Args:
        min_steps: the first rung.
        factor: from one rung to the next.
        steps: of a full training.
        report_every: training steps between reports.

    Raises:
        LocatedError: no rung would be below the last step, or trials do not report at the first one; relative to the scheduler.

    Example:
        >>> geometric_rungs(100, factor=3, steps=2000, report_every=50)
        (100, 300, 900)
    """
    if min_steps >= steps:
        raise LocatedError(
            ("min_steps",), f"must be smaller than base.steps {steps}, got {min_steps}; otherwise nothing is stopped"
        )
    if min_steps % report_every:
        raise LocatedError(
            ("min_steps",),
            f"must be a multiple of base.report_every {report_every}, got {min_steps}; trials are compared when they report",
        )
    found = []
    rung = min_steps
    while rung < steps:
        found.append(rung)
        rung *= factor
    return tuple(found)
