"""The report of a sweep: one HTML file that needs no network, and the same tables as Markdown.

Everything comes from the ledger and the files in the trials' folders, so a report can be written while a sweep runs, after it
was killed, and on a machine without GPU, cluster or tracking server. What is missing is said, never guessed.
"""

import base64
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup
from rich.table import Table

from segda.datasets import DATASETS
from segda.errors import SegdaError
from segda.files import replacing
from segda.tunable import Scalar
from sweeps import analysis, plots
from sweeps.analysis import SOURCE_MIOU, TARGET_MIOU, config_value, finite
from sweeps.ledger import Event, Ledger, SweepRecord
from sweeps.search import Search
from sweeps.selection import CRITERIA, Selection, collapse, select, source_only_baseline
from sweeps.space import SearchSpace
from sweeps.spec import SweepSpec
from sweeps.store import Store
from sweeps.trial import TrialKind, TrialRecord, TrialState

logger = logging.getLogger(__name__)

# Below this rank correlation the criterion says little about the target; a regret above two points is worth a warning too.
WEAK_CORRELATION = 0.5
LARGE_REGRET = 0.02
# Share of a searched range that counts as its end.
EDGE = 0.05


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


@dataclass(frozen=True)
class SweepView:
    """A sweep as a report reads it.

    Attributes:
        record: the sweep.
        spec: its file.
        trials: its trials, by number.
        events: what happened to it.
        curves: trial number -> (step, source validation mean IoU).
        results: trial number -> content of `result.json`.
        environments: trial number -> content of `environment.json`.
        folders: trial number -> folder of its files.
        importance: importance of each parameter by path (see `Search.importance`); empty with too few trials.
        is_driven: whether a process works on the sweep right now.
    """

    record: SweepRecord
    spec: SweepSpec
    trials: Sequence[TrialRecord]
    events: Sequence[Event] = ()
    curves: Mapping[int, Sequence[tuple[int, float]]] = field(default_factory=dict)
    results: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    environments: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    folders: Mapping[int, Path] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)
    is_driven: bool = False

    @cached_property
    def selection(self) -> Selection:
        """The choice by the sweep's own criterion."""
        return select(self.trials, self.spec)

    @cached_property
    def picked(self) -> TrialRecord | None:
        """The chosen trial."""
        return self.selection.picked

    @cached_property
    def source_only(self) -> TrialRecord | None:
        """The best network without adaptation."""
        return source_only_baseline(self.trials, like=self.picked)

    @cached_property
    def upper_bound(self) -> TrialRecord | None:
        """The best network that was trained on target labels."""
        return analysis.best_by([trial for trial in self.trials if analysis.uses_target_labels(trial)], TARGET_MIOU)

    @cached_property
    def networks(self) -> dict[str, TrialRecord]:
        """Networks that are worth a look side by side: label -> trial."""
        shown: dict[str, TrialRecord] = {}
        if self.picked is not None:
            shown[f"picked: trial {self.picked.number}"] = self.picked
        if self.source_only is not None and self.source_only is not self.picked:
            shown[f"source only: trial {self.source_only.number}"] = self.source_only
        for trial in self.trials:
            is_reference = trial.kind is TrialKind.REFERENCE and trial.state is TrialState.COMPLETE
            if is_reference and trial is not self.source_only:
                shown[f"{trial.name or 'reference'}: trial {trial.number}"] = trial
        return shown

    @cached_property
    def regrets(self) -> list[analysis.RegretRow]:
        """What every criterion picks, and its distance to the oracle."""
        choices = {criterion: select(self.trials, self.spec, criterion=criterion).picked for criterion in CRITERIA}
        return analysis.regret_rows(choices, oracle=choices["oracle"])

    @cached_property
    def correlation(self) -> tuple[float, int] | None:
        """Rank correlation of source validation and target mean IoU over qualifying candidates, and their number."""
        rejected = {number for number, _ in select(self.trials, self.spec, criterion="source_validation").rejected}
        eligible = [trial for trial in self.trials if trial.number not in rejected]
        return analysis.rank_correlation(eligible, metric=SOURCE_MIOU, against=TARGET_MIOU)

    @cached_property
    def sample(self) -> Mapping[str, Any]:
        """A full configuration for what all trials share; the sweep file's base before the first trial."""
        return self.trials[0].config if self.trials else dict(self.record.spec.get("base") or {})

    @property
    def source_split(self) -> str:
        """Name of the split that source validation figures are from."""
        return f"{self._domain('source')} val"

    @property
    def target_split(self) -> str:
        """Name of the split that oracle figures are from."""
        dataset = DATASETS.get(str(config_value(self.sample, "data.target.dataset")))
        return f"{self._domain('target')} {dataset.report_split if dataset else 'labelled split'}"

    def _domain(self, side: str) -> str:
        names = [config_value(self.sample, f"data.{side}.{part}") for part in ("dataset", "domain")]
        return " / ".join(str(name) for name in names if name) or side

    @property
    def device(self) -> str:
        """Maker's name of the device that efficiency was measured on: as noted, or else where the first trial ran."""
        measured = config_value(self.record.info, "device.name")
        if measured:
            return str(measured)
        if self.devices:
            return self.devices[0]
        return str(config_value(self.record.info, "environment.device_name") or "a device that was not recorded")

    @property
    def devices(self) -> list[str]:
        """Makers' names of the devices that trials ran on, in the order of their first trial."""
        names = [self.environments[number].get("device_name") for number in sorted(self.environments)]
        return list(dict.fromkeys(str(name) for name in names if name))

    @property
    def unfinished(self) -> int:
        """Number of trials that still wait or run."""
        return sum(not trial.state.is_finished for trial in self.trials)


def load_view(ledger: Ledger, store: Store, sweep: str) -> SweepView:
    """Read all that a report needs.

    Args:
        ledger: where the sweep is.
        store: where its files are; missing files are left out.
        sweep: name of the sweep.

    Raises:
        ConfigError: there is no such sweep, or its file cannot be read by this version.
    """
    record = ledger.sweep(sweep)
    spec = SweepSpec.model_validate(dict(record.spec))
    trials = ledger.trials(sweep)
    folders = {trial.number: store.trial(trial) for trial in trials}
    curves = {}
    for trial in trials:
        points = ledger.points(sweep, trial.number)
        curves[trial.number] = [
            (point.step, value) for point in points if (value := finite(point.metrics, SOURCE_MIOU)) is not None
        ]
    return SweepView(
        record=record,
        spec=spec,
        trials=trials,
        events=ledger.events(sweep),
        curves=curves,
        results=_json_files(folders, "result.json"),
        environments=_json_files(folders, "environment.json"),
        folders=folders,
        importance=_importance(spec, trials),
        is_driven=store.is_driven(sweep),
    )


def _json_files(folders: Mapping[int, Path], name: str) -> dict[int, Mapping[str, Any]]:
    found: dict[int, Mapping[str, Any]] = {}
    for number, folder in folders.items():
        path = folder / name
        if path.is_file():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                logger.warning("%s cannot be read and is left out of the report: %s", path, error)
                continue
            if isinstance(content, dict):
                found[number] = content
    return found


def _importance(spec: SweepSpec, trials: Sequence[TrialRecord]) -> dict[str, float]:
    """Return the importance of each parameter; a sampler that cannot tell is no reason to have no report."""
    try:
        return dict(Search(spec, SearchSpace.from_spec(spec), trials).importance())
    except (SegdaError, ValueError, RuntimeError) as error:
        logger.warning("no parameter importance in the report: %s", error)
        return {}


def write_report(ledger: Ledger, store_root: Path, sweep: str) -> ReportPaths:
    """Write `report.html` and `report.md` into the sweep's folder.

    Args:
        ledger: where the sweep is.
        store_root: folder of the store.
        sweep: name of the sweep; it may be running, killed or empty.

    Returns:
        The two files.

    Raises:
        ConfigError: there is no such sweep.
    """
    store = Store.at(store_root)
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
        "precision": _precision(view),
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
        "written": _date(time.time()),
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
            return _Figure(_spread(over_seeds), f"mean ± std of {over_seeds.n} seeds ({seeds})")
        return _Figure(percent(finite(trial.metrics, metric)), f"one seed ({trial.seed})")

    return {
        "pick_source": figure(SOURCE_MIOU, group.source if group else None),
        "pick_target": figure(TARGET_MIOU, group.target if group else None),
        "pick_model": analysis.model_label(trial),
        "pick_method": analysis.method_label(trial),
    }


def asked_rows(view: SweepView) -> list[tuple[str, str]]:
    """Return what was asked and under which conditions: (label, text)."""
    spec, config = view.spec, view.sample
    objectives = ", ".join(f"{item.direction} {item.metric}" for item in spec.objectives)
    budget = view.record.spec.get("budget") or {}
    scheduler = spec.scheduler.name
    started = [trial.started for trial in view.trials if trial.started is not None]
    finished = [trial.finished for trial in view.trials if trial.finished is not None]
    size = f"{config_value(config, 'data.height')} x {config_value(config, 'data.width')} pixels (height x width)"
    criterion = (
        "oracle: reads target labels" if spec.selection == "oracle" else f"{spec.selection}: reads no target label"
    )
    return [
        ("selection", criterion),
        ("objectives", objectives),
        ("constraints", ", ".join(str(item) for item in spec.constraints) or "none"),
        ("source", view.source_split),
        ("target", f"{view.target_split} (its labels are oracle figures)"),
        ("images", size),
        ("training", f"{config_value(config, 'steps')} steps, batch {config_value(config, 'batch_size')} per domain"),
        ("budget", ", ".join(f"{name} {value}" for name, value in budget.items()) or "not limited"),
        ("search", f"{spec.sampler.name}, seed {spec.seed}; scheduler {scheduler}"),
        ("training seeds", f"{', '.join(str(seed) for seed in spec.seeds)}; {_count(spec.finalists, 'finalist')}"),
        ("device", view.device),
        ("precision", _precision(view)),
        ("created", _date(view.record.created)),
        ("first trial started", _date(min(started)) if started else "not yet"),
        ("last trial finished", _date(max(finished)) if finished else "not yet"),
    ]


def _precision(view: SweepView) -> str:
    asked = str(config_value(view.sample, "precision") or "auto")
    used = sorted({str(result["precision"]) for result in view.results.values() if result.get("precision")})
    return f"{asked}, computed in {', '.join(used)}" if used else asked


def state_line(view: SweepView) -> str:
    """Return how far the sweep is, in one line."""
    counts = {state: sum(trial.state is state for trial in view.trials) for state in TrialState}
    shown = ", ".join(f"{count} {state.value}" for state, count in counts.items() if count)
    return f"{_count(len(view.trials), 'trial')}: {shown}" if view.trials else "no trial yet"


def context_line(view: SweepView) -> str:
    """Return the conditions that every table shares; it stands under each of them."""
    chosen = "chosen with target labels (oracle)" if view.spec.selection == "oracle" else "chosen without target labels"
    seeds = _count(len(view.spec.seeds), "training seed")
    return (
        f"mIoU and IoU in %; source: {view.source_split}; target: {view.target_split}, an oracle figure; "
        f"{chosen} ({view.spec.selection}); {seeds} asked for; efficiency on {view.device}, one image at a time."
    )


def warning_lines(view: SweepView) -> list[str]:
    """Return what a reader must know before believing the report."""
    lines = []
    if view.spec.selection == "oracle":
        lines.append(
            "Target labels were used to choose (selection: oracle). The figures are upper limits, not what an unlabelled "
            "target would give."
        )
    budget_trials = config_value(view.record.spec, "budget.trials")
    searched = sum(trial.kind is TrialKind.SEARCH for trial in view.trials)
    if view.unfinished:
        lines.append(
            f"The sweep is not finished: {view.unfinished} of {_count(len(view.trials), 'trial')} still to end."
        )
        if not view.is_driven:
            lines.append(f"Nothing works on the sweep now; `sweeps resume {view.record.name}` continues it.")
    if isinstance(budget_trials, int) and searched < budget_trials:
        lines.append(f"{searched} of {budget_trials} search trials in the budget have been started.")
    lines += _trust_lines(view)
    failed = sum(trial.state is TrialState.FAILED for trial in view.trials)
    if failed:
        lines.append(f"{_count(failed, 'trial')} failed; see failures.")
    counts = {row.method: row.trials for row in analysis.method_rows(view.trials)}
    if len(counts) > 1 and max(counts.values()) > 1.5 * min(counts.values()):
        shown = ", ".join(f"{method} {count}" for method, count in counts.items())
        lines.append(f"Methods had unequal shares of the budget (search trials: {shown}).")
    if len(view.devices) > 1:
        lines.append(f"Trials ran on different devices: {', '.join(view.devices)}.")
    if any("latency_ms" in trial.profile for trial in view.trials):
        lines.append(f"Latency and fps were measured on {view.device}; another device may order networks differently.")
    return lines


def _trust_lines(view: SweepView) -> list[str]:
    """Return what limits the trust in the choice itself."""
    if view.picked is None:
        return []
    lines = []
    group = next((group for group in analysis.seed_groups(view.trials) if group.number == view.picked.number), None)
    if group is None:
        lines.append("The picked trial was trained with one seed only: its figures have no interval.")
    else:
        repeated = [trial for trial in view.trials if trial.parent == view.picked.number]
        lines += [
            f"With seed {trial.seed} the picked configuration looks collapsed (trial {trial.number}): {why}."
            for trial in repeated
            if trial.state is TrialState.COMPLETE and (why := collapse(trial, view.trials))
        ]
    for path, value in view.picked.params.items():
        edge = _edge(view.spec, path, value)
        if edge is not None:
            lines.append(
                f"{path} of the picked trial, {analysis.format_value(value)}, lies at the {edge} of its range."
            )
    if view.source_only is None:
        lines.append("No source-only network was trained: what adaptation gains is unknown.")
    if view.spec.selection != "oracle":
        regret = next((row.regret for row in view.regrets if row.criterion == view.spec.selection), None)
        if view.correlation is not None and view.correlation[0] < WEAK_CORRELATION:
            lines.append(
                f"The criterion is weak here: source validation orders {view.correlation[1]} candidates with a rank "
                f"correlation of {view.correlation[0]:.2f} to the target."
            )
        if regret is not None and regret > LARGE_REGRET:
            lines.append(f"The choice loses {100 * regret:.1f} points of target mIoU against the oracle's choice.")
        if regret is None:
            lines.append("Target figures are missing, so the criterion could not be checked against the oracle.")
    return lines


def _edge(spec: SweepSpec, path: str, value: Scalar) -> str | None:
    """Return which end of its searched range a value is close to: the best may lie beyond. None in the middle."""
    searched = spec.search.get(path)
    if searched is None or searched.low is None or searched.high is None or not isinstance(value, int | float):
        return None
    scale = math.log if searched.log else float
    position = (scale(value) - scale(searched.low)) / (scale(searched.high) - scale(searched.low))
    return "lower end" if position < EDGE else "upper end" if position > 1 - EDGE else None


def environment_rows(view: SweepView) -> list[tuple[str, str]]:
    """Return versions, code and hardware: what the sweep noted, and the first trial's own record."""
    rows = dict(_flat(view.record.info))
    for number in sorted(view.environments)[:1]:
        for name, value in _flat(view.environments[number]):
            rows.setdefault(name, value)
    return sorted(rows.items())


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        elif value is not None:
            rows.append((f"{prefix}{name}".removeprefix("environment."), str(value)))
    return rows


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
        "pareto": plots.pareto_figure(view.trials, picked=number, rejected=rejected, bounds=cost_bounds(view.spec)),
        "criterion": plots.criterion_figure(view.trials, picked=number, rejected=rejected),
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


def cost_bounds(spec: SweepSpec) -> list[plots.Bound]:
    """Return the constraints that can be shaded in a figure of quality against cost.

    A lower limit on images per second is drawn as an upper limit on latency, since both are of one image at a time.
    """
    bounds = []
    for item in spec.constraints:
        if item.metric in plots.COSTS and item.operator == "<=":
            bounds.append(plots.Bound(item.metric, item.bound, str(item)))
        elif item.metric == "fps" and item.operator == ">=":
            bounds.append(plots.Bound("latency_ms", 1000 / item.bound, str(item)))
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


def summary_table(view: SweepView) -> Table:
    """Return the trials as a table for the terminal, the picked one marked.

    Args:
        view: the sweep.
    """
    table = Table(title=f"{view.record.name}: {state_line(view)}", caption=context_line(view), caption_justify="left")
    for name in ("trial", "state", "method", "parameters"):
        table.add_column(name, overflow="fold")
    for name in ("seed", "steps", "source mIoU %", "target mIoU % (oracle)", "MACs G", "params M", "latency ms", "fps"):
        table.add_column(name, justify="right")
    number = view.picked.number if view.picked else None
    for row in analysis.trial_rows(view.trials):
        is_picked = row.number == number
        table.add_row(
            f"{row.number} ★" if is_picked else str(row.number),
            row.state.value if row.kind == "search" else f"{row.state.value} ({row.kind})",
            row.method,
            row.params,
            str(row.seed),
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


def percent(value: float | None) -> str:
    """Return a share in per cent with one digit, or a dash.

    Example:
        >>> percent(0.6312), percent(None)
        ('63.1', '–')
    """
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def scaled(value: float | None, factor: float = 1.0) -> str:
    """Return a figure times a factor with three significant digits, or a dash.

    Example:
        >>> scaled(12_345_678, 1e-6), scaled(1234.5)
        ('12.3', '1234')
    """
    if value is None or not math.isfinite(value):
        return "–"
    number = value * factor
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def _spread(interval: analysis.MeanInterval | None) -> str:
    if interval is None:
        return "–"
    return f"{percent(interval.mean)} ± {percent(interval.std)}" if interval.std is not None else percent(interval.mean)


def _interval(interval: analysis.MeanInterval | None) -> str:
    return f"{percent(interval.low)} to {percent(interval.high)}" if interval and interval.n > 1 else "–"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")


def _cell(value: object) -> str:
    """Return text that cannot break out of a Markdown table."""
    text = " ".join(str(value).split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("sweeps"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"percent": percent, "scaled": scaled, "spread": _spread, "interval": _interval}
    templates.filters |= {"cell": _cell, "date": _date, "value": analysis.format_value}
    templates.filters |= {"method": analysis.method_label, "params": analysis.short_params}
    return templates
