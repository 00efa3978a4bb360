"""Means over seeds, and figures of criteria, as people read them."""

from typing import Any

from sweeps.metrics import CRITERIA
from sweeps.reports.formats import MISSING, Format, percent
from sweeps.selection.seeds import MeanInterval


def spread(summary: MeanInterval | None) -> str:
    """Return mean and standard deviation in per cent, the mean alone for one value, or a dash."""
    if summary is None:
        return MISSING
    return f"{percent(summary.mean)} ± {percent(summary.std)}" if summary.std is not None else percent(summary.mean)


def interval(summary: MeanInterval | None) -> str:
    """Return the 95 % interval in per cent, or a dash where there is none."""
    return f"{percent(summary.low)} to {percent(summary.high)}" if summary and summary.n > 1 else MISSING


def figure(value: float, criterion: str) -> str:
    """Return a criterion's figure: mean IoU in per cent, a validator's score as it is.

    Example:
        >>> figure(0.6214, "source_validation"), figure(0.90123, "im")
        ('62.1', '0.9012')
    """
    return percent(value) if _is_share(criterion) else f"{value:.4g}"


def figure_format(criterion: str) -> Format:
    """Return the format of a criterion's figures."""
    return Format(lambda value: figure(value, criterion))


def figure_spread(criterion: str) -> Format:
    """Return the format of means of a criterion's figures, with their standard deviations."""
    if _is_share(criterion):
        return SPREAD
    return Format(lambda found: f"{found.mean:.4g}" + ("" if found.std is None else f" ± {found.std:.2g}"), order=_mean)


def figure_interval(criterion: str) -> Format:
    """Return the format of 95 % intervals of a criterion's figures."""
    if _is_share(criterion):
        return INTERVAL
    return Format(lambda found: MISSING if found.low is None else f"{found.low:.4g} to {found.high:.4g}", order=_mean)


def _is_share(criterion: str) -> bool:
    return CRITERIA[criterion].endswith("miou")


def _mean(summary: MeanInterval) -> Any:
    return summary.mean


SPREAD = Format(spread, order=_mean)
INTERVAL = Format(interval, order=_mean)
# Of a criterion's name and its figure, where each row has another one.
SCORE = Format(lambda found: figure(found[1], found[0]), order=lambda found: found[1])
