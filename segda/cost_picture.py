"""Latency against multiply-accumulates, as a picture: how far the one follows from the other, and where it does not."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segda.cost_comparison import CostComparison
from segda.errors import ConfigError
from segda.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

_WIDTH, _HEIGHT, _DOTS = 8.0, 5.0, 150  # inches, dots per inch


def draw_costs(comparison: CostComparison, path: Path) -> None:
    """Write a picture: a point for each network at its median latency, with a whisker to the 90th percentile.

    Hollow points are latencies that are not reliable. The other axis are multiply-accumulates, or sizes of files where those of all
    are known and multiply-accumulates are not.

    Args:
        comparison: what was measured.
        path: the PNG file to write.

    Raises:
        ConfigError: of some network neither is known.
    """
    # Takes a third of a second, which who draws nothing does not wait for. Without pyplot no window system is asked, and nobody
    # else's figures change.
    from matplotlib.figure import Figure

    values, name = _other_axis(comparison)
    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    for number, (cost, value) in enumerate(zip(comparison.costs, values, strict=True)):
        latency, color = cost.whole, f"C{number % 10}"
        axes.errorbar(
            latency.median_ms,
            value,
            xerr=[[0.0], [latency.p90_ms - latency.median_ms]],
            color=color,
            marker="o",
            markerfacecolor=color if latency.is_reliable else "none",
            capsize=3,
        )
    axes.margins(0.15)
    axes.set(xlabel="latency, whole: median to 90th percentile (ms)", ylabel=name, xlim=(0, None), ylim=(0, None))
    axes.grid(alpha=0.3)
    if not all(cost.whole.is_reliable for cost in comparison.costs):
        axes.set_title("hollow: latency is not reliable", fontsize=9)
    _label(figure, axes, [cost.name for cost in comparison.costs], values, comparison)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DOTS)


def _other_axis(comparison: CostComparison) -> tuple[list[float], str]:
    macs = [cost.macs for cost in comparison.costs if cost.macs is not None]
    if len(macs) == len(comparison.costs):
        return [each / 1e9 for each in macs], "multiply-accumulates (G)"
    sizes = [cost.file_bytes for cost in comparison.costs if cost.file_bytes is not None]
    if len(sizes) == len(comparison.costs):
        return [each / 1e6 for each in sizes], "file (MB)"
    unknown = ", ".join(cost.name for cost in comparison.costs if cost.macs is None)
    raise ConfigError(
        f"there is nothing to draw {unknown} against: its multiply-accumulates are not known; leave it out"
    )


def _label(
    figure: "Figure", axes: "Axes", names: Sequence[str], values: Sequence[float], comparison: CostComparison
) -> None:
    """Write names beside points, to the side where there is room, and none over another."""
    middle = sum(axes.get_xlim()) / 2
    placed: list[Annotation] = []
    for name, value, cost in sorted(zip(names, values, comparison.costs, strict=True), key=lambda each: each[1]):
        x = cost.whole.median_ms
        side = 1 if x < middle else -1
        text = axes.annotate(
            name,
            (x, value),
            xytext=(6 * side, 6),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            fontsize=8,
        )
        while any(text.get_window_extent().overlaps(other.get_window_extent()) for other in placed):
            across, up = text.get_position()
            text.set_position((across, up + 4))
        placed.append(text)
