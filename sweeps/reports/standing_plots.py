"""Interactive figure of what each method is worth over seeds."""

import html
from collections.abc import Sequence

import plotly.graph_objects as go

from sweeps.metrics import TARGET_MIOU
from sweeps.reports.plots import INK, MUTED, PALETTE, QUALITIES, style
from sweeps.reports.standing_tables import StandingRow

_ROW_HEIGHT, _AROUND = 26, 130  # pixels


def standing_figure(rows: Sequence[StandingRow], *, baseline: int | None, upper_bound: int | None) -> go.Figure | None:
    """Return one line per method: its mean over further seeds, the interval of that mean, and every single seed.

    Args:
        rows: what each method is worth, the best first.
        baseline: trial that gains are told against; its mean is a line through all others.
        upper_bound: trial of the upper bound, likewise.

    Returns:
        The figure, or None if nothing was trained with further seeds.
    """
    shown = [row for row in reversed(rows) if row.target is not None]
    if not shown:
        return None
    labels = [html.escape(row.label) for row in shown]
    means = [100 * row.target.mean for row in shown if row.target]
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=[100 * value for row in shown for value in row.values],
            y=[label for label, row in zip(labels, shown, strict=True) for _ in row.values],
            mode="markers",
            marker={"color": MUTED, "size": 6, "symbol": "line-ns-open"},
            name="one seed",
            hoverinfo="skip",
        )
    )
    reach = [(row.target.high - row.target.mean) if row.target and row.target.high is not None else 0 for row in shown]
    figure.add_trace(
        go.Scatter(
            x=means,
            y=labels,
            mode="markers",
            marker={"color": PALETTE[0], "size": 10},
            error_x={"type": "data", "array": [100 * length for length in reach], "thickness": 2, "color": PALETTE[0]},
            name="mean and 95 % interval over seeds",
            text=[f"{len(row.seeds)} seeds" for row in shown],
            hovertemplate="%{y}: %{x:.1f} ± %{error_x.array:.1f} % (%{text})<extra></extra>",
        )
    )
    for number, name, dash in ((baseline, "baseline", "dot"), (upper_bound, "upper bound", "dash")):
        for row, mean in zip(shown, means, strict=True):
            if row.trial.number == number:
                figure.add_vline(mean, line={"color": INK, "width": 1, "dash": dash}, annotation_text=name)
    style(figure, height=_AROUND + _ROW_HEIGHT * len(shown))
    figure.update_xaxes(title=QUALITIES[TARGET_MIOU])
    figure.update_yaxes(automargin=True)
    return figure
