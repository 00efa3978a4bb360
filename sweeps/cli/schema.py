"""`sweeps schema`: what editors need to complete and check sweep files."""

import click

from segda.cli_command import Command
from sweeps.cli.options import examples


@click.command(
    "schema",
    cls=Command,
    action="sweeps.cli.actions.schema:schema_action",
    epilog=examples(
        "sweeps schema > sweep.json",
        "(first line of a file)   # yaml-language-server: $schema=sweep.json",
    ),
)
def schema_command() -> None:
    """Print the JSON schema of sweep files.

    Editors with a YAML language server complete and check a file that names a schema in its first line. Shipped files name the one
    that comes with the installation; what this command prints has the methods, networks, ... of installed packages besides.
    """
