"""Networks whose layers are narrower than their architecture says, as a list of widths.

A network that has lost channels is no other class with other numbers: each layer has a width of its own, and a file of weights
alone does not tell how to build it. So the settings of a network may hold the widths of its layers (`ModelConfig.widths`): it is
built as the architecture says, and each layer that the list names is then cut to its width. The list is plain data, so it stands in
configurations and checkpoints, and makes another architecture with an identity and costs of its own.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segda.errors import ConfigError

# Name of a layer, channels that it gives, channels that it takes; of a normalization these are the same number.
Width = tuple[str, int, int]
Layer = nn.Conv2d | nn.Linear | _BatchNorm | nn.LayerNorm
LAYERS = (nn.Conv2d, nn.Linear, _BatchNorm, nn.LayerNorm)


def is_depthwise(layer: nn.Module) -> bool:
    """Return whether a layer is a convolution in which each channel is by itself, so that it has one width."""
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels == layer.out_channels


def is_grouped(layer: nn.Module) -> bool:
    """Return whether a layer is a convolution in groups of several channels, which keeps its width."""
    return isinstance(layer, nn.Conv2d) and layer.groups > 1 and not is_depthwise(layer)


def width_of(layer: Layer) -> tuple[int, int]:
    """Return how many channels a layer gives and takes."""
    if isinstance(layer, nn.Conv2d):
        return layer.out_channels, layer.in_channels
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    if isinstance(layer, nn.LayerNorm):
        return layer.normalized_shape[-1], layer.normalized_shape[-1]
    return layer.num_features, layer.num_features


def layers_of(network: nn.Module) -> Iterator[tuple[str, Layer]]:
    """Yield the layers that have a width, with their names."""
    for name, layer in network.named_modules():
        if isinstance(layer, LAYERS):
            yield name, layer


@torch.no_grad()
def narrow(network: nn.Module, widths: Sequence[Width]) -> None:
    """Cut layers to their widths, in place; each keeps the first ones of its channels.

    That is for weights that come from a checkpoint, or for random ones. These stay as they were drawn for the wide layer.

    Args:
        network: as its architecture says.
        widths: of the layers that are narrower.

    Raises:
        ConfigError: a layer is not there, is not that wide, or has no width that could change.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        >>> narrow(network, [("0", 5, 3), ("1", 5, 5)])
        >>> network(torch.zeros(1, 3, 4, 4)).shape
        torch.Size([1, 5, 2, 2])
    """
    layers = dict(layers_of(network))
    for name, outputs, inputs in widths:
        layer = layers.get(name)
        if layer is None:
            raise ConfigError(
                f"widths name {name!r}, and the network has no convolution, linear layer or normalization of it"
            )
        widest = width_of(layer)
        if not 1 <= outputs <= widest[0] or not 1 <= inputs <= widest[1]:
            raise ConfigError(
                f"widths say that {name} gives {outputs} channels and takes {inputs}; the network's gives {widest[0]} and takes "
                f"{widest[1]}, and a layer can only become narrower"
            )
        if is_grouped(layer) or (
            outputs != inputs and (is_depthwise(layer) or not isinstance(layer, nn.Conv2d | nn.Linear))
        ):
            raise ConfigError(
                f"widths say that {name} gives {outputs} channels and takes {inputs}, which such a layer cannot"
            )
        _cut(layer, outputs, inputs)


def _cut(layer: Layer, outputs: int, inputs: int) -> None:
    if isinstance(layer, nn.Conv2d | nn.Linear):
        taken = 1 if is_depthwise(layer) else inputs
        if isinstance(layer, nn.Conv2d):
            layer.groups = outputs if is_depthwise(layer) else 1
            layer.out_channels, layer.in_channels = outputs, inputs
        else:
            layer.out_features, layer.in_features = outputs, inputs
        layer.weight = _first(layer.weight, outputs, taken)
        if layer.bias is not None:
            layer.bias = _first(layer.bias, outputs)
        return
    if isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = (outputs,)
    else:
        layer.num_features = outputs
    for name, parameter in list(layer.named_parameters(recurse=False)):
        setattr(layer, name, _first(parameter, outputs))
    for name, buffer in list(layer.named_buffers(recurse=False)):
        if buffer.ndim:
            setattr(layer, name, buffer[:outputs].clone())


def _first(parameter: Tensor, outputs: int, inputs: int | None = None) -> nn.Parameter:
    """Return the first rows of a parameter, and of these the first columns."""
    part = parameter[:outputs] if inputs is None else parameter[:outputs, :inputs]
    return nn.Parameter(part.clone(), requires_grad=parameter.requires_grad)
