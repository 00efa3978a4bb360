"""What `segda share-weights` does."""

from pathlib import Path

from segda.cli.output import output, percent, plain_table
from segda.compression.sharing import share_weights


def share_weights_action(checkpoint: Path, folder: Path, bits: int) -> None:
    """Do `segda share-weights`; the arguments are the command's."""
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
