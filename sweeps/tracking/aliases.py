"""Short names, beside the full ones, of what people compare trials by in MLflow.

MLflow's table prints raw numbers and cuts names at 100 pixels, its comparison page takes the first three parameters that differ in
the order of their characters (capitals first) and the first metric of all, and its axes cut texts after ten characters. So what
matters has a short name with a capital, is rounded, and is there for every trial: a parameter that some runs lack is drawn as
"unknown" or next to the largest value.

A trial's parameters never change in MLflow, so short ones follow from its configuration alone.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import PurePath
from typing import Any

from mlflow.entities import Metric, Run

from sweeps.file.spec import SweepSpec
from sweeps.metrics import EFFICIENCY, SOURCE_MIOU, SPLITS, TARGET_MIOU, finite, is_oracle, sound
from sweeps.paths import value_at
from sweeps.tracking.limits import key_name
from sweeps.tracking.server import milliseconds
from sweeps.trial import TrialRecord, TrialState

METHOD, NETWORK, STYLE, LR, LAMBDA = "Method", "Network", "Style", "LR", "Lambda"
PARAMS = frozenset({METHOD, NETWORK, STYLE, LR, LAMBDA})
STATE = "State"  # a tag
# Costs of an architecture: short name with its unit, and what the figure is multiplied by.
_COSTS = {
    "latency_ms": ("latency ms", 1.0),
    "latency_p90_ms": ("latency p90 ms", 1.0),
    "latency_p95_ms": ("latency p95 ms", 1.0),
    "fps": ("images per s", 1.0),
    "macs": ("macs G", 1e-9),
    "num_parameters": ("params M", 1e-6),
    "peak_memory_bytes": ("memory MB", 1e-6),
}
LATENCY, MACS = _COSTS["latency_ms"][0], _COSTS["macs"][0]
SOURCE, TARGET = "Source mIoU", "Target mIoU oracle"  # MLflow allows no parentheses
_ALWAYS = (SOURCE_MIOU, TARGET_MIOU, "latency_ms", "macs")

_LONGEST_ON_AN_AXIS = 10
# How long names are said, so that two of them fit on an axis; others stand as they are.
_METHODS = {
    "source_only": "source",
    "target_only": "target",
    "adversarial": "adv",
    "fine_tune": "fine tune",
    "min_entropy": "min ent",
    "self_training": "self train",
    "external_labels": "ext labels",
    "multi_class_light": "mcl",
    "light_light": "ll",
    "pixel": "pix",
}
_NETWORKS = {
    "bisenet_v1": "bis1",
    "bisenet_v2": "bis2",
    "ddrnet_23_slim": "ddrnet23s",
    "deeplab_v2": "dlab2",
    "deeplab_v2_multi": "dlab2 mult",
    "efficientvit_seg": "effvit",
    "segformer": "segf",
    "segformer_b0": "segf b0",
    "resnet18": "rn18",
    "resnet34": "rn34",
    "resnet50": "rn50",
    "resnet101": "rn101",
    "mobilenet_v3_large": "mbv3",
    "xception39": "xc39",
    "efficientnet_lite0": "lite0",
    "efficientnet_lite1": "lite1",
    "efficientnet_lite2": "lite2",
}
_STYLES = {"channel_statistics": "channels", "amplitude_mix": "amplitude"}
# Method -> which of its weights is that of the loss that makes it what it is.
_LAMBDAS = {
    "adversarial": "lambda_adv",
    "min_entropy": "lambda_ent",
    "fda": "lambda_ent",
    "self_training": "lambda_target",
    "lse": "lambda_target",
    "external_labels": "lambda_target",
    "dacs": "lambda_mix",
    "mic": "lambda_masked",
    "pixda": "lambda_adv",
    "fsda": "lambda_image",
}
# Short parameter -> what of a configuration it says; in a sweep that varies one of these the parameter differs.
TOLD: Mapping[str, frozenset[str]] = {
    METHOD: frozenset({"method.name", "method.host.name", "method.discriminator"}),
    NETWORK: frozenset({"model.name", "model.backbone", "model.variant", "start.checkpoint"}),
    STYLE: frozenset({"data.style.name"}),
    LR: frozenset({"optimizer.lr"}),
    LAMBDA: frozenset(f"method.{name}" for name in _LAMBDAS.values()),
}


def short(parts: Iterable[object], names: Mapping[str, str]) -> str:
    """Return names as one text that an axis shows whole.

    Args:
        parts: names, the first one first; of `module:Name` the name.
        names: how long ones are said.

    Example:
        >>> short(["adversarial", "dwd"], _METHODS), short(["bisenet_v1", "efficientnet_lite0"], _NETWORKS)
        ('adv dwd', 'bis1 lite0')
        >>> short(["stdc", "stdc1"], _NETWORKS), short(["my_package:AVeryNewNetwork"], _NETWORKS)
        ('stdc1', 'AVeryNewNe')
    """
    words: list[str] = []
    for part in parts:
        name = str(part).rpartition(":")[2].rpartition("/")[2]
        word = names.get(name, name)
        if words and word.startswith(words[-1]):
            words.pop()
        words.append(word)
    return " ".join(words)[:_LONGEST_ON_AN_AXIS].strip()


def decimal(value: float) -> str:
    """Return a number with two significant digits and without an exponent: MLflow sorts parameters as text.

    Example:
        >>> decimal(0.00318), decimal(5.8e-5), decimal(120), decimal(0)
        ('0.0032', '0.000058', '120', '0')
    """
    return f"{Decimal(f'{value:.2g}').normalize():f}"


def alias_params(record: TrialRecord) -> dict[str, str]:
    """Return short parameters of a trial by its configuration alone: the common ones, and one of each other thing that is searched.

    What does not exist under a trial's method or network is left out.

    Args:
        record: the trial.
    """
    config = record.config
    method = [value_at(config, path) for path in ("method.name", "method.host.name", "method.discriminator")]
    network = [value_at(config, path) for path in ("model.name", "model.backbone", "model.variant")]
    # A network that a start brings has the name of its file.
    begun = PurePath(str(value_at(config, "start.checkpoint") or "unknown")).stem
    rate = value_at(config, "optimizer.lr")
    own = {
        alias_of_path(path): decimal(value) if isinstance(value, float) else str(value)
        for path, value in record.params.items()
        if has_own_alias(path)
    }
    return own | {
        METHOD: short((part for part in method if part), _METHODS),
        NETWORK: short([part for part in network if part] or [begun], _NETWORKS),
        STYLE: short([value_at(config, "data.style.name") or "none"], _STYLES),
        LR: decimal(rate) if _is_number(rate) else "0",
        LAMBDA: decimal(_weight(config.get("method"))),
    }


def has_own_alias(path: str) -> bool:
    """Return whether a searched parameter has a short name of its own: none of the common ones says it, and it is not short."""
    return "." in path and not any(path in told for told in TOLD.values())


def alias_of_path(path: str) -> str:
    """Return the short name of a searched parameter: with a space, which no key of a configuration has.

    Example:
        >>> alias_of_path("data.style.probability"), alias_of_path("method.warm_up"), alias_of_path("data.augmentation")
        ('style probability', 'method warm up', 'data augmentation')
        >>> alias_of_path("pruning.segmenter.schedule.end")
        'segmenter schedule end'
    """
    first, *others = path.split(".")
    return key_name(" ".join(others if len(others) > 1 else [first, *others]).replace("_", " "))


def is_alias_param(name: str) -> bool:
    """Return whether a run's parameter is a short name.

    Example:
        >>> is_alias_param("LR"), is_alias_param("style probability"), is_alias_param("data.names.wet road")
        (True, True, False)
    """
    return name in PARAMS or (" " in name and "." not in name)


def _weight(method: Any) -> float:
    """Return the weight of a method's own loss; of a method from outside the first `lambda_...` that is not 0. 0 without any."""
    weights = method if isinstance(method, Mapping) else {}
    own = _LAMBDAS.get(str(weights.get("name")))
    names = [own] if own else sorted(name for name in weights if str(name).startswith("lambda_"))
    return next((float(weights[name]) for name in names if _is_number(weights.get(name)) and weights[name]), 0.0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def alias_of(metric: str) -> str:
    """Return the short name of a metric; it has a space and no slash, as no metric that a training reports.

    Example:
        >>> [alias_of(name) for name in ("source/val/miou", "oracle/target/miou", "macs", "target/validator/soft_iou")]
        ['Source mIoU', 'Target mIoU oracle', 'macs G', 'validator soft iou']
    """
    if metric in _COSTS:
        return _COSTS[metric][0]
    for split, form in zip(SPLITS, ("Source {}", "Target {} oracle"), strict=True):
        if metric.startswith(f"{split}/"):
            name = metric.removeprefix(f"{split}/")
            return key_name(form.format("mIoU" if name == "miou" else name.replace("/", " ").replace("_", " ")))
    *_, group, name = ("value", *metric.split("/"))
    return key_name(f"{group} {name}{' oracle' if is_oracle(metric) else ''}".replace("_", " "))


def is_alias(name: str) -> bool:
    """Return whether a run's metric is a short name of another one."""
    return " " in name and "/" not in name


def compared_metrics(spec: SweepSpec) -> tuple[str, ...]:
    """Return the metrics of trials that have short names: objectives, what constraints are on, quality, cost."""
    asked = [*(item.metric for item in spec.objectives), *(item.metric for item in spec.constraints)]
    return tuple(dict.fromkeys([*_ALWAYS, *asked]))


def alias_metrics(record: TrialRecord, metrics: Iterable[str]) -> list[Metric]:
    """Return short metrics of a trial, all of step 0, so that MLflow draws bars and no lines of one point.

    Costs are known from the start, what a training decides when the trial is fully trained: figures of fewer steps are in the full
    names. Time stamps are recorded ones, so a figure that is sent again is the same point.

    Args:
        record: the trial.
        metrics: full names, see `compared_metrics`; those without a figure are left out.
    """
    costs, is_complete = sound(record.profile), record.state is TrialState.COMPLETE
    found = []
    for metric in metrics:
        if metric in EFFICIENCY:
            value = finite(costs, metric)
            figure, time = None if value is None else f"{value * _COSTS[metric][1]:.3g}", record.created
        else:
            value = finite(record.metrics, metric) if is_complete else None
            figure = None if value is None else f"{value:.4f}" if abs(value) <= 1 else f"{value:.4g}"
            time = record.created if record.finished is None else record.finished
        if figure is not None:
            found.append(Metric(alias_of(metric), float(figure), milliseconds(time), 0))
    return found


def tells_otherwise(run: Run, record: TrialRecord, spec: SweepSpec) -> bool:
    """Return whether a run has a short name with another value than the trial; one that it lacks is only missing.

    Args:
        run: the trial's, as MLflow has it.
        record: the trial.
        spec: its sweep.
    """
    said = alias_params(record)
    if any(said.get(name) != value for name, value in run.data.params.items() if is_alias_param(name)):
        return True
    known = {metric.key: metric.value for metric in alias_metrics(record, every_metric(record, spec))}
    reported = {key_name(name) for name in record.metrics}
    return any(
        known.get(name) != value for name, value in run.data.metrics.items() if is_alias(name) and name not in reported
    )


def every_metric(record: TrialRecord, spec: SweepSpec) -> tuple[str, ...]:
    """Return the metrics of which a trial may have short names: a sweep that was changed had other objectives before."""
    return tuple(dict.fromkeys([*compared_metrics(spec), *record.profile.keys() & set(EFFICIENCY), *record.metrics]))
