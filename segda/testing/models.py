"""What every network must show.

A test of a network of one's own is one line:

    check_segmenter(MyNetwork, MyNetwork.Config(name="my_network"))

Each check takes the class and a configuration, builds the network with random weights, and raises `AssertionError` with a sentence
about what does not hold. Sizes are small: all checks together take a second or two.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from segda.models.base import ModelConfig, Segmenter
from segda.models.logits_only import LogitsOnly, training_only_names
from segda.tunable import Choice
from segda.types import SegmentationOutput

NUM_CLASSES = 5
# Multiples of 32, odd sizes, and the smallest that a network must take.
SIZES = ((64, 96), (65, 97), (33, 47), (32, 32))
_LARGE = 100_000_000  # parameters

SegmenterCheck = Callable[[type[Segmenter], ModelConfig], None]


def check_segmenter(kind: type[Segmenter], config: ModelConfig) -> None:
    """Run all checks of this file.

    Args:
        kind: the network.
        config: an instance of its `Config`.

    Raises:
        AssertionError: one of them does not hold.
    """
    for check in (check_shapes, *ARITHMETIC_CHECKS):
        check(kind, config)


def configurations(kind: type[Segmenter], *, name: str) -> Iterator[ModelConfig]:
    """Yield the network's default configuration, then one for each other choice of each field that declares choices.

    Args:
        kind: the network.
        name: key of `MODELS`.
    """
    default = kind.Config.model_validate({"name": name})
    yield default
    for field, info in kind.Config.model_fields.items():
        for choice in (item for item in info.metadata if isinstance(item, Choice)):
            for value in choice.values:
                if value != getattr(default, field):
                    yield kind.Config.model_validate({"name": name, field: value})


def check_shapes(kind: type[Segmenter], config: ModelConfig) -> None:
    """Every output has the size of the image, in training and in evaluation, odd sizes included.

    A network of hundreds of megabytes is built without memory; on others arithmetic is sooner done than PyTorch's rules for shapes.

    Args:
        kind: the network.
        config: an instance of its `Config`.

    Raises:
        AssertionError: a shape is another one.
    """
    with torch.device("meta"):
        network = kind(config, num_classes=NUM_CLASSES)
    device = "meta" if sum(parameter.numel() for parameter in network.parameters()) > _LARGE else "cpu"
    if device == "cpu":
        network = kind(config, num_classes=NUM_CLASSES)
    for height, width in SIZES:
        for training in (True, False):
            with torch.no_grad():
                output = network.train(training)(torch.zeros(2, 3, height, width, device=device))
            where = f"for 2 images of {height} x {width}, in {'training' if training else 'evaluation'} mode"
            _hold(isinstance(output, SegmentationOutput), f"a network returns SegmentationOutput, got {type(output)}")
            wanted = (2, NUM_CLASSES, height, width)
            came = tuple(output.logits.shape)
            _hold(came == wanted, f"logits must have the shape {wanted} {where}, got {came}")
            shapes = [tuple(scores.shape) for scores in output.auxiliary]
            expected = [wanted] * kind.num_auxiliary if training else []
            _hold(shapes == expected, f"auxiliary outputs must have the shapes {expected} {where}, got {shapes}")
            if output.boundary is not None:
                came, single = tuple(output.boundary.logits.shape), (2, 1, height, width)
                _hold(came == single, f"boundary logits must have the shape {single} {where}, got {came}")
                _hold(training, f"there must be no boundary output {where}")
            _hold(
                output.features.ndim == 4 and len(output.features) == 2,
                f"features must have the shape [B, F, h, w] {where}, got {tuple(output.features.shape)}",
            )


def check_configuration(kind: type[Segmenter], config: ModelConfig) -> None:
    """The configuration survives a round trip, and its architecture leaves out what only says where initial weights come from."""
    again = kind.Config.model_validate(config.model_dump(mode="json"))
    _hold(again == config, f"the configuration read back from its own data must equal it, got {again} for {config}")
    _hold(hash(again) == hash(config), "equal configurations must have the same hash; use tuples instead of lists")
    fields = kind.Config.model_fields
    for name in kind.Config.initial_weights:
        _hold(name in fields, f"initial_weights names {name}, which is no field of the configuration")
        _hold(not fields[name].is_required(), f"{name} says where initial weights come from and needs a default")
        _hold(name not in config.architecture(), f"the architecture must not depend on {name}")
    for name in kind.Config.unnamed_defaults:
        _hold(name in fields, f"unnamed_defaults names {name}, which is no field of the configuration")
        _hold(not fields[name].is_required(), f"{name} is left out of plain data at its default and needs one")


def check_auxiliary(kind: type[Segmenter], config: ModelConfig) -> None:
    """The argument `auxiliary` overrules the mode, and leaving auxiliary outputs out does not change the logits."""
    network, image = _build(kind, config), _images(2, 32, 48)
    for training in (True, False):
        network.train(training)
        for wanted in (True, False):
            output = network(image, auxiliary=wanted)
            count = len(output.auxiliary)
            expected = kind.num_auxiliary if wanted else 0
            _hold(count == expected, f"auxiliary={wanted} must give {expected} auxiliary outputs, got {count}")
            _hold(wanted or output.boundary is None, "auxiliary=False must give no boundary output")
    torch.manual_seed(0)  # dropout
    full = network.train()(image).logits
    torch.manual_seed(0)
    lean = network(image, auxiliary=False).logits
    _hold(torch.equal(full, lean), "logits must be the same with auxiliary outputs and without them")


def check_gradients(kind: type[Segmenter], config: ModelConfig) -> None:
    """Every parameter is trained; without auxiliary outputs every one but those of `training_only`. A trunk leaves heads."""
    network = _build(kind, config)
    parts = dict(network.named_children())
    trunk = kind.trunk_module
    _hold(trunk is None or trunk in parts, f"trunk_module must name one of {', '.join(parts)}, it is {trunk!r}")
    in_trunk = sum(1 for _ in network.trunk_parameters())
    _hold(in_trunk < sum(1 for _ in network.parameters()), f"the trunk {trunk} must leave parameters to heads")
    output = network(_images(3, 64, 96))
    weights = torch.randn_like(output.logits)
    total = torch.stack([(scores * weights).sum() for scores in _all_scores(output)]).sum()
    total.backward()  # type: ignore[no-untyped-call]
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    _hold(not without, f"every parameter must get a gradient in training, but not so {', '.join(without)}")

    network.zero_grad()
    network(_images(2, 32, 48), auxiliary=False).logits.square().sum().backward()
    unused = {name.partition(".")[0] for name, parameter in network.named_parameters() if parameter.grad is None}
    listed = {name for name in training_only_names(network) if any(True for _ in getattr(network, name).parameters())}
    _hold(
        unused == listed,
        f"the parts without gradient when auxiliary outputs are left out must be those in training_only, {sorted(listed)}, "
        f"got {sorted(unused)}",
    )


def check_images_are_independent(kind: type[Segmenter], config: ModelConfig) -> None:
    """In evaluation an image's logits depend on no other image of the batch, and not on its place in it."""
    network, image = _build(kind, config).eval(), _images(2, 40, 56)
    with torch.no_grad():
        together, alone = network(image).logits[1:], network(image[1:]).logits
    _close(together, alone, "logits of an image must not depend on its batch in evaluation")


def check_memory_format(kind: type[Segmenter], config: ModelConfig) -> None:
    """The memory format changes nothing but speed."""
    network, image = _build(kind, config).eval(), _images(2, 33, 47)
    with torch.no_grad():
        expected = network(image).logits
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        logits = network(image.contiguous(memory_format=torch.channels_last)).logits
    _close(logits, expected, "logits must be the same in channels_last memory format")


def check_precision(kind: type[Segmenter], config: ModelConfig) -> None:
    """Under autocast logits still have single precision, as losses want it, and are finite."""
    network = _build(kind, config)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(_images(2, 32, 48))
    for scores in _all_scores(output):
        _hold(scores.dtype == torch.float32, f"logits must be float32 under autocast, got {scores.dtype}")
        _hold(bool(scores.isfinite().all()), "logits must be finite under autocast")


def check_deployment(kind: type[Segmenter], config: ModelConfig) -> None:
    """What is shipped gives the same logits without the parts of `training_only`."""
    network, image = _build(kind, config), _images(1, 33, 47)
    view = LogitsOnly(network)
    left = {name.split(".")[1] for name in view.state_dict()} & set(training_only_names(network))
    _hold(not left, f"parts of training_only must not be shipped, got {', '.join(sorted(left))}")
    with torch.no_grad():
        _close(view(image), network.eval()(image).logits, "what is shipped must give the logits of the network")


def check_number_of_classes(kind: type[Segmenter], config: ModelConfig) -> None:
    """Fewer than two classes are refused with `ConfigError`; `Segmenter.__init__` does so."""
    try:
        kind(config, num_classes=1)
    except ValueError:
        return
    raise AssertionError(
        "a network of one class must be refused; call super().__init__(config, num_classes=num_classes)"
    )


ARITHMETIC_CHECKS: tuple[SegmenterCheck, ...] = (
    check_configuration,
    check_auxiliary,
    check_gradients,
    check_images_are_independent,
    check_memory_format,
    check_precision,
    check_deployment,
    check_number_of_classes,
)


def _build(kind: type[Segmenter], config: ModelConfig) -> Segmenter:
    torch.manual_seed(0)
    return kind(config, num_classes=NUM_CLASSES)


def _images(count: int, height: int, width: int) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def _all_scores(output: SegmentationOutput) -> list[Tensor]:
    """Return what losses read: class scores, and the boundary's if there are any."""
    return [output.logits, *output.auxiliary, *([] if output.boundary is None else [output.boundary.logits])]


def _hold(condition: bool, sentence: str) -> None:
    if not condition:
        raise AssertionError(sentence)


def _close(came: Tensor, expected: Tensor, sentence: str) -> None:
    difference = (came - expected).abs().max().item()
    allowed = 1e-4 * max(1.0, expected.abs().max().item())
    _hold(difference <= allowed, f"{sentence}, but they differ by {difference:.2g}")
