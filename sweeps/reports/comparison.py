"""Several sweeps side by side: what each picked, what it cost, how they differ, and whether they may be compared at all."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segda.datasets import DATASETS
from sweeps.file.spec import without_places
from sweeps.ledger.records import SweepState
from sweeps.metrics import SOURCE_MIOU, TARGET_MIOU, finite
from sweeps.paths import value_at
from sweeps.reports.view import SweepView
from sweeps.selection.analysis import is_candidate
from sweeps.selection.seeds import SeedGroup
from sweeps.trial import TrialKind, TrialRecord, TrialState

# What a sweep asks apart from its name; the rest of a sweep file says how it is run.
_QUESTION = (
    "question",
    "search",
    "objectives",
    "constraints",
    "selection",
    "seeds",
    "finalists",
    "references",
    "scheduler",
)
_EFFORT = ("sampler", "budget", "seed")


@dataclass(frozen=True)
class SweepRow:
    """One sweep in the common table.

    Attributes:
        name: the sweep.
        state: how far it is, for people.
        selection: the criterion of its choice.
        picked: its choice.
        source_miou: source validation mean IoU of the choice with the search's seed, which chose it, in [0, 1].
        target_miou: target mean IoU of the choice with the search's seed (oracle), in [0, 1].
        seeds: the choice over its further seeds; None without any.
        regret: target mean IoU that the best candidate has more with the search's seed (oracle); None without target figures.
        complete, total: trials trained in full, and all trials.
        worker_hours: time that its trials had workers, summed.
        hours: wall-clock time over all its drivers.
        steps: training steps.
    """

    name: str
    state: str
    selection: str
    picked: TrialRecord | None
    source_miou: float | None
    target_miou: float | None
    seeds: SeedGroup | None
    regret: float | None
    complete: int
    total: int
    worker_hours: float
    hours: float
    steps: int


@dataclass(frozen=True)
class Difference:
    """A setting in which sweep files differ.

    Attributes:
        path: dotted path into the sweep file.
        values: one text per sweep; a dash where the sweep has no such setting.
        kind: `question` (what is asked), `effort` (how much is spent), or `training` (what all trials share).
    """

    path: str
    values: tuple[str, ...]
    kind: str


def sweep_rows(views: Sequence[SweepView]) -> list[SweepRow]:
    """Return one row per sweep, in the given order.

    Args:
        views: the sweeps.
    """
    rows = []
    for view in views:
        picked = view.picked
        rows.append(
            SweepRow(
                name=view.record.name,
                state=_state(view),
                selection=view.spec.selection,
                picked=picked,
                source_miou=finite(picked.metrics, SOURCE_MIOU) if picked else None,
                target_miou=finite(picked.metrics, TARGET_MIOU) if picked else None,
                seeds=view.picked_seeds,
                regret=view.criterion.regret,
                complete=sum(trial.state is TrialState.COMPLETE for trial in view.trials),
                total=len(view.trials),
                worker_hours=sum(worker_seconds(trial) for trial in view.trials) / 3600,
                hours=view.record.seconds / 3600,
                steps=sum(trial.step for trial in view.trials if trial.reused is None),
            )
        )
    return rows


def _state(view: SweepView) -> str:
    if view.is_driven:
        return "running"
    # What a driver that died last said does not hold any more.
    state = view.record.state
    if state is SweepState.RUNNING:
        return "stopped"
    return "new" if state is None else state.label


def worker_seconds(trial: TrialRecord) -> float:
    """Return how long workers had a trial: nothing for a result that was there already."""
    return 0.0 if trial.reused is not None else trial.seconds


def best_so_far(view: SweepView, metric: str) -> list[tuple[float, float]]:
    """Return how good the best candidate was after how much work.

    Args:
        view: a sweep.
        metric: figure to maximize.

    Returns:
        (worker hours that ended trials had taken, best figure of a fully trained candidate that qualifies), a point for each trial
        that ended after the first candidate did. Every trial counts as work: references, stopped and failed ones too.
    """
    rejected = {number for number, _ in view.selection.rejected}
    ended = [trial for trial in view.trials if trial.state.is_finished and trial.finished is not None]
    hours, best = 0.0, None
    points = []
    for trial in sorted(ended, key=lambda trial: (trial.finished or 0.0, trial.number)):
        hours += worker_seconds(trial) / 3600
        value = finite(trial.metrics, metric)
        if (
            value is not None
            and is_candidate(trial)
            and trial.kind is TrialKind.SEARCH
            and trial.number not in rejected
        ):
            best = value if best is None else max(best, value)
        if best is not None:
            points.append((hours, best))
    return points


def differences(views: Sequence[SweepView]) -> list[Difference]:
    """Return the settings in which the sweep files differ, what is asked first.

    Name, places of data, tracking and resources are left out: they change no result.

    Args:
        views: the sweeps.
    """
    flats = [dict(_flat(_comparable(view.record.spec))) for view in views]
    rows = []
    for path in dict.fromkeys(path for flat in flats for path in flat):
        values = tuple(flat.get(path, "–") for flat in flats)
        if len(set(values)) > 1:
            top = path.partition(".")[0]
            kind = "question" if top in _QUESTION else "effort" if top in _EFFORT else "training"
            rows.append(Difference(path, values, kind))
    order = ("question", "training", "effort")
    return sorted(rows, key=lambda row: order.index(row.kind))


def _comparable(spec: Mapping[str, Any]) -> dict[str, Any]:
    wanted = {name: spec[name] for name in (*_QUESTION, "base", *_EFFORT) if name in spec}
    if isinstance(wanted.get("base"), Mapping):
        wanted["base"] = without_places(wanted["base"])
    return wanted


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted path, text) of every setting; a searched parameter is one setting, and so is a list."""
    is_parameter = path.startswith("search.") and isinstance(value, Mapping)
    if isinstance(value, Mapping) and not is_parameter:
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    elif is_parameter:
        yield path, _range_text(value)
    elif isinstance(value, list | tuple):
        yield path, ", ".join(_text(item) for item in value) or "none"
    elif value is not None:
        yield path, str(value)


def _text(item: Any) -> str:
    return " ".join(str(part) for part in item.values()) if isinstance(item, Mapping) else str(item)


def _range_text(value: Mapping[str, Any]) -> str:
    if value.get("choices") is not None:
        text = " | ".join(str(choice) for choice in value["choices"])
    else:
        text = f"{value.get('low')} to {value.get('high')}" + (" (log)" if value.get("log") else "")
    when = value.get("when") or {}
    return text + "".join(
        f", when {path} is {' or '.join(str(item) for item in items)}" for path, items in when.items()
    )


def obstacles(views: Sequence[SweepView]) -> list[str]:
    """Return why figures of the sweeps may not be compared, in sentences; empty if nothing speaks against it.

    Args:
        views: the sweeps.
    """
    names = [view.record.name for view in views]
    notes = []
    checks: list[tuple[str, list[str], str]] = [
        ("source data", [view.source_split for view in views], "source metrics are of different images"),
        ("target data", [view.target_split for view in views], "target metrics are of different images"),
        ("classes", [_classes(view) for view in views], "mean IoU is over different classes"),
        (
            "image size",
            [_size(view) for view in views],
            "mean IoU is at different sizes, and costs are of different inputs",
        ),
        ("training steps", [str(value_at(view.sample, "steps")) for view in views], "trials are of different fidelity"),
        (
            "objective",
            [", ".join(f"{item.direction} {item.metric}" for item in view.spec.objectives) for view in views],
            "each sweep looked for something else",
        ),
        ("selection", [view.spec.selection for view in views], "the picks were chosen by different criteria"),
        ("device", [view.device for view in views], "latency and fps were measured on different devices"),
        ("data contents", [_contents(view) for view in views], "the files were not the same"),
    ]
    for what, values, why in checks:
        known = [value for value in values if value]
        if len(set(known)) > 1:
            listed = "; ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True) if value)
            notes.append(f"Not the same {what}, so {why} ({listed}).")
    return notes


def _classes(view: SweepView) -> str:
    found = next((result.get("classes") for result in view.results.values() if result.get("classes")), None)
    dataset = DATASETS.get(str(value_at(view.sample, "data.source.dataset")))
    return ", ".join(found or (dataset.classes if dataset else ()))


def _size(view: SweepView) -> str:
    return f"{value_at(view.sample, 'data.height')} x {value_at(view.sample, 'data.width')}"


def _contents(view: SweepView) -> str:
    return next(
        (str(result["data_fingerprint"]) for result in view.results.values() if "data_fingerprint" in result), ""
    )
