"""What `segda slim` does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from segda.cli.output import output, percent, plain_table
from segda.compression.slimming import slim_checkpoint


def slim_action(
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
    """Do `segda slim`; the arguments are the command's."""
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
