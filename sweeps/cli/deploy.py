"""`sweeps deploy`: the file to ship, within a budget on this device."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from sweeps.cli.options import examples, options
from sweeps.exit_codes import FELL_SHORT, STOPPED
from sweeps.reports.formats import percent, scaled
from sweeps.reports.terminal import console
from sweeps.selection.reasons import shown_figure

if TYPE_CHECKING:
    from sweeps.deployment.choice import Entry  # imports PyTorch
    from sweeps.deployment.deployment import Deployment

_DOUBTFUL, _OF_NETWORK = "¶", "≈"


@click.command(
    "deploy",
    epilog=examples(
        'sweeps deploy camvid_day_to_dusk --budget "latency_ms <= 30"',
        'sweeps deploy camvid_day_to_dusk --budget "latency_p90_ms <= 30" --budget "file_mb <= 10" --threads 4',
        "sweeps deploy camvid_day_to_dusk --candidates 5 --slim 0.3 --slim 0.5 --data-root camvid=/data/camvid",
    ),
)
@click.argument("name")
@click.option(
    "--budget",
    "budgets",
    multiple=True,
    metavar="BOUND",
    help="What the file must keep, e.g. 'latency_ms <= 30' or 'agreement >= 0.98'; may be repeated.  "
    "[default: the constraints of the sweep file]",
)
@click.option(
    "--slim",
    "ratios",
    type=float,
    multiple=True,
    metavar="SHARE",
    default=(0.3,),
    show_default=True,
    help="Share of the channels to take out for further artefacts of each candidate; may be repeated.",
)
@click.option("--no-slim", is_flag=True, help="Take no channels out.")
@click.option(
    "--candidates",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many of the best trials to make artefacts of, in a sweep with finalists_of_each of each group.  "
    "[default: the finalists; of a sweep with one seed 3]",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    help="What to measure on.  [default: what the sweep's trials computed on]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads of the processor to measure with.  [default: those of a trial, resources.cpus]",
)
@click.option("--again", is_flag=True, help=f"Measure again what was measured in company ({_DOUBTFUL}).")
@options("store", "ledger", "roots")
@click.pass_context
def deploy_command(
    context: click.Context,
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
) -> None:
    """Make files of the best networks of the sweep NAME, and write the best that keeps every budget on this device.

    Of each candidate's checkpoint: fp32, int8 (on a GPU fp16), and both with fewer channels and new statistics. Each is compared
    with its network on real images, measured alone by what the sweep file says under deploy (else ONNX Runtime), and judged. The
    sweep's own criterion chooses, computed anew of each file as far as class maps tell it. Scores on target labels are only shown.

    The sweep's folder gets a folder deploy: winner/ (network, MODEL_CARD.md, winner.json), front.png, artefacts.json and all
    artefacts. What is there is not made or measured again, so the same command goes on after a kill, and another budget is cheap.

    \b
    Budgets are on: latency_ms, latency_p90_ms, latency_p95_ms, fps (one image at the training's size, from bytes to class map);
    file_mb (10^6 bytes), num_parameters, macs; agreement (share of pixels in which the file says what the trained network says);
    source/val/miou.

    Exit codes: 0 written, 2 something to correct, 3 no artefact keeps the budgets (the nearest are told), 75 ended by SIGTERM or
    SIGHUP.
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    from sweeps.commands.deploying import deploy  # imports PyTorch

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
        context.exit(FELL_SHORT)
    click.echo(f"winner:  {found.path}\ncard:    {found.path.parent / 'MODEL_CARD.md'}")


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


def _table(found: "Deployment") -> Table:
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


def _cells(entry: "Entry", found: "Deployment") -> tuple[str, ...]:
    artefact, value = entry.artefact, entry.value
    figures, latency = artefact.figures(), artefact.latency
    doubtful = _DOUBTFUL if latency is not None and latency.doubts else ""
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


def _notes(found: "Deployment") -> list[str]:
    seeds = found.entries[0].artefact.candidate.seeds
    over = (
        f"a mean over further seeds ({', '.join(map(str, seeds))}), plus what the file gains or loses"
        if seeds
        else "one seed"
    )
    notes = [f"★ the sweep's pick; {found.circumstances.selection.used}: {over}; agreement with the trained network"]
    if any(entry.artefact.latency is not None and entry.artefact.latency.doubts for entry in found.entries):
        notes.append(
            f"{_DOUBTFUL} not measured alone, or it did not repeat: most likely too slow; --again measures these once more"
        )
    if any(entry.value.is_of_network and entry.artefact.figures() for entry in found.entries):
        notes.append(
            f"{_OF_NETWORK} of the network that the file was made of: it has no probabilities to compute it by"
        )
    return notes


def _nothing(found: "Deployment") -> str:
    from sweeps.deployment.choice import nearest_to

    budgets = found.circumstances.budgets
    entries = nearest_to(found.entries, budgets)
    nearest = [f"{entry.artefact} ({'; '.join(entry.broken)})" for entry in entries]
    asked = ", ".join(map(str, budgets))
    if not nearest:
        return f"no artefact keeps {asked}: none can be used, see the table"
    is_doubtful = any(entry.artefact.latency is not None and entry.artefact.latency.doubts for entry in entries)
    hint = "; not measured alone: --again on an idle device may tell otherwise" if is_doubtful else ""
    return f"no artefact keeps {asked}; nearest: {', '.join(nearest)}{hint}"
