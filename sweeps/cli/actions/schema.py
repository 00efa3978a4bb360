"""What `sweeps schema` does."""

import json

import click

from sweeps.file.schema import sweep_schema


def schema_action() -> None:
    """Do `sweeps schema`."""
    click.echo(json.dumps(sweep_schema(), indent=1, ensure_ascii=False))
