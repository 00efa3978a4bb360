"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from segda.cli.completion import files_or_shipped
from segda.cli.overrides import changes_argument
from segda.files import expanded
from sweeps.cli.completion import sweep_names
from sweeps.defaults import DEFAULT_STORE, LEDGER_VARIABLE, TRACKING_VARIABLE

CONFIGS = Path(__file__).parents[1] / "configs"
# Of what comes with the installation: what `sweeps schema` prints where no other package offers anything.
SWEEP_SCHEMA = Path(__file__).parents[1] / "schemas" / "sweep.json"


def _parse_roots(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    """Read NAME=PATH options."""
    roots = {}
    for value in values:
        name, _, path = value.partition("=")
        if not name or not path:
            raise click.BadParameter(f"expected NAME=PATH, e.g. camvid=/data/camvid, got {value!r}")
        roots[name] = expanded(path).resolve()
    return roots


def examples(*lines: str) -> str:
    """Return an epilog that click does not wrap."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add options that several commands share."""
    known: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
        "file": click.argument("file", type=click.Path(path_type=Path), shell_complete=files_or_shipped(CONFIGS)),
        "name": click.argument("name", shell_complete=sweep_names),
        "name or none": click.argument("name", required=False, shell_complete=sweep_names),
        "names": click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=sweep_names),
        "store": click.option(
            "--store",
            "store_root",
            type=click.Path(path_type=Path),
            default=DEFAULT_STORE,
            show_default=True,
            help="Folder of ledger, checkpoints and reports; every node must see it under the same path.",
        ),
        "ledger": click.option(
            "--ledger",
            "ledger_url",
            envvar=LEDGER_VARIABLE,
            metavar="URL",
            help="Database of the ledger, e.g. postgresql+psycopg2://user@host/db, or the variable SWEEPS_LEDGER. "
            "[default: ledger.db in the store]",
        ),
        "address": click.option(
            "--address", help="Ray cluster to run on, e.g. auto or 10.0.0.1:6379. [default: this machine alone]"
        ),
        "tracking": click.option(
            "--tracking",
            envvar=TRACKING_VARIABLE,
            metavar="URI",
            help="MLflow server or store instead of tracking.uri of the sweep file, or the variable SWEEPS_TRACKING.",
        ),
        "roots": click.option(
            "--data-root",
            "roots",
            metavar="NAME=PATH",
            callback=_parse_roots,
            multiple=True,
            help="Where a data set lies; repeat for several. [default: the variable SEGDA_<NAME>_ROOT]",
        ),
        "changes": changes_argument(SWEEP_SCHEMA),
        "trials": click.option("--trials", type=click.IntRange(min=1), help="Replace budget.trials of the sweep file."),
        "hours": click.option(
            "--hours",
            type=click.FloatRange(min=0, min_open=True),
            help="Replace budget.hours of the sweep file; it counts over all resumes.",
        ),
        "json": click.option(
            "--json",
            "as_document",
            is_flag=True,
            help="Print one JSON document for programs and nothing else; docs/automation.md has its keys.",
        ),
        "dry_run": click.option(
            "--dry-run", is_flag=True, help="Say what would go and how large it is, and change nothing."
        ),
        "yes": click.option("--yes", "is_sure", is_flag=True, help="Do not ask."),
        "oracle": click.option(
            "--oracle",
            is_flag=True,
            help="Show metrics that are made from target labels too: to read, not to choose by.",
        ),
        "gpu_hours": click.option(
            "--gpu-hours",
            type=click.FloatRange(min=0, min_open=True),
            help="Replace budget.gpu_hours of the sweep file; it counts over all resumes.",
        ),
        "cost": click.option(
            "--cost",
            type=click.FloatRange(min=0, min_open=True),
            help="Replace budget.cost of the sweep file; it counts over all resumes.",
        ),
    }

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            function = known[name](function)
        return function

    return decorate
