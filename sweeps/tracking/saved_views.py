"""Pages of MLflow that show a sweep at once: every trial as a row, what it was and what came of it, and charts of both.

MLflow keeps a view as a tag of the experiment and opens it by a link (`viewStateShareKey`). Names of facets, columns and cards are
MLflow's own and no public interface; a test fails when the installed MLflow does not know them any more.

What a sweep varies is what its views show: a column or an axis of something that is the same everywhere says nothing.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Experiment

from sweeps.file.fields import NETWORK_PREFIXES
from sweeps.file.parts import Objective
from sweeps.file.space import Searched
from sweeps.file.spec import SweepSpec
from sweeps.ledger.records import SweepRecord
from sweeps.metrics import EFFICIENCY, SOURCE_MIOU, TARGET_MIOU, finite, sound
from sweeps.paths import value_at
from sweeps.reports.markdown import markdown_line
from sweeps.tracking.aliases import (
    LAMBDA,
    LATENCY,
    LR,
    MACS,
    METHOD,
    NETWORK,
    STATE,
    STYLE,
    TARGET,
    TOLD,
    alias_of,
    alias_of_path,
    alias_params,
    compared_metrics,
    has_own_alias,
)
from sweeps.tracking.experiment import sweep_id
from sweeps.tracking.limits import cut
from sweeps.tracking.view_keys import NOTE, TABLE, TAG
from sweeps.trial import TrialKind, TrialRecord

LONGEST_TAG = 20_000  # of an experiment
_LONGEST_QUESTION = 300
_HASH_DIGITS = 8
_ORDER = (METHOD, NETWORK, STYLE, LR, LAMBDA)
_ALWAYS = frozenset({METHOD, NETWORK, LR, LAMBDA})  # columns of every sweep
_MOST_OTHERS = 4  # columns of further searched parameters
_MOST_AXES = 6  # of the parallel plot, beside outcomes
_RUN, _DATE, _DURATION = "attributes.`Run Name`", "runDateAndNestInfo", "duration"  # MLflow shows them in any case
# Pixels: with a few searched parameters, all columns stand on a screen of 1600.
_WIDTHS = {
    **{_RUN: 190, _DATE: 46, _DURATION: 72, f"tags.`{STATE}`": 90, f"params.`{METHOD}`": 78, f"params.`{NETWORK}`": 92},
    **{f"params.`{STYLE}`": 94, f"params.`{LR}`": 70, f"params.`{LAMBDA}`": 72},
}
_LETTER, _AROUND, _NARROWEST = 7, 34, 72  # of a column's name


@dataclass(frozen=True)
class _Sight:
    """What is worth showing of a sweep.

    Attributes:
        columns: parameters, short ones first.
        axes: those of them that vary and that every trial has.
        quality: the metric that training decides and that comes first among the objectives, or the source's mean IoU.
        costs: short names of costs that differ between trials and that all measured ones have.
        outcomes: short names of metrics, the objectives first.
        has_target: whether target figures exist, or may come.
        first: what rows are sorted by.
    """

    columns: tuple[str, ...]
    axes: tuple[str, ...]
    quality: str
    costs: tuple[str, ...]
    outcomes: tuple[str, ...]
    has_target: bool
    first: Objective


def view_keys(record: SweepRecord) -> tuple[str, str]:
    """Return the keys of a sweep's views: of all trials, and in groups. Several sweeps may share an experiment.

    Args:
        record: the sweep.
    """
    digits = hashlib.sha256(sweep_id(record).encode()).hexdigest()[:_HASH_DIGITS]
    return f"{TABLE}{digits}", f"groups-{digits}"


def view_path(experiment: str, key: str, *, charts: bool = False) -> str:
    """Return the part of a link behind MLflow's address that opens a view.

    Args:
        experiment: MLflow's id of the experiment.
        key: of the view.
        charts: whether to open its charts instead of its table.

    Example:
        >>> view_path("1", "trials-0a1b2c3d")
        '#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=trials-0a1b2c3d'
    """
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={key}{mode}"


def page_path(experiment: Experiment, record: SweepRecord) -> str:
    """Return the part of a link that opens a sweep's table where `sweeps.tracking.app` serves the page.

    That opens the latest sweep of an experiment in place; an earlier one is opened as a view.

    Args:
        experiment: where the sweep's runs are.
        record: the sweep.
    """
    key, _ = view_keys(record)
    made = {
        name.removeprefix(TAG): _created(value)
        for name, value in experiment.tags.items()
        if name.startswith(f"{TAG}{TABLE}")
    }
    if made and made.get(key) == max(made.values()):
        return f"#/experiments/{experiment.experiment_id}/runs"
    return view_path(experiment.experiment_id, key)


def _created(view: str) -> float:
    """Return when a view was made; whoever overrides one on the page may write something else."""
    try:
        return float(json.loads(view)["createdAt"])
    except (ValueError, TypeError, KeyError):
        return 0.0


def put_views(
    client: MlflowClient, experiment: str, record: SweepRecord, spec: SweepSpec, trials: Sequence[TrialRecord]
) -> None:
    """Make the views of a sweep and the links to them, or bring them up to date; what is as it should be is not sent.

    Args:
        client: MLflow.
        experiment: id of the experiment; its note keeps what people and other sweeps wrote there.
        record: the sweep.
        spec: what its file says.
        trials: what came of it so far.

    Raises:
        MlflowException: a call failed.
    """
    # Asked for anew: another sweep's driver or people may have written there meanwhile.
    known = client.get_experiment(experiment)
    by = group_of(spec)
    table, groups = view_keys(record)
    of = "" if known.name == spec.name else f": {spec.name}"
    created = int(1000 * record.created)
    wanted = {
        f"{TAG}{table}": _tag(f"Trials{of}", created, view_state(record, spec, trials)),
        f"{TAG}{groups}": _tag(f"By {by.lower()}{of}", created, view_state(record, spec, trials, by=by)),
        NOTE: _noted(known.tags.get(NOTE, ""), experiment, record, spec),
    }
    for name, value in wanted.items():
        if known.tags.get(name) != value and len(value) <= LONGEST_TAG:
            client.set_experiment_tag(experiment, name, value)


def group_of(spec: SweepSpec) -> str:
    """Return the short parameter that trials are grouped by: the method, unless only the network or the style is searched."""
    return next((name for name in (METHOD, NETWORK, STYLE) if _is_searched(spec, name)), METHOD)


def view_state(
    record: SweepRecord, spec: SweepSpec, trials: Sequence[TrialRecord] = (), *, by: str | None = None
) -> dict[str, Any]:
    """Return the state of MLflow's page for a sweep.

    Args:
        record: the sweep.
        spec: what its file says.
        trials: what came of it so far; what is searched is taken to vary.
        by: short parameter to group trials by; None: each is a row.
    """
    sight = _sight(spec, trials)
    columns = [
        f"tags.`{STATE}`",
        *(f"params.`{name}`" for name in sight.columns),
        *(f"metrics.`{name}`" for name in sight.outcomes),
    ]
    order = [_RUN, _DATE, *columns, _DURATION]
    state: dict[str, Any] = {
        "searchFilter": f"tags.`sweep.role` = 'trial' and tags.`sweep.id` = '{sweep_id(record)}'",
        "orderByKey": f"metrics.`{alias_of(sight.first.metric)}`",
        "orderByAsc": sight.first.direction == "minimize",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": columns,
        "columnOrder": order,
        "columnWidths": {column: _WIDTHS.get(column) or _width(column) for column in order},
        "compareRunCharts": _charts(sight),
        "compareRunSections": [
            _section("settings", "Settings and outcome", columns=1),
            _section("quality", "Quality and cost", columns=2),
        ],
        "isAccordionReordered": True,
        "runsHiddenMode": "SHOW_ALL",
        "hideEmptyCharts": True,
    }
    if by is not None:
        state["groupBy"] = {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": by}]}
    return state


def _sight(spec: SweepSpec, trials: Sequence[TrialRecord]) -> _Sight:
    trained = [item for item in spec.objectives if item.metric not in EFFICIENCY]
    quality = trained[0].metric if trained else SOURCE_MIOU
    names = {trial.number: alias_params(trial) for trial in trials}
    told = frozenset().union(*TOLD.values())
    others = [path for path, item in spec.search.items() if path not in told and _varies(item)][:_MOST_OTHERS]
    # The parallel plot leaves out who lacks one of its axes: references, which lack what is searched, but no other trial.
    whole = [path for path in others if not spec.search[path].when and _all_have(trials, path)]
    drawn = [trial.number for trial in trials if trial.params.keys() >= set(whole)]
    varying = [name for name in _ORDER if _is_searched(spec, name) or _differ(names.values(), name)]
    on_axes = [name for name in varying if _is_searched(spec, name) or _differ([names[item] for item in drawn], name)]
    profiles = [sound(trial.profile) for trial in trials if trial.profile]
    is_network = any(path.startswith(NETWORK_PREFIXES) and _varies(item) for path, item in spec.search.items())
    costs = [
        alias_of(metric)
        for metric in compared_metrics(spec)
        if metric in EFFICIENCY
        and (is_network or len({profile.get(metric) for profile in profiles}) > 1)
        and all(metric in profile for profile in profiles)
    ]
    scores = [finite(trial.metrics, TARGET_MIOU) for trial in trials if trial.state.is_finished and trial.metrics]
    has_target = any(score is not None for score in scores) if scores else value_at(spec.base, "oracle") != "never"
    metrics = sorted(
        # Sorting keeps their order, but quality comes before cost, and first of all what training is to decide.
        dict.fromkeys([*(item.metric for item in spec.objectives), *compared_metrics(spec)]),
        key=lambda metric: (metric in EFFICIENCY, metric != quality),
    )
    unknown = {metric for metric in EFFICIENCY if profiles and not any(metric in profile for profile in profiles)}
    return _Sight(
        columns=tuple(dict.fromkeys([*(name for name in _ORDER if name in {*_ALWAYS, *varying}), *map(_name, others)])),
        axes=tuple([*on_axes, *map(_name, whole)][:_MOST_AXES]) or (METHOD,),
        quality=quality,
        costs=tuple(costs),
        outcomes=tuple(
            alias_of(metric) for metric in metrics if metric not in unknown and (metric != TARGET_MIOU or has_target)
        ),
        has_target=has_target,
        first=spec.objectives[0],
    )


def _varies(item: Searched) -> bool:
    return len(item.choices) > 1 if item.choices is not None else item.low != item.high


def _is_searched(spec: SweepSpec, name: str) -> bool:
    return any(path in spec.search and _varies(spec.search[path]) for path in TOLD[name])


def _differ(names: Iterable[Mapping[str, str]], name: str) -> bool:
    return len({aliases[name] for aliases in names}) > 1


def _all_have(trials: Sequence[TrialRecord], path: str) -> bool:
    return all(path in trial.params for trial in trials if trial.kind is not TrialKind.REFERENCE)


def _name(path: str) -> str:
    """Return what a searched parameter is called in MLflow, if no common short name says it."""
    return alias_of_path(path) if has_own_alias(path) else path


def _charts(sight: _Sight) -> list[dict[str, Any]]:
    quality = alias_of(sight.quality)
    # MACs are exact; latency is what counts, where every network has one that can be believed.
    costs = [name for name in (LATENCY, MACS, *sight.costs) if name in sight.costs]

    def card(number: int, kind: str, section: str, **what: Any) -> dict[str, Any]:
        own = {"uuid": f"sweep-{number}", "type": kind, "metricSectionId": section}
        return {**own, "deleted": False, "isGenerated": False, "runsCountToCompare": 100, **what}

    def scatter(number: int, x: str, y: str, *, kind: str = "METRIC") -> dict[str, Any]:
        return card(number, "SCATTER", "quality", xaxis={"key": x, "type": kind}, yaxis={"key": y, "type": "METRIC"})

    line = {
        "metricKey": sight.quality,
        "selectedMetricKeys": [sight.quality],
        "lineSmoothness": 0,
        "xAxisKey": "step",
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "range": {},
    }
    setting = next((name for name in (LR, LAMBDA) if name in sight.axes), sight.axes[-1])
    against = scatter(2, costs[0], quality) if costs else scatter(2, setting, quality, kind="PARAM")
    return [
        # Its lines are colored by the last metric.
        card(
            1,
            "PARALLEL",
            "settings",
            selectedParams=list(sight.axes),
            selectedMetrics=[*costs[:1], quality],
            showAllRuns=True,
        ),
        against,
        *([scatter(3, quality, TARGET)] if sight.has_target and quality != TARGET else []),
        card(4, "BAR", "quality", metricKey=quality),
        card(5, "LINE", "quality", **line),
    ]


def _section(key: str, name: str, *, columns: int) -> dict[str, Any]:
    shown = {"display": True, "isReordered": True, "deleted": False, "isGenerated": False}
    return {"uuid": key, "name": name, "columns": columns, "cardHeight": 330, **shown}


def _width(column: str) -> int:
    return max(_NARROWEST, _AROUND + _LETTER * len(column.partition("`")[2]))


def _tag(name: str, created: int, state: Mapping[str, Any]) -> str:
    return json.dumps({"name": name, "createdAt": created, "state": json.dumps(state)})


def _noted(note: str, experiment: str, record: SweepRecord, spec: SweepSpec) -> str:
    """Return the experiment's note with a paragraph of links for the sweep: MLflow shows the first line under the title.

    A new sweep stands on top; one that is there already, and whatever people wrote, stays where it is.
    """
    table, groups = view_keys(record)
    links = {
        f"{spec.name}: all trials": view_path(experiment, table),
        "charts": view_path(experiment, table, charts=True),
        f"by {group_of(spec).lower()}": view_path(experiment, groups),
    }
    question = [markdown_line(cut(spec.question, _LONGEST_QUESTION))] if spec.question else []
    line = " · ".join([*(f"[**{name}**]({link})" for name, link in links.items()), *question])
    lines = note.splitlines()
    if any(f"={table})" in other for other in lines):
        return "\n".join(line if f"={table})" in other else other for other in lines)
    return f"{line}\n\n{note}" if note else line
