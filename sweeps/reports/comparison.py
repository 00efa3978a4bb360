"""Several sweeps side by side: what each picked, how their files differ, and whether they may be compared at all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from segda.datasets import DATASETS
from sweeps.file.spec import without_places
from sweeps.labels import method_label, short_params
from sweeps.ledger.records import SweepState
from sweeps.metrics import finite
from sweeps.paths import value_at
from sweeps.reports.columns import SOURCE, TARGET, interval_of, source, target
from sweeps.reports.formats import CODE, HUNDREDTHS, PROSE, WHOLE
from sweeps.reports.seed_formats import SPREAD
from sweeps.reports.table import Column, Table, table_of
from sweeps.reports.view import SweepView
from sweeps.selection.analysis import is_candidate
from sweeps.selection.seeds import MeanInterval
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


def sweeps_table(views: Sequence[SweepView]) -> Table:
    """Return what each sweep picked and what it took, in the given order.

    Args:
        views: the sweeps.
    """
    return table_of(
        views,
        [
            (Column("name", "sweep"), lambda view: view.record.name),
            (Column("state", "state"), state_of),
            (Column("selection", "selection"), lambda view: view.spec.selection),
            (Column("trial", "pick", WHOLE), _marked),
            (Column("method", "method"), lambda view: method_label(view.picked) if view.picked else None),
            (
                Column("params", "settings", PROSE),
                lambda view: short_params(view.picked.params) if view.picked else None,
            ),
            (
                replace(SOURCE, note="search seed: optimistic"),
                lambda view: source(view.picked) if view.picked else None,
            ),
            (replace(TARGET, note="search seed"), lambda view: target(view.picked) if view.picked else None),
            (Column("n", "n", WHOLE, note="further seeds"), lambda view: len(getattr(view.picked_seeds, "seeds", ()))),
            (replace(SOURCE, key="source_seeds", format=SPREAD, note="further seeds"), _over_seeds("source")),
            (interval_of("source_seeds"), _over_seeds("source")),
            (replace(TARGET, key="target_seeds", format=SPREAD, note="further seeds"), _over_seeds("target")),
            (interval_of("target_seeds", is_oracle=True), _over_seeds("target")),
            (Column("complete", "complete", WHOLE), complete),
            (Column("total", "of trials", WHOLE), lambda view: len(view.trials)),
            (Column("worker_hours", "worker hours", HUNDREDTHS), lambda view: worked_seconds(view) / 3600),
        ],
        notes=[
            "Target metrics are oracle metrics: they are shown, and steered nothing unless the selection is oracle. The search's "
            "seed chose each pick, so its metrics are high by luck too: compare sweeps by further seeds, which the search never "
            "saw. Differences within the intervals of few seeds may be chance."
        ],
    )


def _over_seeds(side: str) -> Callable[[SweepView], MeanInterval | None]:
    return lambda view: getattr(view.picked_seeds, side, None)


def _marked(view: SweepView) -> str | None:
    picked = view.picked
    return None if picked is None else f"{picked.number}{''.join(view.marks[picked.number])}"


def complete(view: SweepView) -> int:
    """Return how many trials of a sweep were trained in full."""
    return sum(trial.state is TrialState.COMPLETE for trial in view.trials)


def worked_seconds(view: SweepView) -> float:
    """Return how long the trials of a sweep had workers, summed."""
    return sum(worker_seconds(trial) for trial in view.trials)


def state_of(view: SweepView) -> str:
    """Return how far a sweep is, for people."""
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


def differences(views: Sequence[SweepView]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return the settings in which the sweep files differ, what is asked first.

    Name, places of data, tracking and resources are left out: they change no result.

    Args:
        views: the sweeps.

    Returns:
        What each setting concerns (`question`: what is asked, `effort`: how much is spent, `training`: what all trials share), its
        dotted path into the sweep file, and one text per sweep, a dash where it has no such setting.
    """
    flats = [dict(_flat(_comparable(view.record.spec))) for view in views]
    rows = []
    for path in dict.fromkeys(path for flat in flats for path in flat):
        values = tuple(flat.get(path, "–") for flat in flats)
        if len(set(values)) > 1:
            top = path.partition(".")[0]
            kind = "question" if top in _QUESTION else "effort" if top in _EFFORT else "training"
            rows.append((kind, path, values))
    order = ("question", "training", "effort")
    return sorted(rows, key=lambda row: order.index(row[0]))


def differences_table(views: Sequence[SweepView]) -> Table:
    """Return in which settings the sweep files differ.

    Args:
        views: the sweeps.
    """
    names = [view.record.name for view in views]
    return Table(
        [
            Column("kind", "concerns"),
            Column("path", "setting", CODE),
            *(Column(f"value_{index}", name, PROSE) for index, name in enumerate(names)),
        ],
        [(kind, path, *values) for kind, path, values in differences(views)],
        notes=["Names, places of data, resources and tracking are left out: they change no result."],
        empty="None: the sweeps ask the same with the same effort.",
    )


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
