"""What `sweeps deploy` does."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from sweeps.commands.deploying import deploy
from sweeps.deployment.choice import Entry, nearest_to
from sweeps.deployment.deployment import Deployment
from sweeps.exit_codes import DONE, FELL_SHORT, STOPPED
from sweeps.reports.formats import percent, scaled
from sweeps.reports.marks import IN_COMPANY
from sweeps.reports.terminal import console
from sweeps.selection.reasons import shown_figure

_OF_NETWORK = "≈"


def deploy_action(
    name: str,
    budgets: tuple[str, ...],
    ratios: tuple[float, ...],
    no_slim: bool,
    candidates: int | None,
    device: str | None,
    threads: int | None,
    again: bool,
    store_root: Path,
    ledger_url: str | None,
    roots: dict[str, Path],
) -> int:
    """Do `sweeps deploy`; the arguments are the command's. Returns the exit code."""
    with ended_at_once():
        found = deploy(
            name,
            *budgets,
            store=store_root,
            ledger=ledger_url,
            slim=() if no_slim else ratios,
            candidates=candidates,
            device=device,
            threads=threads,
            data_roots=roots,
            again=again,
        )
    console().print(_table(found))
    for entry in found.entries:
        latency = entry.artefact.latency
        for line in () if latency is None else latency.doubts:
            click.echo(f"latency of {entry.artefact} is not reliable: {line}", err=True)
    click.echo(f"picture: {found.picture}")
    if found.path is None:
        click.echo(_nothing(found), err=True)
        return FELL_SHORT
    click.echo(f"winner:  {found.path}\ncard:    {found.path.parent / 'MODEL_CARD.md'}")
    return DONE


@contextmanager
def ended_at_once() -> Iterator[None]:
    """End the process without ado when SIGTERM or SIGHUP comes, with the exit code that says to try again.

    An exception would be lost where exporters run code of their own when objects go away. Files appear whole, and each step that
    has ended is on the disk.
    """

    def end(number: int, _frame: object) -> None:
        os.write(2, f"ended by {signal.Signals(number).name}; the same command goes on\n".encode())
        os._exit(STOPPED)

    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _table(found: Deployment) -> Table:
    criterion = found.circumstances.selection.used
    budgets = ", ".join(map(str, found.circumstances.budgets))
    table = Table(
        title=f"artefacts of {found.circumstances.spec.name} within {budgets}, on {found.circumstances.where}",
        caption=Text("\n".join(_notes(found)), style="table.caption"),
        caption_justify="left",
    )
    for title in ("trial", "artefact"):
        table.add_column(title, no_wrap=True)
    for title in (
        criterion,
        "agreement\n%",
        "latency ms\np50",
        "latency ms\np90",
        "file\nMB",
        "source\nmIoU %",
        "target mIoU\n% (oracle)",
    ):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for entry in found.entries:
        is_winner = entry is found.winner
        table.add_row(*map(Text, _cells(entry, found)), style="bold" if is_winner else None)
    return table


def _cells(entry: Entry, found: Deployment) -> tuple[str, ...]:
    artefact, value = entry.artefact, entry.value
    figures, latency = artefact.figures(), artefact.latency
    doubtful = IN_COMPANY if latency is not None and latency.doubts else ""
    worth = "–" if value.value is None else shown_figure(found.circumstances.metric, value.value)
    verdict = "winner" if entry is found.winner else entry.obstacle or "within"
    return (
        f"{artefact.candidate.trial.number}{' ★' if artefact.candidate.is_picked else ''}",
        str(artefact.recipe),
        f"{_OF_NETWORK if value.is_of_network and figures else ''}{worth}",
        f"{100 * figures['agreement']:.2f}" if figures else "–",
        scaled(figures.get("latency_ms")) + doubtful,
        scaled(figures.get("latency_p90_ms")) + doubtful,
        scaled(figures.get("file_mb")),
        percent(figures.get("source/val/miou")),
        percent(artefact.oracle_miou),
        verdict,
    )


def _notes(found: Deployment) -> list[str]:
    seeds = found.entries[0].artefact.candidate.seeds
    over = (
        f"a mean over further seeds ({', '.join(map(str, seeds))}), plus what the file gains or loses"
        if seeds
        else "one seed"
    )
    notes = [f"★ the sweep's pick; {found.circumstances.selection.used}: {over}; agreement with the trained network"]
    if any(entry.artefact.latency is not None and entry.artefact.latency.doubts for entry in found.entries):
        notes.append(
            f"{IN_COMPANY} not measured alone, or it did not repeat: most likely too slow; --again measures these once more"
        )
    if any(entry.value.is_of_network and entry.artefact.figures() for entry in found.entries):
        notes.append(
            f"{_OF_NETWORK} of the network that the file was made of: it has no probabilities to compute it by"
        )
    return notes


def _nothing(found: Deployment) -> str:
    budgets = found.circumstances.budgets
    entries = nearest_to(found.entries, budgets)
    nearest = [f"{entry.artefact} ({'; '.join(entry.broken)})" for entry in entries]
    asked = ", ".join(map(str, budgets))
    if not nearest:
        return f"no artefact keeps {asked}: none can be used, see the table"
    is_doubtful = any(entry.artefact.latency is not None and entry.artefact.latency.doubts for entry in entries)
    hint = "; not measured alone: --again on an idle device may tell otherwise" if is_doubtful else ""
    return f"no artefact keeps {asked}; nearest: {', '.join(nearest)}{hint}"
