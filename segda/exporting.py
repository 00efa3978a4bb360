"""Turn a checkpoint into a file that runs without it, once that file is seen to say what the network says."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from segda.checkpoint import load_segmenter
from segda.config import DomainConfig, TrainConfig
from segda.datasets import DATASETS
from segda.datasets.base import resolve_root
from segda.deployment.agreement import USUAL_BAR, Agreement, compare, require
from segda.deployment.artefact import SUFFIXES, is_artefact, load_artefact, open_run
from segda.deployment.int8 import Convolutions, quantize
from segda.deployment.onnx_file import USUAL_OPSET, write_onnx
from segda.deployment.program import Accepts, capture
from segda.deployment.record import ArtefactRecord
from segda.deployment.runtime import Run
from segda.deployment.shipped import Argmax, ShippedNetwork
from segda.deployment.torch_file import write_program
from segda.errors import ConfigError
from segda.files import expanded, replacing, sha256_of
from segda.loading import with_roots
from segda.progress import notices, progress_bar
from segda.resizing import resize_image
from segda.splits import open_split

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Domain = Literal["source", "target"]
FilePrecision = Literal["fp32", "fp16", "int8"]

CPU = torch.device("cpu")
_PACKAGES = ("segda", "torch", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: the file.
        record: what it says of itself.
        agreements: with the network, at every size that was compared; of all but the first, at another one than trained at.
        argmax_agreement: with argmax at a quarter: that of the network so shipped with itself at full size; None with `full`.
        convolutions: int8: in what they compute; None for others.
        file_bytes: size of the file.
    """

    path: Path
    record: ArtefactRecord
    agreements: tuple[Agreement, ...]
    argmax_agreement: Agreement | None
    convolutions: Convolutions | None
    file_bytes: int


@dataclass(frozen=True)
class _Images:
    """Images of a split at one size, uint8 [3, H, W] each, and their names."""

    images: Sequence[Tensor]
    names: Sequence[str]

    def resized(self, size: tuple[int, int]) -> "_Images":
        arrays = [image.permute(1, 2, 0).contiguous().numpy() for image in self.images]
        return _Images([_channels_first(resize_image(array, size)) for array in arrays], self.names)


def export(
    checkpoint: Path | str,
    destination: Path | str,
    *,
    precision: FilePrecision = "fp32",
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    argmax: Argmax = "full",
    calibrate: Domain = "source",
    calibration_images: int = 32,
    compare_on: Domain = "target",
    images: int = 16,
    agreement: float | None = None,
    opset: int = USUAL_OPSET,
    data_roots: Mapping[str, Path | str] | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a trained network as a file that takes bytes of images and returns class maps.

    The file is run on real images before it gets its name: in nearly all pixels its class maps must be those of the network, at the
    size of the training (or the one that it is for) and, if it takes any size, at an odd one too, since exporters freeze sizes
    without a word. Labels are not opened, neither the target's nor the source's.

    Args:
        checkpoint: file of `segda train`.
        destination: `.onnx`, or `.pt2` for a program of `torch.export`.
        precision: arithmetic of convolutions. int8 and fp16 are for ONNX.
        size: height and width of the images that it takes; None: any from 32 x 32.
        batch: how many at once; None: any number.
        argmax: where classes are decided: `full`, or `quarter` (see `ShippedNetwork`), which changes results.
        calibrate: int8: whose training images tell the ranges.
        calibration_images: int8: how many.
        compare_on: whose images it is compared on: the target's of training or the source's of validation. Where int8 is calibrated
            on the same split, on others of it.
        images: how many.
        agreement: share of pixels that must be the same, in the mean over images; None: .9999 for fp32, .995 for fp16, .97 for
            int8.
        opset: ONNX: version of the operators.
        data_roots: name of a data set -> its folder.
        overwrite: whether to replace a file.

    Returns:
        What was written and how far it agrees.

    Raises:
        ExportError: the network cannot be exported so, or the file does not agree with it; nothing is written then.
        SegdaError: checkpoint, data or options cannot be used.
    """
    checkpoint, destination = expanded(checkpoint), expanded(destination)
    accepts = Accepts(batch, size)
    _check(destination, precision=precision, images=images, calibration_images=calibration_images, overwrite=overwrite)
    segmenter, config = load_segmenter(checkpoint)
    config = with_roots(config, data_roots or {})
    seen = size or (config.data.height, config.data.width)
    compared, calibration = _images(
        config,
        size=seen,
        compare_on=compare_on,
        calibrate=calibrate if precision == "int8" else None,
        counts=(images, calibration_images),
    )
    record = _record(
        checkpoint, config, accepts, precision=precision, argmax=argmax, calibrated=(calibrate, len(calibration.images))
    )
    is_onnx = destination.suffix.lower() == ".onnx"
    bar = USUAL_BAR[precision] if agreement is None else agreement
    with progress_bar("capturing", total=4) as show, replacing(destination, durable=True) as temporary:
        network = ShippedNetwork(segmenter, argmax=argmax, precision="fp16" if precision == "fp16" else "fp32")
        program = capture(network, accepts)
        show(1, text="writing")
        convolutions = None
        if not is_onnx:
            write_program(program, temporary, metadata=record.texts())
        elif precision == "int8":
            convolutions = _write_int8(program, temporary, accepts, record, opset=opset, images=calibration.images)
        else:
            write_onnx(program, temporary, accepts=accepts, metadata=record.texts(), opset=opset)
        show(2, text="comparing")
        run, _ = open_run(temporary, is_onnx=is_onnx, device=CPU)
        reference = _eager(ShippedNetwork(segmenter, argmax=argmax))
        agreements = []
        for at in [seen] if size is not None else [seen, other_size(seen)]:
            shown = compared if at == seen else compared.resized(at)
            found = compare(run, reference, images=shown.images, names=shown.names, accepts=accepts)
            require(found, bar, of=f"{destination.name} ({precision})")
            agreements.append(found)
        show(3, text="comparing")
        whole = None
        if argmax != "full":
            full = _eager(ShippedNetwork(segmenter))
            whole = compare(reference, full, images=compared.images, names=compared.names, accepts=accepts)
        show(4, text="written")
        file_bytes = temporary.stat().st_size
    return Exported(destination, record, tuple(agreements), whole, convolutions, file_bytes)


def agreement_with(
    artefact: Path | str,
    checkpoint: Path | str,
    *,
    compare_on: Domain = "target",
    images: int = 16,
    data_roots: Mapping[str, Path | str] | None = None,
) -> Agreement:
    """Compare a file with a network that it need not be made of, such as the one that its own network was slimmed from.

    Args:
        artefact: file of `export`.
        checkpoint: of the network, which decides classes at full size.
        compare_on: as in `export`.
        images: how many.
        data_roots: name of a data set -> its folder.

    Returns:
        In how many pixels both say the same, at the size of the training or the one that the file is for.

    Raises:
        SegdaError: file, checkpoint or data cannot be used.
    """
    opened = load_artefact(artefact)
    segmenter, config = load_segmenter(expanded(checkpoint))
    size = opened.record.size or (config.data.height, config.data.width)
    shown, _ = _images(
        with_roots(config, data_roots or {}), size=size, compare_on=compare_on, calibrate=None, counts=(images, 0)
    )
    network = _eager(ShippedNetwork(segmenter))
    return compare(opened, network, images=shown.images, names=shown.names, accepts=opened.record.accepts)


def other_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return an odd size with another ratio of sides, about half as many pixels.

    Example:
        >>> other_size((360, 480)), other_size((64, 64))
        ((271, 301), (49, 41))
    """
    height, width = size
    return max(height * 3 // 4 | 1, 33), max(width * 5 // 8 | 1, 33)


def _check(destination: Path, *, precision: str, images: int, calibration_images: int, overwrite: bool) -> None:
    """Refuse what can be seen to be wrong before anything is loaded."""
    if not is_artefact(destination):
        raise ConfigError(f"the file must end in {' or '.join(SUFFIXES)}, got {destination}")
    if destination.suffix.lower() == ".pt2" and precision != "fp32":
        raise ConfigError(f"a .pt2 file is written in fp32 alone, got {precision}; write an .onnx file")
    if min(images, calibration_images) < 1:
        raise ConfigError(
            f"expected at least 1 image to compare and calibrate with, got {images} and {calibration_images}"
        )
    if destination.exists() and not overwrite:
        raise ConfigError(f"{destination} exists; choose another name, or ask for it to be replaced (overwrite)")


def _write_int8(
    program: "ExportedProgram",
    path: Path,
    accepts: Accepts,
    record: ArtefactRecord,
    *,
    opset: int,
    images: Sequence[Tensor],
) -> Convolutions:
    with tempfile.TemporaryDirectory() as folder:
        single = Path(folder) / "single.onnx"
        write_onnx(program, single, accepts=accepts, metadata=record.texts(), opset=opset)
        return quantize(single, path, images=images, accepts=accepts)


def _eager(network: nn.Module) -> Run:
    def run(image: Tensor) -> Tensor:
        with torch.inference_mode():
            classes: Tensor = network(image)
        return classes

    return run


def _images(
    config: TrainConfig, *, size: tuple[int, int], compare_on: Domain, calibrate: Domain | None, counts: tuple[int, int]
) -> tuple[_Images, _Images]:
    """Return the images to compare on and those to calibrate with, which have none in common where there are two or more."""
    compared = _split_of(config, compare_on, "train" if compare_on == "target" else "val")
    if calibrate is None:
        return _drawn(config, compared, counts[0], size=size), _Images([], [])
    calibration = _split_of(config, calibrate, "train")
    if calibration == compared:
        domain, split, names = compared
        others = names[1::2] or names
        compared, calibration = (domain, split, names[::2]), (domain, split, others)
    return _drawn(config, compared, counts[0], size=size), _drawn(config, calibration, counts[1], size=size)


_Split = tuple[DomainConfig, str, Sequence[str]]


def _split_of(config: TrainConfig, role: Domain, split: str) -> _Split:
    """Return a domain of the run, one of its splits and the names of the images there."""
    domain = config.data.source if role == "source" else config.data.target
    dataset = DATASETS[domain.dataset]
    found = dataset.samples(resolve_root(domain.dataset, domain.root), domain=domain.domain, split=split)
    return domain, split, [sample.name for sample in found]


def _drawn(config: TrainConfig, split: _Split, count: int, *, size: tuple[int, int]) -> _Images:
    """Decode some images of a split, evenly spread over it, without opening a label."""
    domain, name, names = split
    chosen = sorted({round(place) for place in np.linspace(0, len(names) - 1, min(count, len(names)))})
    sized = config.model_copy(update={"data": config.data.model_copy(update={"height": size[0], "width": size[1]})})
    opened = open_split(
        sized,
        domain,
        name,
        with_labels=False,
        samples=[names[index] for index in chosen],
        progress=notices().is_terminal,
    )
    return _Images([_channels_first(np.array(image)) for image in opened.images], list(opened.names))


def _channels_first(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _record(
    checkpoint: Path,
    config: TrainConfig,
    accepts: Accepts,
    *,
    precision: FilePrecision,
    argmax: Argmax,
    calibrated: tuple[Domain, int],
) -> ArtefactRecord:
    data = config.data
    domain, count = calibrated
    return ArtefactRecord(
        network=config.model.label(),
        classes=DATASETS[data.source.dataset].classes,
        source=f"{data.source.dataset}/{data.source.domain}",
        target=f"{data.target.dataset}/{data.target.domain}",
        data_terms={each.dataset: DATASETS[each.dataset].terms for each in (data.source, data.target)},
        trained_size=(data.height, data.width),
        batch=accepts.batch,
        size=accepts.size,
        argmax=argmax,
        precision=precision,
        calibrated_on=f"{count} training images of the {domain}" if precision == "int8" else "",
        checkpoint=sha256_of(checkpoint),
        config=config.canonical(),
        versions={name: metadata.version(name) for name in _PACKAGES},
    )
