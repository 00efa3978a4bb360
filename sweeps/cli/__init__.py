"""The command line `sweeps`: check, run and continue sweeps, and read what came out."""

import contextlib
from pathlib import Path

import click

from segda.cli_errors import run_cli
from segda.guests import make_importable
from sweeps.cli.audit import audit_command
from sweeps.cli.check import check_command
from sweeps.cli.export import export_command
from sweeps.cli.options import examples
from sweeps.cli.plan import plan_command
from sweeps.cli.profile import profile_command
from sweeps.cli.report import report_command
from sweeps.cli.reproduce import reproduce_command
from sweeps.cli.run import resume_command, run_command
from sweeps.cli.status import status_command
from sweeps.cli.stop import stop_command
from sweeps.cli.sync import sync_command


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=examples(
        "sweeps check my_sweep.yaml     what it would do, without doing it",
        "sweeps plan my_sweep.yaml      try every branch for a moment, and estimate time and cost",
        "sweeps run my_sweep.yaml       run it here, or on a cluster with --address",
        "sweeps status                  all sweeps and how far they are",
        "sweeps resume my_sweep         go on after Ctrl-C, a crash or a reboot",
        "sweeps report my_sweep         write the report: what to pick, and why",
        "sweeps audit my_sweep          prove that nothing was lost and nothing counted twice",
        "sweeps export my_sweep         write it as an Optuna study or a table",
    ),
)
@click.version_option(package_name="segda")
def sweeps() -> None:
    """Search for the segmentation network that is best on another domain within a budget.

    A sweep file says what to vary, what to optimize and how much to spend.

    Exit codes: 0 done or ended by `sweeps stop`, 1 an audit or a reproduction found a difference, 2 something to correct,
    3 done, but at least half of the trained trials failed or none can be picked, 75 a running sweep was ended by SIGTERM, Ctrl-C
    or an outage (data, disk, storage, nodes) and can be resumed, 130 ended at once by Ctrl-C, in a sweep a second one.
    """
    make_importable([Path.cwd()])


for command in (
    check_command,
    plan_command,
    profile_command,
    run_command,
    resume_command,
    status_command,
    stop_command,
    report_command,
    sync_command,
    audit_command,
    export_command,
    reproduce_command,
):
    sweeps.add_command(command)


def main() -> None:
    """Run the command line and exit."""
    with contextlib.suppress(BrokenPipeError):
        run_cli(sweeps, interrupted="Interrupted; what was finished is kept, and `sweeps resume NAME` goes on.")


__all__ = ["main", "sweeps"]
