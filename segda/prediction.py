"""Predict the class of every pixel of images in memory; `file_prediction` and `raster` do so for files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from segda.config import TrainConfig
from segda.datasets import DATASETS
from segda.datasets.loaders import normalize
from segda.device import Precision, autocast
from segda.device_errors import is_out_of_memory
from segda.errors import ConfigError, OutOfMemoryError
from segda.files import expanded
from segda.pictures import ByteArray
from segda.resizing import resize_image
from segda.trained import Trained, make_ready
from segda.types import SMALLEST_SIDE as SMALLEST_SIDE

SeenSize = Literal["native", "train"] | tuple[int, int]  # what a network sees of an image; height and width in pixels

CPU = torch.device("cpu")


def predict(
    trained: Trained,
    image: ByteArray | Path | str,
    *,
    config: TrainConfig | None = None,
    size: SeenSize | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> ByteArray:
    """Predict the class of every pixel of one image with a trained network.

    Args:
        trained: path of a checkpoint, paths of several, of whose probabilities the mean counts, or a segmenter.
        image: RGB, uint8 [H, W, 3], or the path of an image, which is read as those of the target domain.
        config: with a segmenter, what it was trained with.
        size: what the network sees: `native`, `train` (the size of the training configuration) or (height, width). The prediction
            has the size of the image in any case. None: `native` for data sets seen from above, else `train`.
        device: `auto`, `cpu`, `cuda` or `cuda:<n>`.
        precision: arithmetic of convolutions.

    Returns:
        Train ids, uint8 [H, W]; `DATASETS[...].classes` has their names.

    Raises:
        SegdaError: checkpoint, image or device cannot be used.
    """
    network = make_ready(trained, config, device=device, precision=precision)
    return predict_image(
        network.segmenter,
        image
        if isinstance(image, np.ndarray)
        else DATASETS[network.config.data.target.dataset].decode_image(expanded(image)),
        size=seen_size(size, network.config),
        device=network.device,
        dtype=network.dtype,
    )


def seen_size(size: SeenSize | None, config: TrainConfig) -> tuple[int, int] | None:
    """Return the height and width that the network sees of an image; None: the image's own.

    Args:
        size: as `predict` says.
        config: the training.

    Raises:
        ConfigError: a side is too small for the networks.
    """
    if size is None:
        size = "native" if DATASETS[config.data.source.dataset].nadir else "train"
    if size == "native":
        return None
    if size == "train":
        return config.data.height, config.data.width
    if min(size) < SMALLEST_SIDE:
        raise ConfigError(
            f"size must be native, train or (height, width) of {SMALLEST_SIDE} pixels or more, got {size}"
        )
    return size


def predict_image(
    segmenter: nn.Module,
    image: ByteArray,
    *,
    size: tuple[int, int] | None = None,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
) -> ByteArray:
    """Predict the class of every pixel of one image.

    Args:
        segmenter: maps a normalized image float [B, 3, H, W] to `SegmentationOutput`; in evaluation mode, on `device`.
        image: RGB, uint8 [H, W, 3].
        size: height and width that the network sees; its logits are scaled back bilinearly. None: the image's own size.
        device: where the segmenter is.
        dtype: what convolutions compute in.

    Returns:
        Train ids, uint8 [H, W].

    Raises:
        OutOfMemoryError: if the image does not fit on the device.
    """
    prediction: ByteArray = predict_batch(segmenter, image[None], size=size, device=device, dtype=dtype)[0]
    return prediction


def predict_batch(
    segmenter: nn.Module,
    images: ByteArray,
    *,
    size: tuple[int, int] | None = None,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
) -> ByteArray:
    """Predict the class of every pixel of images of one size.

    Args:
        segmenter: maps a normalized image float [B, 3, H, W] to `SegmentationOutput`; in evaluation mode, on `device`.
        images: RGB, uint8 [B, H, W, 3].
        size: height and width that the network sees; its logits are scaled back bilinearly. None: the images' own size,
            where sides below 32 pixels are continued with their last row or column.
        device: where the segmenter is.
        dtype: what convolutions compute in.

    Returns:
        Train ids, uint8 [B, H, W].

    Raises:
        OutOfMemoryError: if the images do not fit on the device.
    """
    with _told_where_memory_ends(images, size, device), torch.inference_mode():
        logits = _logits(segmenter, images, size=size, device=device, dtype=dtype)
        prediction: ByteArray = logits.max(1).indices.to(torch.uint8).cpu().numpy()
    return prediction


def predict_logits(
    segmenter: nn.Module,
    images: ByteArray,
    *,
    size: tuple[int, int] | None = None,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Predict the logit of every class at every pixel of images of one size.

    Args:
        segmenter: maps a normalized image float [B, 3, H, W] to `SegmentationOutput`; in evaluation mode, on `device`.
        images: RGB, uint8 [B, H, W, 3].
        size: height and width that the network sees, as in `predict_batch`.
        device: where the segmenter is.
        dtype: what convolutions compute in.

    Returns:
        float32 [B, C, H, W] on `device`, an inference tensor: it may be changed in `torch.inference_mode` only.

    Raises:
        OutOfMemoryError: if the images do not fit on the device.
    """
    with _told_where_memory_ends(images, size, device), torch.inference_mode():
        return _logits(segmenter, images, size=size, device=device, dtype=dtype).float()


def _logits(
    segmenter: nn.Module,
    images: ByteArray,
    *,
    size: tuple[int, int] | None,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Return logits [B, C, H, W] at the images' own size, whatever the network sees."""
    height, width = images.shape[1:3]
    seen = _seen(images, size)
    # Torch wants writable memory; the permuted view has channels_last strides, which `normalize` keeps.
    resized = np.stack([resize_image(image, size) for image in images]) if size is not None else images
    image = normalize(torch.from_numpy(np.require(resized, requirements=["C", "W"])).permute(0, 3, 1, 2).to(device))
    if size is None and seen != (height, width):
        image = functional.pad(image, (0, seen[1] - width, 0, seen[0] - height), mode="replicate")
    with autocast(device, dtype):
        logits: Tensor = segmenter(image).logits
    if size is not None and size != (height, width):
        logits = functional.interpolate(logits.float(), (height, width), mode="bilinear", align_corners=False)
    return logits[:, :, :height, :width]


def _seen(images: ByteArray, size: tuple[int, int] | None) -> tuple[int, int]:
    height, width = images.shape[1:3]
    return size or (max(height, SMALLEST_SIDE), max(width, SMALLEST_SIDE))


@contextmanager
def _told_where_memory_ends(images: ByteArray, size: tuple[int, int] | None, device: torch.device) -> Iterator[None]:
    """Say what did not fit, and what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        seen = _seen(images, size)
        raise OutOfMemoryError(
            f"{len(images)} image(s) of {seen[0]}x{seen[1]} pixels do not fit on {device}; "
            "take fewer at once, a smaller window or a smaller size"
        ) from error
