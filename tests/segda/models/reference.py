"""Networks of others written down a second time, as plain functions of a state dict with the names of their authors' code.

A network is run once on an empty `Official`, which makes up every tensor that is asked for: this gives the names and shapes of a
file from its authors, and what its network says of an image. Everything is evaluated in double precision.
"""

import torch
from torch import Tensor
from torch.nn import functional

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


class Official:
    """A state dict that makes up what it lacks."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}
        self._generator = torch.Generator().manual_seed(0)

    def parameters(self, *, without: tuple[str, ...] = ()) -> int:
        """Count the numbers that are learned, but for those of modules whose names begin so."""
        learned = [name for name in self.state if not name.endswith(_BUFFERS) and not name.startswith(without)]
        return sum(self.state[name].numel() for name in learned)

    def tensor(self, name: str, *shape: int, spread: float, center: float = 0.0) -> Tensor:
        """Return a tensor; a new one is normal, and a float as in a file."""
        if name not in self.state:
            self.state[name] = center + spread * torch.randn(shape, generator=self._generator)
        assert self.state[name].shape == shape, name
        return self.state[name].double()

    def conv(
        self,
        x: Tensor,
        name: str,
        channels: int,
        side: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> Tensor:
        """Convolve; the padding keeps the size at stride 1."""
        inputs = x.shape[1] // groups
        weight = self.tensor(f"{name}.weight", channels, inputs, side, side, spread=(inputs * side**2) ** -0.5)
        shift = self.tensor(f"{name}.bias", channels, spread=0.3) if bias else None
        return functional.conv2d(x, weight, shift, stride, side // 2, groups=groups)

    def norm(self, x: Tensor, name: str, *, eps: float = 1e-5) -> Tensor:
        """Normalize with running statistics."""
        channels = x.shape[1]
        self.state.setdefault(f"{name}.num_batches_tracked", torch.tensor(7))
        # Variances are positive, and some of them small enough that eps matters.
        variance = self.tensor(f"{name}.running_var", channels, spread=1.0).abs()
        self.state[f"{name}.running_var"] = variance.float()
        mean = self.tensor(f"{name}.running_mean", channels, spread=0.3)
        weight = self.tensor(f"{name}.weight", channels, spread=0.2, center=0.5)
        bias = self.tensor(f"{name}.bias", channels, spread=0.2)
        scale = weight / (variance + eps).sqrt()
        return (x - mean[:, None, None]) * scale[:, None, None] + bias[:, None, None]


def enlarge(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def stem(w: Official, x: Tensor, name: str, width: int) -> Tensor:
    for index in (0, 3):
        x = w.norm(w.conv(x, f"{name}.{index}", width, 3, stride=2, bias=True), f"{name}.{index + 1}").relu()
    return x


def _shortcut(w: Official, x: Tensor, name: str, channels: int, *, stride: int, bias: bool) -> Tensor:
    if stride == 1 and x.shape[1] == channels:
        return x
    return w.norm(w.conv(x, f"{name}.downsample.0", channels, stride=stride, bias=bias), f"{name}.downsample.1")


def basic_block(w: Official, x: Tensor, name: str, channels: int, *, stride: int = 1, bias: bool = False) -> Tensor:
    y = w.norm(w.conv(x, f"{name}.conv1", channels, 3, stride=stride, bias=bias), f"{name}.bn1").relu()
    y = w.norm(w.conv(y, f"{name}.conv2", channels, 3, bias=bias), f"{name}.bn2")
    return y + _shortcut(w, x, name, channels, stride=stride, bias=bias)


def bottleneck(w: Official, x: Tensor, name: str, channels: int, *, stride: int = 1) -> Tensor:
    y = w.norm(w.conv(x, f"{name}.conv1", channels), f"{name}.bn1").relu()
    y = w.norm(w.conv(y, f"{name}.conv2", channels, 3, stride=stride), f"{name}.bn2").relu()
    y = w.norm(w.conv(y, f"{name}.conv3", 2 * channels), f"{name}.bn3")
    return y + _shortcut(w, x, name, 2 * channels, stride=stride, bias=False)


def stage(
    w: Official, x: Tensor, name: str, channels: int, depth: int = 2, *, stride: int = 1, bias: bool = False
) -> Tensor:
    """Every block but the last one ends in a ReLU."""
    for index in range(depth):
        x = x if index == 0 else x.relu()
        x = basic_block(w, x, f"{name}.{index}", channels, stride=stride if index == 0 else 1, bias=bias)
    return x


def _normalized_conv(w: Official, x: Tensor, name: str, first: int, channels: int, **options: object) -> Tensor:
    return w.conv(w.norm(x, f"{name}.{first}").relu(), f"{name}.{first + 2}", channels, **options)


def _pooled_scales(w: Official, x: Tensor, name: str, width: int, *, bias: bool) -> list[Tensor]:
    pooled = [functional.avg_pool2d(x, side, step, side // 2) for side, step in ((5, 2), (9, 4), (17, 8))]
    pooled.append(x.mean((2, 3), keepdim=True))
    scales = [_normalized_conv(w, maps, f"{name}.scale{i}", 1, width, bias=bias) for i, maps in enumerate(pooled, 1)]
    return [enlarge(scale, x) for scale in scales]


def dappm(w: Official, x: Tensor, name: str, width: int, channels: int, *, bias: bool = False) -> Tensor:
    cascade = [_normalized_conv(w, x, f"{name}.scale0", 0, width, bias=bias)]
    for number, scale in enumerate(_pooled_scales(w, x, name, width, bias=bias), 1):
        total = scale + cascade[-1]
        cascade.append(_normalized_conv(w, total, f"{name}.process{number}", 0, width, side=3, bias=bias))
    joined = _normalized_conv(w, torch.cat(cascade, 1), f"{name}.compression", 0, channels, bias=bias)
    return joined + _normalized_conv(w, x, f"{name}.shortcut", 0, channels, bias=bias)


def pappm(w: Official, x: Tensor, name: str, width: int, channels: int) -> Tensor:
    own = _normalized_conv(w, x, f"{name}.scale0", 0, width)
    totals = torch.cat([scale + own for scale in _pooled_scales(w, x, name, width, bias=False)], 1)
    refined = _normalized_conv(w, totals, f"{name}.scale_process", 0, 4 * width, side=3, groups=4)
    joined = _normalized_conv(w, torch.cat([own, refined], 1), f"{name}.compression", 0, channels)
    return joined + _normalized_conv(w, x, f"{name}.shortcut", 0, channels)


def head(
    w: Official, x: Tensor, name: str, width: int, classes: int, *, bias: bool = False, classifier: str = "conv2"
) -> Tensor:
    x = w.conv(w.norm(x, f"{name}.bn1").relu(), f"{name}.conv1", width, 3, bias=bias)
    return w.conv(w.norm(x, f"{name}.bn2").relu(), f"{name}.{classifier}", classes, bias=True)
