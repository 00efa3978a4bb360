"""Interactive figures of what a choice weighs: quality against cost, and what the criterion sees against what matters."""

import html
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from sweeps.labels import method_label
from sweeps.metrics import SOURCE_MIOU, TARGET_MIOU, finite
from sweeps.reports.plots import COSTS, INK, MUTED, QUALITIES, STAR, hover_text, method_colors, style
from sweeps.selection.analysis import is_candidate, pareto_front
from sweeps.trial import TrialKind, TrialRecord, TrialState


@dataclass(frozen=True)
class Bound:
    """A limit on a cost, to be drawn.

    Attributes:
        cost: name in `COSTS`.
        limit: largest allowed value.
        label: the constraint as it was written.
    """

    cost: str
    limit: float
    label: str


@dataclass(frozen=True)
class _View:
    metric: str
    cost: str

    @property
    def title(self) -> str:
        quality = QUALITIES[self.metric].partition(" (")[0].replace(", oracle", " (oracle)")
        return f"{quality} against {COSTS[self.cost][0].partition(' (')[0].partition(',')[0]}"

    def has(self, trial: TrialRecord) -> bool:
        return finite(trial.metrics, self.metric) is not None and finite(trial.profile, self.cost) is not None

    def x(self, trial: TrialRecord) -> float:
        return trial.profile[self.cost] * COSTS[self.cost][1]

    def y(self, trial: TrialRecord) -> float:
        return 100 * trial.metrics[self.metric]


def pareto_figure(
    trials: Sequence[TrialRecord],
    *,
    picked: int | None = None,
    rejected: Collection[int] = (),
    bounds: Sequence[Bound] = (),
) -> go.Figure | None:
    """Return quality against cost, with a menu over both.

    Fully trained candidates are markers, their front a stepped line, the pick a star, references dashed horizontal
    lines, and what the constraints forbid is shaded. Candidates that were rejected are hollow, do not enter the front
    and do not stretch the vertical axis.

    Args:
        trials: records of one sweep.
        picked: number of the chosen trial.
        rejected: numbers of fully trained candidates that do not qualify.
        bounds: limits to shade.

    Returns:
        The figure, or None if no candidate has both a quality and a cost.
    """
    candidates = [trial for trial in trials if is_candidate(trial)]
    views = [
        view
        for metric in QUALITIES
        for cost in COSTS
        if any((view := _View(metric, cost)).has(trial) for trial in candidates)
    ]
    if not views:
        return None
    figure = go.Figure()
    owners: list[int] = []
    colors = method_colors(trials)
    layouts: list[dict[str, Any]] = []
    for index, view in enumerate(views):
        shown = [trial for trial in candidates if view.has(trial)]
        for trace in _pareto_traces(view, shown, picked, rejected, colors):
            trace.visible = index == 0
            figure.add_trace(trace)
            owners.append(index)
        layouts.append(_pareto_layout(view, shown, rejected, trials, bounds))
    style(figure, height=560, **layouts[0])
    figure.update_layout(
        margin={"t": 70, "r": 40},
        updatemenus=[
            {
                "buttons": [
                    {
                        "label": view.title,
                        "method": "update",
                        "args": [{"visible": [owner == index for owner in owners]}, layout],
                    }
                    for index, (view, layout) in enumerate(zip(views, layouts, strict=True))
                ],
                "direction": "down",
                "x": 0,
                "xanchor": "left",
                "y": 1.14,
                "yanchor": "top",
                "bgcolor": "white",
                "bordercolor": "#b6bcc4",
            }
        ]
        if len(views) > 1
        else [],
    )
    return figure


def _pareto_traces(
    view: _View,
    shown: Sequence[TrialRecord],
    picked: int | None,
    rejected: Collection[int],
    colors: Mapping[str, tuple[str, str]],
) -> list[go.Scatter]:
    eligible = [trial for trial in shown if trial.number not in rejected]
    front = pareto_front(eligible, metric=view.metric, cost=view.cost)
    traces = [
        go.Scatter(
            x=[view.x(trial) for trial in front],
            y=[view.y(trial) for trial in front],
            mode="lines",
            line={"color": INK, "width": 1.5, "shape": "hv"},
            name="Pareto front",
            hoverinfo="skip",
        )
    ]
    traces += [_star(trial, view.x(trial), view.y(trial)) for trial in shown if trial.number == picked]
    for label, look in colors.items():
        members = [trial for trial in shown if method_label(trial) == label]
        if members:
            xs, ys = [view.x(trial) for trial in members], [view.y(trial) for trial in members]
            traces.append(_markers(label, look, members, xs, ys, rejected, picked))
    return traces


def _star(trial: TrialRecord, x: float, y: float) -> go.Scatter:
    """Return the mark of the chosen trial; it lies under the trial's own marker."""
    return go.Scatter(
        x=[x],
        y=[y],
        mode="markers",
        marker={"color": STAR, "symbol": "star", "size": 30, "opacity": 1, "line": {"color": INK, "width": 1.2}},
        name=f"picked: trial {trial.number}",
        hoverinfo="skip",
    )


def _markers(
    label: str,
    look: tuple[str, str],
    members: Sequence[TrialRecord],
    xs: Sequence[float],
    ys: Sequence[float],
    rejected: Collection[int],
    picked: int | None,
) -> go.Scatter:
    """Return the trials of one method as numbered markers; rejected ones are hollow, the picked one has the star."""
    color, symbol = look
    is_hollow = [trial.number in rejected for trial in members]
    return go.Scatter(
        x=xs,
        y=ys,
        mode="markers+text",
        text=["" if trial.number == picked else str(trial.number) for trial in members],
        textposition="top center",
        textfont={"size": 11, "color": MUTED},
        marker={
            "color": ["white" if hollow else color for hollow in is_hollow],
            "symbol": symbol,
            "size": 11,
            "opacity": 1,
            "line": {"color": [color if hollow else "white" for hollow in is_hollow], "width": 1.5},
        },
        name=html.escape(label),
        hovertext=[hover_text(trial) for trial in members],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _pareto_layout(
    view: _View,
    shown: Sequence[TrialRecord],
    rejected: Collection[int],
    trials: Iterable[TrialRecord],
    bounds: Iterable[Bound],
) -> dict[str, Any]:
    """Return axes, reference lines and forbidden regions of one view; a menu entry swaps them in."""
    title, scale, _ = COSTS[view.cost]
    xs = [view.x(trial) for trial in shown]
    ys = [view.y(trial) for trial in shown if trial.number not in rejected] or [view.y(trial) for trial in shown]
    shapes: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    taken: list[float] = []
    for trial in trials:
        value = finite(trial.metrics, view.metric)
        if trial.kind is not TrialKind.REFERENCE or trial.state is not TrialState.COMPLETE or value is None:
            continue
        ys.append(100 * value)
        line = {"color": MUTED, "width": 1.2, "dash": "dash"}
        shapes.append(
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 100 * value, "y1": 100 * value, "line": line}
        )
        label = f"{html.escape(trial.name or method_label(trial))} {100 * value:.1f}"
        is_crowded = any(abs(100 * value - other) < 1.5 for other in taken)
        taken.append(100 * value)
        side = {"x": 0.0, "xanchor": "left"} if is_crowded else {"x": 1.0, "xanchor": "right"}
        notes.append(
            {"xref": "paper", "y": 100 * value, "yanchor": "bottom", "text": label, "showarrow": False, **side}
            | {"font": {"size": 11, "color": MUTED}}
        )
    limits = [(bound.limit * scale, bound.label) for bound in bounds if bound.cost == view.cost]
    low, high = min([*xs, *(limit for limit, _ in limits)]), max([*xs, *(limit for limit, _ in limits)])
    pad = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    for limit, label in limits:
        shapes.append(
            {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "x0": limit, "x1": high + pad, "layer": "below"}
            | {"fillcolor": "rgba(213,94,0,0.10)", "line": {"width": 0}}
        )
        notes.append(
            {"yref": "paper", "y": 0.0, "x": high + pad, "xanchor": "right", "yanchor": "bottom", "showarrow": False}
            | {"text": f"breaks {html.escape(label)}", "font": {"size": 11, "color": "#a04000"}}
        )
    spread = 0.12 * (max(ys) - min(ys)) or 1.0
    return {
        "xaxis.title.text": title,
        "xaxis.range": [low - pad, high + pad],
        "yaxis.title.text": QUALITIES[view.metric],
        "yaxis.range": [min(ys) - spread, max(ys) + spread],
        "shapes": shapes,
        "annotations": notes,
    }


def criterion_figure(
    trials: Sequence[TrialRecord], *, picked: int | None = None, rejected: Collection[int] = ()
) -> go.Figure | None:
    """Return target mean IoU (oracle) against source validation mean IoU: does the criterion order trials rightly?

    Args:
        trials: records of one sweep.
        picked: number of the chosen trial.
        rejected: numbers of fully trained candidates that do not qualify; drawn hollow.

    Returns:
        The figure, or None with fewer than two candidates that have both figures.
    """
    shown = [
        trial
        for trial in trials
        if is_candidate(trial) and all(finite(trial.metrics, metric) is not None for metric in QUALITIES)
    ]
    if len(shown) < 2:
        return None
    figure = go.Figure()
    for trial in shown:
        if trial.number == picked:
            figure.add_trace(_star(trial, 100 * trial.metrics[SOURCE_MIOU], 100 * trial.metrics[TARGET_MIOU]))
    for label, look in method_colors(trials).items():
        members = [trial for trial in shown if method_label(trial) == label]
        if members:
            xs = [100 * trial.metrics[SOURCE_MIOU] for trial in members]
            ys = [100 * trial.metrics[TARGET_MIOU] for trial in members]
            figure.add_trace(_markers(label, look, members, xs, ys, rejected, picked))
    style(figure, height=460)
    figure.update_xaxes(title=QUALITIES[SOURCE_MIOU])
    figure.update_yaxes(title=QUALITIES[TARGET_MIOU])
    return figure
