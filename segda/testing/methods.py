"""What every adaptation method must show, on a toy network and toy images: a few seconds in all.

    from segda.testing.methods import METHOD_CHECKS, MethodCase

    @pytest.mark.parametrize("check", METHOD_CHECKS.values(), ids=METHOD_CHECKS)
    def test_my_method(check):
        check(MethodCase(MyMethod, {"lambda_mine": 0.1}))

`segda.testing.runs` has further checks, which train on files.
"""

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from segda.discriminators import Discriminator
from segda.distributed import global_sum, joined, synchronize_batch_norm
from segda.draws import Draws
from segda.losses import Loss, SegmentationLoss
from segda.losses.additive import differentiate
from segda.methods import Method, StepInput, StepOutput
from segda.types import (
    IGNORE_INDEX,
    Boundary,
    BoundaryRule,
    LabeledBatch,
    PseudoLabel,
    SegmentationOutput,
    UnlabeledBatch,
)

NUM_CLASSES = 5
BATCH_SIZE = 4


@dataclass(frozen=True)
class MethodCase:
    """A method with settings.

    Attributes:
        method: the class.
        settings: beyond the defaults of its `Config`.
        round: number of the round that the method is in, if it has rounds; 0: before the first one.
        loss: what `SegmentationLoss` is made with, `class_weight` included.
        boundary: how the network learns where classes meet; None: it does not.
    """

    method: type[Method]
    settings: Mapping[str, Any] = field(default_factory=dict)
    round: int = 1
    loss: Mapping[str, Any] = field(default_factory=lambda: {"name": "cross_entropy"})
    boundary: BoundaryRule | None = None

    def build(self, seed: int = 0, *, normalized: bool = True) -> Method:
        """Return the method around a toy network, in training mode and in its round.

        Args:
            seed: of the initial weights.
            normalized: whether the network has batch normalization, which makes the images of a batch depend on each other.
        """
        torch.manual_seed(seed)
        built = self.method(
            ToySegmenter(normalized=normalized, boundary=self.boundary),
            config=self.method.Config.model_validate(dict(self.settings)),
            loss=SegmentationLoss(**self.loss),
            num_classes=NUM_CLASSES,
        )
        if self.round and built.round_starts():
            begin_round(built, self.round)
        return built.train()

    @cached_property
    def _has_rounds(self) -> bool:
        return bool(self.build().round_starts())

    def step(self, number: int = 0, *, padded: bool = False) -> StepInput:
        """Return a batch for a method like this: images whose color tells the class, so that there is something to learn.

        Args:
            number: of the step.
            padded: whether parts of the target images show nothing, as augmentation may have it.
        """
        generator = torch.Generator().manual_seed(number % 4)
        colors = torch.randn(NUM_CLASSES, 3, generator=torch.Generator().manual_seed(9))

        def images() -> tuple[Tensor, Tensor]:
            coarse = torch.randint(0, NUM_CLASSES, (BATCH_SIZE, 4, 4), generator=generator)
            label = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)
            noise = 0.1 * torch.randn(BATCH_SIZE, 3, 32, 32, generator=generator)
            return colors[label].permute(0, 3, 1, 2) + noise, label.clone()

        image, label = images()
        # Parts of a batch have very different numbers of labelled pixels.
        label[0, 4:] = IGNORE_INDEX
        label[1:, :3] = IGNORE_INDEX
        shifted, shifted_label = images()
        few, few_label = images()
        few_label[0, :20] = IGNORE_INDEX
        shifted, few = shifted * 0.5 + 0.3, few * 0.5 + 0.3
        round = self.round if self._has_rounds else 0
        has_labels = round > 0 and self.method.pseudo_labels is not Method.pseudo_labels
        shifted_label[1, 6:] = IGNORE_INDEX
        weight = torch.rand(BATCH_SIZE, 32, 32, generator=generator)
        valid = None
        if padded:
            valid = torch.ones_like(shifted_label, dtype=torch.bool)
            valid[0, 5:], valid[2, :, :9] = False, False  # parts of the batch differ
            shifted = shifted.masked_fill(~valid.unsqueeze(1), 0)
            shifted_label = shifted_label.masked_fill(~valid, IGNORE_INDEX)
        pseudo_label = PseudoLabel(shifted_label, weight) if has_labels else None
        if self.method.uses_external_labels(self.settings):
            # Of the last class nothing is said, so nothing is as confident as it is on average.
            means = torch.tensor([0.3, 0.5, 0.4, 0.6, torch.inf])
            said = shifted_label.masked_fill(shifted_label == NUM_CLASSES - 1, IGNORE_INDEX)
            pseudo_label = PseudoLabel(said, weight.masked_fill(said == IGNORE_INDEX, 0), means)
        target = UnlabeledBatch(shifted, pseudo_label, valid)
        return StepInput(
            labeled=LabeledBatch(image, label),
            target=target if self.method.needs_target else UnlabeledBatch(shifted[:0]),
            few_shot=LabeledBatch(few, few_label) if self.method.uses_few_shot(self.settings) else None,
            progress=min(number, 39) / 40,
            draws=Draws(seed=0, step=number),
            round=round,
        )


class ToySegmenter(nn.Module):
    """Two layers and an auxiliary head that return what a segmenter returns."""

    num_auxiliary = 1

    def __init__(self, *, normalized: bool = True, boundary: BoundaryRule | None = None) -> None:
        """Draw the weights; see `MethodCase.build`."""
        super().__init__()
        normalization = nn.BatchNorm2d(8) if normalized else nn.Identity()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), normalization, nn.ReLU())
        self.head = nn.Conv2d(8, NUM_CLASSES, 1)
        self.auxiliary_head = nn.Conv2d(8, NUM_CLASSES, 1)
        self.boundary = boundary
        if boundary is not None:
            self.boundary_head = nn.Conv2d(8, 1, 1)

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        """Segment images float [B, 3, H, W]."""
        features = self.trunk(image)
        size = (image.shape[2], image.shape[3])
        wanted = self.training if auxiliary is None else auxiliary
        heads = [self.head, self.auxiliary_head] if wanted else [self.head]
        logits, *rest = [functional.interpolate(head(features), size, mode="bilinear") for head in heads]
        if self.boundary is None or not wanted:
            return SegmentationOutput(logits, tuple(rest), features)
        scores = functional.interpolate(self.boundary_head(features), size, mode="bilinear")
        return SegmentationOutput(logits, tuple(rest), features, Boundary(scores, self.boundary))


def check_losses_are_finite(case: MethodCase) -> None:
    """Losses and logs are finite scalars, and training starts from something to lower."""
    output = case.build().training_step(case.step())
    for name, item in (*output.losses.items(), *output.logs.items()):
        value = item.value if isinstance(item, Loss) else item
        assert value.ndim == 0, f"{name} must be a scalar, it has shape {tuple(value.shape)}"
        assert torch.isfinite(value), f"{name} is {value.item()}"
    assert "segmenter" in output.losses, f"the losses must have one for the group segmenter, got {list(output.losses)}"


def check_groups_hold_what_is_trained(case: MethodCase) -> None:
    """Every parameter is in exactly one group, or frozen and in none; each group has a loss."""
    method = case.build()
    groups = method.parameter_groups()
    listed = [id(parameter) for group in groups.values() for parameter in group]
    assert len(listed) == len(set(listed)), "a parameter is in two groups"
    for name, parameter in method.named_parameters():
        assert parameter.requires_grad == (id(parameter) in listed), (
            f"{name} is in {'a' if id(parameter) in listed else 'no'} group and has requires_grad {parameter.requires_grad}; "
            "what no optimizer moves must be frozen, and what is frozen belongs to no group"
        )
    losses = set(method.training_step(case.step()).losses)
    assert losses == set(groups), f"groups are {sorted(groups)}, losses are of {sorted(losses)}"
    declared = method.uses_discriminator(case.settings)
    assert declared == any(isinstance(part, Discriminator) for part in method.modules()), (
        f"has_discriminator is {declared}; pruning.discriminator is offered where it is true, and needs a Discriminator"
    )


def check_each_group_gets_its_own_loss(case: MethodCase) -> None:
    """A group's gradient is that of its own loss alone: compared with freezing the other groups, as references do."""
    method = case.build()
    groups = method.parameter_groups()
    _computed(method, [case.step()])
    got = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in method.named_parameters()}
    for group in groups:
        frozen = case.build()
        for other, parameters in frozen.parameter_groups().items():
            for parameter in parameters:
                parameter.requires_grad_(other == group)
        torch.autograd.backward(frozen.training_step(case.step()).losses[group].value)
        for name, parameter in zip(_names(frozen, group), frozen.parameter_groups()[group], strict=True):
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            assert torch.allclose(got[name], expected, rtol=1e-5, atol=1e-7), (
                f"the gradient of {name} has a part that is not of its group's loss; the loss of another group reaches it"
            )


def check_a_step_changes_only_batch_norm(case: MethodCase) -> None:
    """`training_step` may be called more than once for a step: nothing but BatchNorm's running averages may change in it."""
    method = case.build()
    run_steps(case, method, make_optimizers(method), range(2))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.train()
    method.training_step(case.step(2))
    for name, value in method.state_dict().items():
        of_batch_norm = name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")
        assert of_batch_norm or torch.equal(value, before[name]), (
            f"training_step changed {name}; what changes from step to step belongs into after_step"
        )


def check_a_step_can_be_repeated(case: MethodCase) -> None:
    """Called twice for the same step, `training_step` draws the same."""
    method = case.build()
    run_steps(case, method, make_optimizers(method), range(2))
    kept = copy.deepcopy(method)
    first, again = method.training_step(case.step(2)), kept.training_step(case.step(2))
    for group, loss in first.losses.items():
        assert torch.equal(loss.sums, again.losses[group].sums), (
            f"the loss of {group} differs between two calls for the same step; draw from step.draws alone"
        )


def check_parts_equal_the_whole(case: MethodCase) -> None:
    """Gradients, losses and logs are those of the whole batch when it passes through the network in parts.

    A mean over some pixels that is not written as a sum and a count fails here.
    """
    whole, parts = (
        _computed(case.build(normalized=False), _parts(case.step(padded=True), number))
        for number in (1, BATCH_SIZE // 2)
    )
    _assert_equal(parts, whole, "in two parts")


def check_two_ranks_equal_the_whole(case: MethodCase) -> None:
    """Gradients, losses and logs are those of the whole batch when two processes share it, batch normalization included."""
    whole = _computed(case.build(), [case.step(padded=True)])
    parts = _parts(case.step(padded=True), 2)
    methods = [case.build() for _ in parts]  # one after the other: threads share the seed
    with tempfile.TemporaryDirectory() as place:

        def member(rank: int) -> dict[str, Tensor]:
            store = dist.FileStore(f"{place}/rendezvous", 2)  # type: ignore[attr-defined]
            group: Any = dist.ProcessGroupGloo(store, rank, 2, timedelta(seconds=60))
            synchronize_batch_norm(methods[rank])
            with joined(group):
                result = _computed(methods[rank], [parts[rank]])
            group.barrier().wait()  # who leaves at once may leave while the other one is still connecting
            return result

        with ThreadPoolExecutor(2) as ranks:
            for result in ranks.map(member, range(2)):
                _assert_equal(result, whole, "on two ranks")


def check_same_seed_gives_same_weights(case: MethodCase) -> None:
    """Training is a function of the seed, and of nothing else."""
    methods = [case.build(seed) for seed in (1, 1, 2)]
    for method in methods:
        run_steps(case, method, make_optimizers(method), range(3))
    first, again, other = (torch.cat([p.detach().flatten() for p in method.parameters()]) for method in methods)
    assert torch.equal(first, again), "two trainings with the same seed ended with different weights"
    assert not torch.equal(first, other), "trainings with different seeds ended with the same weights"


def check_resumed_equals_uninterrupted(case: MethodCase) -> None:
    """A method that was saved and loaded after two steps goes on bit for bit, averaged teachers and draws included."""
    whole = case.build()
    optimizers = make_optimizers(whole)
    run_steps(case, whole, optimizers, range(2))
    second = case.build(seed=7)
    second.load_state_dict(whole.state_dict())
    second_optimizers = make_optimizers(second)
    for group, optimizer in second_optimizers.items():
        optimizer.load_state_dict(copy.deepcopy(optimizers[group].state_dict()))
    for method, its_optimizers in ((whole, optimizers), (second, second_optimizers)):
        run_steps(case, method, its_optimizers, range(2, 4))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), (
            f"{name} differs after a resume; what a method keeps from step to step must be a parameter or a buffer"
        )


def check_rounds_begin_in_place(case: MethodCase) -> None:
    """A method with rounds begins one as its state says and in no other way, and keeps the tensors that optimizers hold."""
    method = case.build()
    starts = method.round_starts()
    assert list(starts) == sorted(starts), f"round_starts must ascend, got {starts}"
    assert all(0 <= start < 1 for start in starts), f"round_starts must be in [0, 1), got {starts}"
    if not starts:
        return
    run_steps(case, method, make_optimizers(method), range(2))
    again = copy.deepcopy(method)
    held = {name: id(tensor) for name, tensor in (*method.named_parameters(), *method.named_buffers())}
    for kept, seed in ((method, 1), (again, 2)):
        torch.manual_seed(seed)
        begin_round(kept, len(starts))
    now = {name: id(tensor) for name, tensor in (*method.named_parameters(), *method.named_buffers())}
    assert now == held, "begin_round replaced parameters or buffers; change them in place, as with copy_"
    for name, value in method.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), (
            f"begin_round left another {name} when it was called on a copy; it may depend on parameters, buffers and number alone"
        )


def check_rounds_label_every_image(case: MethodCase) -> None:
    """A method with rounds and pseudo-labels labels all images, twice in the same way, and changes nothing of itself."""
    method = case.build().eval()
    if not method.round_starts():
        return
    images = [case.step(number).target.image[: BATCH_SIZE - number] for number in range(3)]
    before = {name: value.clone() for name, value in method.state_dict().items()}
    with torch.inference_mode():
        labeled = [method.pseudo_labels(images, number=max(case.round, 1)) for _ in range(2)]
        first, again = ([] if labels is None else list(labels) for labels in labeled)
    if None in labeled:
        return
    for name, value in method.state_dict().items():
        assert torch.equal(value, before[name]), f"pseudo_labels changed {name}; of several processes only one calls it"
    assert len(first) == len(images), f"pseudo_labels must yield once per batch, gave {len(first)} for {len(images)}"
    assert len({pseudo.weight is None for pseudo in first}) == 1, (
        "pseudo_labels must give weights in all batches or in none"
    )
    for image, pseudo, same in zip(images, first, again, strict=True):
        size = (len(image), *image.shape[2:])
        assert pseudo.label.shape == size, f"pseudo-labels must have the images' size {size}, got {pseudo.label.shape}"
        is_class = (pseudo.label >= 0) & (pseudo.label < NUM_CLASSES)
        assert (is_class | (pseudo.label == IGNORE_INDEX)).all(), (
            "a pseudo-label is neither a train id nor IGNORE_INDEX"
        )
        assert torch.equal(pseudo.label, same.label), "pseudo_labels gave other labels when it was called again"
        if pseudo.weight is not None:
            assert pseudo.weight.shape == size, f"weights must have the images' size {size}, got {pseudo.weight.shape}"
            assert ((pseudo.weight >= 0) & (pseudo.weight <= 1)).all(), "weights must be in [0, 1]"


def check_rounds_choose_source_images(case: MethodCase) -> None:
    """A method that chooses source images chooses some, twice the same, and changes nothing of itself."""
    method = case.build().eval()
    if not method.round_starts():
        return
    images = [case.step(number).labeled.image[: BATCH_SIZE - number] for number in range(3)]
    before = {name: value.clone() for name, value in method.state_dict().items()}
    with torch.inference_mode():
        chosen, again = (method.choose_source(images, number=max(case.round, 1)) for _ in range(2))
    for name, value in method.state_dict().items():
        assert torch.equal(value, before[name]), f"choose_source changed {name}; of several processes only one calls it"
    if chosen is None:
        return
    assert chosen.dtype == torch.bool, f"choose_source must give bool, got {chosen.dtype}"
    count = sum(map(len, images))
    assert chosen.shape == (count,), f"choose_source must give one value for each of {count} images, got {chosen.shape}"
    assert chosen.any(), "choose_source must choose at least one image"
    assert again is not None, "choose_source chose other images when it was called again"
    assert torch.equal(chosen, again), "choose_source chose other images when it was called again"


def check_training_lowers_the_supervised_loss(case: MethodCase) -> None:
    """Twenty steps on toy images lower the supervised loss, which must be logged as `loss_seg`; rounds begin after half of them.

    The steps are every second one of forty, so that a method comes to all that it does late in a training.
    """
    before = replace(case, round=0)
    method = before.build()
    optimizers = make_optimizers(method, lr=1e-2)
    seen = run_steps(before, method, optimizers, range(0, 20, 2))
    if case.round and method.round_starts():
        begin_round(method, case.round)
    seen += run_steps(case, method, optimizers, range(20, 40, 2))
    assert sum(seen[-4:]) < 0.7 * sum(seen[:4]), f"loss_seg went from {seen[0]:.3f} to {seen[-1]:.3f} in twenty steps"


METHOD_CHECKS: dict[str, Callable[[MethodCase], None]] = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_losses_are_finite,
        check_groups_hold_what_is_trained,
        check_each_group_gets_its_own_loss,
        check_a_step_changes_only_batch_norm,
        check_a_step_can_be_repeated,
        check_parts_equal_the_whole,
        check_two_ranks_equal_the_whole,
        check_same_seed_gives_same_weights,
        check_resumed_equals_uninterrupted,
        check_rounds_begin_in_place,
        check_rounds_label_every_image,
        check_rounds_choose_source_images,
        check_training_lowers_the_supervised_loss,
    )
}


def make_optimizers(method: Method, *, lr: float = 3e-3) -> dict[str, Optimizer]:
    """Return an optimizer for each group."""
    return {group: torch.optim.Adam(parameters, lr=lr) for group, parameters in method.parameter_groups().items()}


@torch.no_grad()
def begin_round(method: Method, number: int) -> None:
    """Begin a round as the loop does, but for labels and choices."""
    method.begin_round(number)


def run_steps(case: MethodCase, method: Method, optimizers: Mapping[str, Optimizer], steps: range) -> list[float]:
    """Train on toy images, as the loop does; return the supervised loss of each step."""
    seen = []
    method.train()
    for number in steps:
        output = method.training_step(case.step(number))
        _back_propagate(method, output, {group: loss.sums.detach() for group, loss in output.losses.items()})
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        method.after_step()
        logged = output.logs["loss_seg"]
        seen.append((logged.value if isinstance(logged, Loss) else logged).item())
    return seen


def _parts(step: StepInput, number: int) -> list[StepInput]:
    size = BATCH_SIZE // number
    return [step] if number == 1 else step.parts(size)


def _computed(method: Method, parts: Sequence[StepInput]) -> dict[str, Tensor]:
    """Return gradients, losses and logs of a batch in parts, of which other ranks may have more."""
    outputs = [method.training_step(part) for part in parts]

    def whole(items: Sequence[Loss]) -> Tensor:
        return global_sum(torch.stack([item.sums.detach() for item in items]).sum(0))

    sums = {group: whole([output.losses[group] for output in outputs]) for group in outputs[0].losses}
    for output in outputs:
        _back_propagate(method, output, sums)
    result = {f"loss of {group}": differentiate(outputs[0].losses[group], total)[0] for group, total in sums.items()}
    for name, item in outputs[0].logs.items():
        if isinstance(item, Loss):
            logged = [output.logs[name] for output in outputs]
            total = whole([entry for entry in logged if isinstance(entry, Loss)])
            result[f"log {name}"] = differentiate(item, total)[0]
    for name, parameter in method.named_parameters():
        if parameter.grad is not None:
            result[f"gradient of {name}"] = global_sum(parameter.grad)
    return result


def _back_propagate(method: Method, output: StepOutput, sums: Mapping[str, Tensor]) -> None:
    groups = method.parameter_groups()
    last = len(output.losses) - 1
    for index, (group, loss) in enumerate(output.losses.items()):
        _, weights = differentiate(loss, sums[group])
        torch.autograd.backward(loss.sums, weights, inputs=groups[group], retain_graph=index < last)


def _names(method: Method, group: str) -> list[str]:
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    return [names[id(parameter)] for parameter in method.parameter_groups()[group]]


def _assert_equal(got: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    assert got.keys() == expected.keys()
    # Gradients that are zero but for rounding, such as those of a bias before batch normalization, have no relative error.
    smallest = 1e-3 * max(float(value.norm()) for value in expected.values())
    for name, value in expected.items():
        difference = float((got[name] - value).norm()) / max(float(value.norm()), smallest)
        assert difference < 1e-3, (
            f"{name} is {100 * difference:.1f} % off (relative L2) when the batch is computed {where}; a mean over some pixels "
            "must be written as segda.losses.mean(sum, count)"
        )
