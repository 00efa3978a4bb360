"""The command line `sweeps`: check, run and continue sweeps, and read what came out.

Modules of this package say what is typed and import nothing that takes time; `sweeps.cli.actions` does it, imported by the command
that runs (`segda.cli_command`).
"""

from pathlib import Path

import click

from segda.cli.completion import answer_shell
from segda.cli_command import Group
from segda.cli_errors import run_cli
from segda.guests import make_importable
from segda.lazy import imported
from sweeps.cli.audit import audit_command
from sweeps.cli.check import check_command
from sweeps.cli.clean import clean_command
from sweeps.cli.completion import completion_command
from sweeps.cli.delete import delete_command
from sweeps.cli.deploy import deploy_command
from sweeps.cli.export import export_command
from sweeps.cli.logs import logs_command
from sweeps.cli.options import examples
from sweeps.cli.pick import pick_command
from sweeps.cli.plan import plan_command
from sweeps.cli.profile import profile_command
from sweeps.cli.rename import rename_command
from sweeps.cli.report import report_command
from sweeps.cli.reproduce import reproduce_command
from sweeps.cli.run import resume_command, run_command
from sweeps.cli.schema import schema_command
from sweeps.cli.show import show_command
from sweeps.cli.status import status_command
from sweeps.cli.stop import stop_command
from sweeps.cli.sync import sync_command
from sweeps.cli.ui import ui_command
from sweeps.exit_codes import MEANINGS


@click.group(
    cls=Group,
    exit_codes=MEANINGS,
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
        "sweeps pick my_sweep           label a few target images, and choose among finalists by them",
        "sweeps ui my_sweep             every trial in MLflow, as a table and in charts",
        "sweeps deploy my_sweep         write the file to ship, within a budget on this device",
        "sweeps audit my_sweep          prove that nothing was lost and nothing counted twice",
        "sweeps export my_sweep         write it as an Optuna study or a table",
    ),
)
@click.version_option(package_name="segda")
def sweeps() -> None:
    """Search for the segmentation network that is best on another domain within a budget.

    A sweep file says what to vary, what to optimize and how much to spend. What commands print with --json is for programs, see
    docs/automation.md.

    \b
    A first sweep, in any folder, without any data of your own; two processor cores take minutes:
      segda datasets make scenes data/scenes --size 128 --train 48 --val 16
      sweeps run demo --data-root scenes=data/scenes
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    make_importable([Path.cwd()])


for command in (
    check_command,
    plan_command,
    profile_command,
    run_command,
    resume_command,
    status_command,
    show_command,
    logs_command,
    stop_command,
    report_command,
    pick_command,
    deploy_command,
    ui_command,
    sync_command,
    audit_command,
    export_command,
    reproduce_command,
    clean_command,
    rename_command,
    delete_command,
    schema_command,
    completion_command,
):
    sweeps.add_command(command)


def main() -> None:
    """Run the command line and exit."""
    answer_shell(sweeps, "sweeps")
    run_cli(sweeps, interrupted=_interrupted)


def _interrupted() -> str:
    """Say how to go on: of a sweep that was begun the same command is refused."""
    resume = imported("sweeps.suggestions:suggest")("resume", "NAME")
    return f"Interrupted; what was finished is kept: {resume} goes on with a sweep, the same command with all else."


__all__ = ["main", "sweeps"]
