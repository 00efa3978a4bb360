"""`segda evaluate`."""

from pathlib import Path

import click

from segda.cli.output import data_root_option, device_option, precision_option
from segda.cli_command import Command


@click.command("evaluate", cls=Command, action="segda.cli.actions.evaluate:evaluate_action")
@click.argument(
    "checkpoints", metavar="CHECKPOINT...", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path)
)
@data_root_option
@click.option(
    "--split",
    "split_names",
    multiple=True,
    metavar="DOMAIN/SPLIT",
    help="Labelled split to score, e.g. source/val or target/test; may be repeated.  "
    "[default: source/val and the split of both domains that results are reported on]",
)
@device_option
@precision_option
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Images at once.")
def evaluate_command(**_: object) -> None:
    """Score CHECKPOINT on labelled splits of its source and target domain, class by class.

    Of several checkpoints the mean of their probabilities is scored; they must have been trained for the same data and size. Images
    are scored at the height and width of the training configuration. CHECKPOINT may also be a file that segda export wrote.

    \b
    Examples:
      segda evaluate runs/day_to_dusk-0123/checkpoint.pt --data-root camvid=data/camvid
      segda evaluate street_int8.onnx --data-root camvid=data/camvid
      segda evaluate checkpoint.pt --split source/test --split target/test
      segda evaluate runs/beta_0.01/checkpoint.pt runs/beta_0.05/checkpoint.pt runs/beta_0.09/checkpoint.pt
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
