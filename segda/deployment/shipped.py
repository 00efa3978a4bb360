"""A network as it is shipped: from the bytes of an image to the class of every pixel, with nothing left for its user to do."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from segda.device import DTYPES
from segda.errors import ExportError
from segda.models.logits_only import inference_segmenter
from segda.types import IMAGE_MEAN, IMAGE_STD, SegmentationOutput

FloatPrecision = Literal["fp32", "bf16", "fp16"]
Argmax = Literal["full", "quarter"]
_QUARTER = 4


def deploy(module: nn.Module, *, device: torch.device, precision: FloatPrecision) -> nn.Module:
    """Copy a module as it would be run by PyTorch.

    Args:
        module: left as it is.
        device: where the copy lies.
        precision: type that weights are converted to ahead of time; activations follow.

    Returns:
        A copy in evaluation mode without training-only parts, in channels_last memory format.
    """
    shipped = inference_segmenter(module).to(device=device, dtype=DTYPES[precision])
    # nn.Module.to has no overload for the memory format alone in PyTorch's type stubs.
    return shipped.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class ShippedNetwork(nn.Module):
    """A segmenter with normalization before it and argmax behind it, without the parts that only training needs.

    Attributes:
        argmax: where classes are decided: at the image's size (`full`), or at a quarter of its sides, of which each pixel becomes a
            square of 4 x 4 (`quarter`). The second changes results: it saves most of the time behind the last convolution (a tenth
            of the whole in single precision, a third in int8), and things thinner than a square are lost or become thicker. None:
            nowhere; what comes out are scores at the resolution of the network's head, for telling what the rest costs.
    """

    scale: Tensor
    offset: Tensor

    def __init__(
        self, segmenter: nn.Module, *, argmax: Argmax | None = "full", precision: FloatPrecision = "fp32"
    ) -> None:
        """Copy a network.

        Args:
            segmenter: returns `SegmentationOutput`; left as it is.
            argmax: see the class.
            precision: type that weights are converted to; activations follow. Normalization and scores have single precision.

        Raises:
            ExportError: more classes than a byte can tell.
        """
        super().__init__()
        self.segmenter = inference_segmenter(segmenter).to(dtype=DTYPES[precision]).requires_grad_(False)
        self.num_classes: int = segmenter.num_classes  # type: ignore[assignment]
        if self.num_classes > 256:
            raise ExportError(
                f"a class map has one byte per pixel, which tells 256 classes apart, not {self.num_classes}"
            )
        self.argmax = argmax
        self._dtype = DTYPES[precision]
        mean, std = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
        self.register_buffer("scale", (1 / std)[:, None, None])
        self.register_buffer("offset", (-mean / std)[:, None, None])
        self.eval()

    def scores(self, image: Tensor) -> Tensor:
        """Return the logits of which the classes are those of the largest.

        Args:
            image: RGB, uint8 [B, 3, H, W].

        Returns:
            float32 [B, C, H, W], or [B, C, ceil(H / 4), ceil(W / 4)] at a quarter, or, where no class is decided, [B, C, h, w] at
            the resolution of the network's head.

        Raises:
            ExportError: the network decides by itself at which size it returns scores.
        """
        normalized = torch.addcmul(self.offset, image.float(), self.scale).to(self._dtype)
        if self.argmax == "full":
            return cast(SegmentationOutput, self.segmenter(normalized)).logits
        size = (image.shape[2], image.shape[3])
        coarse = None if self.argmax is None else tuple((side + _QUARTER - 1) // _QUARTER for side in size)
        with _EnlargedTo(coarse, instead_of=size, channels=self.num_classes):
            logits = cast(SegmentationOutput, self.segmenter(normalized)).logits
        if coarse is None and _equal(logits.shape[2:], size):
            raise ExportError(
                f"{type(self.segmenter).__name__} does not enlarge its scores bilinearly at its end, so it cannot stop before"
            )
        if coarse is not None and not _equal(logits.shape[2:], coarse):
            raise ExportError(
                f"argmax at a quarter needs a network that enlarges its scores bilinearly at its end; "
                f"{type(self.segmenter).__name__} does not, so use argmax: full"
            )
        return logits

    def forward(self, image: Tensor) -> Tensor:
        """Map uint8 [B, 3, H, W], RGB 0..255, to train ids uint8 [B, H, W], or to scores where no class is decided."""
        if self.argmax is None:
            return self.scores(image)
        # Of the largest of equal scores the first: as argmax does, which takes several times as long over channels.
        classes = self.scores(image).max(1).indices.to(torch.uint8)
        if self.argmax == "full":
            return classes
        return functional.interpolate(classes[:, None], size=(image.shape[2], image.shape[3]), mode="nearest")[:, 0]


class _EnlargedTo(TorchFunctionMode):
    """Lets a network enlarge its scores to another size than the image's, or not at all; the sizes on the way are its own."""

    def __init__(self, size: tuple[int, ...] | None, *, instead_of: Sequence[int], channels: int) -> None:
        super().__init__()
        self._size, self._instead_of, self._channels = size, instead_of, channels

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if (
            func is functional.interpolate
            and kwargs.get("mode") == "bilinear"
            and self._is_last(args[0], kwargs["size"])
        ):
            if self._size is None:
                return args[0]
            kwargs = {**kwargs, "size": self._size}
        return func(*args, **kwargs)

    def _is_last(self, maps: Tensor, size: Sequence[int]) -> bool:
        return maps.shape[1] == self._channels and _equal(size, self._instead_of)


def _equal(sizes: Sequence[int], others: Sequence[int]) -> bool:
    """Compare sizes, which are no numbers yet while a program is captured."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # takes half a second to import

    return all(statically_known_true(one == other) for one, other in zip(sizes, others, strict=True))
