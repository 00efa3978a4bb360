"""Files that `torch.save` wrote, whose bytes are compared with their checksums before they are believed.

Such a file is a ZIP archive with a CRC-32 of every entry. PyTorch writes these and never looks at them: a bit that a disk or a copy
has turned around would be a slightly different weight. 100 MB take 40 ms.
"""

import errno
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from segda.config_problems import shortened
from segda.device_errors import is_out_of_memory

_CHUNK = 1 << 20
_TOLD = 3  # problems
_FOLDER = 0x10  # an attribute of an entry


def read_torch_file(path: Path) -> Any:
    """Read tensors and plain data onto the CPU.

    Args:
        path: file of PyTorch 1.6 or later, or an older one, which has no checksums.

    Raises:
        OSError: the file is missing, cannot be opened, or its disk fails.
        ValueError: its bytes are not those that were written, or it holds something else; the message says which.
    """
    # Opened once: what takes its place meanwhile has not been verified.
    with _opened(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kinds of files that are refused in a moment
        if zipfile.is_zipfile(file):
            _verify(file)
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)


def verify_torch_file(path: Path) -> None:
    """Compare the bytes of a file with their checksums, and keep nothing of it in memory.

    Args:
        path: file of PyTorch 1.6 or later.

    Raises:
        OSError: the file is missing, cannot be opened, or its disk fails.
        ValueError: its bytes are not those that were written; the message says more.
    """
    with _opened(path) as file:
        _verify(file)


def misfits(state: Mapping[Any, Any], expected: Mapping[str, Any], *, of: str, are_finite: bool) -> str:
    """Say why tensors cannot be the weights of a module.

    Args:
        state: what a file holds.
        expected: the module's own state.
        of: what the module is, for the message.
        are_finite: whether NaN and infinity are refused, but where the module has such itself.

    Returns:
        The first problems and how many there are more; empty if the tensors fit. Precision may differ.

    Example:
        >>> expected = {"weight": torch.zeros(3), "bias": torch.zeros(3)}
        >>> misfits({"weight": torch.zeros(2)}, expected, of="this layer", are_finite=True)
        'bias is missing; weight has shape [2] instead of [3]'
    """
    problems = [f"{name} is missing" for name in expected if name not in state]
    problems += [f"{shortened(str(name))} is not a part of {of}" for name in state if name not in expected]
    for name, wanted in expected.items():
        if name in state:
            problem = _misfit(state[name], wanted, is_finite=are_finite)
            problems += [f"{name} {problem}"] if problem else []
    more = f" and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
    return "; ".join(problems[:_TOLD]) + more


def _misfit(value: Any, wanted: Any, *, is_finite: bool) -> str:
    if not isinstance(wanted, Tensor):
        return ""  # a module's extra state
    if not isinstance(value, Tensor):
        return f"is no tensor but {type(value).__name__}"
    if value.shape != wanted.shape:
        return f"has shape {list(value.shape)} instead of {list(wanted.shape)}"
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        return "is sparse, quantized or without values instead of a plain tensor"
    if (value.is_complex(), value.is_floating_point()) != (wanted.is_complex(), wanted.is_floating_point()):
        return f"is of type {value.dtype} instead of {wanted.dtype}"
    # As it will be stored: of the smallest types PyTorch cannot tell.
    if is_finite and not value.to(wanted.dtype).isfinite().all() and wanted.isfinite().all():
        return "holds NaN or infinity"
    return ""


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.exists() and not path.is_file():  # which would be waited for
        raise OSError(errno.EINVAL, "Is a pipe or a device")
    with path.open("rb") as file:
        try:
            yield file
        # What is no such file makes its reader raise nearly anything.
        except Exception as error:
            if is_out_of_memory(error):
                raise
            # A disk that fails says nothing about the content; a position that does not exist comes from it.
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            raise ValueError(_reason(error)) from None


def _verify(file: IO[bytes]) -> None:
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if entry.external_attr & _FOLDER:
                # No checksum covers this bit, for which PyTorch reads nothing and returns whatever was in memory.
                raise ValueError(f"its entry {entry.filename} is marked as a folder")
            with archive.open(entry) as content:
                while content.read(_CHUNK):
                    pass


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error):
        return "it holds other things than tensors and plain data"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
