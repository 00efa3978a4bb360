"""What the MLflow run of a sweep holds: the answer so far, for the page of the experiment."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from sweeps.metrics import sound
from sweeps.reports import cost_plots, plots
from sweeps.reports.marks import explained
from sweeps.reports.sweep_report import cost_bounds
from sweeps.reports.tables import trials_table
from sweeps.reports.view import SweepView
from sweeps.tracking.limits import limited_tags
from sweeps.tracking.runs import SweepRuns
from sweeps.tracking.server import log_metrics, log_tables, log_text, milliseconds, put_tags
from sweeps.tracking.trial_run import dataset_inputs, to_metrics

_PICK = "pick."  # tags with the picked trial's settings
_PICKED = ("sweep.picked", "sweep.picked_run", "sweep.picked_reason", "sweep.picked_marked")


def send_summary(client: MlflowClient, runs: SweepRuns, view: SweepView, *, reports: Sequence[Path]) -> None:
    """Send what the sweep has found so far; what was sent before is replaced.

    Files are `pareto.html`, the tables `trials.json` and `importance.json`, and the reports. The pick's settings become tags, since
    a sweep that goes on may pick another trial, and MLflow's parameters never change. Its figures become metrics under the
    names that the trials' runs have, so that the experiment's page shows them in the same columns; they are of the search's seed,
    and what further seeds say is in the reason and the report. Step is the number of trials that were finished when it was picked.

    Args:
        client: MLflow.
        runs: the sweep's runs.
        view: the sweep.
        reports: files of the report; missing ones are left out.
    """
    tables = {"trials.json": trials_table(view.trials).told(marks=view.marks).plain()}
    if view.importance:
        ranked = sorted(view.importance.items(), key=lambda item: -item[1])
        tables["importance.json"] = {"columns": ["parameter", "importance"], "data": [list(row) for row in ranked]}
    log_tables(client, runs.parent, tables)
    figure = cost_plots.pareto_figure(
        view.trials,
        picked=view.picked.number if view.picked else None,
        rejected={number for number, _ in view.selection.rejected},
        bounds=cost_bounds(view.spec),
    )
    if figure is not None:
        log_text(client, runs.parent, "pareto.html", _page(f"{view.record.name}: quality against cost", figure))
    for path in reports:
        if path.is_file():
            client.log_artifact(runs.parent, str(path))
    for trial in view.trials:
        if trial.number in view.results:
            digest = str(view.results[trial.number]["data_fingerprint"])
            client.log_inputs(runs.parent, dataset_inputs(trial.config, digest))
            break
    _send_pick(client, runs, view)


def _send_pick(client: MlflowClient, runs: SweepRuns, view: SweepView) -> None:
    picked = view.picked
    wanted: dict[str, str] = {}
    if picked is not None:
        marked = explained(picked, processes=view.spec.resources.processes)
        wanted = {
            "sweep.picked": str(picked.number),
            "sweep.picked_run": picked.run_id or "",
            "sweep.picked_reason": view.selection.reason,
            **({"sweep.picked_marked": "; ".join(marked.values())} if marked else {}),
            **{f"{_PICK}{path}": str(value) for path, value in picked.params.items()},
        }
        done = [trial.finished for trial in view.trials if trial.state.is_finished and trial.finished is not None]
        figures = dict(picked.metrics) | {f"profile/{name}": value for name, value in sound(picked.profile).items()}
        # With recorded times: the same state of the sweep, sent again, is the same point.
        metrics = to_metrics(
            figures,
            headline=view.spec.objectives[0].metric,
            timestamp=milliseconds(max(done, default=view.record.created)),
            step=len(done),
        )
        log_metrics(client, runs.parent, metrics, runs.refusals)
    wanted = limited_tags(wanted)
    known = {name: value for name, value in runs.parent_tags.items() if name in _PICKED or name.startswith(_PICK)}
    put_tags(client, runs.parent, wanted, known, runs.refusals)
    runs.parent_tags = {name: value for name, value in runs.parent_tags.items() if name not in known} | wanted


def _page(title: str, figure: Any) -> str:
    """Return a page of one figure that needs no network."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<script>{plots.plotly_script()}</script></head>\n"
        f"<body>{plots.to_html(figure, element='figure')}</body>\n</html>\n"
    )
