"""Interactive figures of several sweeps together: quality against cost, and what work bought."""

import html
from collections.abc import Sequence

import plotly.graph_objects as go

from sweeps.metrics import SOURCE_MIOU, TARGET_MIOU, finite
from sweeps.reports.comparison import best_so_far
from sweeps.reports.plots import COSTS, INK, PALETTE, QUALITIES, STAR, hover_text, style
from sweeps.reports.view import SweepView
from sweeps.selection.analysis import is_candidate, pareto_front

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "pentagon", "hexagon")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_MENU = {"direction": "down", "x": 0, "xanchor": "left", "y": 1.14, "yanchor": "top", "bgcolor": "white"}


def joint_pareto_figure(views: Sequence[SweepView]) -> go.Figure | None:
    """Return quality against cost of all sweeps' candidates that qualify, one color per sweep, with the front of each.

    A menu changes both axes; picks are stars.

    Args:
        views: the sweeps.

    Returns:
        The figure, or None if no candidate has both a quality and a cost.
    """
    axes = [
        (metric, cost)
        for metric in QUALITIES
        for cost in COSTS
        if any(_candidates(view, metric, cost) for view in views)
    ]
    if not axes:
        return None
    figure = go.Figure()
    owners: list[int] = []
    for index, (metric, cost) in enumerate(axes):
        for place, view in enumerate(views):
            for trace in _pareto_traces(view, metric, cost, place):
                trace.visible = index == 0
                figure.add_trace(trace)
                owners.append(index)
    layouts = [{"xaxis.title.text": COSTS[cost][0], "yaxis.title.text": QUALITIES[metric]} for metric, cost in axes]
    style(figure, height=560, **layouts[0])
    labels = [
        f"{QUALITIES[metric].partition(' (')[0]} against {COSTS[cost][0].partition(' (')[0]}" for metric, cost in axes
    ]
    buttons = [
        {"label": label, "method": "update", "args": [{"visible": [owner == index for owner in owners]}, layout]}
        for index, (label, layout) in enumerate(zip(labels, layouts, strict=True))
    ]
    figure.update_layout(margin={"t": 70, "r": 40}, updatemenus=[_MENU | {"buttons": buttons}] if len(axes) > 1 else [])
    return figure


def _candidates(view: SweepView, metric: str, cost: str) -> list[int]:
    rejected = {number for number, _ in view.selection.rejected}
    return [
        index
        for index, trial in enumerate(view.trials)
        if is_candidate(trial)
        and trial.number not in rejected
        and finite(trial.metrics, metric) is not None
        and finite(trial.profile, cost) is not None
    ]


def _pareto_traces(view: SweepView, metric: str, cost: str, place: int) -> list[go.Scatter]:
    shown = [view.trials[index] for index in _candidates(view, metric, cost)]
    if not shown:
        return []
    color, symbol = PALETTE[place % len(PALETTE)], _SYMBOLS[place % len(_SYMBOLS)]
    name, scale = html.escape(view.record.name), COSTS[cost][1]
    front = pareto_front(shown, metric=metric, cost=cost)
    picked = [trial for trial in shown if view.picked is not None and trial.number == view.picked.number]
    # The star lies under the trial's own marker.
    traces = [
        go.Scatter(
            x=[trial.profile[cost] * scale],
            y=[100 * trial.metrics[metric]],
            mode="markers",
            marker={"color": STAR, "symbol": "star", "size": 30, "line": {"color": INK, "width": 1.2}},
            name=f"picked: {name}",
            legendgroup=name,
            showlegend=False,
            hoverinfo="skip",
        )
        for trial in picked
    ]
    traces += [
        go.Scatter(
            x=[trial.profile[cost] * scale for trial in front],
            y=[100 * trial.metrics[metric] for trial in front],
            mode="lines",
            line={"color": color, "width": 1.5, "shape": "hv", "dash": _DASHES[place % len(_DASHES)]},
            legendgroup=name,
            showlegend=False,
            hoverinfo="skip",
        ),
        go.Scatter(
            x=[trial.profile[cost] * scale for trial in shown],
            y=[100 * trial.metrics[metric] for trial in shown],
            mode="markers",
            marker={"color": color, "symbol": symbol, "size": 10, "line": {"color": "white", "width": 1}},
            name=name,
            legendgroup=name,
            hovertext=[f"{name}<br>{hover_text(trial)}" for trial in shown],
            hovertemplate="%{hovertext}<extra></extra>",
        ),
    ]
    return traces


def best_so_far_figure(views: Sequence[SweepView]) -> go.Figure | None:
    """Return the best figure so far over the worker hours spent, one stepped line per sweep, with a menu over the figure.

    Args:
        views: the sweeps.

    Returns:
        The figure, or None if no sweep has a fully trained candidate that qualifies.
    """
    metrics = [
        metric for metric in (SOURCE_MIOU, TARGET_MIOU) if any(len(best_so_far(view, metric)) > 0 for view in views)
    ]
    if not metrics:
        return None
    figure = go.Figure()
    owners: list[str] = []
    for metric in metrics:
        for place, view in enumerate(views):
            points = best_so_far(view, metric)
            color = PALETTE[place % len(PALETTE)]
            figure.add_trace(
                go.Scatter(
                    x=[hours for hours, _ in points],
                    y=[100 * value for _, value in points],
                    mode="lines+markers",
                    line={"color": color, "width": 2, "shape": "hv", "dash": _DASHES[place % len(_DASHES)]},
                    marker={"color": color, "symbol": _SYMBOLS[place % len(_SYMBOLS)], "size": 5},
                    name=html.escape(view.record.name),
                    visible=metric == metrics[0],
                    hovertemplate="%{x:.2f} worker hours: %{y:.1f} %<extra>%{fullData.name}</extra>",
                )
            )
            owners.append(metric)
    style(figure, height=460)
    buttons = [
        {
            "label": f"best {QUALITIES[metric].partition(' (')[0]} so far",
            "method": "update",
            "args": [{"visible": [owner == metric for owner in owners]}, {"yaxis.title.text": QUALITIES[metric]}],
        }
        for metric in metrics
    ]
    figure.update_layout(margin={"t": 70}, updatemenus=[_MENU | {"buttons": buttons}] if len(metrics) > 1 else [])
    figure.update_xaxes(title="worker hours of trials that have ended", rangemode="tozero")
    figure.update_yaxes(title=QUALITIES[metrics[0]])
    return figure
