"""Interactive figure of where in the search space trials fail."""

import html
from collections.abc import Sequence

import plotly.graph_objects as go

from sweeps.failures import FailureClass
from sweeps.labels import short_names
from sweeps.reports.plots import PALETTE, style
from sweeps.reports.regions import CONSTRAINT, RegionRow

# Broken constraints first: they are known before training.
_OUTCOMES = (CONSTRAINT, *(failure.value for failure in FailureClass))


def region_figure(rows: Sequence[RegionRow]) -> go.Figure | None:
    """Return the share of failed trials by value of each parameter as stacked bars, one color per kind of failure.

    Parameters none of whose values stands out are left out.

    Args:
        rows: see `sweeps.reports.regions.region_rows`.

    Returns:
        The figure, or None if no value failed more than others.
    """
    telling = {row.path for row in rows if row.share != row.expected}
    shown = [row for row in rows if row.path in telling]
    if not shown:
        return None
    names = short_names(dict.fromkeys(row.path for row in shown))
    labels = [
        [html.escape(names[row.path]) for row in shown],
        [f"{html.escape(row.value)} (n = {row.trials})" for row in shown],
    ]
    figure = go.Figure()
    present = [name for name in _OUTCOMES if any(name in row.outcomes for row in shown)]
    for index, name in enumerate(present):
        counts = [row.outcomes.get(name, 0) for row in shown]
        figure.add_trace(
            go.Bar(
                y=labels,
                x=[100 * count / row.trials for count, row in zip(counts, shown, strict=True)],
                orientation="h",
                name=name.replace("_", " "),
                marker={"color": PALETTE[index % len(PALETTE)]},
                customdata=[[count, row.trials] for count, row in zip(counts, shown, strict=True)],
                hovertemplate="%{customdata[0]} of %{customdata[1]} trials<extra>%{fullData.name}</extra>",
            )
        )
    style(figure, height=170 + 26 * len(shown), barmode="stack")
    figure.update_layout(margin={"l": 260}, showlegend=True, legend_traceorder="normal")
    figure.update_xaxes(title="share of finished trials that failed (%)", range=[0, 100])
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    return figure
