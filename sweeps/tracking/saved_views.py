"""Pages of MLflow that show a sweep at once: every trial as a row, what it was and what came of it, and charts of both.

MLflow keeps a view as a tag of the experiment and opens it by a link (`viewStateShareKey`). Names of facets, columns and cards are
MLflow's own and no public interface; a test fails when the installed MLflow does not know them any more.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Experiment

from sweeps.file.spec import SweepSpec
from sweeps.ledger.records import SweepRecord
from sweeps.reports.markdown import markdown_line
from sweeps.tracking.aliases import LAMBDA, LATENCY, LR, MACS, METHOD, NETWORK, SOURCE, STATE, STYLE, TARGET
from sweeps.tracking.experiment import sweep_id

TAG = "mlflow.sharedViewState."
OPENED = f"{TAG}sweep"  # what `sweeps.tracking.app` opens in place: the view of the sweep that wrote last
NOTE = "mlflow.note.content"
LONGEST_TAG = 20_000  # of what MLflow opens as a view
_LONGEST_NOTE = 4_000
_HASH_DIGITS = 8
# What a searched path changes: an axis or a column of something constant says nothing.
_SEARCHED = {METHOD: "method.", NETWORK: "model.", STYLE: "data.style.", LR: "optimizer.lr", LAMBDA: "method."}
_WIDTHS = {
    **{STATE: 104, METHOD: 96, NETWORK: 104, STYLE: 84, LR: 70, LAMBDA: 74},
    **{SOURCE: 108, TARGET: 158, LATENCY: 92, MACS: 78},
}
_NARROW, _RUN, _DURATION = 46, 240, 80


def view_keys(record: SweepRecord) -> tuple[str, str]:
    """Return the keys of a sweep's views: of all trials, and by method. Several sweeps may share an experiment.

    Args:
        record: the sweep.
    """
    digits = hashlib.sha256(sweep_id(record).encode()).hexdigest()[:_HASH_DIGITS]
    return f"trials-{digits}", f"methods-{digits}"


def view_path(experiment: str, key: str, *, charts: bool = False) -> str:
    """Return the part of a link behind MLflow's address that opens a view.

    Args:
        experiment: MLflow's id of the experiment.
        key: of the view.
        charts: whether to open its charts instead of its table.
    """
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={key}{mode}"


def page_path(experiment: Experiment, record: SweepRecord) -> str:
    """Return what comes behind the address of a server with `sweeps.tracking.app` to see a sweep's trials.

    The view is opened in place, without MLflow's words about views of others, unless another sweep wrote to the experiment later.

    Args:
        experiment: where the sweep's runs are.
        record: the sweep.
    """
    key = view_keys(record)[0]
    if experiment.tags.get(OPENED) == experiment.tags.get(f"{TAG}{key}"):
        return f"#/experiments/{experiment.experiment_id}/runs"
    return view_path(experiment.experiment_id, key)


def put_views(client: MlflowClient, experiment: Experiment, record: SweepRecord, spec: SweepSpec) -> None:
    """Make the views of a sweep and the links to them, or bring them up to date.

    Args:
        client: MLflow.
        experiment: where the sweep's runs are; its note keeps what others wrote there.
        record: the sweep.
        spec: what its file says.
    """
    trials, methods = view_keys(record)
    created = int(1000 * record.created)
    table = _tag(f"{spec.name}: trials", created, view_state(record, spec))
    wanted = {
        f"{TAG}{trials}": table,
        OPENED: table,
        f"{TAG}{methods}": _tag(f"{spec.name}: by method", created, view_state(record, spec, by=METHOD)),
        NOTE: _note(experiment, record, spec),
    }
    for name, value in wanted.items():
        if experiment.tags.get(name) != value:
            client.set_experiment_tag(experiment.experiment_id, name, value)


def view_state(record: SweepRecord, spec: SweepSpec, *, by: str | None = None) -> dict[str, Any]:
    """Return the state of MLflow's page for a sweep.

    Args:
        record: the sweep.
        spec: what its file says.
        by: short parameter to group trials by; None: each is a row.
    """
    params = [name for name, path in _SEARCHED.items() if any(key.startswith(path) for key in spec.search)]
    params = params or [METHOD]
    outcome = [SOURCE, TARGET, LATENCY, MACS]
    columns = [
        _id("tags", STATE),
        *(_id("params", name) for name in params),
        *(_id("metrics", name) for name in outcome),
    ]
    widths = {column: _WIDTHS[column.partition("`")[2].rstrip("`")] for column in columns}
    state: dict[str, Any] = {
        "searchFilter": f"tags.`sweep.role` = 'trial' and tags.`sweep.id` = '{sweep_id(record)}'",
        "orderByKey": _id("metrics", SOURCE),
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": columns,
        "columnOrder": [_id("attributes", "Run Name"), "runDateAndNestInfo", *columns, "duration"],
        "columnWidths": {
            _id("attributes", "Run Name"): _RUN,
            "runDateAndNestInfo": _NARROW,
            **widths,
            "duration": _DURATION,
        },
        "compareRunCharts": _charts(params, headline=spec.objectives[0].metric),
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


def _charts(params: Sequence[str], *, headline: str) -> list[dict[str, Any]]:
    def card(number: int, kind: str, section: str, **what: Any) -> dict[str, Any]:
        own = {"uuid": f"sweep-{number}", "type": kind, "metricSectionId": section}
        return {**own, "deleted": False, "isGenerated": False, "runsCountToCompare": 100, **what}

    def scatter(number: int, x: str, y: str) -> dict[str, Any]:
        axes = {name: {"key": key, "type": "METRIC"} for name, key in (("xaxis", x), ("yaxis", y))}
        return card(number, "SCATTER", "quality", **axes)

    line = {
        "metricKey": headline,
        "selectedMetricKeys": [headline],
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
    return [
        # Its lines are colored by the last metric.
        card(
            1,
            "PARALLEL",
            "settings",
            selectedParams=list(params),
            selectedMetrics=[MACS, SOURCE],
            showAllRuns=True,
        ),
        scatter(2, LATENCY, SOURCE),
        scatter(3, SOURCE, TARGET),
        card(4, "BAR", "quality", metricKey=SOURCE),
        card(5, "LINE", "quality", **line),
    ]


def _section(key: str, name: str, *, columns: int) -> dict[str, Any]:
    shown = {"display": True, "isReordered": True, "deleted": False, "isGenerated": False}
    return {"uuid": key, "name": name, "columns": columns, "cardHeight": 330, **shown}


def _id(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _tag(name: str, created: int, state: Mapping[str, Any]) -> str:
    return json.dumps({"name": name, "createdAt": created, "state": json.dumps(state)})


def _note(experiment: Experiment, record: SweepRecord, spec: SweepSpec) -> str:
    """Return what stands under the experiment's title: a line of links for each sweep, above whatever people wrote there."""
    trials, methods = view_keys(record)
    place = experiment.experiment_id
    links = {
        "All trials": view_path(place, trials),
        "charts": view_path(place, trials, charts=True),
        "by method": view_path(place, methods),
    }
    line = " · ".join(
        [*(f"[**{name}**]({link})" for name, link in links.items()), markdown_line(spec.question or spec.name)]
    )
    others = [other for other in experiment.tags.get(NOTE, "").splitlines() if f"={trials}" not in other]
    return "\n".join([line, *others])[:_LONGEST_NOTE]
