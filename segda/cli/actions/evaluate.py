"""What `segda evaluate` does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from segda.cli.output import output, percent, plain_table
from segda.evaluation import evaluate


def evaluate_action(
    checkpoints: tuple[Path, ...],
    roots: Mapping[str, Path],
    split_names: tuple[str, ...],
    device: str,
    precision: Literal["auto", "fp32", "bf16", "fp16"],
    batch_size: int,
) -> None:
    """Do `segda evaluate`; the arguments are the command's."""
    scored = evaluate(
        checkpoints,
        splits=split_names or None,
        data_roots=roots,
        device=device,
        precision=precision,
        batch_size=batch_size,
    )
    rows = [[name, *map(percent, shares)] for name, shares in scored.rows().items()]
    rows.append(["images", *map(str, scored.num_images.values())])
    headings = ["IoU %", *(f"{name} (*)" if name.startswith("target/") else name for name in scored)]
    height, width = scored.size
    names = ", ".join(map(str, checkpoints))
    shown = names if len(checkpoints) == 1 else f"mean of {len(checkpoints)} networks ({names})"
    title = f"{shown}, {height}x{width}, {str(scored.dtype).removeprefix('torch.')}"
    console = output()
    console.print(plain_table(title, headings, rows))
    if any(name.startswith("target/") for name in scored):
        console.print("(*) made from target labels: for reading, not for choosing", highlight=False)
