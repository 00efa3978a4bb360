"""A file that `segda export` wrote, ready to run: bytes of images in, class maps out."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from segda.deployment.onnx_file import open_session, run_session, verify_seal
from segda.deployment.record import ArtefactRecord
from segda.deployment.runtime import Run, Runtime
from segda.deployment.torch_file import on_device, read_program
from segda.device import resolve_device
from segda.errors import WeightsError
from segda.files import expanded

SUFFIXES = (".onnx", ".pt2")


@dataclass(frozen=True)
class Artefact:
    """A network in a file, with normalization and argmax inside.

    Attributes:
        path: the file.
        record: what it says of itself: classes, data, network, sizes, where it comes from.
        runtime: what computes it, and where.

    Example:
        >>> artefact = load_artefact("street.onnx")  # doctest: +SKIP
        >>> image = torch.zeros(1, 3, 360, 480, dtype=torch.uint8)
        >>> artefact(image).shape, artefact.record.classes[0]  # doctest: +SKIP
        (torch.Size([1, 360, 480]), 'Sky')
    """

    path: Path
    record: ArtefactRecord
    runtime: Runtime

    def __call__(self, image: Tensor) -> Tensor:
        """Segment images.

        Args:
            image: RGB 0..255, uint8 [B, 3, H, W] on any device; which B, H and W `runtime.accepts` says.

        Returns:
            Train ids, uint8 [B, H, W].

        Raises:
            ConfigError: the file takes other images.
        """
        return self.runtime(image)


def is_artefact(path: object) -> bool:
    """Return whether something is the path of such a file, going by the end of its name.

    Example:
        >>> is_artefact("street.onnx"), is_artefact("checkpoint.pt")
        (True, False)
    """
    return isinstance(path, str | Path) and str(path).lower().endswith(SUFFIXES)


def load_artefact(path: Path | str, *, device: str = "cpu") -> Artefact:
    """Open a file that `segda export` wrote. ONNX Runtime computes with as many threads as PyTorch has now.

    Args:
        path: `.onnx` or `.pt2`.
        device: `auto`, `cpu`, `cuda` or `cuda:<n>`; a file in int8 is for processors.

    Raises:
        WeightsError: it is missing, damaged or something else.
        DeviceError: there is no such device, or ONNX Runtime does not compute there.
    """
    path, place = expanded(path), resolve_device(device)
    if not is_artefact(path):
        raise WeightsError(
            f"{path} is no artefact; expected a file of `segda export` that ends in {' or '.join(SUFFIXES)}"
        )
    try:
        is_onnx = path.suffix.lower() == ".onnx"
        run, texts = open_run(path, is_onnx=is_onnx, device=place)
        record = ArtefactRecord.of_texts(texts)
        name = "onnxruntime" if is_onnx else "torch_export"
        return Artefact(path, record, Runtime(name, record.precision, record.accepts, place, run))
    except FileNotFoundError:
        raise WeightsError(f"no artefact at {path}; `segda export CHECKPOINT {path}` makes one") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise WeightsError(f"{path} cannot be used: {error}; export it again") from None


def open_run(path: Path, *, is_onnx: bool, device: torch.device) -> tuple[Run, dict[str, str]]:
    """Open a file whose name does not tell yet what it is.

    Args:
        path: the file.
        is_onnx: whether it is ONNX, else a program of `torch.export`.
        device: where to compute.

    Returns:
        What maps images to class maps, and the metadata of the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is something else.
        DeviceError: ONNX Runtime does not compute there.
    """
    return (_open_onnx if is_onnx else _open_program)(path, device)


def _open_onnx(path: Path, device: torch.device) -> tuple[Run, dict[str, str]]:
    verify_seal(path)
    session = open_session(path, device=device)
    texts = dict(session.get_modelmeta().custom_metadata_map)
    return lambda image: run_session(session, image), texts


def _open_program(path: Path, device: torch.device) -> tuple[Run, dict[str, str]]:
    program, texts = read_program(path)
    module = on_device(program, device).module()

    def run(image: Tensor) -> Tensor:
        with torch.inference_mode():
            classes: Tensor = module(image.to(device))
        return classes

    return run, texts
