"""A small file for a network whose weights are shared: indices of a few bits, a bit for every zero, and the rest as it is.

It is a NumPy archive without pickled objects (`numpy.load(..., allow_pickle=False)`). Its entries are

- `network`: JSON with the configuration of the training, the classes, and the names and shapes of the shared weights;
- `<number>/values`, `<number>/indices`, `<number>/zeros`: a shared weight's values float32 [k], its packed indices and packed
  places of zeros uint8, the first bit first; the last one only if there are zeros;
- `<number>/plain`: any other tensor of the network.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segda.compression.codebooks import Codebook
from segda.errors import WeightsError
from segda.files import replacing

Weights = Mapping[str, "Codebook | NDArray[Any]"]


def write_shared(path: Path, weights: Weights, *, network: Mapping[str, Any]) -> None:
    """Write a network.

    Args:
        path: the file to replace.
        weights: name of each tensor of the network -> its codebook, or what it is.
        network: what else is known of it, as plain data.
    """
    arrays: dict[str, NDArray[Any]] = {}
    described: list[dict[str, Any]] = []
    for number, (name, weight) in enumerate(weights.items()):
        if not isinstance(weight, Codebook):
            described.append({"name": name})
            arrays[f"{number}/plain"] = weight
            continue
        described.append({"name": name, "shape": list(weight.shape), "bits": weight.bits, "count": weight.indices.size})
        arrays[f"{number}/values"] = weight.values
        arrays[f"{number}/indices"] = packed(weight.indices, bits=weight.bits)
        if weight.is_zero is not None:
            arrays[f"{number}/zeros"] = np.packbits(weight.is_zero)
    text = json.dumps({**network, "weights": described})
    arrays["network"] = np.frombuffer(text.encode(), dtype=np.uint8)
    content = io.BytesIO()
    # Deflated, which does a part of what Deep Compression's Huffman codes do: some values are much more frequent than others.
    np.savez_compressed(content, allow_pickle=False, **arrays)
    with replacing(path, durable=True) as temporary:
        temporary.write_bytes(content.getvalue())


def read_shared(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read a network; its tensors are equal bit for bit to those that were written.

    Args:
        path: that `write_shared` wrote.

    Returns:
        Name -> tensor, and what else is known.

    Raises:
        WeightsError: the file is missing, damaged or something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read ({error.strerror or error}); see to the path and the permissions"
        ) from None
    try:
        # Opened by ourselves: of a damaged archive NumPy leaves the file open.
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            network = json.loads(bytes(arrays["network"]))
            found = {item["name"]: _read(arrays, number, item) for number, item in enumerate(network.pop("weights"))}
    except (
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path} is no file of shared weights, or damaged ({reason}); write it again") from None
    return found, network


def _read(arrays: Mapping[str, NDArray[Any]], number: int, item: Mapping[str, Any]) -> NDArray[Any]:
    if "shape" not in item:
        return arrays[f"{number}/plain"]
    shape = tuple(item["shape"])
    size = int(np.prod(shape))
    is_zero = None
    if f"{number}/zeros" in arrays:
        is_zero = np.unpackbits(arrays[f"{number}/zeros"], count=size).astype(bool).reshape(shape)
    return Codebook(
        values=arrays[f"{number}/values"],
        indices=unpacked(arrays[f"{number}/indices"], bits=item["bits"], count=item["count"]),
        is_zero=is_zero,
        shape=shape,
        bits=item["bits"],
    ).weight()


def packed(indices: NDArray[np.uint8], *, bits: int) -> NDArray[np.uint8]:
    """Write indices one after the other with a few bits each.

    Args:
        indices: smaller than 2^bits, uint8 [n].
        bits: 1 to 8.

    Returns:
        uint8 [ceil(bits * n / 8)], the highest bit of each index first.

    Example:
        >>> packed(np.array([1, 2, 3, 0], dtype=np.uint8), bits=2).tolist()
        [108]
    """
    each = np.unpackbits(indices[:, None], axis=1)[:, 8 - bits :]
    return np.packbits(each)


def unpacked(stored: NDArray[np.uint8], *, bits: int, count: int) -> NDArray[np.uint8]:
    """Return what `packed` was given.

    Args:
        stored: uint8.
        bits: of an index.
        count: of indices.
    """
    each = np.unpackbits(stored, count=bits * count).reshape(count, bits)
    padded = np.pad(each, ((0, 0), (8 - bits, 0)))
    return np.packbits(padded, axis=1).reshape(count)
