"""Interactive figures of a report. Only files named `*plots.py` import plotly.

A function returns None where there is nothing to draw; the caller says so in words. Colors are those of Okabe and Ito, told
apart by color-blind readers, and shape or dash repeats what color says. Mean IoU is drawn in per cent.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
import plotly.io
import plotly.offline

from segda.tunable import Scalar
from sweeps.labels import format_value, kind_label, method_label, model_label, short_names, short_params
from sweeps.metrics import SOURCE_MIOU, TARGET_MIOU, finite
from sweeps.reports.marks import mark
from sweeps.selection.analysis import is_candidate
from sweeps.trial import TrialRecord, TrialState

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6A00", "#5B5B5B")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "pentagon", "hexagon")
INK, MUTED, STAR = "#24292f", "#57606a", "#F0E442"
_GRID = "#e3e6ea"
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
        "modeBarButtonsToRemove": ["lasso2d", "select2d", "sendChartToCloud", "sendDataToCloud"],
    }
    text = plotly.io.to_html(figure, include_plotlyjs=False, full_html=False, div_id=element, config=config)
    return str(text)


def style(figure: go.Figure, *, height: int, **layout: Any) -> None:
    """Give a figure the look that all share.

    Args:
        figure: changed in place.
        height: in pixels.
        **layout: further settings of plotly's layout.
    """
    figure.update_layout(
        height=height,
        font={"family": _FONT, "size": 13, "color": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 70, "r": 30, "t": 40, "b": 60},
        hoverlabel={"bgcolor": "white", "font": {"family": _FONT, "size": 12, "color": INK}, "align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#8c959f", "activecolor": INK},
        legend={"orientation": "h", "yanchor": "top", "y": -0.17, "x": 0},
        **layout,
    )
    axis = {"gridcolor": _GRID, "zeroline": False, "linecolor": "#b6bcc4", "showline": True, "ticks": "outside"}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)


def method_colors(trials: Iterable[TrialRecord]) -> dict[str, tuple[str, str]]:
    """Return method label -> (color, marker symbol), the same in every figure of a sweep."""
    labels = sorted({method_label(trial) for trial in trials})
    return {
        label: (PALETTE[index % len(PALETTE)], _SYMBOLS[index % len(_SYMBOLS)]) for index, label in enumerate(labels)
    }


def hover_text(trial: TrialRecord) -> str:
    """Return what is known of a trial as the few HTML elements that a figure's hover box understands."""
    lines = [
        f"<b>trial {trial.number}{mark(trial)}</b> · {kind_label(trial)} · {trial.state.value}",
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
                hovertext=[hover_text(trial)] * len(points),
                hovertemplate="step %{x}: %{y:.1f} %<br>%{hovertext}<extra></extra>",
            )
        )
        named.add(label)
    keys = [
        go.Scatter(x=[None], y=[None], mode="lines", line={"color": MUTED, "dash": dash}, name=name)
        for name, dash in (("pruned", "dash"), ("unfinished or failed", "dot"))
    ]
    figure.add_traces(keys)
    style(figure, height=460)
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
    style(figure, height=420)
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
    style(figure, height=110 + 34 * len(items), showlegend=False)
    figure.update_layout(margin={"l": 200})
    figure.update_xaxes(title="share in what makes a trial one of the best (%)", rangemode="tozero")
    return figure


def class_figure(values: Mapping[str, Sequence[float | None]], networks: Sequence[str]) -> go.Figure | None:
    """Return per-class IoU as a heat map, one line per network and split, or None without classes.

    Args:
        values: class -> one IoU per network, see `sweeps.reports.network_tables.class_values`.
        networks: labels in the order of the values; a line break may be written as `<br>`.
    """
    if not values or not networks:
        return None
    shown = [
        [None if (value := found[index]) is None else 100 * value for found in values.values()]
        for index in range(len(networks))
    ]
    figure = go.Figure(
        go.Heatmap(
            z=shown,
            x=[html.escape(name) for name in values],
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
    style(figure, height=150 + 44 * len(networks))
    figure.update_layout(margin={"l": 230, "b": 90})
    figure.update_xaxes(showgrid=False, tickangle=-35)
    figure.update_yaxes(showgrid=False, autorange="reversed")
    return figure
