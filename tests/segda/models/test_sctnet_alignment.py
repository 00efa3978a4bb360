"""SCTNet's alignment against a second, literal version in NumPy and float64, for each of its four distances."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from segda.errors import ConfigError
from segda.models import MODELS, Segmenter, build_segmenter
from segda.models.alignment import Seen
from segda.models.sctnet import SCTNet
from segda.models.sctnet_alignment import SCTNetAlignment
from segda.models.segformer import SegFormer

CLASSES, SIZE, TEMPERATURE = 4, (65, 97), 4.0


def teacher_of(variant: str = "b0") -> SegFormer:
    """A frozen teacher whose scores are not all alike."""
    torch.manual_seed(1)
    teacher = (
        build_segmenter(MODELS["segformer_b0"].Config(), num_classes=CLASSES)
        if variant == "b0"
        else SegFormer(SegFormer.Config(variant=variant), num_classes=CLASSES)
    )
    with torch.no_grad():
        teacher.classifier.weight.mul_(50)
    return teacher.requires_grad_(False).eval()


def seen_of(student: Segmenter, image: Tensor) -> Seen:
    inner: list[Tensor] = []
    hooks = [
        student.get_submodule(name).register_forward_hook(lambda _m, _i, output: inner.append(output))
        for name in SCTNetAlignment.watched
    ]
    output = student(image)
    for hook in hooks:
        hook.remove()
    return Seen(output, tuple(inner))


@pytest.fixture(scope="module")
def parts() -> tuple[SegFormer, SCTNetAlignment, Tensor, Seen]:
    teacher = teacher_of()
    student = SCTNet(SCTNet.Config(), num_classes=CLASSES)
    alignment = SCTNetAlignment(student, teacher)
    image = torch.randn(4, 3, *SIZE, generator=torch.Generator().manual_seed(2))
    return teacher, alignment, image, seen_of(student, image)


def pixels_that_count() -> Tensor:
    """Of the last image none, of the first one a part whose border runs through positions of every map."""
    where = torch.ones(4, *SIZE, dtype=torch.bool)
    where[0, 40:], where[0, :, 70:], where[3] = False, False, False
    return where


def positions(where: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Return which positions overlap with a pixel that counts, one after the other."""
    found = np.zeros((len(where), height, width), bool)
    for row in range(height):
        for column in range(width):
            top, bottom = row * where.shape[1] // height, -(-(row + 1) * where.shape[1] // height)
            left, right = column * where.shape[2] // width, -(-(column + 1) * where.shape[2] // width)
            found[:, row, column] = where[:, top:bottom, left:right].any((1, 2))
    return found


def divergence(found: Tensor, wanted: Tensor, where: NDArray[np.bool_]) -> float:
    size = (wanted.shape[2], wanted.shape[3])
    maps = functional.interpolate(found.double(), size, mode="bilinear", align_corners=False).detach().numpy()
    counted, values = positions(where, *size), []
    for image in range(len(maps)):
        if not counted[image].any():
            continue
        for channel in range(maps.shape[1]):
            p, q = (
                np.exp(plane[image, channel][counted[image]] / TEMPERATURE) for plane in (maps, wanted.double().numpy())
            )
            p, q = p / p.sum(), q / q.sum()
            values.append(TEMPERATURE**2 * (q * np.log(q / p)).sum())
    return float(np.mean(values))


def standardized(found: Tensor, wanted: Tensor, where: NDArray[np.bool_]) -> Tensor:
    result = found.double().detach().clone()
    ours, theirs = (positions(where, maps.shape[2], maps.shape[3]) for maps in (found, wanted))
    for image in range(len(result)):
        if ours[image].any():
            own, their = result[image][:, ours[image]], wanted[image].double()[:, theirs[image]]
            mean, deviation = own.mean(1), own.std(1, correction=0)
            shifted = (result[image] - mean[:, None, None]) / deviation[:, None, None]
            result[image] = shifted * their.std(1, correction=0)[:, None, None] + their.mean(1)[:, None, None]
    return result


@pytest.mark.parametrize("some", [False, True])
def test_the_loss_is_the_published_sum_of_four_distances(
    parts: tuple[SegFormer, SCTNetAlignment, Tensor, Seen], some: bool
) -> None:
    teacher, alignment, image, seen = parts
    where = pixels_that_count() if some else None
    loss = alignment(teacher, image, seen, temperature=TEMPERATURE, where=where).value.item()

    counted = (torch.ones(4, *SIZE, dtype=torch.bool) if where is None else where).numpy()
    with torch.no_grad():
        levels = teacher.backbone(image)
        joined = teacher.head.join(levels)
        mixed = teacher.head.fuse(joined)
        own = teacher.head.fuse(standardized(alignment.joined(seen.output.features), joined, counted).float())
        third, fifth = seen.inner
        expected = (
            3 * divergence(teacher.classifier(own), teacher.classifier(mixed), counted)
            + 15 * divergence(own, mixed, counted)
            + 15 * divergence(alignment.thirty_second(fifth), levels[3], counted)
            + 15 * divergence(alignment.sixteenth(third), levels[2], counted)
        )
    assert loss == pytest.approx(expected, rel=2e-3)
    assert loss > 1


def test_what_parts_of_a_batch_say_adds_up_to_what_the_whole_says(
    parts: tuple[SegFormer, SCTNetAlignment, Tensor, Seen],
) -> None:
    teacher, alignment, image, seen = parts
    where = pixels_that_count()

    def loss_of(first: int, last: int):  # type: ignore[no-untyped-def]
        part = slice(first, last)
        features = seen.output._replace(features=seen.output.features[part])
        own = Seen(features, tuple(maps[part] for maps in seen.inner))
        return alignment(teacher, image[part], own, temperature=TEMPERATURE, where=where[part])

    whole, first, second = loss_of(0, 4), loss_of(0, 1), loss_of(1, 4)
    torch.testing.assert_close(first.sums + second.sums, whole.sums, rtol=1e-4, atol=1e-4)


def test_student_and_convolutions_learn_and_the_teacher_does_not(
    parts: tuple[SegFormer, SCTNetAlignment, Tensor, Seen],
) -> None:
    teacher, alignment, image, _ = parts
    torch.manual_seed(3)
    student = SCTNet(SCTNet.Config(), num_classes=CLASSES)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    optimizer = torch.optim.Adam([*student.parameters(), *alignment.parameters()], lr=1e-3)
    losses = []
    for _ in range(4):
        loss = alignment(teacher, image, seen_of(student, image), temperature=TEMPERATURE).value
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        for parameter in (*student.backbone.parameters(), *alignment.parameters()):
            assert parameter.grad is not None
        optimizer.step()

    assert losses[-1] < 0.9 * losses[0]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_where_no_pixel_counts_the_loss_and_its_gradient_are_zero(
    parts: tuple[SegFormer, SCTNetAlignment, Tensor, Seen],
) -> None:
    teacher, alignment, image, seen = parts
    loss = alignment(teacher, image, seen, temperature=TEMPERATURE, where=torch.zeros(4, *SIZE, dtype=torch.bool)).value
    gradients = torch.autograd.grad(loss, list(alignment.parameters()), retain_graph=True)
    assert loss.item() == 0
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)


@pytest.mark.parametrize(("variant", "teacher", "joined"), [("s", "b1", 1024), ("s", "b2", 3072), ("b", "b3", 3072)])
def test_convolutions_lead_from_the_student_to_the_width_of_the_teacher(
    variant: str, teacher: str, joined: int
) -> None:
    with torch.device("meta"):
        student = SCTNet(SCTNet.Config(variant=variant), num_classes=CLASSES)
        alignment = SCTNetAlignment(student, teacher_of(teacher))
    width = {"s": 32, "b": 64}[variant]
    assert {name: tuple(value.shape[:2]) for name, value in alignment.named_parameters() if value.ndim > 1} == {
        "sixteenth.weight": (320, 4 * width),
        "thirty_second.weight": (512, 8 * width),
        "joined.weight": (joined, 4 * width),
    }


def test_a_teacher_of_another_kind_is_one_line_of_error() -> None:
    student = SCTNet(SCTNet.Config(), num_classes=CLASSES)
    other = build_segmenter(MODELS["fast_scnn"].Config(), num_classes=CLASSES)
    with pytest.raises(ConfigError, match=r"learns the features of a segformer, the teacher is fast_scnn") as caught:
        SCTNetAlignment(student, other)
    assert "\n" not in str(caught.value)
