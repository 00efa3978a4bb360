"""How trials are named for people: method, network, parameters in short form."""

import functools
import json
from collections.abc import Iterable, Mapping, Sequence

from pydantic import ValidationError

from segda.tunable import Scalar
from sweeps.paths import value_at
from sweeps.trial import TrialKind, TrialRecord

# Parameters that the method label already shows.
_IN_METHOD_LABEL = frozenset({"method.name", "method.host.name", "method.discriminator"})
_MOST_NUMBERS = 12  # of trials in one line
_JITTER = 2.0  # seconds by which clocks that are set well may differ


def method_name(trial: TrialRecord) -> str:
    """Return the name of the trial's adaptation method."""
    return str(value_at(trial.config, "method.name") or trial.params.get("method.name") or "unknown")


def method_label(trial: TrialRecord) -> str:
    """Return the method with its discriminator, or with what it is put on, e.g. `adversarial × fcd` or `mic × dacs`."""
    parts = [
        value_at(trial.config, path) or trial.params.get(path) for path in ("method.host.name", "method.discriminator")
    ]
    return " × ".join(str(part) for part in (method_name(trial), *parts) if part)


def model_label(trial: TrialRecord) -> str:
    """Return the network's architecture, e.g. `bisenet_v1 (resnet18)`.

    Of a network that this installation does not have, or has with other settings, only the name.
    """
    return _model_label(json.dumps(trial.config.get("model"), sort_keys=True))


@functools.lru_cache(maxsize=1024)
def _model_label(text: str) -> str:
    from segda.config import NetworkConfig  # imports PyTorch, which who only looks at a sweep does without

    model = json.loads(text)
    try:
        return NetworkConfig.model_validate({"model": model}).model.label()
    except ValidationError:
        return str(value_at({"model": model}, "model.name") or "unknown")


def format_value(value: Scalar) -> str:
    """Return a parameter value in short form: three significant digits for floats."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Return dotted path -> the shortest name that tells it from the others.

    That is the last part, or the one before it where the last part is just `name`; the whole path where two would be alike.

    Example:
        >>> short_names(["model.name", "optimizer.lr", "batch_size"])
        {'model.name': 'model', 'optimizer.lr': 'lr', 'batch_size': 'batch_size'}
    """
    shortened = {path: path.removesuffix(".name").rpartition(".")[2] for path in paths}
    taken = list(shortened.values())
    return {path: name if taken.count(name) == 1 else path for path, name in shortened.items()}


def short_params(params: Mapping[str, Scalar]) -> str:
    """Return the parameters as one short line, without those that the method label shows.

    Example:
        >>> short_params({"method.name": "adversarial", "optimizer.lr": 0.025, "batch_size": 4})
        'lr 0.025, batch_size 4'
    """
    names = short_names(path for path in params if path not in _IN_METHOD_LABEL)
    return ", ".join(f"{name} {format_value(params[path])}" for path, name in names.items())


def settings_label(trial: TrialRecord) -> str:
    """Return method and searched parameters of a trial in one short text."""
    return ", ".join(text for text in (method_label(trial), short_params(trial.params)) if text)


def duration(seconds: float) -> str:
    """Return a time span for people.

    Example:
        >>> duration(3725), duration(65), duration(3)
        ('1 h 02 min', '1 min 05 s', '3 s')
    """
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def size_label(num_bytes: float) -> str:
    """Return an amount of memory or disk for people.

    Example:
        >>> size_label(3 * 2**29), size_label(5 * 2**20), size_label(700)
        ('1.5 GiB', '5 MiB', '1 KiB')
    """
    if num_bytes >= 2**30:
        return f"{num_bytes / 2**30:.1f} GiB"
    return f"{num_bytes / 2**20:.0f} MiB" if num_bytes >= 2**20 else f"{num_bytes / 2**10:.0f} KiB"


def ago(seconds: float) -> str:
    """Return how long ago something was; clocks of two machines may put it into the future, and then it says so.

    Example:
        >>> ago(65), ago(-7200)
        ('1 min 05 s ago', '2 h 00 min in the future by this clock')
    """
    return (
        f"{duration(-seconds)} in the future by this clock"
        if seconds <= -_JITTER
        else f"{duration(max(0.0, seconds))} ago"
    )


def listed(numbers: Sequence[int]) -> str:
    """Return numbers of trials for people, who do not read hundreds of them.

    Example:
        >>> listed([3, 5]), listed(range(30))
        ('3, 5', '0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 18 more')
    """
    more = len(numbers) - _MOST_NUMBERS
    shown = ", ".join(map(str, numbers[:_MOST_NUMBERS]))
    return f"{shown} and {more} more" if more > 0 else shown


def kind_label(trial: TrialRecord) -> str:
    """Return why the trial exists, with the reference's name or the repeated trial's number."""
    if trial.kind is TrialKind.REFERENCE and trial.name:
        return f"reference: {trial.name}"
    if trial.kind is TrialKind.REPLICATE and trial.parent is not None:
        return f"replicate of {trial.parent}"
    return trial.kind.value
