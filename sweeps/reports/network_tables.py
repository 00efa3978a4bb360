"""Networks side by side: distance between the domains, classes, cost."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.labels import model_label
from sweeps.metrics import SOURCE_MIOU, TARGET_MIOU, finite
from sweeps.paths import value_at
from sweeps.reports.standing_tables import closed_share
from sweeps.trial import TrialRecord


@dataclass(frozen=True)
class GapRow:
    """How much quality a network loses between the domains.

    Attributes:
        label: which network.
        number: its trial.
        source_miou: mean IoU on a source split.
        target_miou: mean IoU on the labelled target split (oracle).
        gap: source minus target.
        closed: share of the distance from source-only training to the upper bound that it covers; None if either is
            missing.
    """

    label: str
    number: int
    source_miou: float
    target_miou: float
    gap: float
    closed: float | None


@dataclass(frozen=True)
class ClassRow:
    """IoU of one class for several networks.

    Attributes:
        name: class.
        values: one IoU in [0, 1] per network in the order asked for; None where the class does not occur.
    """

    name: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class ArchitectureRow:
    """Cost of one architecture.

    Attributes:
        model: label, e.g. `bisenet_v1 (resnet18)`.
        height, width: input size in pixels.
        trials: numbers of the trials that use it.
        profile: efficiency figures by name.
    """

    model: str
    height: int | None
    width: int | None
    trials: tuple[int, ...]
    profile: Mapping[str, float]


def gap_rows(
    networks: Mapping[str, TrialRecord], *, source_only: TrialRecord | None, upper_bound: TrialRecord | None
) -> list[GapRow]:
    """Return the distance between the domains for some networks.

    Args:
        networks: label -> trial; trials without both figures are left out.
        source_only: the network without adaptation: 0 of the closed share.
        upper_bound: the network trained on target labels: 1 of the closed share.

    Returns:
        One row per network in the given order. `closed` may be negative (adaptation hurt) or above 1.
    """
    floor = finite(source_only.metrics, TARGET_MIOU) if source_only else None
    ceiling = finite(upper_bound.metrics, TARGET_MIOU) if upper_bound else None
    rows = []
    for label, trial in networks.items():
        source, target = finite(trial.metrics, SOURCE_MIOU), finite(trial.metrics, TARGET_MIOU)
        if source is None or target is None:
            continue
        closed = closed_share(target, low=floor, high=ceiling)
        rows.append(GapRow(label, trial.number, source, target, source - target, closed))
    return rows


def class_rows(columns: Sequence[tuple[Mapping[str, Any] | None, str]]) -> list[ClassRow]:
    """Return the per-class IoU of several networks.

    Args:
        columns: for each network and split, the content of its `result.json` (None where it is missing) and the key in
            `splits`, e.g. `source/val` or `oracle/target`.

    Returns:
        One row per class in the data set's order; empty if no column has figures.
    """
    tables = [((result or {}).get("splits") or {}).get(split) for result, split in columns]
    figures: list[Mapping[str, float]] = [(table or {}).get("iou") or {} for table in tables]
    names: dict[str, None] = {}
    for (result, _), column in zip(columns, figures, strict=True):
        names.update(dict.fromkeys(name for name in (result or {}).get("classes", column) if name in column))
    return [ClassRow(name, tuple(finite(column, name) for column in figures)) for name in names]


def architecture_rows(trials: Iterable[TrialRecord]) -> list[ArchitectureRow]:
    """Return each profiled architecture once, with the trials that use it, by rising MACs."""
    groups: dict[tuple[str, int | None, int | None, tuple[tuple[str, float], ...]], list[int]] = {}
    for trial in trials:
        if trial.profile:
            height, width = value_at(trial.config, "data.height"), value_at(trial.config, "data.width")
            key = (model_label(trial), height, width, tuple(sorted(trial.profile.items())))
            groups.setdefault(key, []).append(trial.number)
    rows = [
        ArchitectureRow(model, height, width, tuple(sorted(numbers)), dict(profile))
        for (model, height, width, profile), numbers in groups.items()
    ]
    return sorted(rows, key=lambda row: (row.profile.get("macs", math.inf), row.model))
