"""`segda share-weights`."""

from pathlib import Path

import click

from segda.cli.output import output, percent, plain_table


@click.command("share-weights")
@click.argument("checkpoint", metavar="CHECKPOINT", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--bits",
    type=click.IntRange(min=1, max=8),
    default=5,
    show_default=True,
    help="Of an index: every layer has 2^BITS values.",
)
def share_weights_command(checkpoint: Path, folder: Path, bits: int) -> None:
    """Give every layer of CHECKPOINT a few values that its weights share, and say how many bytes that saves.

    FOLDER receives checkpoint.pt, which `segda evaluate` and `segda predict` read, the same network in shared.npz, with a few
    bits per weight, and sizes.json. Zeros stay zeros. Nothing is trained, and nothing becomes faster.

    \b
    Examples:
      segda share-weights runs/day_to_dusk-0123/checkpoint.pt shared
      segda share-weights checkpoint.pt shared --bits 4
      segda evaluate shared/checkpoint.pt
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    from segda.compression.sharing import share_weights

    sizes = share_weights(checkpoint, folder, bits=bits)

    def row(what: str, size: int, of: int) -> list[str]:
        return [what, f"{size / 1e6:.3f}", percent(size / of)]

    rows = [
        row("weights of layers, float32", sizes.dense, sizes.dense),
        row("the same, indices, values and places of zeros", sizes.shared, sizes.dense),
        row("biases, normalization and the rest", sizes.rest, sizes.dense),
        row("checkpoint of the network", sizes.file, sizes.file),
        row("the same, gzip", sizes.file_gzip, sizes.file),
        row("checkpoint with shared weights", sizes.shared_file, sizes.file),
        row("the same, gzip", sizes.shared_file_gzip, sizes.file),
        row("shared.npz", sizes.compact_file, sizes.file),
    ]
    zeros = f", {percent(sizes.num_zeros / sizes.num_weights)} % of them zero" if sizes.num_zeros else ""
    title = f"{checkpoint}: {sizes.num_weights} weights{zeros}, {bits} bits each"
    console = output()
    console.print(plain_table(title, ["what", "MB", "%"], rows))
    console.print(f"written: {folder}", highlight=False, soft_wrap=True)
