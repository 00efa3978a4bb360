"""Every metric's name, and the wall between what may steer a search and what is made from target labels."""

import math
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Literal

Direction = Literal["maximize", "minimize"]

# Of an architecture on a device, known before it is trained.
EFFICIENCY = ("num_parameters", "macs", "latency_ms", "latency_p90_ms", "latency_p95_ms", "fps", "peak_memory_bytes")
# Those that depend on what else the device did while they were measured.
_RELIABLE = "latency_reliable"  # 1: measured alone, and it repeats; 0: not; absent: nobody looked
TIMED = frozenset(
    {"latency_ms", "latency_p90_ms", "latency_p95_ms", "latency_iqr_ms", "latency_spread", "fps", _RELIABLE}
)
# Scored splits; the second one needs target labels.
SPLITS = ("source/val", "oracle/target")
SOURCE_MIOU, TARGET_MIOU = (f"{split}/miou" for split in SPLITS)
TARGET_MIOU_WELL, TARGET_MIOU_UNDER = f"{TARGET_MIOU}_well", f"{TARGET_MIOU}_under"
SECONDS_PER_STEP = "train/seconds_per_step"
SOURCE_ACCURACY = f"{SPLITS[0]}/pixel_accuracy"
# Of predictions on target images without labels; the last one at the end of a training only.
LARGEST_CLASS_SHARE = "target/largest_class_share"
MISSING_CLASSES = "target/missing_classes"
TRANSPORT_ACCURACY = "target/transport_accuracy"
# Of a trial beside others; they change with those and are kept nowhere (`sweeps.selection.pool`).
_POOL_PREFIX = "target/pool/"
ENSV = f"{_POOL_PREFIX}ensv"
MIN_VOTERS = 3  # candidates without which there is no majority
LARGEST_VOTE_SHARE = f"{_POOL_PREFIX}largest_class_share"
_ORACLE_PREFIX = "oracle/"
_BY_NAME = {"source_validation": SOURCE_MIOU, "ensv": ENSV, "oracle": TARGET_MIOU}


class _Criteria(Mapping[str, str]):
    """Criterion of selection -> the metric that it maximizes; every validator that can be looked up is one."""

    def __getitem__(self, name: str) -> str:
        if name in _BY_NAME:
            return _BY_NAME[name]
        _validators().VALIDATORS[name]  # raises what is wrong with the name
        return str(_validators().validator_metric(name))

    def __iter__(self) -> Iterator[str]:
        return iter(("source_validation", *_validators().VALIDATORS, "ensv", "oracle"))

    def __len__(self) -> int:
        return len(_BY_NAME) + len(_validators().VALIDATORS)


def _validators() -> ModuleType:
    from segda import validators  # imports PyTorch, which who only looks at a sweep does without

    return validators


CRITERIA = _Criteria()


def label_free(validators: Iterable[str]) -> list[str]:
    """Return the metrics of predictions on target images without labels that an objective may name.

    Args:
        validators: names of those that a training computes.
    """
    return [LARGEST_CLASS_SHARE, MISSING_CLASSES, *map(_validators().validator_metric, validators)]


def is_late(metric: str) -> bool:
    """Return whether an objective's metric is reported at the end of a training only."""
    return metric in map(_validators().validator_metric, _validators().ONLY_AT_THE_END)


def is_validator(metric: str) -> bool:
    """Return whether a metric is the score of a validator."""
    return metric.startswith(_validators().validator_metric(""))


def is_pool(metric: str) -> bool:
    """Return whether a figure of a trial depends on other trials, too."""
    return metric.startswith(_POOL_PREFIX)


def is_oracle(metric: str) -> bool:
    """Return whether a metric is made from target labels."""
    return metric.startswith(_ORACLE_PREFIX)


def visible_metrics(metrics: Mapping[str, float], selection: str) -> dict[str, float]:
    """Return the metrics that searcher, scheduler and selection may read.

    Args:
        metrics: values by name.
        selection: the sweep's criterion.

    Returns:
        A copy; without everything made from target labels (`oracle/...`) unless the criterion is `oracle`.

    Example:
        >>> visible_metrics({"source/val/miou": 0.6, "oracle/target/miou": 0.5}, "source_validation")
        {'source/val/miou': 0.6}
    """
    if selection == "oracle":
        return dict(metrics)
    return {name: value for name, value in metrics.items() if not is_oracle(name)}


def is_doubtful(profile: Mapping[str, float], metric: str) -> bool:
    """Return whether a figure of an architecture was measured in company, so that nothing may be decided by it.

    Example:
        >>> is_doubtful({"fps": 9.0, "latency_reliable": 0.0}, "fps"), is_doubtful({"fps": 9.0}, "fps")
        (True, False)
    """
    return metric in TIMED and profile.get(_RELIABLE) == 0


def has_doubts(profile: Mapping[str, float]) -> bool:
    """Return whether some figure of an architecture is doubtful."""
    return any(is_doubtful(profile, metric) for metric in profile)


def sound(profile: Mapping[str, float]) -> dict[str, float]:
    """Return the figures of an architecture that something may be decided by.

    Example:
        >>> sound({"macs": 1e9, "fps": 9.0, "latency_reliable": 0.0})
        {'macs': 1000000000.0}
    """
    return {name: value for name, value in profile.items() if not is_doubtful(profile, name)}


def finite(values: Mapping[str, float], name: str) -> float | None:
    """Return a metric's value, or None if it is missing, NaN or infinite."""
    value = values.get(name)
    return float(value) if value is not None and math.isfinite(value) else None
