"""The adaptation report's figures 3 and 4 of a network of ours: quality against the share of zeros."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segda.compression.curve_points import DENSE, GLOBAL, MODULE, Point, PruneCurve
from segda.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GLOBAL_PICTURE, MODULES_PICTURE = "global.png", "modules.png"
_WIDTH, _HEIGHT, _DOTS = 7.0, 4.6, 120  # inches of a panel, dots per inch
_NAMES = {GLOBAL: "one ranking over all layers", MODULE: "the same share of every layer"}


def draw_curves(curve: PruneCurve, folder: Path) -> None:
    """Write `global.png` and `modules.png` into a folder; one without curves is not written.

    A panel shows the source's validation split; where the target's labelled split was scored, a second one shows that, marked as
    oracle. Dashed lines are networks whose statistics of batch normalization were estimated anew.

    Args:
        curve: what is known.
        folder: that exists.
    """
    of_all = [scope for scope in curve.scopes if scope in _NAMES]
    of_modules = [scope for scope in curve.scopes if scope not in _NAMES]
    _draw(curve, of_all, folder / GLOBAL_PICTURE, axis="share of zeros")
    _draw(curve, of_modules, folder / MODULES_PICTURE, axis="share of zeros in the module alone")


def _draw(curve: PruneCurve, scopes: Sequence[str], path: Path, *, axis: str) -> None:
    if not scopes:
        return
    # Takes a third of a second, which who draws nothing does not wait for. Without pyplot no window system is asked, and nobody
    # else's figures change.
    from matplotlib.figure import Figure

    panels = [("source_val_miou", "source, validation")]
    if any(point.oracle_target_miou is not None for point in curve.points):
        panels.append(("oracle_target_miou", "target (oracle: for reading only)"))
    figure = Figure(figsize=(_WIDTH * len(panels), _HEIGHT), layout="constrained")
    for number, (score, title) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), number + 1)
        _draw_panel(axes, curve, scopes, score)
        axes.set(title=title, xlabel=axis, ylabel="mIoU", ylim=(0, None))
        axes.grid(alpha=0.3)
    _write(figure, path)


def _draw_panel(axes: "Axes", curve: PruneCurve, scopes: Sequence[str], score: str) -> None:
    for number, scope in enumerate(scopes):
        name = _NAMES.get(scope) or f"{scope} ({curve.scopes[scope] / curve.num_weights:.1%} of the weights)"
        for recalibrated in (False, True):
            points = curve.of(scope, recalibrated=recalibrated)
            if {point.scope for point in points} == {DENSE} or not points:
                continue
            axes.plot(
                [point.level for point in points],
                [_value(point, score) for point in points],
                color=f"C{number % 10}",
                linestyle="--" if recalibrated else "-",
                marker="x" if recalibrated else ".",
                linewidth=1.2,
                markersize=4,
                label=f"{name}, new statistics" if recalibrated else name,
            )
    axes.legend(fontsize=7, loc="lower left")


def _value(point: Point, score: str) -> float:
    value: float | None = getattr(point, score)
    return float("nan") if value is None else value


def _write(figure: "Figure", path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DOTS)
