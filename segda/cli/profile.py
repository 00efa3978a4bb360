"""`segda profile`."""

from pathlib import Path
from typing import Literal

import click

from segda.cli.output import PRECISIONS, device_option, output, plain_table
from segda.errors import ConfigError


@click.command("profile")
@click.argument(
    "config_file",
    metavar="[CONFIG.yaml]",
    required=False,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--model", help="Network with its own defaults, e.g. bisenet_v1; short for --set model='{name: NAME}'.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace one value of the configuration, e.g. model.backbone=resnet34; may be repeated.",
)
@click.option("--classes", "num_classes", type=click.IntRange(min=1), help="Number of classes.")
@click.option("--height", type=click.IntRange(min=32), help="Input height in pixels.")
@click.option("--width", type=click.IntRange(min=32), help="Input width in pixels.")
@device_option
@click.option(
    "--precision",
    type=click.Choice([*PRECISIONS, "int8"]),
    default="auto",
    show_default=True,
    help="Arithmetic of the network; auto: bf16 where the device has fast kernels for it, else fp32. int8 needs a --runtime.",
)
@click.option(
    "--runtime",
    type=click.Choice(["eager", "torch_compile", "onnxruntime", "pt2e"]),
    help="What runs it, timed from the bytes of an image to its class map.  [default: PyTorch, from a normalized image to logits]",
)
@click.option("--runs", type=click.IntRange(min=1), help="Timed runs.  [default: enough for the device]")
def profile_command(
    config_file: Path | None,
    model: str | None,
    assignments: tuple[str, ...],
    num_classes: int | None,
    height: int | None,
    width: int | None,
    device: str,
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"],
    runtime: str | None,
    runs: int | None,
) -> None:
    """Measure what a network costs: parameters, multiply-accumulates, latency and memory of one image.

    The network is that of CONFIG.yaml, or that of the options, or both: options win. Measured is the deployment view, without
    the parts that only training needs. Weights do not matter, so none are loaded. Nothing else should run on the device: what
    did, or that five blocks of runs do not agree, is told. Settings of a network are its own, e.g. a trunk only where it has one.

    \b
    Examples:
      segda profile day_to_dusk.yaml
      segda profile --set model.backbone=resnet34 --classes 19 --height 512 --width 1024
      segda profile day_to_dusk.yaml --device cuda --precision fp16
      segda profile day_to_dusk.yaml --runtime onnxruntime --precision int8
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    from segda.cli.overrides import changes_of
    from segda.datasets import DATASETS
    from segda.device import resolve_device, resolve_precision
    from segda.efficiency import profile_segmenter
    from segda.loading import load_config, network_config
    from segda.models import build_segmenter

    if model is not None:
        assignments = (f"model={{name: {model}}}", *assignments)
    if config_file is None:
        network = network_config(changes_of(assignments))
    else:
        config = load_config(config_file, changes=changes_of(assignments))
        network = config.model
        num_classes = num_classes or len(DATASETS[config.data.source.dataset].classes)
        height, width = height or config.data.height, width or config.data.width
    if num_classes is None or height is None or width is None:
        raise ConfigError("profile needs a CONFIG.yaml or all of --classes, --height and --width")

    import torch

    chosen_device = resolve_device(device)
    names: dict[torch.dtype, Literal["fp32", "bf16", "fp16"]] = {
        torch.float32: "fp32",
        torch.bfloat16: "bf16",
        torch.float16: "fp16",
    }
    resolved = precision if precision == "int8" else names[resolve_precision(precision, chosen_device)]
    segmenter = build_segmenter(network, num_classes=num_classes, pretrained=False)
    profile = profile_segmenter(
        segmenter,
        input_shape=(1, 3, height, width),
        device=str(chosen_device),
        precision=resolved,
        runtime=runtime,
        runs=runs,
    )
    figures = profile.metrics()
    rows = [
        ["parameters", f"{figures['num_parameters'] / 1e6:.3f} M"],
        ["multiply-accumulates", f"{figures['macs'] / 1e9:.3f} G"],
        ["latency, median", f"{figures['latency_ms']:.2f} ms"],
        ["latency, 90th percentile", f"{figures['latency_p90_ms']:.2f} ms"],
        ["latency, 95th percentile", f"{figures['latency_p95_ms']:.2f} ms"],
        ["latency, between the quartiles", f"{figures['latency_iqr_ms']:.2f} ms"],
        ["latency, between blocks of runs", f"{figures['latency_spread']:.1%}"],
        ["images per second", f"{figures['fps']:.1f}"],
    ]
    if "peak_memory_bytes" in figures:
        rows.append(["peak memory", f"{figures['peak_memory_bytes'] / 2**20:.1f} MiB"])
    console = output()
    console.print(plain_table(f"{network.label()}, {num_classes} classes", ["cost", "value"], rows))
    for line in profile.latency.doubts:
        console.print(f"  latency is not reliable: {line}", highlight=False, markup=False, soft_wrap=True)
    for line in profile.latency.unchecked:
        console.print(f"  not checked: {line}", highlight=False, markup=False, soft_wrap=True)
    for condition, value in profile.conditions.items():
        console.print(f"  {condition}: {value}", highlight=False, markup=False, soft_wrap=True)
