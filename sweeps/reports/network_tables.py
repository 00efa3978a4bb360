"""Networks side by side: distance between the domains, classes, cost."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sweeps.labels import model_label
from sweeps.metrics import SOURCE_MIOU, SPLITS, TARGET_MIOU, finite
from sweeps.paths import value_at
from sweeps.reports.columns import INPUT, NUMBERS, SOURCE, TARGET
from sweeps.reports.formats import PERCENT, in_units
from sweeps.reports.standing_tables import closed_share
from sweeps.reports.table import Column, Table, table_of
from sweeps.trial import TrialRecord

_COSTS = (
    ("macs", "MACs", 1e-9, "G", ""),
    ("num_parameters", "params", 1e-6, "M", ""),
    ("latency_ms", "latency", 1.0, "ms", "median"),
    ("latency_p90_ms", "latency", 1.0, "ms", "90th percentile"),
    ("latency_p95_ms", "latency", 1.0, "ms", "95th percentile"),
    ("fps", "fps", 1.0, "", ""),
    ("peak_memory_bytes", "peak memory", 2.0**-20, "MiB", ""),
)


class Architecture(NamedTuple):
    """What one architecture costs.

    Attributes:
        model: label, e.g. `bisenet_v1 (resnet18)`.
        size: height and width of its input in pixels.
        profile: efficiency figures by name.
        trials: numbers of the trials that use it.
    """

    model: str
    size: tuple[int | None, int | None]
    profile: Mapping[str, float]
    trials: tuple[int, ...]


def gaps_table(
    networks: Mapping[str, TrialRecord], *, source_only: TrialRecord | None, upper_bound: TrialRecord | None
) -> Table:
    """Return how much quality networks lose between the domains, and how much of that is made up for.

    Args:
        networks: label -> trial; trials without both figures are left out.
        source_only: the network without adaptation: 0 of the closed share.
        upper_bound: the network trained on target labels: 1 of the closed share.

    Returns:
        One row per network in the given order. `closed` may be negative (adaptation hurt) or above 1; it is None if either of the
        two is missing.
    """
    low, high = (finite(trial.metrics, TARGET_MIOU) if trial else None for trial in (source_only, upper_bound))
    items = [
        (label, trial.number, source, target)
        for label, trial in networks.items()
        if (source := finite(trial.metrics, SOURCE_MIOU)) is not None
        and (target := finite(trial.metrics, TARGET_MIOU)) is not None
    ]
    return table_of(
        items,
        [
            (Column("network", "network"), lambda item: item[0]),
            (SOURCE, lambda item: item[2]),
            (TARGET, lambda item: item[3]),
            (Column("gap", "gap", PERCENT, note="points", is_oracle=True), lambda item: item[2] - item[3]),
            (
                Column("closed", "closed", PERCENT, "%", is_oracle=True),
                lambda item: closed_share(item[3], low=low, high=high),
            ),
        ],
        notes=[
            "Closed: 0 is source-only training, 100 the upper bound, which was trained on target labels. One seed each (the "
            "search's own), which flatters the pick: it was chosen by it, the references were not. References are never picked."
        ],
        empty="No finished network has both source and target metrics.",
    )


def class_values(columns: Sequence[tuple[Mapping[str, Any] | None, str]]) -> dict[str, tuple[float | None, ...]]:
    """Return the per-class IoU of several networks.

    Args:
        columns: for each network and split, the content of its `result.json` (None where it is missing) and the key in
            `splits`, e.g. `source/val` or `oracle/target`.

    Returns:
        Class -> one IoU in [0, 1] per column, None where the class does not occur; in the data set's order, empty if no column
        has figures.
    """
    tables = [((result or {}).get("splits") or {}).get(split) for result, split in columns]
    figures: list[Mapping[str, float]] = [(table or {}).get("iou") or {} for table in tables]
    names: dict[str, None] = {}
    for (result, _), column in zip(columns, figures, strict=True):
        names.update(dict.fromkeys(name for name in (result or {}).get("classes", column) if name in column))
    return {name: tuple(finite(column, name) for column in figures) for name in names}


def classes_table(values: Mapping[str, Sequence[float | None]], columns: Sequence[tuple[str, str]]) -> Table:
    """Return the per-class IoU of several networks as a table.

    Args:
        values: of `class_values`.
        columns: label of the network and split, in the order of the values.
    """
    return Table(
        [
            Column("class", "class"),
            *(
                Column(
                    f"{index}",
                    label,
                    PERCENT,
                    note="source val" if split == SPLITS[0] else "target",
                    is_oracle=split != SPLITS[0],
                )
                for index, (label, split) in enumerate(columns)
            ),
        ],
        [(name, *found) for name, found in values.items()],
        notes=["IoU in %; a dash: the class does not occur in the split. One seed each."],
        empty="No finished network has an IoU per class.",
    )


def architectures(trials: Iterable[TrialRecord]) -> list[Architecture]:
    """Return each profiled architecture once, with the trials that use it, by rising MACs.

    Args:
        trials: records of one sweep.
    """
    groups: dict[tuple[str, tuple[Any, Any], tuple[tuple[str, float], ...]], list[int]] = {}
    for trial in trials:
        if trial.profile:
            size = value_at(trial.config, "data.height"), value_at(trial.config, "data.width")
            key = (model_label(trial), size, tuple(sorted(trial.profile.items())))
            groups.setdefault(key, []).append(trial.number)
    found = [
        Architecture(model, size, dict(profile), tuple(sorted(numbers)))
        for (model, size, profile), numbers in groups.items()
    ]
    return sorted(found, key=lambda item: (item.profile.get("macs", math.inf), item.model))


def architectures_table(found: Iterable[Architecture]) -> Table:
    """Return what architectures cost.

    Args:
        found: of `architectures`.
    """
    return table_of(
        found,
        [
            (Column("network", "network"), lambda item: item.model),
            (INPUT, lambda item: item.size),
            *(
                (Column(key, title, in_units(factor), unit, note), lambda item, key=key: finite(item.profile, key))
                for key, title, factor, unit, note in _COSTS
            ),
            (NUMBERS, lambda item: item.trials),
        ],
        empty="No architecture was measured yet.",
    )
