"""The front of artefacts as a PNG: worth against latency, and against the size of the file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segda.files import replacing
from sweeps.deployment.choice import Entry, front
from sweeps.file.parts import Constraint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT, _DOTS = 7.0, 4.8, 120  # inches of a panel, dots per inch
# Okabe and Ito's colors tell trials apart, shapes precisions; slimmed networks are hollow.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6A00", "#5B5B5B")
_SHAPES = {"fp32": "o", "fp16": "^", "int8": "s"}
_MUTED, _STAR = "#57606a", "#F0E442"
_PANELS = (("latency_ms", "latency, median (ms per image)"), ("file_mb", "size of the file (MB)"))


def draw_front(
    entries: Sequence[Entry],
    path: Path,
    *,
    winner: Entry | None,
    budgets: Sequence[Constraint],
    criterion: str,
    title: str,
) -> None:
    """Write the picture; nothing is written without an artefact to show.

    Args:
        entries: all artefacts.
        path: the PNG.
        winner: the one that was chosen.
        budgets: those on what a panel shows are drawn as lines; what they forbid is shaded.
        criterion: name of what artefacts are ranked by.
        title: above both panels.
    """
    shown = [entry for entry in entries if entry.artefact.figures() and entry.value.value is not None]
    if not shown:
        return
    # As everywhere here without pyplot, which would ask a window system; and only by who draws, since it takes time.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH * len(_PANELS), _HEIGHT), layout="constrained")
    figure.suptitle(title, fontsize=10)
    for number, (name, label) in enumerate(_PANELS):
        axes = figure.add_subplot(1, len(_PANELS), number + 1)
        _draw_panel(axes, shown, name, winner=winner, budgets=budgets)
        axes.set(xlabel=label, ylabel=f"{criterion}, in %" if _is_share(shown) else criterion)
        axes.grid(alpha=0.3)
    # Both panels have the same points, each its own budgets: one legend says what they are.
    named: dict[str, Any] = {}
    for axes in figure.axes:
        named |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DOTS)


def _draw_panel(
    axes: "Axes", shown: Sequence[Entry], name: str, *, winner: Entry | None, budgets: Sequence[Constraint]
) -> None:
    trials = list(dict.fromkeys(entry.artefact.candidate.trial.number for entry in shown))
    best = front(shown, name)
    if len(best) > 1:
        xs, ys = [_x(entry, name) for entry in best], [_y(entry, shown) for entry in best]
        axes.step(xs, ys, where="post", color=_MUTED, linewidth=1.2, label="front", zorder=1)
    if winner is not None:
        axes.plot(
            [_x(winner, name)],
            [_y(winner, shown)],
            linestyle="",
            marker="*",
            markersize=21,
            markerfacecolor=_STAR,
            markeredgecolor="black",
            markeredgewidth=0.6,
            label="winner",
            zorder=2,
        )
    for entry in shown:
        recipe, trial = entry.artefact.recipe, entry.artefact.candidate.trial.number
        color = _COLORS[trials.index(trial) % len(_COLORS)]
        axes.plot(
            [_x(entry, name)],
            [_y(entry, shown)],
            linestyle="",
            marker="x" if entry.value.collapse is not None else _SHAPES[recipe.precision],
            markersize=7,
            markerfacecolor="none" if recipe.ratio is not None else color,
            markeredgecolor=color,
            label=f"trial {trial}, {recipe}" + (" (collapsed)" if entry.value.collapse is not None else ""),
            zorder=3,
        )
    axes.set_xlim(left=0)
    for item in budgets:
        if item.metric == name:
            axes.axvline(item.bound, color=_MUTED, linestyle="--", linewidth=1.2, label=f"budget {item}")
            low, high = axes.get_xlim()
            forbidden = (item.bound, max(high, 1.1 * item.bound)) if item.operator == "<=" else (low, item.bound)
            axes.axvspan(*forbidden, color=_MUTED, alpha=0.12, linewidth=0)
            axes.set_xlim(low, max(high, 1.1 * item.bound))


def _x(entry: Entry, name: str) -> float:
    return entry.artefact.figures()[name]


def _y(entry: Entry, shown: Sequence[Entry]) -> float:
    assert entry.value.value is not None
    return 100 * entry.value.value if _is_share(shown) else entry.value.value


def _is_share(shown: Sequence[Entry]) -> bool:
    """Tell whether the criterion is a mean IoU or another share; validators may be any number."""
    return all(entry.value.value is not None and 0 <= entry.value.value <= 1 for entry in shown)
