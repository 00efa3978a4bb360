"""`segda schema`: what editors need to complete and check configuration files."""

import click

from segda.cli_command import Command


@click.command("schema", cls=Command, action="segda.cli.actions.schema:schema_action")
@click.argument("kind", type=click.Choice(["training", "dataset"]), default="training")
def schema_command(**_: object) -> None:
    """Print the JSON schema of training files, or of files that describe a data set.

    Editors with a YAML language server complete and check a file that names a schema in its first line. Shipped files name the one
    that comes with the installation; what this command prints has the methods, networks, ... of installed packages besides.

    \b
    Examples:
      segda schema > training.json
      segda schema dataset > dataset.json
      (first line of a file)  # yaml-language-server: $schema=training.json
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
