"""What several networks cost, measured in turn in one run: those of configurations, checkpoints, exported files, or themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, cast

import torch

from segda.checkpoint import load_segmenter
from segda.config import TrainConfig
from segda.config_problems import validated
from segda.datasets import DATASETS
from segda.deployment.artefact import Artefact, is_artefact, load_artefact
from segda.deployment.runtime import Precision, Runtime
from segda.deployment.runtimes import RUNTIMES, build_runtime
from segda.deployment.shipped import FloatPrecision
from segda.device import PRECISIONS, resolve_device, resolve_precision
from segda.efficiency.example import example_image
from segda.efficiency.latency import STEADY_SECONDS, Latency, measure_runtimes_side_by_side
from segda.efficiency.macs import count_macs
from segda.efficiency.memory import measure_peak_memory
from segda.efficiency.parameters import count_parameters
from segda.environment import device_name
from segda.errors import ConfigError, ExportError, UnknownNameError, WeightsError
from segda.files import expanded
from segda.loading import load_config
from segda.models import ModelConfig, Segmenter, build_segmenter
from segda.models.logits_only import LogitsOnly
from segda.names import nearest
from segda.progress import is_watched, notices, progress_bar

Compared = Path | str | ModelConfig | Segmenter

WHOLE = "from the bytes of an image to its class map: with normalization, enlargement and argmax; without decoding"
ALONE = "from the bytes of an image to scores at the resolution of the network's head: without enlargement and argmax"
_CALIBRATION_IMAGES = 2
_PACKAGES = ("segda", "torch", "onnxruntime")


@dataclass(frozen=True)
class NetworkCost:
    """What one network costs.

    Attributes:
        name: path as it was given, or the architecture of what has none.
        network: the architecture for people.
        num_classes: number of classes.
        num_parameters: see `count_parameters`; None for a file whose network cannot be built here.
        macs: multiply-accumulates at `input_shape`, see `count_macs`; None likewise.
        whole: time from the bytes of an image to its class map.
        alone: the same without the last enlargement and argmax, i.e. up to the scores of the network's head; None where that
            cannot be measured.
        peak_memory_bytes: see `measure_peak_memory`; None where what runs it has a memory of its own.
        file_bytes: size of the checkpoint, with all that it holds for training, or of the exported file; None: there is none.
        device: where it computed, e.g. `cpu`.
        runtime: what computed it.
        precision: arithmetic of its convolutions.
        input_shape: (B, 3, H, W) of what it was shown.
        notes: what else there is to know, e.g. how many convolutions compute in int8, and why something is None.
    """

    name: str
    network: str
    num_classes: int
    num_parameters: int | None
    macs: int | None
    whole: Latency
    alone: Latency | None
    peak_memory_bytes: int | None
    file_bytes: int | None
    device: str
    runtime: str
    precision: Precision
    input_shape: tuple[int, int, int, int]
    notes: Mapping[str, str | int]

    @property
    def fps(self) -> float:
        """Images per second: those at once, divided by the median of the whole."""
        return self.input_shape[0] * self.whole.fps

    def plain(self) -> dict[str, Any]:
        """Return all of it as plain data; of latencies whether they can be believed too."""
        return asdict(self) | {
            "input_shape": list(self.input_shape),
            "fps": self.fps,
            "whole": _plain(self.whole),
            "alone": None if self.alone is None else _plain(self.alone),
        }


@dataclass(frozen=True)
class CostComparison:
    """Costs of several networks that were measured in turn.

    Attributes:
        costs: of each, in the order in which they were given.
        conditions: what the measured numbers hold for. Numbers of other conditions cannot be compared with them.
    """

    costs: tuple[NetworkCost, ...]
    conditions: Mapping[str, str | int]

    def plain(self) -> dict[str, Any]:
        """Return all of it as plain data, e.g. for JSON."""
        return {"conditions": dict(self.conditions), "networks": [cost.plain() for cost in self.costs]}


def compare_costs(
    networks: Sequence[Compared],
    *,
    changes: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
    height: int | None = None,
    width: int | None = None,
    device: str = "auto",
    precision: Precision | Literal["auto"] = "auto",
    runtime: str = "eager",
    warmup: int | None = None,
    runs: int | None = None,
    max_seconds: float = 60.0,
) -> CostComparison:
    """Measure what networks cost in use, block by block in turn: whatever the machine does meanwhile, it does to all of them.

    Measured is the deployment view, without the parts that only training needs. Weights do not matter for it. Nothing else should
    run on the device; what did is in the `doubts` of each latency.

    Args:
        networks: paths of configurations, checkpoints (`.pt`) and files of `segda export` (`.onnx`, `.pt2`), settings of networks,
            or networks.
        changes: dotted key -> value, put over what configurations say.
        num_classes: of configurations and settings; None: the configuration's, and for settings those of the first file.
        height: of images in pixels; None: what files say, a checkpoint or an exported file the size of its training or the only
            one that it takes; for others the first file's.
        width: likewise.
        device: `auto`, `cpu`, `cuda` or `cuda:<n>`. `auto` is the processor for exported files.
        precision: arithmetic of convolutions; `auto`: bf16 where device and runtime are fast in it. Exported files have their own.
        runtime: a name in `segda.deployment.RUNTIMES`; exported files have their own. Random pixels tell the ranges of int8, on
            which latency does not depend.
        warmup: untimed runs of each; unset: 20 on CPU, 50 on CUDA.
        runs: timed runs of each; unset: at least 100, and as many as fit into the 15 seconds that slow changes of a machine take
            to show themselves.
        max_seconds: bound on the time of warm-up and of timed runs, each, for every network.

    Returns:
        Costs in the same order, and their conditions.

    Raises:
        ConfigError: nothing says classes or size, or a runtime or a file does not take what was asked for.
        WeightsError: a file is missing, damaged or something else.
        DeviceError: no such device.
        ExportError: the runtime cannot take a network.
        ValueError: fewer than one run.

    Example:
        >>> bisenet, fcn = (MODELS[name].Config(name=name) for name in ("bisenet_v1", "fcn8s"))  # doctest: +SKIP
        >>> found = compare_costs([bisenet, fcn, "street.onnx"])  # doctest: +SKIP
        >>> [cost.name for cost in found.costs if cost.whole.is_reliable]  # doctest: +SKIP
        ['bisenet_v1 (resnet18)', 'fcn8s', 'street.onnx']
    """
    if not networks:
        raise ConfigError(
            "there is nothing to measure; give a configuration, a checkpoint, an exported file or a network"
        )
    place = resolve_device(device)
    asked = _Asked(changes or {}, num_classes, height, width, device, _precision(precision, runtime, place), runtime)
    opened = _opened(networks, asked)
    subjects = []
    with progress_bar("building", total=len(opened)) as show:
        for number, each in enumerate(opened):
            show(number, text=f"building {each.name}")
            subjects.append(_subject(each, asked))
    if is_watched():
        notices().print("measuring; a bar that moves would disturb it", highlight=False)
    timed = [
        (run, subject.opened.input_shape)
        for subject in subjects
        for run in (subject.whole, subject.alone)
        if run is not None
    ]
    latencies = iter(
        measure_runtimes_side_by_side(
            timed,
            warmup=warmup,
            runs=runs,
            min_seconds=STEADY_SECONDS if runs is None else 0.0,
            max_seconds=max_seconds * len(subjects),
        )
    )
    costs = [
        _cost(subject, next(latencies), None if subject.alone is None else next(latencies)) for subject in subjects
    ]
    places = dict.fromkeys(subject.whole.device for subject in subjects)
    conditions: dict[str, str | int] = {
        **{f"device {each}": device_name(each) for each in places},
        "threads": torch.get_num_threads(),
        **{name: metadata.version(name) for name in _PACKAGES},
        "whole": WHOLE,
        "network alone": ALONE,
    }
    return CostComparison(tuple(costs), conditions)


@dataclass(frozen=True)
class _Asked:
    changes: Mapping[str, Any]
    num_classes: int | None
    height: int | None
    width: int | None
    device: str
    precision: Precision
    runtime: str


@dataclass(frozen=True)
class _Opened:
    """Something that can be measured, before anything is built that only measuring needs."""

    name: str
    network: str
    num_classes: int
    input_shape: tuple[int, int, int, int]
    segmenter: torch.nn.Module | None
    artefact: Artefact | None = None
    file_bytes: int | None = None


@dataclass(frozen=True)
class _Subject:
    opened: _Opened
    whole: Runtime
    alone: Runtime | None
    notes: Mapping[str, str | int]


def _precision(precision: Precision | Literal["auto"], runtime: str, place: torch.device) -> Precision:
    """Return in what networks are to compute; of what the device is fast in, a runtime may not know all."""
    if runtime not in RUNTIMES:
        raise UnknownNameError(f"unknown runtime {runtime!r}{nearest(runtime, RUNTIMES)}; known: {', '.join(RUNTIMES)}")
    known = RUNTIMES[runtime].precisions
    if precision == "int8":
        if precision not in known:
            able = [name for name, kind in RUNTIMES.items() if precision in kind.precisions]
            raise ConfigError(f"precision int8 needs a runtime that knows it: {' or '.join(able)}")
        return precision
    resolved = PRECISIONS[resolve_precision(precision, place)]
    return known[0] if precision == "auto" and resolved not in known else resolved


def _opened(networks: Sequence[Compared], asked: _Asked) -> list[_Opened]:
    """Open files first: what they say of classes and size goes for networks that say nothing."""
    files = {
        index: _of_file(expanded(each), asked) for index, each in enumerate(networks) if isinstance(each, Path | str)
    }
    first = next(iter(files.values()), None)
    num_classes, height, width = asked.num_classes, asked.height, asked.width
    if first is not None:
        num_classes = num_classes or first.num_classes
        height, width = height or first.input_shape[2], width or first.input_shape[3]
    found = []
    for index, each in enumerate(networks):
        if isinstance(each, Path | str):
            found.append(files[index])
            continue
        if height is None or width is None:
            raise ConfigError("a network does not say the size of its images; give height and width")
        if isinstance(each, ModelConfig):
            if num_classes is None:
                raise ConfigError("settings of a network do not say the number of its classes; give num_classes")
            each = build_segmenter(each, num_classes=num_classes, pretrained=False)
        name = each.config.label()
        found.append(_Opened(name, name, each.num_classes, (1, 3, height, width), each))
    return found


def _of_file(path: Path, asked: _Asked) -> _Opened:
    if is_artefact(path):
        return _of_artefact(path, asked)
    segmenter: Segmenter
    if path.suffix.lower() == ".pt":
        segmenter, config = load_segmenter(path)
        file_bytes = path.stat().st_size
    else:
        config = load_config(path, changes=asked.changes)
        classes = asked.num_classes or len(DATASETS[config.data.source.dataset].classes)
        segmenter = build_segmenter(config.model, num_classes=classes, pretrained=False)
        file_bytes = None
    size = asked.height or config.data.height, asked.width or config.data.width
    return _Opened(
        str(path), config.model.label(), segmenter.num_classes, (1, 3, *size), segmenter, file_bytes=file_bytes
    )


def _of_artefact(path: Path, asked: _Asked) -> _Opened:
    # `auto` is a GPU for networks; whether there is one for a file depends on what runs it.
    artefact = load_artefact(path, device="cpu" if asked.device == "auto" else asked.device)
    record = artefact.record
    size = record.size or record.trained_size
    shape = (record.batch or 1, 3, asked.height or size[0], asked.width or size[1])
    try:
        record.accepts.check(torch.empty(shape, dtype=torch.uint8))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}; choose its height and width, or leave it out") from None
    try:
        config = validated(TrainConfig, record.config, where=str(path))
        network = build_segmenter(config.model, num_classes=len(record.classes), pretrained=False)
    except (ConfigError, WeightsError):
        network = None  # made of something that is not installed here
    file_bytes = path.stat().st_size
    return _Opened(str(path), record.network, len(record.classes), shape, network, artefact, file_bytes)


def _subject(opened: _Opened, asked: _Asked) -> _Subject:
    """Build what is timed."""
    if opened.artefact is not None:
        notes: dict[str, str | int] = {"network alone": "not measured: enlargement and argmax are inside of the file"}
        if opened.segmenter is None:
            notes["parameters"] = "not known: its network cannot be built here"
        if opened.artefact.record.argmax != "full":
            notes["argmax"] = opened.artefact.record.argmax
        return _Subject(opened, opened.artefact.runtime, None, notes)
    assert opened.segmenter is not None
    batch, _, height, width = opened.input_shape
    pixels = example_image((_CALIBRATION_IMAGES, 3, height, width), device=torch.device("cpu"))

    def build(argmax: Literal["full"] | None) -> Runtime:
        assert opened.segmenter is not None
        return build_runtime(
            opened.segmenter,
            runtime=asked.runtime,
            precision=asked.precision,
            batch=batch,
            size=(height, width),
            argmax=argmax,
            device=asked.device,
            calibration=list(pixels),
        )

    whole = build("full")
    try:
        alone = build(None)
        alone(example_image(opened.input_shape, device=alone.device))  # what is not captured tells only when it runs
        return _Subject(opened, whole, alone, whole.notes)
    except ExportError as error:
        return _Subject(opened, whole, None, {**whole.notes, "network alone": f"not measured: {error}"})


def _cost(subject: _Subject, whole: Latency, alone: Latency | None) -> NetworkCost:
    opened, run = subject.opened, subject.whole
    memory = macs = parameters = None
    if opened.segmenter is not None:
        view = LogitsOnly(opened.segmenter)
        parameters = count_parameters(view)
        macs = count_macs(view, input_shape=opened.input_shape)
        if run.name == "eager":
            memory = measure_peak_memory(
                view,
                input_shape=opened.input_shape,
                device=str(run.device),
                precision=cast(FloatPrecision, run.precision),
            )
    return NetworkCost(
        name=opened.name,
        network=opened.network,
        num_classes=opened.num_classes,
        num_parameters=parameters,
        macs=macs,
        whole=whole,
        alone=alone,
        peak_memory_bytes=memory,
        file_bytes=opened.file_bytes,
        device=str(run.device),
        runtime=run.name,
        precision=run.precision,
        input_shape=opened.input_shape,
        notes=subject.notes,
    )


def _plain(latency: Latency) -> dict[str, Any]:
    return asdict(latency) | {"is_reliable": latency.is_reliable}
