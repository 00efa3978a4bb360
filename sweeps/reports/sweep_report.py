"""The report of a sweep: one HTML file that needs no network, and the same tables as Markdown.

Everything comes from the ledger and the files in the trials' folders, so a report can be written while a sweep runs, after it
was killed, and on a machine without GPU, cluster or tracking server. What is missing is said, never guessed.
"""

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from segda.masking import masked_plain
from sweeps.file.spec import SweepSpec
from sweeps.labels import method_label, model_label
from sweeps.ledger.database import Ledger
from sweeps.metrics import SOURCE_MIOU, SPLITS, TARGET_MIOU, finite
from sweeps.reports import cost_plots, failure_plots, plots, standing_plots
from sweeps.reports.formats import date, percent
from sweeps.reports.network_tables import class_values
from sweeps.reports.pages import write_page
from sweeps.reports.pick import pick_guide
from sweeps.reports.proof import remove_proof, write_proof
from sweeps.reports.regions import region_rows
from sweeps.reports.renewal import RENEW_SECONDS, STALE_SECONDS, renewal_line
from sweeps.reports.report_tables import left_out_text, report_tables
from sweeps.reports.rival_pictures import rival_pictures
from sweeps.reports.seed_formats import spread
from sweeps.reports.text import (
    asked_rows,
    context_line,
    deployed_text,
    environment_rows,
    labelled_text,
    mark_lines,
    state_line,
    warning_lines,
)
from sweeps.reports.view import MOST_SHOWN, SweepView, load_view
from sweeps.selection.seeds import MeanInterval
from sweeps.store import Store
from sweeps.suggestions import remembered


@dataclass(frozen=True)
class ReportPaths:
    """Where a report was written.

    Attributes:
        html: self-contained page.
        markdown: the same tables as text.
    """

    html: Path
    markdown: Path


@dataclass(frozen=True)
class Example:
    """A picture of example predictions.

    Attributes:
        title: network and domain.
        uri: the PNG as a data URI.
    """

    title: str
    uri: str


def write_report(
    ledger: Ledger, store: Store, sweep: str, *, folder: Path | None = None, draws: bool = True
) -> ReportPaths:
    """Write `report.html` and `report.md`, and beside them what an audit compares them with.

    Args:
        ledger: where the sweep is.
        store: where its files are and the report goes.
        sweep: name of the sweep; it may be running, killed or empty.
        folder: where to; unset: the sweep's folder.
        draws: whether to make pictures that are not there yet, see `sweeps.reports.rival_pictures`.

    Returns:
        The two files.

    Raises:
        ConfigError: there is no such sweep.
    """
    return write_view(load_view(ledger, store, sweep), store, folder=folder, draws=draws)


def write_view(view: SweepView, store: Store, *, folder: Path | None = None, draws: bool = True) -> ReportPaths:
    """Write the report of a sweep that has been read, see `write_report`.

    The driver of a sweep renews the report in the sweep's folder. So as long as there is one that page is read again by itself, and
    no digests lie beside it, since an audit may look while it is replaced.

    Args:
        view: the sweep.
        store: where the report goes.
        folder: where to; unset: the sweep's folder.
        draws: as there.
    """
    sweep = view.record.name
    html = store.report(sweep) if folder is None else folder / store.report(sweep).name
    paths = ReportPaths(html=html, markdown=html.with_suffix(".md"))
    is_renewed = view.is_driven and folder is None
    content = report_content(view) | {
        "in_mlflow": remembered().command("ui", sweep),
        "renewal": renewal_line(view, is_renewed=is_renewed),
        "renew_seconds": RENEW_SECONDS if is_renewed else None,
        "stale_seconds": STALE_SECONDS,
        "rivals": rival_pictures(view, store, draws=draws),
    }
    shown = {"figures": _figures(view), "plotly": Markup(plots.plotly_script()), "examples": _examples(view)}
    if is_renewed:
        remove_proof(paths.html)
    write_page(paths.html, "report.html.j2", content, **shown)
    write_page(paths.markdown, "report.md.j2", content)
    if not is_renewed:
        write_proof((paths.html, paths.markdown), view.trials)
    return paths


def report_content(view: SweepView) -> dict[str, Any]:
    """Return what both templates show, without figures and pictures."""
    now = time.time()
    return {
        "view": view,
        **_pick_content(view),
        "spec": view.spec,
        "asked": asked_rows(view),
        "state": state_line(view),
        "warnings": warning_lines(view),
        "context": context_line(view),
        "marks": {number: "".join(signs) for number, signs in view.marks.items()},
        "mark_lines": mark_lines(view),
        "tables": report_tables(view),
        "left_out": left_out_text(view),
        "most_shown": MOST_SHOWN,
        "environment": environment_rows(view),
        "sweep_file": yaml.safe_dump(masked_plain(_plain(view.record.spec)), sort_keys=False, allow_unicode=True),
        "written": date(now),
        "written_seconds": round(now),
    }


@dataclass(frozen=True)
class _Figure:
    text: str
    seeds: str


def _pick_content(view: SweepView) -> dict[str, Any]:
    """Return the pick's figures with the seeds behind them; empty without a pick."""
    trial, group = view.picked, view.picked_seeds
    if trial is None:
        return {}

    def figure(metric: str, over_seeds: MeanInterval | None) -> _Figure:
        chosen_by = percent(finite(trial.metrics, metric))
        if over_seeds is not None and group is not None:
            seeds = ", ".join(str(seed) for seed in group.seeds)
            what = f"mean ± std of {over_seeds.n} further seeds" if over_seeds.n > 1 else "one further seed"
            return _Figure(spread(over_seeds), f"{what} ({seeds}); {chosen_by} with seed {trial.seed}, which chose it")
        return _Figure(chosen_by, f"one seed ({trial.seed}), which chose it: optimistic")

    return {
        "pick_source": figure(SOURCE_MIOU, group.source if group else None),
        "pick_target": figure(TARGET_MIOU, group.target if group else None),
        "pick_model": model_label(trial),
        "pick_method": method_label(trial),
        "deployed": deployed_text(view),
        "labelled": labelled_text(view),
        "guide": pick_guide(view),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _figures(view: SweepView) -> dict[str, Markup]:
    """Return the figures that can be drawn, by name, as HTML."""
    number = view.picked.number if view.picked else None
    rejected = {trial for trial, _ in view.selection.rejected}
    networks = [f"{label}, {split}" for split in ("source", "target") for label in view.networks]
    columns = [(view.results.get(trial.number), split) for split in SPLITS for trial in view.networks.values()]
    figures = {
        "pareto": cost_plots.pareto_figure(view.shown, picked=number, rejected=rejected, bounds=cost_bounds(view.spec)),
        "criterion": cost_plots.criterion_figure(view.shown, picked=number, rejected=rejected),
        "standings": standing_plots.standing_figure(
            view.standings,
            baseline=view.baseline.number if view.baseline else None,
            upper_bound=view.upper_bound.number if view.upper_bound else None,
        ),
        "curves": plots.learning_curves_figure(view.shown, view.curves),
        "parallel": plots.parallel_figure(view.shown),
        "importance": plots.importance_figure(view.importance),
        "region": failure_plots.region_figure(region_rows(view.trials, view.spec.search)),
        "classes": plots.class_figure(class_values(columns), networks),
    }
    return {
        name: Markup(plots.to_html(figure, element=f"figure-{name}"))
        for name, figure in figures.items()
        if figure is not None
    }


def cost_bounds(spec: SweepSpec) -> list[cost_plots.Bound]:
    """Return the constraints that can be shaded in a figure of quality against cost.

    A lower limit on images per second is drawn as an upper limit on latency, since both are of one image at a time.
    """
    bounds = []
    for item in spec.constraints:
        if item.metric in plots.COSTS and item.operator == "<=":
            bounds.append(cost_plots.Bound(item.metric, item.bound, str(item)))
        elif item.metric == "fps" and item.operator == ">=":
            bounds.append(cost_plots.Bound("latency_ms", 1000 / item.bound, str(item)))
    return bounds


def _examples(view: SweepView) -> list[Example]:
    """Return the pictures of example predictions of the networks side by side."""
    examples = []
    for domain in ("target", "source"):
        for label, trial in view.networks.items():
            path = view.folders.get(trial.number, Path()) / f"examples_{domain}.png"
            if path.is_file():
                data = base64.b64encode(path.read_bytes()).decode("ascii")
                examples.append(Example(title=f"{domain}: {label}", uri=f"data:image/png;base64,{data}"))
    return examples
