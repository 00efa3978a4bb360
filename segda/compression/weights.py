"""Which weights of a network may become zero: those of convolutions and linear layers, but for a few that carry everything.

Left alone are

- biases and normalization: few numbers, of another scale than weights;
- depthwise kernels: a channel has 9 to 25 weights of its own, and nothing else replaces what it loses;
- the first and the last layers, unless somebody asks for them. With PyTorch's usual initialization weights are of the size
  1 / sqrt(fan_in): of one ranking over a fresh discriminator 85 % take the whole of its last layer, and what is left says the
  same of every image ("dead"). Heads of segmenters, which are tiny, go in the same way;
- parts that only training runs, such as auxiliary heads: nobody ships them, and their zeros would be counted as if somebody did.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

from torch import nn

from segda.discriminators import Discriminator
from segda.models import Segmenter

_IMAGE_CHANNELS = 3


def segmenter_weights(segmenter: Segmenter, *, protect_ends: bool = True) -> dict[str, nn.Parameter]:
    """Return the weights of a segmenter that may become zero.

    First layers are those that see the image itself, with three input channels (BiSeNet has two: of its trunk and of its spatial
    path). Last layers are those whose outputs are scores of the classes, or of where classes meet: as many as there are classes,
    or one. Everything of that width counts, BiSeNet's fusion of both paths included, which is as wide as there are classes.

    Args:
        segmenter: any network.
        protect_ends: whether first and last layers are left out.

    Returns:
        Name of the parameter -> weight, in the order of the modules.
    """
    scores = (1, segmenter.num_classes)
    found = {}
    for name, layer in _layers(segmenter):
        is_end = _inputs(layer) == _IMAGE_CHANNELS or _outputs(layer) in scores
        if not (protect_ends and is_end) and name.partition(".")[0] not in segmenter.training_only:
            found[_of(name)] = segmenter.get_parameter(_of(name))
    return found


def discriminator_weights(method: nn.Module, *, protect_ends: bool = True) -> dict[str, nn.Parameter]:
    """Return the weights of a method's discriminators that may become zero.

    A layer is what `Discriminator.layer` builds; of factorized ones all factors belong to it.

    Args:
        method: any module that contains discriminators.
        protect_ends: whether the first and the last layer of each are left out.

    Returns:
        Name of the parameter in the method -> weight, in the order of the modules; each once.
    """
    found: dict[str, nn.Parameter] = {}
    for place, part in method.named_modules():
        if not isinstance(part, Discriminator):
            continue
        ends = {id(layer) for end in (part.layers[0], part.layers[-1]) for layer in end.modules()}
        for name, layer in _layers(part):
            if not (protect_ends and id(layer) in ends):
                found[_of(f"{place}.{name}" if place else name)] = part.get_parameter(_of(name))
    return found


def stages(segmenter: nn.Module, names: Collection[str], *, largest: float = 0.25) -> dict[str, list[str]]:
    """Cut a network into the modules that are pruned one by one.

    That are the network's own modules; one that holds more than a share `largest` of all weights, as a trunk does, stands for its
    parts. A part that is a row of blocks and still that large is cut into pieces of neighboring blocks, each as long as it can be
    without holding more.

    Args:
        segmenter: any network.
        names: of its weights that may become zero.
        largest: share of the weights.

    Returns:
        Dotted name of a module, or of the first and the last one of a piece (`backbone.layer3.0-5`) -> names of the weights in
        it.
    """
    sizes = {name: segmenter.get_parameter(name).numel() for name in names}
    most = largest * sum(sizes.values())

    def size(inside: Collection[str]) -> int:
        return sum(sizes[name] for name in inside)

    def parts(path: str) -> dict[str, list[str]]:
        children = [f"{path}.{name}" if path else name for name, _ in segmenter.get_submodule(path).named_children()]
        inside = {child: [name for name in names if name.startswith(f"{child}.")] for child in children}
        return {child: weights for child, weights in inside.items() if weights}

    def cut(path: str, inside: list[str], *, is_own: bool) -> dict[str, list[str]]:
        below = parts(path)
        if size(inside) <= most or not below:
            return {path: inside}
        if len(below) == 1:
            return cut(*next(iter(below.items())), is_own=is_own)
        if all(child.rpartition(".")[2].isdecimal() for child in below):
            return _pieces(below, [size(weights) for weights in below.values()], most)
        if not is_own:
            return {path: inside}
        return {name: weights for child in below.items() for name, weights in cut(*child, is_own=False).items()}

    return {name: weights for child in parts("").items() for name, weights in cut(*child, is_own=True).items()}


def _pieces(blocks: Mapping[str, list[str]], sizes: Sequence[int], most: float) -> dict[str, list[str]]:
    """Join neighboring blocks as long as they hold no more than `most` weights together."""
    pieces: list[list[str]] = []
    held = 0
    for block, size in zip(blocks, sizes, strict=True):
        if not pieces or held + size > most:
            pieces.append([])
            held = 0
        pieces[-1].append(block)
        held += size
    return {
        piece[0] if len(piece) == 1 else f"{piece[0]}-{piece[-1].rpartition('.')[2]}": [
            name for block in piece for name in blocks[block]
        ]
        for piece in pieces
    }


Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


def _layers(module: nn.Module) -> Iterator[tuple[str, Layer]]:
    for name, part in module.named_modules():
        if isinstance(part, Layer) and not _is_depthwise(part):
            yield name, part


def _is_depthwise(layer: Layer) -> bool:
    return not isinstance(layer, nn.Linear) and layer.groups == layer.in_channels > 1


def _inputs(layer: Layer) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def _outputs(layer: Layer) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _of(layer: str) -> str:
    return f"{layer}.weight" if layer else "weight"
