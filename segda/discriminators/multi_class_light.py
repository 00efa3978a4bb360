"""MultiClassLight: four depthwise-separable layers that end in as many channels as there are classes."""

from typing import ClassVar

from segda.discriminators.dwd import DWD


class MultiClassLight(DWD):
    """`DWD` of four layers with one output per class of the segmentation, of which two say the domain.

    Output 0 stands for the source and 1 for the target; the others have no meaning and stay in the softmax, where learning pushes
    them down (`segda.losses.adversarial`).

    Source: RTDA, arXiv:2110.11662, and the authors' code. Its weights of the outputs by how many source pixels have the class of
    that number are left out: they have nothing to do with domains, cancel in a weighted mean over one domain, and divide zero by
    zero where class 0 is the source's most frequent one.
    """

    hidden: ClassVar[tuple[int, ...]] = (64, 128, 256)
    stride: ClassVar[int] = 16

    def __init__(self, num_classes: int, *, rank: float = 0.5, dropout: float = 0.0) -> None:
        """Stack the layers; see `Discriminator.__init__`."""
        super().__init__(num_classes, rank=rank, outputs=num_classes, dropout=dropout)
