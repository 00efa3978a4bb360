"""`segda train`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from segda.cli.output import data_root_option, output, percent, plain_table


@click.command("train")
@click.argument("config_file", metavar="CONFIG.yaml", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the run lives.  [default: runs/<name of the file>-<fingerprint>]",
)
@data_root_option
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace one value of the configuration, e.g. optimizer.lr=0.01; may be repeated.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Short for --set steps=N.")
@click.option(
    "--micro-batch",
    type=click.IntRange(min=2),
    metavar="M",
    help="Pass M images of each domain through the network at once and add up the gradients: needs less memory, for the same batch "
    "size.  [default: the whole batch]",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Train with N processes on this machine, each on its part of every batch and, with CUDA, on a GPU of its own.",
)
def train_command(
    config_file: Path,
    folder: Path | None,
    roots: Mapping[str, Path],
    assignments: tuple[str, ...],
    steps: int | None,
    micro_batch: int | None,
    processes: int,
) -> None:
    """Train one network as CONFIG.yaml says, and score it.

    The run folder receives checkpoint.pt, config.json, environment.json, metrics.jsonl, result.json and pictures of
    examples. A run that stopped goes on from its last checkpoint when the same command is given again.

    \b
    A configuration needs no more than this:
      data:
        source: {dataset: camvid, domain: day}
        target: {dataset: camvid, domain: dusk}
        height: 176
        width: 240
      method: {name: adversarial}
      steps: 1000

    \b
    Examples:
      segda train day_to_dusk.yaml --data-root camvid=data/camvid
      segda train day_to_dusk.yaml --set method.lambda_adv=0.003 --set device=cuda
      segda train day_to_dusk.yaml --steps 20 --folder runs/quick_look
      segda train day_to_dusk.yaml --set device=cuda --processes 2 --micro-batch 2
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    from segda.cli.overrides import changes_of
    from segda.discriminator_health import discriminator_trouble
    from segda.loading import load_config
    from segda.scoring import RESULT
    from segda.training import REPORTS, train

    if steps is not None:
        assignments = (*assignments, f"steps={steps}")
    config = load_config(config_file, changes=changes_of(assignments), data_roots=roots)
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
