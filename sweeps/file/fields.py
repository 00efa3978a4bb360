"""Dotted paths into a training configuration: which exist, and which a sweep cannot vary."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from segda.catalog import Catalog
from segda.compression.schedules import NO_PRUNING, PRUNING_SCHEDULES
from segda.config import DistillationConfig, StartConfig, TrainConfig
from segda.losses import LOSSES, USUAL_LOSS
from segda.methods import METHODS
from segda.methods.hosts import HOSTS
from segda.methods.mic import USUAL_HOST
from segda.models import MODELS, USUAL_MODEL
from segda.optim import OPTIMIZERS, USUAL_OPTIMIZER
from segda.transforms.styles import NO_STYLE, STYLES
from segda.tunable import Tunable
from sweeps.paths import value_at

METHOD, FEW_SHOT, STYLE, HEAD_LR_FACTOR = "method.name", "data.few_shot", "data.style", "optimizer.head_lr_factor"
HOST = "method.host"  # of a method that is put on top of another one
PRUNED_SEGMENTER, PRUNED_DISCRIMINATOR = "pruning.segmenter.schedule", "pruning.discriminator.schedule"
EXTERNAL_LABELS = "data.external_labels"
EXTERNAL_FOLDER, EXTERNAL_DIGEST = f"{EXTERNAL_LABELS}.folder", f"{EXTERNAL_LABELS}.digest"
# Groups of settings that a configuration need not have, with fields that a sweep can vary where the base has the group.
_OPTIONAL: Mapping[str, type[BaseModel]] = {"start": StartConfig, "distillation": DistillationConfig}
# What says where a checkpoint lies, and the digest that a sweep keeps to.
CHECKPOINTS = {f"{group}.checkpoint": f"{group}.digest" for group in _OPTIONAL}
# Begin the paths that decide which network a trial has: a start brings its own.
NETWORK_PREFIXES = ("model.", "start.")
# Parts of a training configuration whose settings depend on their name, and what is meant where none is given.
VARIANTS: Mapping[str, Catalog[Any]] = {
    "method": METHODS,
    HOST: HOSTS,
    "model": MODELS,
    "optimizer": OPTIMIZERS,
    "loss": LOSSES,
    STYLE: STYLES,
    PRUNED_SEGMENTER: PRUNING_SCHEDULES,
    PRUNED_DISCRIMINATOR: PRUNING_SCHEDULES,
}
_USUAL = {
    HOST: USUAL_HOST,
    "model": USUAL_MODEL,
    "optimizer": USUAL_OPTIMIZER,
    "loss": USUAL_LOSS,
    STYLE: NO_STYLE,
    PRUNED_SEGMENTER: NO_PRUNING,
    PRUNED_DISCRIMINATOR: NO_PRUNING,
}
# Parts that are groups of settings, not single values.
GROUPS = frozenset(VARIANTS) | {
    name
    for name, field in TrainConfig.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
}
_PLACE = "it says where or how fast a trial runs, not what it computes; put it under base"
_FIDELITY = "all trials of a sweep are compared at the same one; put it under base and make a sweep for each value"
_QUESTION = "trials are compared on the same images; put it under base and make a sweep for each value"
# Path -> why a sweep cannot vary it.
FIXED_FIELDS: Mapping[str, str] = {
    "seed": "list the training seeds under seeds",
    "steps": _FIDELITY,
    "report_every": _FIDELITY,
    "oracle": _FIDELITY,
    "data.source.dataset": _QUESTION,
    "data.source.domain": _QUESTION,
    "data.target.dataset": _QUESTION,
    "data.target.domain": _QUESTION,
    "data.height": _FIDELITY,
    "data.width": _FIDELITY,
    FEW_SHOT: "few-shot methods are compared on the same labels; put it under base and make a sweep for each number of them",
    "data.under_represented": "trials are compared by the same scores; put it under base",
    EXTERNAL_LABELS: "students are compared on the labels of one teacher; put it under base and make a sweep for each",
    **dict.fromkeys(CHECKPOINTS.values(), "it follows from the checkpoint"),
    "model.widths": "they fit the weights of one checkpoint; search start.checkpoint over slimmed ones",
    "precision": _FIDELITY,
    "validators": "trials are compared by the same scores; put it under base",
    "device": _PLACE,
    "data.workers": _PLACE,
    "data.cache": _PLACE,
    "data.source.root": _PLACE,
    "data.target.root": _PLACE,
    "model.weights_file": _PLACE,
}
PATH_FIELDS = (
    "data.cache",
    "data.source.root",
    "data.target.root",
    EXTERNAL_FOLDER,
    *CHECKPOINTS,
    "model.weights_file",
)


@cache
def fields_of(part: str, name: str) -> Mapping[str, FieldInfo]:
    """Return dotted path -> field of a part of a training configuration under one name.

    Args:
        part: key of `VARIANTS`.
        name: a known one, e.g. of a method.
    """
    return dict(_leaves(VARIANTS[part][name].Config, f"{part}."))


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        if path in VARIANTS:
            continue
        group = _OPTIONAL.get(path, field.annotation)
        if isinstance(group, type) and issubclass(group, BaseModel):
            yield from _leaves(group, f"{path}.")
        else:
            yield path, field


def part_of(path: str) -> str | None:
    """Return the innermost part whose settings a path belongs to, a key of `VARIANTS`, or None."""
    return max((part for part in VARIANTS if path.startswith(f"{part}.")), key=len, default=None)


def has_part(part: str, name: str) -> bool:
    """Return whether a part is there where the part around it has a name.

    Args:
        part: key of `VARIANTS`.
        name: that the part around it can have.

    Example:
        >>> has_part("method.host", "mic"), has_part("method.host", "dacs")
        (True, False)
    """
    around = part_of(part)
    return around is None or part.removeprefix(f"{around}.") in VARIANTS[around][name].Config.model_fields


def known_paths(names: Mapping[str, Iterable[str]]) -> dict[str, FieldInfo]:
    """Return dotted path -> field of training configurations.

    Args:
        names: part -> names that it can have; the fields of any of them are known.
    """
    found = dict(_leaves(TrainConfig))
    for part, known in names.items():
        for name in known:
            found = dict(fields_of(part, name)) | found
    return found


def name_of(config: Mapping[str, Any], part: str) -> Any:
    """Return the name of a part in a training configuration as plain data; unchecked, None where there is none.

    Args:
        config: complete or not.
        part: key of `VARIANTS`.
    """
    return value_at(config, f"{part}.name", _USUAL.get(part))


def declared_range(field: FieldInfo) -> Tunable | None:
    """Return the search range that stands beside a field's default, or None."""
    return next((item for item in field.metadata if isinstance(item, Tunable)), None)
