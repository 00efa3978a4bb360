"""What every adaptation method must show; a new line in METHODS is tested from then on."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from segda.losses import SegmentationLoss
from segda.methods import METHODS, Method
from segda.types import IGNORE_INDEX, LabeledBatch, SegmentationOutput, UnlabeledBatch

NUM_CLASSES = 5

# Settings beyond the defaults that deserve the contract too.
CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in METHODS} | {
    "adversarial-multi": ("adversarial", {"levels": "multi"}),
    "adversarial-least-squares": ("adversarial", {"kind": "least_squares", "discriminator": "dwd"}),
    "adversarial-tfd": ("adversarial", {"discriminator": "tfd", "rank": 0.25}),
    "adversarial-cp": ("adversarial", {"discriminator": "cp", "rank": 0.1}),
}


class ToySegmenter(nn.Module):
    num_auxiliary = 1

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, NUM_CLASSES, 1)
        self.auxiliary_head = nn.Conv2d(8, NUM_CLASSES, 1)

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        features = self.trunk(image)
        size = image.shape[-2:]
        wanted = self.training if auxiliary is None else auxiliary
        heads = [self.head, self.auxiliary_head] if wanted else [self.head]
        logits, *rest = [functional.interpolate(head(features), size, mode="bilinear") for head in heads]
        return SegmentationOutput(logits, tuple(rest), features)


def build(case: str, seed: int = 0) -> Method:
    name, settings = CASES[case]
    torch.manual_seed(seed)
    config = METHODS[name].Config.model_validate({"name": name, **settings})
    return METHODS[name](ToySegmenter(), config=config, loss=SegmentationLoss("cross_entropy"), num_classes=NUM_CLASSES)


def batches(seed: int = 0) -> tuple[LabeledBatch, UnlabeledBatch]:
    """Images whose color tells the class, so that there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, NUM_CLASSES, (2, 4, 4), generator=generator)
    label = coarse.repeat_interleave(10, 1).repeat_interleave(10, 2)
    colors = torch.randn(NUM_CLASSES, 3, generator=torch.Generator().manual_seed(9))
    image = colors[label].permute(0, 3, 1, 2) + 0.1 * torch.randn(2, 3, 40, 40, generator=generator)
    label = label.clone()
    label[:, :3] = IGNORE_INDEX
    return LabeledBatch(image, label), UnlabeledBatch(image.flip(0) * 0.5 + 0.3)


def run_steps(method: Method, optimizers: dict[str, torch.optim.Optimizer], steps: range) -> list[float]:
    groups = method.parameter_groups()
    seen = []
    method.train()
    for step in steps:
        labeled, target = batches(step % 4)
        output = method.training_step(labeled, target, progress=step / 40)
        last = len(output.losses) - 1
        for index, (group, loss) in enumerate(output.losses.items()):
            loss.backward(inputs=groups[group], retain_graph=index < last)
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        method.after_step()
        seen.append(float(output.logs["loss_seg"]))
    return seen


def make_optimizers(method: Method) -> dict[str, torch.optim.Optimizer]:
    return {group: torch.optim.Adam(parameters, lr=3e-3) for group, parameters in method.parameter_groups().items()}


@pytest.mark.parametrize("case", CASES)
def test_losses_and_logs_are_finite_scalars(case):
    method = build(case)
    output = method.training_step(*batches(), progress=0.0)
    for value in (*output.losses.values(), *output.logs.values()):
        assert value.ndim == 0
        assert torch.isfinite(value)
    assert not any(value.requires_grad for value in output.logs.values())


@pytest.mark.parametrize("case", CASES)
def test_groups_cover_every_parameter_once_and_match_the_losses(case):
    method = build(case)
    groups = method.parameter_groups()
    listed = [id(parameter) for group in groups.values() for parameter in group]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(parameter) for parameter in method.parameters()}
    assert set(method.training_step(*batches(), progress=0.0).losses) == set(groups)


@pytest.mark.parametrize("case", CASES)
def test_each_group_gets_exactly_the_gradient_of_its_own_loss(case):
    """Compared with freezing the other groups, the way the reference implementations do it."""
    method = build(case)
    groups = method.parameter_groups()
    output = method.training_step(*batches(), progress=0.0)
    last = len(output.losses) - 1
    for index, (group, loss) in enumerate(output.losses.items()):
        loss.backward(inputs=groups[group], retain_graph=index < last)
    got = {group: [p.grad.clone() if p.grad is not None else None for p in ps] for group, ps in groups.items()}
    for group in groups:
        frozen = build(case)
        for other, parameters in frozen.parameter_groups().items():
            for parameter in parameters:
                parameter.requires_grad_(other == group)
        frozen.training_step(*batches(), progress=0.0).losses[group].backward()
        for parameter, gradient in zip(frozen.parameter_groups()[group], got[group], strict=True):
            if parameter.grad is None:
                assert gradient is None or not gradient.any()
            else:
                assert torch.equal(parameter.grad, gradient)


@pytest.mark.parametrize("case", CASES)
def test_same_seed_gives_the_same_weights_and_another_seed_does_not(case):
    first, again, other = build(case, 1), build(case, 1), build(case, 2)
    for method in (first, again, other):
        run_steps(method, make_optimizers(method), range(3))
    weights = [torch.cat([p.detach().flatten() for p in method.parameters()]) for method in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("case", CASES)
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(case):
    whole = build(case)
    run_steps(whole, make_optimizers(whole), range(4))

    first = build(case)
    first_optimizers = make_optimizers(first)
    run_steps(first, first_optimizers, range(2))
    second = build(case, seed=7)
    second.load_state_dict(first.state_dict())
    second_optimizers = make_optimizers(second)
    for group, optimizer in second_optimizers.items():
        optimizer.load_state_dict(first_optimizers[group].state_dict())
    run_steps(second, second_optimizers, range(2, 4))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


@pytest.mark.parametrize("case", CASES)
def test_forty_steps_lower_the_supervised_loss(case):
    method = build(case)
    seen = run_steps(method, make_optimizers(method), range(40))
    assert sum(seen[-4:]) < 0.7 * sum(seen[:4])


def test_one_segmenter_step_makes_the_target_look_more_like_the_source_to_the_discriminator():
    """The sign of the adversarial loss: with the discriminator fixed, D(target) moves towards SOURCE_DOMAIN = 0."""
    method = build("adversarial")
    _, target = batches()
    labeled, _ = batches()
    output = method.training_step(labeled, target, progress=0.0)
    segmenter = method.parameter_groups()["segmenter"]
    loss_adv = output.losses["segmenter"] - method.loss(method.segmenter(labeled.image), labeled.label)
    gradients = torch.autograd.grad(loss_adv, segmenter, allow_unused=True)

    @torch.no_grad()
    def judged() -> float:
        probs = method.segmenter(target.image, auxiliary=False).logits.softmax(1)
        return float(method.discriminators[0](probs).mean())

    before = judged()
    with torch.no_grad():
        scale = 1e-2 / max(float(g.norm()) for g in gradients if g is not None)
        for parameter, gradient in zip(segmenter, gradients, strict=True):
            if gradient is not None:
                parameter -= scale * gradient
    assert judged() < before


def test_the_discriminator_learns_to_tell_source_from_target():
    method = build("adversarial")
    optimizer = torch.optim.Adam(method.parameter_groups()["discriminator"], lr=1e-3)
    losses = []
    for _ in range(25):
        output = method.training_step(*batches(), progress=0.0)
        output.losses["discriminator"].backward(inputs=method.parameter_groups()["discriminator"])
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(output.logs["loss_discriminator"]))
    assert losses[-1] < 0.5 * losses[0]


def test_multi_level_has_one_discriminator_per_output_and_single_level_one():
    assert len(build("adversarial-multi").discriminators) == 2
    assert len(build("adversarial").discriminators) == 1


def test_source_only_is_blind_to_the_target():
    method = build("source_only")
    labeled, target = batches()
    garbage = UnlabeledBatch(torch.full_like(target.image, float("nan")))
    seen = method.training_step(labeled, garbage, progress=0.0).losses["segmenter"]
    assert torch.isfinite(seen)
    assert not METHODS["source_only"].needs_target
