"""Give a trained network shared weights, and say how many bytes that saves.

What it does not save is time: a layer looks its weights up before it multiplies by them.
"""

import gzip
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segda.checkpoint import load_segmenter, network_checkpoint, read_checkpoint
from segda.compression.codebooks import Codebook, share_weight
from segda.compression.shared_file import read_shared, write_shared
from segda.compression.weights import segmenter_weights
from segda.config import TrainConfig
from segda.config_problems import validated
from segda.errors import WeightsError
from segda.files import expanded, replacing, write_json
from segda.models import Segmenter, build_segmenter
from segda.torch_files import misfits

_GZIP_LEVEL = 6  # the program's own
CHECKPOINT, COMPACT, SIZES = "checkpoint.pt", "shared.npz", "sizes.json"


@dataclass(frozen=True)
class SharedSizes:
    """Bytes of a network before and after.

    Attributes:
        num_weights: in the layers whose weights are shared.
        num_zeros: among them.
        num_values: different values that there are in the end, added up over layers.
        dense: of those layers in float32, 4 per weight.
        shared: packed indices, shared values, and a bit per weight in layers with many zeros (`Codebook.num_bytes`).
        rest: of all other tensors (biases, normalization), which stay as they are.
        file: of a checkpoint with the network alone.
        file_gzip: the same, compressed by gzip.
        shared_file: of the checkpoint with shared weights, in which every weight is still a float32.
        shared_file_gzip: the same, compressed by gzip.
        compact_file: of the file of indices, as it is on the disk; it is deflated, so it can be smaller than `shared`.
    """

    num_weights: int
    num_zeros: int
    num_values: int
    dense: int
    shared: int
    rest: int
    file: int
    file_gzip: int
    shared_file: int
    shared_file_gzip: int
    compact_file: int


def share_weights(checkpoint: Path | str, folder: Path | str, *, bits: int = 5) -> SharedSizes:
    """Give each layer of a trained network 2^bits values (`segda.compression.codebooks`), without further training.

    The folder receives `checkpoint.pt`, which `segda evaluate` and `segda predict` read like any other, `shared.npz`, the same
    network in indices of a few bits, of which `load_shared` makes the same network, and `sizes.json`. A checkpoint that is
    written here holds the network alone: no training goes on from it.

    Shared are the weights that pruning may take too (`segda.compression.weights`), first and last layers included, of layers with
    more than 2^bits weights that are not zero: in smaller ones the codebook would be as large as what it stands for. Depthwise
    kernels stay as they are: they are few, and every channel has a scale of its own.

    Args:
        checkpoint: that `segda train` wrote.
        folder: files that are there are replaced.
        bits: of an index, 1 to 8 (adaptation report: 5).

    Returns:
        The bytes.

    Raises:
        SegdaError: the checkpoint cannot be used, or the bits.
    """
    checkpoint, folder = expanded(checkpoint), expanded(folder)
    segmenter, _ = load_segmenter(checkpoint)
    before = segmenter.state_dict()
    state = read_checkpoint(checkpoint)
    books = share_tensors(before, segmenter_weights(segmenter, protect_ends=False), bits=bits)
    dense = network_checkpoint(state, before)
    shared = network_checkpoint(state, {name: torch.from_numpy(_array(book)) for name, book in books.items()})
    with replacing(folder / CHECKPOINT, durable=True) as temporary:
        temporary.write_bytes(shared)
    about = {"config": json.loads(state["config"]), "datasets": state["datasets"], "classes": state["classes"]}
    write_shared(folder / COMPACT, books, network=about)
    found = [book for book in books.values() if isinstance(book, Codebook)]
    num_weights = sum(int(np.prod(book.shape)) for book in found)
    sizes = SharedSizes(
        num_weights=num_weights,
        num_zeros=sum(int(np.count_nonzero(book.weight() == 0)) for book in found),
        num_values=sum(book.values.size for book in found),
        dense=4 * num_weights,
        shared=sum(book.num_bytes() for book in found),
        rest=sum(book.nbytes for book in books.values() if not isinstance(book, Codebook)),
        file=len(dense),
        file_gzip=_gzipped(dense),
        shared_file=len(shared),
        shared_file_gzip=_gzipped(shared),
        compact_file=(folder / COMPACT).stat().st_size,
    )
    write_json(folder / SIZES, {"bits": bits, **asdict(sizes)})
    return sizes


def share_tensors(
    tensors: Mapping[str, Tensor], names: Collection[str], *, bits: int
) -> dict[str, Codebook | NDArray[Any]]:
    """Give weights shared values; one with no more than 2^bits weights that are not zero stays.

    Args:
        tensors: state of a network, on the CPU.
        names: of the weights.
        bits: of an index.

    Returns:
        Name -> codebook, or the tensor as it was.
    """
    found: dict[str, Codebook | NDArray[Any]] = {}
    for name, tensor in tensors.items():
        array = tensor.contiguous().numpy()
        is_shared = name in names and np.count_nonzero(array) > 2**bits
        found[name] = share_weight(array, bits=bits) if is_shared else array
    return found


def load_shared(path: Path | str) -> Segmenter:
    """Read a network from `shared.npz`.

    Args:
        path: of the file.

    Returns:
        The segmenter on the CPU in evaluation mode; its weights are those of the checkpoint beside the file, bit for bit.

    Raises:
        WeightsError: the file is missing, damaged or something else.
    """
    path = expanded(path)
    tensors, network = read_shared(path)
    config = validated(TrainConfig, network.get("config"), where=str(path))
    segmenter = build_segmenter(config.model, num_classes=len(network.get("classes", ())), pretrained=False)
    state = {name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()}
    problems = misfits(state, segmenter.state_dict(), of="this network", are_finite=True)
    if problems:
        raise WeightsError(f"{path} does not fit {config.model.label()}: {problems}")
    segmenter.load_state_dict(state)
    return segmenter.eval()


def _array(book: Codebook | NDArray[Any]) -> NDArray[Any]:
    return book.weight() if isinstance(book, Codebook) else book


def _gzipped(content: bytes) -> int:
    return len(gzip.compress(content, compresslevel=_GZIP_LEVEL, mtime=0))
