"""`segda evaluate`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from segda.cli.output import (
    data_root_option,
    device_option,
    output,
    percent,
    plain_table,
    precision_option,
    progress_columns,
    with_roots,
)

if TYPE_CHECKING:
    from segda.config import TrainConfig
    from segda.datasets.cache import DecodedSplit


@click.command("evaluate")
@click.argument("checkpoint", type=click.Path(dir_okay=False, path_type=Path))
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
def evaluate_command(
    checkpoint: Path,
    roots: Mapping[str, Path],
    split_names: tuple[str, ...],
    device: str,
    precision: Literal["auto", "fp32", "bf16", "fp16"],
    batch_size: int,
) -> None:
    """Score CHECKPOINT on labelled splits of its source and target domain, class by class.

    Images are scored at the height and width of the training configuration.

    \b
    Examples:
      segda evaluate runs/day_to_dusk-0123/checkpoint.pt --data-root camvid=data/camvid
      segda evaluate checkpoint.pt --split source/test --split target/test
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    from segda.checkpoint import load_segmenter
    from segda.datasets import DATASETS
    from segda.device import resolve_device, resolve_precision
    from segda.inference import score_split

    chosen_device = resolve_device(device)
    dtype = resolve_precision(precision, chosen_device)
    segmenter, config = load_segmenter(checkpoint)
    config = with_roots(config, roots)
    segmenter.to(chosen_device)
    dataset = DATASETS[config.data.source.dataset]
    names = split_names or _reported_splits(config)
    splits = [_open_split(config, name) for name in names]
    results = []
    with progress_columns() as bar:
        for name, split in zip(names, splits, strict=True):
            task = bar.add_task(name, total=len(split.names))
            results.append(
                score_split(
                    segmenter,
                    split,
                    num_classes=len(dataset.classes),
                    unscored=dataset.unscored,
                    device=chosen_device,
                    dtype=dtype,
                    batch_size=batch_size,
                    progress=lambda count, task=task: bar.advance(task, count),  # type: ignore[misc]
                )
            )
    rows = [
        [
            f"{label} (unscored)" if index in dataset.unscored else label,
            *(percent(result.iou_per_class[index]) for result in results),
        ]
        for index, label in enumerate(dataset.classes)
    ]
    rows.append(["mIoU", *(percent(result.miou) for result in results)])
    rows.append(["pixel accuracy", *(percent(result.pixel_accuracy) for result in results)])
    rows.append(["mean class accuracy", *(percent(result.mean_class_accuracy) for result in results)])
    rows.append(["images", *(str(len(split.names)) for split in splits)])
    headings = ["IoU %", *(f"{name} (*)" if name.startswith("target/") else name for name in names)]
    title = f"{checkpoint}, {config.data.height}x{config.data.width}, {str(dtype).removeprefix('torch.')}"
    console = output()
    console.print(plain_table(title, headings, rows))
    if any(name.startswith("target/") for name in names):
        console.print("(*) made from target labels: for reading, not for choosing", highlight=False)


def _reported_splits(config: "TrainConfig") -> tuple[str, ...]:
    """Return source/val and each domain's split that results are reported on, where the domain has it."""
    from segda.datasets import DATASETS

    names = ["source/val"]
    for role, domain in (("source", config.data.source), ("target", config.data.target)):
        dataset = DATASETS[domain.dataset]
        name = f"{role}/{dataset.report_split}"
        if dataset.report_split in dataset.splits(domain.domain) and name not in names:
            names.append(name)
    return tuple(names)


def _open_split(config: "TrainConfig", name: str) -> "DecodedSplit":
    """Decode a labelled split named source/<split> or target/<split> at the size of the configuration."""
    from segda.datasets import DATASETS
    from segda.errors import ConfigError
    from segda.splits import open_split

    role, separator, split = name.partition("/")
    domains = {"source": config.data.source, "target": config.data.target}
    if role not in domains or not separator:
        raise ConfigError(f"--split expects source/<split> or target/<split>, e.g. target/test, got {name!r}")
    domain = domains[role]
    DATASETS[domain.dataset].check_split(domain=domain.domain, split=split)
    return open_split(config, domain, split, with_labels=True, progress=sys.stderr.isatty())
