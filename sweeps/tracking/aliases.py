"""Short names, beside the full ones, of what people compare trials by in MLflow.

MLflow's table prints raw numbers and cuts names at 100 pixels, its comparison page takes the first three parameters that differ in
the order of their characters (capitals first) and the first metric of all, and its axes cut texts after ten characters. So what
matters has a short name with a capital, is rounded, and is there for every trial: a parameter that some runs lack is drawn as
"unknown" or next to the largest value.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from mlflow.entities import Metric

from sweeps.metrics import SOURCE_MIOU, TARGET_MIOU, finite, sound
from sweeps.paths import value_at
from sweeps.tracking.server import milliseconds
from sweeps.trial import TrialRecord, TrialState

METHOD, NETWORK, STYLE, LR, LAMBDA = "Method", "Network", "Style", "LR", "Lambda"
PARAMS = frozenset({METHOD, NETWORK, STYLE, LR, LAMBDA})
SOURCE, TARGET, LATENCY, MACS = "Source mIoU", "Target mIoU oracle", "latency ms", "macs G"
METRICS = frozenset({SOURCE, TARGET, LATENCY, MACS})
STATE = "State"  # a tag

_LONGEST_ON_AN_AXIS = 10
# How long names are said in few characters; others are cut.
_SHORT = {
    "adversarial": "adv",
    "source_only": "source",
    "target_only": "target",
    "self_training": "self-train",
    "external_labels": "ext labels",
    "min_entropy": "minent",
    "channel_statistics": "channels",
    "amplitude_mix": "amp mix",
    "efficientvit_seg": "effvit",
    "segformer_b0": "segf b0",
    "ddrnet_23_slim": "ddrnet 23",
    "deeplab_v2_multi": "deeplab mu",
    "multi_class_light": "mcl",
    "light_light": "ll",
    "efficientnet_lite": "lite",
    "bisenet_v": "bise",
    "mobilenet_v3_large": "mbnet",
    "resnet": "rn",
}


def short(*parts: object) -> str:
    """Return names as one text that an axis shows whole.

    Example:
        >>> short("adversarial", "dwd"), short("bisenet_v1", "efficientnet_lite0"), short("some_new_method")
        ('adv dwd', 'bise1 lite0', 'some_new_m')
    """
    words = []
    for part in parts:
        word = str(part)
        for name, said in _SHORT.items():
            word = word.replace(name, said)
        words.append(word)
    text = " ".join(words)
    return text if len(parts) > 1 else text[:_LONGEST_ON_AN_AXIS]


def decimal(value: float) -> str:
    """Return a number with two significant digits and without an exponent: MLflow sorts parameters as text.

    Example:
        >>> decimal(0.00318), decimal(5.8e-5), decimal(120), decimal(0)
        ('0.0032', '0.000058', '120', '0')
    """
    rounded = Decimal(f"{value:.2g}").normalize()
    return f"{rounded:f}"


def alias_params(record: TrialRecord) -> dict[str, str]:
    """Return short parameters of a trial: the same ones for every trial, by its configuration alone."""
    config = record.config
    method = [value_at(config, path) for path in ("method.name", "method.host.name", "method.discriminator")]
    network = [value_at(config, path) for path in ("model.name", "model.backbone", "model.variant")]
    rate = value_at(config, "optimizer.lr")
    return {
        METHOD: short(*(part for part in method if part)),
        NETWORK: short(*(part for part in network if part)),
        STYLE: short(value_at(config, "data.style.name") or "none"),
        LR: decimal(rate) if isinstance(rate, int | float) else "0",
        LAMBDA: decimal(_weight(config.get("method"))),
    }


def _weight(method: Any) -> float:
    """Return the weight of a method's own loss: `lambda_adv` where there is one, else the first `lambda_...`; 0 without any."""
    weights = method if isinstance(method, Mapping) else {}
    names = [name for name in ("lambda_adv", *sorted(weights)) if name.startswith("lambda_")]
    found = (weights[name] for name in names if isinstance(weights.get(name), int | float))
    return float(next(found, 0.0))


def alias_metrics(record: TrialRecord) -> list[Metric]:
    """Return short metrics of a trial, all of step 0, so that MLflow draws bars and no lines of one point.

    Costs are known from the start, quality when the trial is fully trained. Time stamps are recorded ones: sent again, a figure is
    the same point.
    """
    created = milliseconds(record.created)
    profile = sound(record.profile)
    costs = {LATENCY: (profile.get("latency_ms"), 1.0), MACS: (profile.get("macs"), 1e-9)}
    found = [
        Metric(name, float(f"{scale * value:.3g}"), created, 0)
        for name, (value, scale) in costs.items()
        if value is not None
    ]
    if record.state is TrialState.COMPLETE:
        ended = milliseconds(record.finished or record.created)
        quality = {
            name: finite(record.metrics, metric) for name, metric in ((SOURCE, SOURCE_MIOU), (TARGET, TARGET_MIOU))
        }
        found = [
            Metric(name, round(value, 4), ended, 0) for name, value in quality.items() if value is not None
        ] + found
    return found
