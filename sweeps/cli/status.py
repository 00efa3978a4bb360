"""`sweeps status`: how far sweeps are."""

import click

from segda.cli_command import Command
from segda.errors import ConfigError
from segda.lazy import imported
from sweeps.cli.options import examples, options

_EVERY_SECONDS = 2.0
_DAY = 86_400.0


def _parse_seconds(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """Read the seconds between two looks."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < _DAY:
        raise click.BadParameter(
            f"expected seconds, e.g. --watch 10, got {value!r}; the sweep's name stands before --watch"
        )
    return seconds


@click.command(
    "status",
    cls=Command,
    action="sweeps.cli.actions.status:status_action",
    epilog=examples(
        "sweeps status",
        "sweeps status camvid_day_to_dusk",
        "sweeps status camvid_day_to_dusk --watch",
        "sweeps status camvid_day_to_dusk --json | jq .counts",
        "sweeps status camvid_day_to_dusk --watch 30 --ledger postgresql+psycopg2://user@host/db",
    ),
)
@options("name or none")
@click.option(
    "--watch",
    is_flag=False,
    flag_value=str(_EVERY_SECONDS),
    callback=_parse_seconds,
    metavar="[SECONDS]",
    help=f"Refresh every so many seconds ({_EVERY_SECONDS:g}) until the sweep has ended, or Ctrl-C.",
)
@options("store", "ledger", "json", "oracle")
def status_command(watch: float | None, as_document: bool, oracle: bool, **_: object) -> None:
    """Show all sweeps of a store, or the trials of the sweep NAME.

    It reads nothing but the ledger, so it works on every machine that reaches that, and disturbs nothing.
    """
    if as_document and watch is not None:
        raise ConfigError("--json prints one document; leave --watch out, and ask again as often as you like")
    if oracle and not as_document:
        raise ConfigError(
            "--oracle is about --json: the table shows no metric of target labels; "
            f"{imported('sweeps.suggestions:suggest')('show', 'NAME', 'TRIAL', '--oracle')} does"
        )
