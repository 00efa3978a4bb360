"""The question before something is taken away."""

import sys

import click

from segda.errors import ConfigError


def check_terminal(what: str, *, is_sure: bool) -> None:
    """Refuse to go on where the user can neither be asked nor has said yes.

    Args:
        what: is going to happen, e.g. `delete sweep 'demo'`.
        is_sure: whether the user said so already.

    Raises:
        ConfigError: nobody is there to be asked.
    """
    if not is_sure and not sys.stdin.isatty():
        raise ConfigError(
            f"there is no terminal to ask on whether to {what}; say --yes to do it, or --dry-run to see what would go"
        )


def confirm(what: str, *, is_sure: bool) -> bool:
    """Return whether the user means it; asks on the terminal unless that was said already.

    Args:
        what: as in `check_terminal`.
        is_sure: as in `check_terminal`.
    """
    return is_sure or click.confirm(f"{what}?", err=True)


def check_json(*, as_document: bool, dry_run: bool) -> None:
    """Refuse a document of something that happens.

    Raises:
        ConfigError: `--json` came without `--dry-run`.
    """
    if as_document and not dry_run:
        raise ConfigError("--json prints what --dry-run finds; add that, or leave --json out")
