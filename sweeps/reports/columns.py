"""Columns that several tables have, and what reads them from a trial."""

from collections.abc import Callable

from sweeps.metrics import SOURCE_MIOU, TARGET_MIOU, finite
from sweeps.reports.formats import PERCENT, SIZE, TRIAL, TRIALS, WHOLE
from sweeps.reports.seed_formats import INTERVAL
from sweeps.reports.table import Column
from sweeps.trial import TrialRecord

NUMBER = Column("trial", "trial", TRIAL)
NUMBERS = Column("trials", "trials", TRIALS)
HOW_MANY = Column("trials", "trials", WHOLE)
SOURCE = Column("source_miou", "source mIoU", PERCENT, "%")
TARGET = Column("target_miou", "target mIoU", PERCENT, "%", is_oracle=True)
INPUT = Column("size", "input", SIZE, note="height x width")


def interval_of(key: str, *, is_oracle: bool = False) -> Column:
    """Return the column with the intervals of means over seeds in per cent.

    Args:
        key: of the means.
        is_oracle: whether they are made from target labels.
    """
    return Column(f"{key}_interval", "95 % interval", INTERVAL, is_oracle=is_oracle)


def metric(name: str) -> Callable[[TrialRecord], float | None]:
    """Return what reads a metric of a trial."""
    return lambda trial: finite(trial.metrics, name)


def cost(name: str) -> Callable[[TrialRecord], float | None]:
    """Return what reads a figure of a trial's network."""
    return lambda trial: finite(trial.profile, name)


source, target = metric(SOURCE_MIOU), metric(TARGET_MIOU)
