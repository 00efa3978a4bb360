"""What `segda datasets list` and `get` do."""

from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from segda.cli.output import output
from segda.datasets import DATASETS, SegmentationDataset
from segda.datasets.base import root_variable
from segda.documents import as_json, document


def list_action(as_document: bool) -> None:
    """Do `segda datasets list`; the arguments are the command's."""
    if as_document:
        listed = [_described(dataset) for dataset in DATASETS.usable().values()]
        click.echo(as_json(document("segda.datasets/1", {"datasets": listed})))
        return
    console = output()
    for dataset in DATASETS.usable().values():
        console.print(f"[bold]{dataset.name}[/bold], {len(dataset.classes)} classes", highlight=False)
        rows = {
            "classes": ", ".join(
                f"{name} (unscored)" if index in dataset.unscored else name
                for index, name in enumerate(dataset.classes)
            ),
            "domains": "; ".join(f"{domain} ({', '.join(dataset.splits(domain))})" for domain in dataset.domains),
            "reported on": dataset.report_split,
            "terms": dataset.terms,
            "get it from": dataset.url,
            "layout": dataset.layout,
        }
        for heading, text in rows.items():
            console.print(f"  {heading}: {text}", highlight=False, markup=False, soft_wrap=True)


def _described(dataset: SegmentationDataset) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "classes": dataset.classes,
        "unscored": [dataset.classes[index] for index in sorted(dataset.unscored)],
        "domains": [{"name": domain, "splits": dataset.splits(domain)} for domain in dataset.domains],
        "report_split": dataset.report_split,
        "terms": dataset.terms,
        "url": dataset.url,
        "layout": dataset.layout,
    }


def get_action(name: str) -> None:
    """Do `segda datasets get`; the arguments are the command's."""
    dataset = DATASETS[name]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    steps = [f"{number}. {step}" for number, step in enumerate(dataset.steps, start=1)]
    rows = {
        "address": dataset.url,
        "terms": dataset.terms,
        "what to do": "\n".join(steps) or "bring it into the layout",
        "layout of the root": dataset.layout,
        "is it complete?": f"segda datasets verify {name} --root ROOT",
        "in configurations": f"dataset: {name}, domain: {' or '.join(dataset.domains)}",
        "root": f"--data-root {name}=ROOT, or the variable {root_variable(name)}",
    }
    for heading, text in rows.items():
        grid.add_row(heading, escape(text))
    console = output()
    console.print(f"[bold]{dataset.name}[/bold], {len(dataset.classes)} classes", highlight=False)
    console.print(grid, highlight=False)
