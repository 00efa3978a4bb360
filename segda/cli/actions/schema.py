"""What `segda schema` does."""

import json

import click

from segda.config import TrainConfig
from segda.datasets.description import Description
from segda.schema import schema_of


def schema_action(kind: str) -> None:
    """Do `segda schema`; the argument is the command's."""
    if kind == "training":
        found = schema_of(TrainConfig, title="training file of segda")
    else:
        found = schema_of(Description, title="description of a data set")
    click.echo(json.dumps(found, indent=1, ensure_ascii=False))
