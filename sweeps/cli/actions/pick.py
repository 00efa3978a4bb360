"""What `sweeps pick` does."""

from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from segda.documents import as_json
from sweeps.commands.picking import pick
from sweeps.documents.picking import picking_document
from sweeps.labelling.folder import IMAGES, README
from sweeps.labelling.picking import Picking
from sweeps.reports.formats import count, percent
from sweeps.reports.terminal import console
from sweeps.selection.few_labels import FURTHER, TOO_FEW, Interval
from sweeps.suggestions import suggest


def pick_action(
    name: str,
    labels: int | None,
    labels_from: Path | None,
    store_root: Path,
    ledger_url: str | None,
    roots: dict[str, Path],
    as_document: bool,
) -> None:
    """Do `sweeps pick`; the arguments are the command's."""
    found = pick(name, labels=labels, labels_from=labels_from, store=store_root, ledger=ledger_url, data_roots=roots)
    if as_document:
        click.echo(as_json(picking_document(found)))
        return
    if found.standing is not None:
        console().print(_table(found))
    for line in lines_of(found):
        click.echo(line)


def _table(found: Picking) -> Table:
    said = found.standing
    assert said is not None
    table = Table(title=f"finalists of {found.sweep} by {count(len(found.counted), 'label')}")
    table.add_column("trial", justify="right", no_wrap=True)
    for title in (found.state.criterion, "all labels\nmIoU %", "random part\nmIoU %"):
        table.add_column(title, justify="right", no_wrap=True)
    for place in said.order:
        item = found.state.finalists[place]
        star = " ★" if place == said.pick else ""
        on_random = None if said.on_random is None else said.on_random[place]
        cells = (f"{item.trial}{star}", percent(item.figure), percent(said.miou[place]), interval_text(on_random))
        table.add_row(*map(Text, cells), style="bold" if star else None)
    return table


def lines_of(found: Picking) -> list[str]:
    """Return what labels say, and what to do next.

    Args:
        found: what is known after a call.
    """
    return [*_said(found), *_next(found)]


def _said(found: Picking) -> list[str]:
    said, picked = found.standing, found.pick
    if said is None or picked is None:
        return []
    same = found.unlabelled == picked.trial
    without = "none" if found.unlabelled is None else f"trial {found.unlabelled}"
    lines = [
        f"pick: trial {picked.trial}, by {count(len(found.counted), 'label')}; without labels the sweep picks "
        f"{'the same' if same else without}",
        f"it is the best in {said.certainty:.0%} of the resamples, and in 95 % of them loses at most {_points(said.regret_bound)}",
        f"expected loss {_points(said.regret)} now, {_points(said.regret_with_more)} with {FURTHER} labels more",
        "  by the bootstrap over all labelled images, disputed ones too: true of images like these",
    ]
    if len(found.counted) < TOO_FEW:
        lines.append(f"  fewer than {TOO_FEW} labels make losses look smaller than they are")
    if said.expected is not None:
        images = count(said.expected.images, "random image")
        lines.append(
            f"the chosen network has {interval_text(said.expected)} % mIoU on the target, by {images}, each judged by what all "
            "others choose"
        )
    lines.append("these labels are spent: they chose, so no figure of the pick over them is unbiased")
    return lines


def _next(found: Picking) -> list[str]:
    folder, waiting = found.folder, found.waiting
    if not waiting:
        asked, wanted = len(found.state.images), found.state.labels
        if asked < wanted:
            return [f"all {found.available} images that can be asked for are labelled"]
        return [
            f"all {wanted} labels are there; {suggest('pick', found.sweep, '--labels', 'N')} asks for more, N in all"
        ]
    return [
        f"{count(len(waiting), 'image')} to label, of {found.state.labels} in all:",
        *(f"  {image.path} -> {folder.answer(image.name)} ({image.part})" for image in waiting),
        f"what a label is: {folder.path / README}; the list: {folder.path / IMAGES}",
        f"then: {suggest('pick', found.sweep)}",
    ]


def interval_text(found: Interval | None) -> str:
    """Return a mean IoU in per cent with its interval."""
    if found is None:
        return percent(None)
    if found.low is None or found.high is None:
        return percent(found.miou)
    return f"{percent(found.miou)} ({percent(found.low)} to {percent(found.high)})"


def _points(value: float) -> str:
    return f"{100 * value:.1f} points"
