"""Predict the class of every pixel of images in memory; `predict_files` and `raster` do so for files."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from segda.datasets.cache import resize_image
from segda.datasets.loaders import normalize
from segda.device import autocast
from segda.device_errors import is_out_of_memory
from segda.errors import OutOfMemoryError
from segda.pictures import ByteArray

Progress = Callable[[int, int], None]  # (done, total) windows or files

CPU = torch.device("cpu")
SMALLEST_SIDE = 32  # pixels; the deepest feature map of the networks is 1/32 of the input


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
    height, width = images.shape[1:3]
    seen = size or (max(height, SMALLEST_SIDE), max(width, SMALLEST_SIDE))
    try:
        # Torch wants writable memory; the permuted view has channels_last strides, which `normalize` keeps.
        resized = np.stack([resize_image(image, size) for image in images]) if size is not None else images
        image = normalize(torch.from_numpy(np.require(resized, requirements=["C", "W"])).permute(0, 3, 1, 2).to(device))
        if size is None and seen != (height, width):
            image = functional.pad(image, (0, seen[1] - width, 0, seen[0] - height), mode="replicate")
        with torch.inference_mode(), autocast(device, dtype):
            logits: Tensor = segmenter(image).logits
        if size is not None and size != (height, width):
            logits = functional.interpolate(logits.float(), (height, width), mode="bilinear", align_corners=False)
        prediction = logits[:, :, :height, :width].argmax(dim=1).to(torch.uint8)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"{len(images)} image(s) of {seen[0]}x{seen[1]} pixels do not fit on {device}; "
            "take fewer at once, a smaller window or a smaller size"
        ) from error
    result: ByteArray = prediction.cpu().numpy()
    return result
