"""Interactive figures of a report. The only file that imports plotly.

A function returns None where there is nothing to draw; the caller says so in words. Colors are those of Okabe and Ito, told
apart by color-blind readers, and shape or dash repeats what color says. Mean IoU is drawn in per cent.
"""

import html
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import plotly.io
import plotly.offline

from segda.tunable import Scalar
from sweeps.analysis import (
    SOURCE_MIOU,
    TARGET_MIOU,
    ClassRow,
    finite,
    format_value,
    is_candidate,
    kind_label,
    method_label,
    model_label,
    pareto_front,
    short_names,
    short_params,
)
from sweeps.trial import TrialKind, TrialRecord, TrialState

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6A00", "#5B5B5B")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "pentagon", "hexagon")
_INK, _GRID, _FRONT, _STAR = "#24292f", "#e3e6ea", "#24292f", "#F0E442"
_FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"

# Cost in a profile -> (axis title, multiplier into the unit of the title, unit).
COSTS: dict[str, tuple[str, float, str]] = {
    "latency_ms": ("latency, median (ms per image)", 1.0, "ms"),
    "macs": ("multiply-accumulates (G per image)", 1e-9, "G"),
    "num_parameters": ("parameters (M)", 1e-6, "M"),
    "peak_memory_bytes": ("peak memory (MiB)", 1 / 2**20, "MiB"),
}
QUALITIES: dict[str, str] = {
    TARGET_MIOU: "target mIoU, oracle (%)",
    SOURCE_MIOU: "source validation mIoU (%)",
}


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


def plotly_script() -> str:
    """Return the source of plotly.js, to be put into a page once."""
    return str(plotly.offline.get_plotlyjs())


def to_html(figure: go.Figure, *, element: str) -> str:
    """Return a figure as an HTML element that needs `plotly_script` in the same page.

    Args:
        figure: what to draw.
        element: id of the element.
    """
    # No button may send the data of a report to anyone's server.
    config = {
        "displaylogo": False,
        "responsive": True,
        "plotlyServerURL": "",
        "modeBarButtonsToRemove": ["lasso2d", "select2d", "sendChartToCloud", "sendDataToCloud"],
    }
    text = plotly.io.to_html(figure, include_plotlyjs=False, full_html=False, div_id=element, config=config)
    return str(text)


def _style(figure: go.Figure, *, height: int, **layout: Any) -> go.Figure:
    figure.update_layout(
        height=height,
        font={"family": _FONT, "size": 13, "color": _INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 70, "r": 30, "t": 40, "b": 60},
        hoverlabel={"bgcolor": "white", "font": {"family": _FONT, "size": 12, "color": _INK}, "align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#8c959f", "activecolor": _INK},
        legend={"orientation": "h", "yanchor": "top", "y": -0.17, "x": 0},
        **layout,
    )
    axis = {"gridcolor": _GRID, "zeroline": False, "linecolor": "#b6bcc4", "showline": True, "ticks": "outside"}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def method_colors(trials: Iterable[TrialRecord]) -> dict[str, tuple[str, str]]:
    """Return method label -> (color, marker symbol), the same in every figure of a sweep."""
    labels = sorted({method_label(trial) for trial in trials})
    return {
        label: (PALETTE[index % len(PALETTE)], _SYMBOLS[index % len(_SYMBOLS)]) for index, label in enumerate(labels)
    }


def _hover(trial: TrialRecord) -> str:
    lines = [
        f"<b>trial {trial.number}</b> · {kind_label(trial)} · {trial.state.value}",
        method_label(trial),
        model_label(trial),
        *(short_params({path: value}) for path, value in trial.params.items() if short_params({path: value})),
        f"seed {trial.seed}, {trial.step} steps",
    ]
    for metric, title in QUALITIES.items():
        value = finite(trial.metrics, metric)
        if value is not None:
            lines.append(f"{title.removesuffix(' (%)')}: {100 * value:.1f} %")
    for cost, (title, scale, unit) in COSTS.items():
        value = finite(trial.profile, cost)
        if value is not None:
            lines.append(f"{title.partition(' (')[0]}: {value * scale:.3g} {unit}")
    return "<br>".join(line if line.startswith("<b>") else html.escape(line) for line in lines)


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
    _style(figure, height=560, **layouts[0])
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
            line={"color": _FRONT, "width": 1.5, "shape": "hv"},
            name="Pareto front",
            hoverinfo="skip",
        )
    ]
    traces += [_star(trial, view.x(trial), view.y(trial)) for trial in shown if trial.number == picked]
    for label, style in colors.items():
        members = [trial for trial in shown if method_label(trial) == label]
        if members:
            xs, ys = [view.x(trial) for trial in members], [view.y(trial) for trial in members]
            traces.append(_markers(label, style, members, xs, ys, rejected, picked))
    return traces


def _star(trial: TrialRecord, x: float, y: float) -> go.Scatter:
    """Return the mark of the chosen trial; it lies under the trial's own marker."""
    return go.Scatter(
        x=[x],
        y=[y],
        mode="markers",
        marker={"color": _STAR, "symbol": "star", "size": 30, "opacity": 1, "line": {"color": _INK, "width": 1.2}},
        name=f"picked: trial {trial.number}",
        hoverinfo="skip",
    )


def _markers(
    label: str,
    style: tuple[str, str],
    members: Sequence[TrialRecord],
    xs: Sequence[float],
    ys: Sequence[float],
    rejected: Collection[int],
    picked: int | None,
) -> go.Scatter:
    """Return the trials of one method as numbered markers; rejected ones are hollow, the picked one has the star."""
    color, symbol = style
    is_hollow = [trial.number in rejected for trial in members]
    return go.Scatter(
        x=xs,
        y=ys,
        mode="markers+text",
        text=["" if trial.number == picked else str(trial.number) for trial in members],
        textposition="top center",
        textfont={"size": 11, "color": "#57606a"},
        marker={
            "color": ["white" if hollow else color for hollow in is_hollow],
            "symbol": symbol,
            "size": 11,
            "opacity": 1,
            "line": {"color": [color if hollow else "white" for hollow in is_hollow], "width": 1.5},
        },
        name=html.escape(label),
        hovertext=[_hover(trial) for trial in members],
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
        line = {"color": "#57606a", "width": 1.2, "dash": "dash"}
        shapes.append(
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 100 * value, "y1": 100 * value, "line": line}
        )
        label = f"{html.escape(trial.name or method_label(trial))} {100 * value:.1f}"
        is_crowded = any(abs(100 * value - other) < 1.5 for other in taken)
        taken.append(100 * value)
        side = {"x": 0.0, "xanchor": "left"} if is_crowded else {"x": 1.0, "xanchor": "right"}
        notes.append(
            {"xref": "paper", "y": 100 * value, "yanchor": "bottom", "text": label, "showarrow": False, **side}
            | {"font": {"size": 11, "color": "#57606a"}}
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
    for label, style in method_colors(trials).items():
        members = [trial for trial in shown if method_label(trial) == label]
        if members:
            xs = [100 * trial.metrics[SOURCE_MIOU] for trial in members]
            ys = [100 * trial.metrics[TARGET_MIOU] for trial in members]
            figure.add_trace(_markers(label, style, members, xs, ys, rejected, picked))
    _style(figure, height=460)
    figure.update_xaxes(title=QUALITIES[SOURCE_MIOU])
    figure.update_yaxes(title=QUALITIES[TARGET_MIOU])
    return figure


def learning_curves_figure(
    trials: Sequence[TrialRecord],
    curves: Mapping[int, Sequence[tuple[int, float]]],
    *,
    title: str = QUALITIES[SOURCE_MIOU],
) -> go.Figure | None:
    """Return one curve per trial over training steps; pruned trials are dashed, unfinished ones dotted.

    Args:
        trials: records of one sweep.
        curves: trial number -> (step, mean IoU in [0, 1]) in the order of steps.
        title: of the vertical axis.

    Returns:
        The figure, or None without a single point.
    """
    if not any(curves.values()):
        return None
    figure = go.Figure()
    colors = method_colors(trials)
    named: set[str] = set()
    for trial in trials:
        points = curves.get(trial.number) or ()
        if not points:
            continue
        label = method_label(trial)
        color, symbol = colors[label]
        dash = {TrialState.COMPLETE: "solid", TrialState.PRUNED: "dash"}.get(trial.state, "dot")
        figure.add_trace(
            go.Scatter(
                x=[step for step, _ in points],
                y=[100 * value for _, value in points],
                mode="lines+markers",
                line={"color": color, "width": 1.6, "dash": dash},
                marker={"color": color, "symbol": symbol, "size": [4] * (len(points) - 1) + [8]},
                name=html.escape(label),
                legendgroup=label,
                showlegend=label not in named,
                hovertext=[_hover(trial)] * len(points),
                hovertemplate="step %{x}: %{y:.1f} %<br>%{hovertext}<extra></extra>",
            )
        )
        named.add(label)
    keys = [
        go.Scatter(x=[None], y=[None], mode="lines", line={"color": "#57606a", "dash": dash}, name=name)
        for name, dash in (("pruned", "dash"), ("unfinished or failed", "dot"))
    ]
    figure.add_traces(keys)
    _style(figure, height=460)
    figure.update_xaxes(title="training step", rangemode="tozero")
    figure.update_yaxes(title=title)
    return figure


def parallel_figure(
    trials: Sequence[TrialRecord], *, metric: str = SOURCE_MIOU, title: str = "source val mIoU (%)"
) -> go.Figure | None:
    """Return the searched parameters and the figure that each fully trained candidate got, as parallel axes.

    Drag along an axis to keep only a part of it. A parameter that a trial does not have stands at `n/a`.

    Returns:
        The figure, or None with fewer than two candidates or without parameters.
    """
    shown = [trial for trial in trials if is_candidate(trial) and finite(trial.metrics, metric) is not None]
    paths = list(dict.fromkeys(path for trial in shown for path in trial.params))
    if len(shown) < 2 or not paths:
        return None
    quality = [100 * trial.metrics[metric] for trial in shown]
    dimensions = [
        {"label": html.escape(name)} | _axis([trial.params.get(path) for trial in shown])
        for path, name in short_names(paths).items()
    ]
    dimensions.append({"label": title, "values": quality})
    figure = go.Figure(
        go.Parcoords(
            dimensions=dimensions,
            line={"color": quality, "colorscale": "Cividis", "showscale": False},
            labelfont={"size": 12},
            tickfont={"size": 11},
            rangefont={"size": 1, "color": "rgba(0,0,0,0)"},
        )
    )
    _style(figure, height=420)
    figure.update_layout(margin={"t": 70, "b": 30, "l": 90, "r": 90})
    return figure


def _axis(values: Sequence[Scalar]) -> dict[str, Any]:
    """Return positions and tick labels of one parallel axis: numbers to scale, anything else evenly spaced."""
    present = [value for value in values if value is not None]
    numbers = [float(value) for value in present if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(present) or not numbers:
        names = sorted({str(value) for value in present})
        order = {name: float(index) for index, name in enumerate(names)}
        missing = -1.0
        positions = [missing if value is None else order[str(value)] for value in values]
        ticks, texts = list(order.values()), names
    else:
        is_log = min(numbers) > 0 and max(numbers) / min(numbers) > 20
        scale = math.log10 if is_log else float
        low, high = scale(min(numbers)), scale(max(numbers))
        missing = low - 0.15 * ((high - low) or 1.0)
        positions = [missing if value is None else scale(float(value)) for value in values]
        ticks = [low + (high - low) * part / 4 for part in range(5)] if high > low else [low]
        texts = [format_value(10**tick if is_log else tick) for tick in ticks]
    if len(present) < len(values):
        ticks, texts = [missing, *ticks], ["n/a", *texts]
    low, high = min([*positions, *ticks]), max([*positions, *ticks])
    pad = 0.0 if high > low else 0.5
    return {"values": positions, "tickvals": ticks, "ticktext": texts, "range": [low - pad, high + pad]}


def importance_figure(importance: Mapping[str, float]) -> go.Figure | None:
    """Return the importance of each parameter (see `Search.importance`) as bars, or None without one."""
    if not importance:
        return None
    items = sorted(importance.items(), key=lambda item: item[1])
    figure = go.Figure(
        go.Bar(
            x=[100 * value for _, value in items],
            y=[html.escape(path) for path, _ in items],
            orientation="h",
            marker={"color": PALETTE[0]},
            text=[f"{100 * value:.0f} %" for _, value in items],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:.1f} %<extra></extra>",
        )
    )
    _style(figure, height=110 + 34 * len(items), showlegend=False)
    figure.update_layout(margin={"l": 200})
    figure.update_xaxes(title="share in what makes a trial one of the best (%)", rangemode="tozero")
    return figure


def class_figure(rows: Sequence[ClassRow], networks: Sequence[str]) -> go.Figure | None:
    """Return per-class IoU as a heat map, one line per network and split, or None without classes.

    Args:
        rows: classes with one value per network.
        networks: labels in the order of the values; a line break may be written as `<br>`.
    """
    if not rows or not networks:
        return None
    values = [
        [None if (value := row.values[index]) is None else 100 * value for row in rows]
        for index in range(len(networks))
    ]
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=[html.escape(row.name) for row in rows],
            y=[html.escape(network) for network in networks],
            zmin=0,
            zmax=100,
            colorscale="Cividis",
            xgap=2,
            ygap=2,
            texttemplate="%{z:.0f}",
            hovertemplate="%{y}<br>%{x}: %{z:.1f} %<extra></extra>",
            colorbar={"title": {"text": "IoU (%)"}, "thickness": 12, "outlinewidth": 0},
        )
    )
    _style(figure, height=150 + 44 * len(networks))
    figure.update_layout(margin={"l": 230, "b": 90})
    figure.update_xaxes(showgrid=False, tickangle=-35)
    figure.update_yaxes(showgrid=False, autorange="reversed")
    return figure
