"""`segda slim`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import click

from segda.cli.output import data_root_option, device_option, output, percent, plain_table, precision_option


@click.command("slim")
@click.argument("checkpoint", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("destination", metavar="OUT", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--ratio", type=float, required=True, help="Share of the channels to take out, e.g. 0.3.")
@click.option(
    "--round-to",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Round widths to multiples of N; 8 or 16 is faster than widths as they come.",
)
@click.option(
    "--global",
    "is_global",
    is_flag=True,
    help="Rank the channels of the whole network together; without it each group of layers loses the same share.",
)
@click.option(
    "--statistics",
    type=click.Choice(["source", "target", "none"]),
    default="source",
    show_default=True,
    help="Images of which batch normalization gets new statistics: the source's as in training, then the configured share of the "
    "target's; the unlabelled target's alone; or none, it keeps the old ones.",
)
@click.option("--oracle", is_flag=True, help="Score the target's labelled split too, for reading.")
@data_root_option
@device_option
@precision_option
@click.option(
    "--runs", type=click.IntRange(min=1), help="Timed runs of each network.  [default: enough for the device]"
)
def slim_command(
    checkpoint: Path,
    destination: Path,
    ratio: float,
    round_to: int,
    is_global: bool,
    statistics: Literal["source", "target", "none"],
    oracle: bool,
    roots: Mapping[str, Path],
    device: str,
    precision: Literal["auto", "fp32", "bf16", "fp16"],
    runs: int | None,
) -> None:
    """Take the channels that matter least out of the network CHECKPOINT, and write the smaller one to OUT.

    The smaller network is dense: every device runs it faster. Parameters and multiply-accumulates fall with the square of what is
    left. It gets new statistics of batch normalization, without a gradient. It is worth more when it is trained on, with any
    method, by a configuration that has, instead of `model`,

    \b
      start: {checkpoint: OUT}
    All commands that read a checkpoint read OUT.

    \b
    Examples:
      segda slim runs/large/checkpoint.pt slim.pt --ratio 0.3 --round-to 16
      segda slim runs/large/checkpoint.pt slim.pt --ratio 0.5 --global --statistics target --oracle
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    from segda.compression.slimming import slim_checkpoint

    made = slim_checkpoint(
        checkpoint,
        destination,
        ratio=ratio,
        round_to=round_to,
        is_global=is_global,
        statistics=statistics,
        oracle=oracle,
        data_roots=roots,
        device=device,
        precision=precision,
        runs=runs,
    )
    worth = (made.before, made.after)
    ms = [each.latency.median_ms for each in worth]
    rows = [
        [
            "parameters (M)",
            *(f"{each.num_parameters / 1e6:.3f}" for each in worth),
            _share([w.num_parameters for w in worth]),
        ],
        ["multiply-accumulates (G)", *(f"{each.macs / 1e9:.3f}" for each in worth), _share([w.macs for w in worth])],
        ["latency, median (ms)", *(f"{each:.2f}" for each in ms), _share(ms)],
    ]
    for name in made.before.miou:
        label = f"mIoU % on {name} (*)" if name.startswith("target/") else f"mIoU % on {name}"
        rows.append([label, *(percent(each.miou[name]) for each in worth), ""])
    height, width = made.size
    console = output()
    title = f"{made.config.model.label()}, {height}x{width}, {made.device}, {str(made.dtype).removeprefix('torch.')}"
    console.print(plain_table(title, ["", "before", "after", "after / before"], rows))
    for line in dict.fromkeys(line for each in worth for line in each.latency.doubts):
        console.print(f"  latency is not reliable: {line}", highlight=False, markup=False, soft_wrap=True)
    for line in made.before.latency.unchecked:
        console.print(f"  not checked: {line}", highlight=False, markup=False, soft_wrap=True)
    if any(name.startswith("target/") for name in made.before.miou):
        console.print("(*) made from target labels: for reading, not for choosing", highlight=False)
    console.print(f"written: {destination}", highlight=False, soft_wrap=True)


def _share(values: list[int] | list[float]) -> str:
    before, after = values
    return f"{after / before:.2f}"
