"""What a network can be run by on this machine, to use or to measure it: bytes of images in, class maps out, whatever computes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from segda.deployment.program import Accepts
from segda.deployment.shipped import Argmax

Precision = Literal["fp32", "bf16", "fp16", "int8"]
Run = Callable[[Tensor], Tensor]  # uint8 [B, 3, H, W] -> train ids uint8 [B, H, W]


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        segmenter: returns `SegmentationOutput`; left as it is.
        precision: arithmetic of convolutions.
        accepts: which images it is to take.
        argmax: where classes are decided, see `ShippedNetwork`; None: nowhere, it is run up to the scores of its head.
        device: where to compute.
        calibration: images that tell the ranges of int8, uint8 [3, H, W] each.
    """

    segmenter: nn.Module
    precision: Precision
    accepts: Accepts
    argmax: Argmax | None
    device: torch.device
    calibration: Sequence[Tensor]


@dataclass(frozen=True)
class Runtime:
    """A network that runs.

    Attributes:
        name: of the runtime.
        precision: arithmetic of convolutions.
        accepts: which images it takes.
        device: where it computes.
        run: maps images that it takes to class maps.
        threads: CPU threads that it uses inside an operation: as many as PyTorch had when it was built.
        notes: what else there is to know of it, e.g. how many convolutions compute in int8.
    """

    name: str
    precision: Precision
    accepts: Accepts
    device: torch.device
    run: Run
    threads: int = field(default_factory=torch.get_num_threads)
    notes: Mapping[str, str | int] = field(default_factory=dict)

    def __call__(self, image: Tensor) -> Tensor:
        """Map RGB 0..255, uint8 [B, 3, H, W], to train ids, uint8 [B, H, W].

        Raises:
            ConfigError: other images are taken.
        """
        self.accepts.check(image)
        return self.run(image)
