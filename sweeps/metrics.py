"""Every metric's name, and the wall between what may steer a search and what is made from target labels."""

import math
from collections.abc import Mapping
from typing import Literal

from segda.validators import VALIDATOR_METRICS

Direction = Literal["maximize", "minimize"]

# Of an architecture on a device, known before it is trained.
EFFICIENCY = ("num_parameters", "macs", "latency_ms", "latency_p90_ms", "latency_p95_ms", "fps", "peak_memory_bytes")
SOURCE_MIOU = "source/val/miou"
TARGET_MIOU = "oracle/target/miou"
# Of predictions on target images without labels, reported at the end of a training.
LARGEST_CLASS_SHARE = "target/largest_class_share"
MISSING_CLASSES = "target/missing_classes"
LABEL_FREE = (LARGEST_CLASS_SHARE, MISSING_CLASSES, *VALIDATOR_METRICS.values())
# Criterion of selection -> the metric that it maximizes.
CRITERIA: dict[str, str] = {"source_validation": SOURCE_MIOU, **VALIDATOR_METRICS, "oracle": TARGET_MIOU}
_ORACLE_PREFIX = "oracle/"


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


def finite(values: Mapping[str, float], name: str) -> float | None:
    """Return a metric's value, or None if it is missing, NaN or infinite."""
    value = values.get(name)
    return float(value) if value is not None and math.isfinite(value) else None
