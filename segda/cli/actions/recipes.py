"""What `segda datasets recipes` does."""

import click
from rich.table import Table

from segda.cli.output import output
from segda.documents import as_json, document
from segda.transforms.recipes import RECIPES


def recipes_action(as_document: bool) -> None:
    """Do `segda datasets recipes`; the arguments are the command's."""
    if as_document:
        listed = [{"name": name, "description": recipe.description()} for name, recipe in RECIPES.usable().items()]
        click.echo(as_json(document("segda.recipes/1", {"recipes": listed})))
        return
    table = Table("recipe", "what it does")
    for name, recipe in RECIPES.usable().items():
        table.add_row(name, recipe.description())
    output().print(table)
