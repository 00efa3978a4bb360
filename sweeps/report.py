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

import jinja2
import yaml
from markupsafe import Markup
from rich.table import Table

from segda.files import replacing
from sweeps import analysis, cost_plots, plots
from sweeps.analysis import SOURCE_MIOU, TARGET_MIOU, finite
from sweeps.ledger import Ledger
from sweeps.report_text import (
    asked_rows,
    context_line,
    date,
    environment_rows,
    interval,
    percent,
    precision_text,
    scaled,
    spread,
    state_line,
    warning_lines,
)
from sweeps.report_view import SweepView, load_view
from sweeps.spec import SweepSpec
from sweeps.store import Store
from sweeps.trial import TrialState

__all__ = ["ReportPaths", "SweepView", "load_view", "summary_table", "write_report"]

_SETTINGS_FROM = 140  # columns of a terminal from which the settings of a trial have room beside its figures


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


def write_report(ledger: Ledger, store: Store, sweep: str) -> ReportPaths:
    """Write `report.html` and `report.md` into the sweep's folder.

    Args:
        ledger: where the sweep is.
        store: where its files are and the report goes.
        sweep: name of the sweep; it may be running, killed or empty.

    Returns:
        The two files.

    Raises:
        ConfigError: there is no such sweep.
    """
    view = load_view(ledger, store, sweep)
    content = report_content(view)
    paths = ReportPaths(html=store.report(sweep), markdown=store.report(sweep, suffix=".md"))
    page = _templates().get_template("report.html.j2")
    _write(
        paths.html,
        page.render(content, figures=_figures(view), plotly=Markup(plots.plotly_script()), examples=_examples(view)),
    )
    _write(paths.markdown, _templates().get_template("report.md.j2").render(content))
    return paths


def _write(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def report_content(view: SweepView) -> dict[str, Any]:
    """Return what both templates show, without figures and pictures."""
    networks = view.networks
    columns = [(label, trial, split) for split in ("source/val", "oracle/target") for label, trial in networks.items()]
    return {
        "view": view,
        "precision": precision_text(view),
        **_pick_content(view),
        "spec": view.spec,
        "asked": asked_rows(view),
        "state": state_line(view),
        "warnings": warning_lines(view),
        "context": context_line(view),
        "rows": analysis.trial_rows(view.trials),
        "methods": analysis.method_rows(view.trials),
        "seeds": analysis.seed_groups(view.trials),
        "gaps": analysis.gap_rows(networks, source_only=view.source_only, upper_bound=view.upper_bound),
        "class_columns": [(label, split) for label, _, split in columns],
        "classes": analysis.class_rows([(view.results.get(trial.number), split) for _, trial, split in columns]),
        "architectures": analysis.architecture_rows(view.trials),
        "failures": [trial for trial in view.trials if trial.failure is not None],
        "infeasible": [trial for trial in view.trials if trial.state is TrialState.INFEASIBLE],
        "environment": environment_rows(view),
        "sweep_file": yaml.safe_dump(_plain(view.record.spec), sort_keys=False, allow_unicode=True),
        "written": date(time.time()),
    }


@dataclass(frozen=True)
class _Figure:
    text: str
    seeds: str


def _pick_content(view: SweepView) -> dict[str, Any]:
    """Return the pick's figures with the number of seeds behind them; empty without a pick."""
    trial = view.picked
    if trial is None:
        return {}
    group = next((group for group in analysis.seed_groups(view.trials) if group.number == trial.number), None)

    def figure(metric: str, over_seeds: analysis.MeanInterval | None) -> _Figure:
        if over_seeds is not None and group is not None:
            seeds = ", ".join(str(seed) for seed in group.seeds)
            return _Figure(spread(over_seeds), f"mean ± std of {over_seeds.n} seeds ({seeds})")
        return _Figure(percent(finite(trial.metrics, metric)), f"one seed ({trial.seed})")

    return {
        "pick_source": figure(SOURCE_MIOU, group.source if group else None),
        "pick_target": figure(TARGET_MIOU, group.target if group else None),
        "pick_model": analysis.model_label(trial),
        "pick_method": analysis.method_label(trial),
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
    columns = [
        (view.results.get(trial.number), split)
        for split in ("source/val", "oracle/target")
        for trial in view.networks.values()
    ]
    figures = {
        "pareto": cost_plots.pareto_figure(
            view.trials, picked=number, rejected=rejected, bounds=cost_bounds(view.spec)
        ),
        "criterion": cost_plots.criterion_figure(view.trials, picked=number, rejected=rejected),
        "curves": plots.learning_curves_figure(view.trials, view.curves),
        "parallel": plots.parallel_figure(view.trials),
        "importance": plots.importance_figure(view.importance),
        "classes": plots.class_figure(analysis.class_rows(columns), networks),
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


def summary_table(view: SweepView, *, width: int) -> Table:
    """Return the trials as a table for the terminal, the picked one marked.

    Args:
        view: the sweep.
        width: columns of the terminal; the trials' settings are shown where they fit on a line.
    """
    is_wide = width >= _SETTINGS_FROM
    table = Table(title=f"{view.record.name}: {state_line(view)}", caption=context_line(view), caption_justify="left")
    for name in ("trial", "state", "method"):
        table.add_column(name, no_wrap=True)
    if is_wide:
        table.add_column("settings", overflow="fold")
    for name in ("steps", "source\nmIoU %", "target mIoU\n% (oracle)", "MACs\nG", "params\nM", "latency\nms", "fps"):
        table.add_column(name, justify="right", no_wrap=True)
    number = view.picked.number if view.picked else None
    for row in analysis.trial_rows(view.trials):
        is_picked = row.number == number
        table.add_row(
            f"{row.number} ★" if is_picked else str(row.number),
            row.state.value,
            row.method if row.kind == "search" else f"{row.method}\n({row.kind})",
            *([f"{row.params}, seed {row.seed}"] if is_wide else []),
            str(row.steps),
            percent(row.source_miou),
            percent(row.target_miou),
            scaled(row.macs, 1e-9),
            scaled(row.num_parameters, 1e-6),
            scaled(row.latency_ms),
            scaled(row.fps),
            style="bold" if is_picked else None,
        )
    return table


def _cell(value: object) -> str:
    """Return text that cannot break out of a Markdown table."""
    text = " ".join(str(value).split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("&", "&amp;").replace("<", "&lt;")


def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("sweeps"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"percent": percent, "scaled": scaled, "spread": spread, "interval": interval}
    templates.filters |= {"cell": _cell, "date": date, "value": analysis.format_value}
    templates.filters |= {"method": analysis.method_label, "params": analysis.short_params}
    return templates
