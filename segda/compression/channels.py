"""Taking channels out of a network: a smaller dense one, faster with every kernel there is.

Zeros in weights cost as much as other numbers. What is fast is a layer with fewer channels, and whatever takes them must then have
fewer inputs: sums at shortcuts tie layers together, concatenations shift their channels. torch-pruning finds these groups in the
trace of a forward pass (Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023, arXiv:2301.12900), measures how much each
channel matters and cuts the tensors. Here are the choices that it leaves to its user:

- The pass that is traced has auxiliary outputs and boundary, or the heads of training would not fit any more. Parameters that are
  frozen are cut like the others; the trace alone would pass them by.
- What comes out of the network keeps its channels. Each output is read by a convolution that is there for the trace alone; whatever
  is tied to one is left as it is.
- Layers whose width a forward pass counts on (`fixed_width` of a module, see `segda.models.base.Segmenter`) keep their outputs. The
  trace ends behind them and begins anew, since reshaped attention, sums over channels and the like tie together what does not
  belong together. What is tied to a convolution in groups of several channels is left as it is.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from segda.device_errors import is_out_of_memory
from segda.errors import ConfigError
from segda.models import Segmenter, build_segmenter
from segda.models.widths import LAYERS, Layer, Width, is_grouped, layers_of, width_of
from segda.types import SegmentationOutput

# By which groups lose their channels together: the whole network is ranked, but no group loses more than this.
MOST_OF_A_GROUP = 0.9
_TRACED = (2, 3, 64, 96)  # the shape of the image; any will do


class _Group(NamedTuple):
    """Channels of several layers that can only be taken out together.

    Attributes:
        layer: the first of the layers.
        cut: what takes channels out of it.
        importance: of each channel, float [C] on the CPU; 1 on average over the group.
    """

    layer: nn.Module
    cut: Callable[..., Any]
    importance: Tensor


def slim(segmenter: Segmenter, *, ratio: float, round_to: int = 1, is_global: bool = False) -> Segmenter:
    """Return a network with fewer channels, and the best of its weights.

    Channels that belong together (see the head of this file) matter as much as the absolute values of their weights: the sum over
    each layer's weights of the channel, averaged over the layers of the group and divided by the mean of the group.

    The result is worth little until batch normalization has statistics of the new features (`segda.compression.slimming`), and is
    meant to be trained on.

    Args:
        segmenter: trained; left as it is. It may have been slimmed before.
        ratio: share of channels to take out, in (0, 1): of each group, or of all together. Parameters and multiply-accumulates fall
            with the square of what is left.
        round_to: widths are rounded to the nearest multiple of this, the smaller of two; a group that has no more channels than
            that keeps all. Odd widths are slow: 30 % less at multiples of 16 is faster than 30 % less as it comes.
        is_global: whether channels of all groups are ranked together, so that groups lose different shares, none more than 90 %.

    Returns:
        A network on the CPU in training mode, whose settings (`config.widths`) say how wide its layers are.

    Raises:
        ConfigError: ratio or rounding make no sense, or nothing can be taken out of this network, or not by these means.
    """
    if not 0 < ratio < 1:
        raise ConfigError(f"ratio must be a share of the channels between 0 and 1, e.g. 0.3, got {ratio:g}")
    if round_to < 1:
        raise ConfigError(f"round_to must be at least 1, got {round_to}")
    name = segmenter.config.label()
    work = copy.deepcopy(segmenter).cpu().requires_grad_(True).eval()
    before = {layer: width_of(layer) for layer in work.modules() if isinstance(layer, LAYERS)}
    try:
        with torch.random.fork_rng([]):  # for layers of the trace and of the new network, whose weights are replaced
            _take_out(work, ratio=ratio, round_to=round_to, is_global=is_global)
            config = work.config.model_copy(update={"widths": _widths(work, before)})
            result = build_segmenter(config, num_classes=work.num_classes, pretrained=False)
            result.load_state_dict(work.state_dict())
            _try_out(result)
    # The trace of a network that nobody has tried makes torch-pruning raise nearly anything.
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, ImportError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"no channels can be taken out of {name}: what is tied to what is not seen ({type(error).__name__}: {reason}); name "
            "the layers whose widths the forward pass counts on in fixed_width, or choose another network"
        ) from error
    if config.widths == segmenter.config.widths:
        raise ConfigError(
            f"ratio {ratio:g} with widths rounded to {round_to} takes nothing out of {name}; choose a larger ratio "
            "or a smaller rounding"
        )
    return result


def new_width(width: int, *, removed: float, round_to: int) -> int:
    """Return how many channels are left of a group.

    Args:
        width: channels that it has.
        removed: share to take out.
        round_to: multiple to round to; see `slim`.

    Example:
        >>> [new_width(width, removed=0.3, round_to=16) for width in (16, 24, 64, 128)]
        [16, 16, 48, 96]
        >>> new_width(64, removed=0.3, round_to=1)
        45
    """
    left = width * (1 - removed)
    rounded = math.ceil(left / round_to - 0.5 - 1e-9) * round_to
    return min(width, max(rounded, round_to))


def _widths(segmenter: Segmenter, before: Mapping[Layer, tuple[int, int]]) -> tuple[Width, ...] | None:
    """Return the widths of layers that are narrower than before, or were already named as narrow."""
    named = {name for name, *_ in segmenter.config.widths or ()}
    found = [(name, width_of(layer), before[layer]) for name, layer in layers_of(segmenter)]
    return tuple((name, *width) for name, width, earlier in found if width != earlier or name in named) or None


class _Probed(nn.Module):
    """A network with a convolution behind each output, so that what is tied to an output can be told."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter
        with torch.no_grad():
            outputs = _outputs_of(segmenter(torch.zeros(_TRACED), auxiliary=True))
        self.probes = nn.ModuleList(nn.Conv2d(scores.shape[1], 1, 1) for scores in outputs)

    def forward(self, image: Tensor) -> list[Tensor]:
        outputs = _outputs_of(self.segmenter(image, auxiliary=True))
        return [probe(scores) for probe, scores in zip(self.probes, outputs, strict=True)]


def _outputs_of(output: SegmentationOutput) -> list[Tensor]:
    edges = [] if output.boundary is None else [output.boundary.logits]
    return [output.logits, *output.auxiliary, *edges]


def _take_out(segmenter: Segmenter, *, ratio: float, round_to: int, is_global: bool) -> None:
    """Take channels out of a network in place."""
    # Takes a second to import, and nothing else needs it.
    from torch_pruning import DependencyGraph
    from torch_pruning.pruner.importance import GroupMagnitudeImportance

    probed = _Probed(segmenter)
    fixed = list(_fixed(segmenter))
    with torch.enable_grad():
        graph = DependencyGraph().build_dependency(
            probed,
            example_inputs=torch.zeros(_TRACED),
            forward_fn=lambda network, image: _traced(network, image, fixed),
            ignored_params=list(_loose_parameters(segmenter)),
            verbose=False,
        )
    measure = GroupMagnitudeImportance(p=1)
    untouched = {*probed.probes, *(layer for layer in segmenter.modules() if is_grouped(layer))}
    groups = []
    for members in graph.get_all_groups(
        ignored_layers=[*_leaves(fixed), *probed.probes], root_module_types=[nn.Conv2d, nn.Linear]
    ):
        if not any(
            item.dep.target.module in untouched for item in members if isinstance(item.dep.target.module, nn.Module)
        ):
            first = members[0].dep
            groups.append(_Group(first.target.module, first.handler, measure(members).cpu()))
    for group, removed in zip(groups, _shares(groups, ratio, is_global=is_global), strict=True):
        width = len(group.importance)
        least = group.importance.argsort(stable=True)[: width - new_width(width, removed=removed, round_to=round_to)]
        if len(least):
            graph.get_pruning_group(group.layer, group.cut, least.tolist()).prune()


def _shares(groups: Sequence[_Group], ratio: float, *, is_global: bool) -> Iterator[float]:
    """Yield what share of each group is to be taken out."""
    if not is_global:
        yield from (ratio for _ in groups)
        return
    everything = torch.cat([group.importance for group in groups])
    threshold = everything.sort().values[int(ratio * len(everything))]
    for group in groups:
        yield min((group.importance < threshold).double().mean().item(), MOST_OF_A_GROUP)


def _fixed(segmenter: Segmenter) -> Iterator[nn.Module]:
    """Yield the modules that keep their outputs."""
    for module in segmenter.modules():
        for name in getattr(module, "fixed_width", ()):
            yield module.get_submodule(name)


def _leaves(modules: Sequence[nn.Module]) -> list[nn.Module]:
    return list(dict.fromkeys(layer for module in modules for layer in module.modules() if isinstance(layer, LAYERS)))


def _loose_parameters(segmenter: Segmenter) -> Iterator[nn.Parameter]:
    """Yield the parameters that belong to no layer with a width; they are used behind fixed ones alone."""
    for module in segmenter.modules():
        if not isinstance(module, LAYERS):
            yield from module.parameters(recurse=False)


def _traced(network: nn.Module, image: Tensor, fixed: Sequence[nn.Module]) -> list[Tensor]:
    """Run a network for the trace: what fixed layers give is an output, and what follows begins anew."""
    cut: list[Tensor] = []

    def end_here(layer: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if isinstance(layer, LAYERS):
            cut.append(output)
        return output.detach()

    with ExitStack() as hooks:
        # Here, after those of torch-pruning, which must see what the layers really give.
        for module in dict.fromkeys([*_leaves(fixed), *fixed]):
            hooks.callback(module.register_forward_hook(end_here).remove)
        outputs: list[Tensor] = network(image)
    return [*outputs, *cut]


@torch.no_grad()
def _try_out(segmenter: Segmenter) -> None:
    """Raise if a narrowed network does not run, or gives something of another shape."""
    tried = copy.deepcopy(segmenter)  # training moves its statistics
    height, width = 65, 97
    for training in (True, False):
        output = tried.train(training)(torch.zeros(2, 3, height, width), auxiliary=True)
        wanted = (2, segmenter.num_classes, height, width)
        for scores in (output.logits, *output.auxiliary):
            if tuple(scores.shape) != wanted:
                raise ValueError(f"scores have the shape {tuple(scores.shape)} instead of {wanted}")
