"""What `segda train` does."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segda.cli.output import output, percent, plain_table
from segda.discriminator_health import discriminator_trouble
from segda.loading import load_config
from segda.scoring import RESULT
from segda.training import REPORTS, train


def train_action(
    config_file: Path,
    changes: Mapping[str, Any],
    folder: Path | None,
    roots: Mapping[str, Path],
    micro_batch: int | None,
    processes: int,
) -> None:
    """Do `segda train`; the arguments are the command's."""
    config = load_config(config_file, changes=changes, data_roots=roots)
    folder = folder or Path("runs") / f"{config_file.stem}-{config.fingerprint()}"
    train(config, folder=folder, micro_batch=micro_batch, processes=processes)
    _print_result(json.loads((folder / RESULT).read_text()), folder)
    reports = [json.loads(line)["metrics"] for line in (folder / REPORTS).read_text().splitlines()]
    trouble = discriminator_trouble(reports)
    if trouble is not None:
        output().print(f"{trouble[0].upper()}{trouble[1:]}.", highlight=False, soft_wrap=True)


def _print_result(result: Mapping[str, Any], folder: Path) -> None:
    rows = [
        [
            f"{name} (*)" if name.startswith("oracle/") else name,
            percent(scores["miou"]),
            percent(scores["pixel_accuracy"]),
            percent(scores["mean_class_accuracy"]),
            str(scores["num_images"]),
        ]
        for name, scores in result["splits"].items()
    ]
    title = f"{result['method']}, {result['step']} steps"
    if result["uses_target_labels"]:
        title += " (trained on target labels: an upper bound, no adaptation)"
    if result["few_shot"]:
        title += f" (with the labels of {len(result['few_shot'])} target images)"
    console = output()
    console.print(plain_table(title, ["split", "mIoU %", "pixel acc. %", "class acc. %", "images"], rows))
    if any(name.startswith("oracle/") for name in result["splits"]):
        console.print("(*) made from target labels: for reading only, nothing was chosen by it", highlight=False)
    for part, pruned in result.get("pruning", {}).items():
        console.print(
            f"zeros: {percent(pruned['sparsity'])} % of the {part}'s weights that may be zero", highlight=False
        )
    console.print(f"run folder: {folder}", highlight=False, soft_wrap=True)
