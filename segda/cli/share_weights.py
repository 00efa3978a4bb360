"""`segda share-weights`."""

from pathlib import Path

import click

from segda.cli_command import Command


@click.command("share-weights", cls=Command, action="segda.cli.actions.share_weights:share_weights_action")
@click.argument("checkpoint", metavar="CHECKPOINT", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--bits",
    type=click.IntRange(min=1, max=8),
    default=5,
    show_default=True,
    help="Of an index: every layer has 2^BITS values.",
)
def share_weights_command(**_: object) -> None:
    """Give every layer of CHECKPOINT a few values that its weights share, and say how many bytes that saves.

    FOLDER receives checkpoint.pt, which `segda evaluate` and `segda predict` read, the same network in shared.npz, with a few
    bits per weight, and sizes.json. Zeros stay zeros. Nothing is trained, and nothing becomes faster.

    \b
    Examples:
      segda share-weights runs/day_to_dusk-0123/checkpoint.pt shared
      segda share-weights checkpoint.pt shared --bits 4
      segda evaluate shared/checkpoint.pt
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
