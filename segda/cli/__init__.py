"""The command line `segda`: train, evaluate, predict, export, teach, profile, compress, and what is known about data sets.

Modules of this package say what is typed and import nothing that takes time; `segda.cli.actions` does it, imported by the command
that runs (`segda.cli_command`).
"""

from pathlib import Path

import click

from segda.cli.completion import answer_shell, completion_command
from segda.cli.datasets import datasets_group
from segda.cli.evaluate import evaluate_command
from segda.cli.export import export_command
from segda.cli.output import set_up_logging
from segda.cli.predict import predict_command
from segda.cli.profile import profile_command
from segda.cli.prune_curve import prune_curve_command
from segda.cli.schema import schema_command
from segda.cli.share_weights import share_weights_command
from segda.cli.slim import slim_command
from segda.cli.teach import teach_command
from segda.cli.train import train_command
from segda.cli_command import Group
from segda.cli_errors import run_cli
from segda.exit_codes import MEANINGS
from segda.guests import make_importable
from segda.streams import make_best_effort


@click.group(
    "segda",
    cls=Group,
    exit_codes=MEANINGS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="segda")
@click.option("-v", "--verbose", is_flag=True, help="Show informative log messages too, on standard error.")
def cli(verbose: bool) -> None:
    """Real-time semantic segmentation across domains.

    Train a network on a labelled source domain so that it works on an unlabelled target domain, see how good and how
    fast it is, and use it on images and georeferenced rasters of any size.

    \b
    A first run, in any folder, without any data of your own:
      segda datasets make scenes data/scenes --size 128
      segda train scenes --data-root scenes=data/scenes --folder runs/first
      segda predict runs/first/checkpoint.pt data/scenes/Val/Rural/images_png classes --overlay
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    set_up_logging(verbose=verbose)
    make_importable([Path.cwd()])


for command in (
    train_command,
    evaluate_command,
    predict_command,
    export_command,
    teach_command,
    profile_command,
    slim_command,
    prune_curve_command,
    share_weights_command,
    datasets_group,
    schema_command,
    completion_command("segda"),
):
    cli.add_command(command)


def main() -> None:
    """Run the command line of this process and exit."""
    make_best_effort()
    answer_shell(cli, "segda")
    run_cli(cli)


__all__ = ["cli", "main"]
