"""SegFormer (Xie et al., NeurIPS 2021): a transformer of four scales, and a head that is nothing but 1x1 convolutions.

Every position asks all others, but answers come from few: keys and values are taken from a map that a strided convolution has made
8, 4 or 2 times smaller per side. What it costs still grows with the square of the number of pixels. Positions have no code of their
own; the zeros that 3x3 convolutions are padded with say where the border is. B1 to B3 are not fast, but can teach networks that are
(`segda.models.sctnet_alignment`).

Source: the authors' code (NVlabs/SegFormer). Deviations: no drop-path in training (there up to 0.1), so that a loss depends on the
weights, the images and the head's dropout; scores are enlarged to the image's size in the network.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from segda.depthwise import Conv2d
from segda.models.base import ModelConfig, Segmenter
from segda.models.blocks import ConvBNReLU, enlarge_scores, resize
from segda.models.official_weights import OfficialNames, OfficialWeightsConfig, load_official_weights
from segda.tunable import Choice
from segda.types import SegmentationOutput

Size = tuple[int, int]


class _Variant(NamedTuple):
    channels: tuple[int, int, int, int]  # at 1/4, 1/8, 1/16 and 1/32
    depths: tuple[int, int, int, int]  # blocks there
    head_width: int


_VARIANTS = {
    "b0": _Variant((32, 64, 160, 256), (2, 2, 2, 2), head_width=256),
    "b1": _Variant((64, 128, 320, 512), (2, 2, 2, 2), head_width=256),
    "b2": _Variant((64, 128, 320, 512), (3, 4, 6, 3), head_width=768),
    "b3": _Variant((64, 128, 320, 512), (3, 4, 18, 3), head_width=768),
}


class _Stage(NamedTuple):
    channels: int
    depth: int
    heads: int
    reduction: int  # of the map that keys and values are taken from, per side
    kernel_size: int  # of the convolution that the stage begins with
    stride: int


def _stages(variant: _Variant) -> tuple[_Stage, ...]:
    shapes = ((1, 8, 7, 4), (2, 4, 3, 2), (5, 2, 3, 2), (8, 1, 3, 2))  # the same in all variants
    return tuple(
        _Stage(channels, depth, *shape)
        for channels, depth, shape in zip(variant.channels, variant.depths, shapes, strict=True)
    )


_EXPANSION = 4
# Normalizations that follow a convolution have PyTorch's 1e-5, the others this.
_NORM_EPSILON = 1e-6


def _official_names(variant: _Variant) -> OfficialNames:
    """Return how the authors' files call the parts of a variant; in those of the trunk alone the first word is missing."""
    own = {
        "decode_head.linear_fuse.conv": "head.fuse.0",
        "decode_head.linear_fuse.bn": "head.fuse.1",
        "decode_head.linear_pred": "classifier",
    }
    for number, depth in enumerate(variant.depths, start=1):
        own[f"decode_head.linear_c{number}.proj"] = f"head.levels.c{number}"
        for prefix in ("backbone.", ""):
            own[f"{prefix}patch_embed{number}"] = f"backbone.stage{number}.embed"
            own[f"{prefix}block{number}"] = f"backbone.stage{number}.blocks"
            own[f"{prefix}norm{number}"] = f"backbone.stage{number}.norm"
            for index in range(depth):
                block = f"backbone.stage{number}.blocks.{index}"
                own[f"{prefix}block{number}.{index}.mlp.dwconv.dwconv"] = f"{block}.mlp.dwconv"
    # What is foreign is the classifier of images, and a layer that the authors' framework builds and nothing runs.
    return OfficialNames(own, ("head", "classifier"), ("classifier",), foreign=("head.", "decode_head.conv_seg."))


class SegFormerB0Config(OfficialWeightsConfig):
    """Settings of `SegFormerB0`."""

    name: Literal["segformer_b0"] = "segformer_b0"
    weights_file: Path | None = Field(
        None,
        description="local copy of mit_b0.pth (ImageNet), or of one of the segformer.b0.*.pth (Cityscapes, ADE20K), to which the "
        "README of github.com/NVlabs/SegFormer links; not for commercial use",
    )


class SegFormerConfig(OfficialWeightsConfig):
    """Settings of `SegFormer`."""

    name: Literal["segformer"] = "segformer"
    variant: Annotated[Literal["b1", "b2", "b3"], Choice("b1", "b2", "b3")] = Field(
        "b1", description="width and depth; the smallest one is a network of its own, segformer_b0"
    )
    weights_file: Path | None = Field(
        None,
        description="local copy of mit_b1.pth, mit_b2.pth or mit_b3.pth (ImageNet), or of one of the segformer.b1.*.pth, b2 or b3 "
        "(Cityscapes, ADE20K), to which the README of github.com/NVlabs/SegFormer links; not for commercial use",
    )


# Both copy, in the order of their axes. Of a view, what follows asks in which order it lies, and so whether there is a single image
# or a single pixel, which programs for any number of them must not depend on.


def _to_tokens(features: Tensor) -> Tensor:
    """Turn float [B, C, h, w] into float [B, h * w, C]."""
    return features.flatten(2).transpose(1, 2).clone(memory_format=torch.contiguous_format)


def _to_map(tokens: Tensor, size: Size) -> Tensor:
    """Turn float [B, h * w, C] into float [B, C, h, w]."""
    return torch.unflatten(tokens.transpose(1, 2), 2, size).clone(memory_format=torch.contiguous_format)


class Attention(nn.Module):
    """Softmax attention of all positions to those of a smaller map."""

    # Cut into heads, and into keys and values.
    fixed_width = ("q", "kv")

    def __init__(self, stage: _Stage) -> None:
        """Build the layers.

        Args:
            stage: its width, heads and reduction.
        """
        super().__init__()
        channels = stage.channels
        self._heads, self._is_reduced = stage.heads, stage.reduction > 1
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        if self._is_reduced:
            self.sr = nn.Conv2d(channels, channels, stage.reduction, stage.reduction)
            self.norm = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, size: Size) -> Tensor:
        """Map float [B, h * w, C] to another one.

        The product of queries and keys, its softmax and the weighted sum are one operation of PyTorch, which adds up in single
        precision whatever it is given and never holds the whole matrix.

        Args:
            tokens: normalized features.
            size: h and w, at least as large as the reduction.
        """
        context = self.norm(_to_tokens(self.sr(_to_map(tokens, size)))) if self._is_reduced else tokens
        key, value = map(self._split, self.kv(context).chunk(2, dim=2))
        mixed = functional.scaled_dot_product_attention(self._split(self.q(tokens)), key, value)
        result: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return result

    def _split(self, tokens: Tensor) -> Tensor:
        """Turn float [B, N, C] into float [B, heads, N, C / heads]."""
        return torch.unflatten(tokens, 2, (self._heads, -1)).transpose(1, 2)


class MixFFN(nn.Module):
    """Two layers on each position, with a depthwise 3x3 convolution in between."""

    def __init__(self, channels: int) -> None:
        """Build the layers.

        Args:
            channels: channels in and out.
        """
        super().__init__()
        width = _EXPANSION * channels
        self.fc1 = nn.Linear(channels, width)
        self.dwconv = Conv2d(width, width, 3, padding=1, groups=width)
        self.fc2 = nn.Linear(width, channels)

    def forward(self, tokens: Tensor, size: Size) -> Tensor:
        """Map float [B, h * w, channels] to another one."""
        mixed = _to_tokens(self.dwconv(_to_map(self.fc1(tokens), size)))
        result: Tensor = self.fc2(functional.gelu(mixed))
        return result


class Block(nn.Module):
    """Attention and `MixFFN`, each on normalized features and added to them as they were."""

    def __init__(self, stage: _Stage) -> None:
        """Build both.

        Args:
            stage: of which it is a block.
        """
        super().__init__()
        self.norm1 = nn.LayerNorm(stage.channels, eps=_NORM_EPSILON)
        self.attn = Attention(stage)
        self.norm2 = nn.LayerNorm(stage.channels, eps=_NORM_EPSILON)
        self.mlp = MixFFN(stage.channels)

    def forward(self, tokens: Tensor, size: Size) -> Tensor:
        """Map float [B, h * w, C] to another one."""
        tokens = tokens + self.attn(self.norm1(tokens), size)
        result: Tensor = tokens + self.mlp(self.norm2(tokens), size)
        return result


class PatchEmbedding(nn.Module):
    """A strided convolution whose windows overlap, normalized."""

    def __init__(self, in_channels: int, stage: _Stage) -> None:
        """Build the layers.

        Args:
            in_channels: channels of the input.
            stage: which begins with it.
        """
        super().__init__()
        self.proj = nn.Conv2d(
            in_channels, stage.channels, stage.kernel_size, stage.stride, padding=stage.kernel_size // 2
        )
        self.norm = nn.LayerNorm(stage.channels)

    def forward(self, features: Tensor) -> tuple[Tensor, Size]:
        """Map float [B, in_channels, h, w] to float [B, ceil(h / stride) * ceil(w / stride), C] and these two lengths."""
        smaller = self.proj(features)
        return self.norm(_to_tokens(smaller)), (smaller.shape[2], smaller.shape[3])


class Stage(nn.Module):
    """Features of one scale."""

    def __init__(self, in_channels: int, stage: _Stage) -> None:
        """Build the layers.

        Args:
            in_channels: channels of the input.
            stage: all else.
        """
        super().__init__()
        self.embed = PatchEmbedding(in_channels, stage)
        self.blocks = nn.ModuleList(Block(stage) for _ in range(stage.depth))
        self.norm = nn.LayerNorm(stage.channels, eps=_NORM_EPSILON)

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, in_channels, h, w] to float [B, C, ceil(h / stride), ceil(w / stride)]."""
        tokens, size = self.embed(features)
        for block in self.blocks:
            tokens = block(tokens, size)
        return _to_map(self.norm(tokens), size)


class MixTransformer(nn.Module):
    """The trunk, MiT: features at 1/4, 1/8, 1/16 and 1/32."""

    def __init__(self, stages: Sequence[_Stage]) -> None:
        """Build the layers.

        Args:
            stages: all four.
        """
        super().__init__()
        self.stage1, self.stage2, self.stage3, self.stage4 = (
            Stage(in_channels, stage)
            for in_channels, stage in zip((3, *(stage.channels for stage in stages)), stages, strict=False)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map float [B, 3, H, W] to the four features, the finest first."""
        x, levels = image, []
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4):
            x = stage(x)
            levels.append(x)
        return levels


class Head(nn.Module):
    """Brings all scales to the same channels and the finest one's size and mixes them."""

    def __init__(self, stages: Sequence[_Stage], width: int) -> None:
        """Build the layers.

        Args:
            stages: whose features come in.
            width: channels of each scale, and of the result.
        """
        super().__init__()
        self.levels = nn.ModuleDict(
            {f"c{number}": nn.Linear(stage.channels, width) for number, stage in enumerate(stages, start=1)}
        )
        self.fuse = ConvBNReLU(len(stages) * width, width, kernel_size=1)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Map features at four scales, the finest first, to float [B, width, h, w] at the finest one's size."""
        result: Tensor = self.fuse(self.join(levels))
        return result

    def join(self, levels: list[Tensor]) -> Tensor:
        """Return what is mixed: float [B, 4 * width, h, w], all scales at the finest one's size, the coarsest first."""
        finest = (levels[0].shape[2], levels[0].shape[3])
        projected = [
            _to_map(project(_to_tokens(level)), (level.shape[2], level.shape[3]))
            for project, level in zip(self.levels.values(), levels, strict=True)
        ]
        # Under autocast interpolation returns single precision.
        enlarged = [resize(level, size=finest).to(level.dtype) for level in reversed(projected)]
        return torch.cat(enlarged, dim=1)


class SegFormer(Segmenter):
    """The network, in its larger variants.

    With 19 classes b1 has 13,682,131 parameters, b2 27,361,235 and b3 47,237,075.
    """

    Config: ClassVar[type[ModelConfig]] = SegFormerConfig
    trunk_module: ClassVar[str | None] = "backbone"

    def __init__(self, config: Any, *, num_classes: int) -> None:
        """Build the network with the authors' initialization; see `Segmenter.__init__`."""
        super().__init__(config, num_classes=num_classes)
        variant = self._variant()
        stages = _stages(variant)
        self.backbone = MixTransformer(stages)
        self.head = Head(stages, variant.head_width)
        self.dropout = nn.Dropout2d(0.1)
        self.classifier = nn.Conv2d(variant.head_width, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # Scores start small, as those of the authors' head do.
        nn.init.normal_(self.classifier.weight, std=0.01)

    def _variant(self) -> _Variant:
        return _VARIANTS[self.config.variant]

    def load_initial_weights(self) -> None:
        """Load the official weights that the configuration names; see `load_official_weights`."""
        load_official_weights(self, self.config, _official_names(self._variant()))

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        """Segment images; see `Segmenter.forward`.

        Args:
            image: normalized, float [B, 3, H, W].
            auxiliary: of no effect, there are no auxiliary outputs.

        Returns:
            Logits float [B, num_classes, H, W]; features float [B, F, ceil(H / 4), ceil(W / 4)], F 256 in b0 and b1, else 768.
        """
        features = self.head(self.backbone(image))
        scores = self.classifier(self.dropout(features))
        return SegmentationOutput(enlarge_scores(scores, sizes=[(image.shape[2], image.shape[3])]), (), features)


class SegFormerB0(SegFormer):
    """The network, in its smallest variant.

    With 19 classes it has 3,719,027 parameters and needs 7.9 G multiply-accumulates at 512 x 512 and 121.8 G at 1024 x 2048.
    """

    Config: ClassVar[type[ModelConfig]] = SegFormerB0Config

    def _variant(self) -> _Variant:
        return _VARIANTS["b0"]
