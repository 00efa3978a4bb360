"""Interactive figure of several sweeps together: what work bought."""

import html
from collections.abc import Sequence

import plotly.graph_objects as go

from sweeps.metrics import SOURCE_MIOU, TARGET_MIOU
from sweeps.reports.comparison import best_so_far
from sweeps.reports.plots import PALETTE, QUALITIES, style
from sweeps.reports.view import SweepView

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "pentagon", "hexagon")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_MENU = {"direction": "down", "x": 0, "xanchor": "left", "y": 1.14, "yanchor": "top", "bgcolor": "white"}


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
