"""The command line `sweeps`: check, run and continue sweeps, and read what came out."""

import importlib
from pathlib import Path

import click

from segda.cli_errors import run_cli
from segda.guests import make_importable
from sweeps.cli.options import examples
from sweeps.suggestions import suggest

# Name of a command -> module of this package that has it.
_HOMES = {
    "check": "check",
    "plan": "plan",
    "profile": "profile",
    "run": "run",
    "resume": "run",
    "status": "status",
    "show": "show",
    "logs": "logs",
    "stop": "stop",
    "report": "report",
    "deploy": "deploy",
    "ui": "ui",
    "sync": "sync",
    "audit": "audit",
    "export": "export",
    "reproduce": "reproduce",
    "clean": "clean",
    "rename": "rename",
    "delete": "delete",
}


class _Commands(click.Group):
    """Imports a command when it is asked for: to look at a sweep takes none of what a training needs."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_HOMES)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _HOMES:
            return None
        command: click.Command = getattr(importlib.import_module(f"sweeps.cli.{_HOMES[name]}"), f"{name}_command")
        return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=examples(
        "sweeps check my_sweep.yaml     what it would do, without doing it",
        "sweeps plan my_sweep.yaml      try every branch for a moment, and estimate time and cost",
        "sweeps run my_sweep.yaml       run it here, or on a cluster with --address",
        "sweeps status                  all sweeps and how far they are",
        "sweeps show my_sweep 3         a trial: metrics, attempts, failure, the command that trains it alone",
        "sweeps logs my_sweep 3 -f      follow what happens to it",
        "sweeps resume my_sweep         go on after Ctrl-C, a crash or a reboot",
        "sweeps report my_sweep         write the report: what to pick, and why",
        "sweeps ui my_sweep             every trial in MLflow, as a table and in charts",
        "sweeps deploy my_sweep         write the file to ship, within a budget on this device",
        "sweeps audit my_sweep          prove that nothing was lost and nothing counted twice",
        "sweeps export my_sweep         write it as an Optuna study or a table",
        "sweeps clean my_sweep          free what nothing needs any more, such as checkpoints of trials that are not picked",
    ),
)
@click.version_option(package_name="segda")
def sweeps() -> None:
    """Search for the segmentation network that is best on another domain within a budget.

    A sweep file says what to vary, what to optimize and how much to spend. What commands print with --json is for programs, see
    docs/automation.md.

    Exit codes: 0 done or ended by `sweeps stop`, 1 an audit or a reproduction found a difference, 2 something to correct,
    3 done, but at least half of the trained trials failed, none can be picked, or no artefact keeps a budget, 75 a running sweep
    was ended by SIGTERM, SIGHUP, Ctrl-C, an outage (data, disk, storage, nodes) or the end of Ray and can be resumed, 130 ended at
    once by Ctrl-C, in a sweep a second one.
    """
    make_importable([Path.cwd()])


def main() -> None:
    """Run the command line and exit."""
    run_cli(sweeps, interrupted=_interrupted)


def _interrupted() -> str:
    """Say how to go on: of a sweep that was begun the same command is refused."""
    resume = suggest("resume", "NAME")
    return f"Interrupted; what was finished is kept: {resume} goes on with a sweep, the same command with all else."


__all__ = ["main", "sweeps"]
