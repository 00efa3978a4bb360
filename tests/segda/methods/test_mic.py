"""Masked consistency: its loss in NumPy, whose teacher it asks, and that its host goes on as if it were alone."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segda.batch_norm import running_averages_kept
from segda.config import TrainConfig
from segda.methods import METHODS, StepInput
from segda.methods.masks import draw_masks
from segda.methods.mic import Mic, MicConfig
from segda.methods.teacher import make_teacher, move_teacher
from segda.testing.methods import BATCH_SIZE, MethodCase, make_optimizers, run_steps
from segda.types import IGNORE_INDEX

PLAIN = {"jitter_probability": 0, "blur_probability": 0}  # masked images as they are but for the masks


def case(host: str, *, of_host: dict[str, object] | None = None, **settings: object) -> MethodCase:
    return MethodCase(METHODS["mic"], {"host": {"name": host, **(of_host or {})}, **settings})


def log_probs(logits: Tensor) -> np.ndarray:
    plain = logits.detach().double().numpy()
    shifted = plain - plain.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def expected_loss(
    method: nn.Module, teacher: nn.Module, step: StepInput, *, tau: float, side: int
) -> tuple[float, float]:
    """Return the loss on masked images and w, with networks given and everything else of its own."""
    image = step.target.image
    shown = np.ones((BATCH_SIZE, 32, 32), dtype=bool) if step.target.valid is None else step.target.valid.numpy()
    with torch.no_grad():
        probs = np.exp(log_probs(teacher(image).logits))
    confident = (probs.max(1) >= tau)[shown].mean()
    hidden = np.zeros(image.shape, dtype=bool)
    for number in range(BATCH_SIZE):
        generator = step.draws.generator(number, "masked squares")
        drawn = torch.rand(-(-32 // side), -(-32 // side), generator=generator).numpy() < method.config.ratio
        for y in range(32):
            for x in range(32):
                hidden[number, :, y, x] = drawn[y // side, x // side]
    masked = np.where(hidden, 0.0, image.numpy()).astype(np.float32)
    with running_averages_kept(method.segmenter):
        output = method.segmenter(torch.from_numpy(masked))
    entropy = sum(
        -np.take_along_axis(log_probs(logits), probs.argmax(1)[:, None], axis=1)[:, 0]
        for logits in (output.logits, *output.auxiliary)
    )
    return float(confident * entropy[shown].mean()), float(confident)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("host", ["source_only", "dacs"])
def test_a_step_is_the_host_s_and_the_weighted_cross_entropy_on_masked_images(host, padded):
    of_host = {"tau": 0.3, **PLAIN} if host == "dacs" else {}
    used = case(host, of_host=of_host, tau=0.25, ratio=0.6, block=0.15, lambda_masked=0.7, **PLAIN)
    method = used.build()
    run_steps(used, method, make_optimizers(method), range(10))
    assert isinstance(method, Mic)
    step = used.step(10, padded=padded)
    teacher = method.host.teacher if host == "dacs" else method.teacher
    expected, confident = expected_loss(method.train(), teacher, step, tau=0.25, side=5)  # 0.15 * 32, rounded
    assert 0 < confident < 1
    of_the_host = method.host.training_step(step)
    output = method.training_step(step)
    assert output.logs["loss_masked"].value.item() == pytest.approx(expected, rel=1e-5)
    assert output.logs["confident_masked"].value.item() == pytest.approx(confident)
    alone = of_the_host.losses["segmenter"].value.item()
    assert output.losses["segmenter"].value.item() == pytest.approx(alone + 0.7 * expected, rel=1e-5)
    assert output.logs.keys() == of_the_host.logs.keys() | {"loss_masked", "confident_masked"}


@pytest.mark.parametrize(
    ("host", "of_host"),
    [
        ("source_only", {}),
        ("adversarial", {}),
        ("dacs", {"tau": 0.3, "alpha": 0.5}),
        ("joint", {}),
        ("naae", {}),
        ("self_training", {}),
    ],
)
def test_without_weight_the_host_is_trained_as_if_it_were_alone_bit_for_bit(host, of_host):
    """Draws, groups, statistics of batch normalization and few-shot images included."""
    alone, hosted = MethodCase(METHODS[host], of_host), case(host, of_host=of_host, lambda_masked=0)
    method, other = alone.build(), hosted.build()
    run_steps(alone, method, make_optimizers(method), range(3))
    run_steps(hosted, other, make_optimizers(other), range(3))
    assert isinstance(other, Mic)
    assert other.needs_few_shot == METHODS[host].needs_few_shot
    assert other.reconstruction == METHODS[host].reconstruction
    for name, value in method.state_dict().items():
        assert torch.equal(other.host.state_dict()[name], value), name


def test_the_teacher_is_the_host_s_which_is_asked_once_and_otherwise_one_of_its_own():
    with_one, without = case("dacs").build(), case("source_only").build()
    assert isinstance(with_one, Mic)
    assert isinstance(without, Mic)
    assert not hasattr(with_one, "teacher")
    seen: list[Tensor] = []
    for teacher in (with_one.host.teacher, without.teacher):
        assert isinstance(teacher, nn.Module)
        teacher.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for number, method in enumerate((with_one, without), start=1):
        step = case("dacs").step()
        method.training_step(step)
        assert len(seen) == number
        assert torch.equal(seen[-1], step.target.image)  # whole


def test_its_own_teacher_stays_frozen_in_evaluation_mode_and_follows_weights_and_statistics_after_a_step():
    """The traps: gradients to it, statistics that stay as they began, averages without a warm-up, a count that is not kept."""
    used = case("source_only", tau=0.0)
    method = used.build()
    assert isinstance(method, Mic)
    for outer in (method, nn.Sequential(method)):
        outer.train()
        assert method.segmenter.training
        assert not any(module.training for module in method.teacher.modules())
    expected, moves = make_teacher(method.segmenter), torch.zeros((), dtype=torch.int64)
    optimizers = make_optimizers(method)
    for number in range(3):
        run_steps(used, method, optimizers, range(number, number + 1))
        move_teacher(expected, method.segmenter, moves=moves, alpha=0.999)
        moves += 1
        for name, value in expected.state_dict().items():
            assert torch.equal(method.teacher.state_dict()[name], value), name
    assert method.moves.item() == 3
    assert not torch.equal(method.teacher.trunk[1].running_mean, torch.zeros(8))
    method.training_step(used.step()).losses["segmenter"].value.backward()
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    assert {"moves", "teacher.trunk.1.running_mean"} <= method.state_dict().keys()


def test_masked_images_leave_the_running_averages_alone_and_train_the_segmenter():
    used = case("source_only", tau=0.0)
    method, step = used.build(), used.step()
    plain = MethodCase(METHODS["source_only"]).build()
    first = method.training_step(step)
    plain.training_step(step)
    for name, value in plain.segmenter.state_dict().items():
        assert torch.equal(method.segmenter.state_dict()[name], value), name
    gradients = torch.autograd.grad(first.logs["loss_masked"].value, method.segmenter.trunk[0].weight)
    assert float(gradients[0].abs().max()) > 0


def test_a_target_that_is_all_padding_teaches_nothing():
    used = case("source_only", tau=0.0)
    method, step = used.build(), used.step()
    nothing = step._replace(target=step.target._replace(valid=torch.zeros(BATCH_SIZE, 32, 32, dtype=torch.bool)))
    output = method.training_step(nothing)
    assert output.logs["loss_masked"].value.item() == 0
    assert output.logs["confident_masked"].value.item() == 0
    assert output.pseudo_label is not None
    assert bool((output.pseudo_label.label == IGNORE_INDEX).all())


def test_rounds_and_choices_are_the_host_s():
    method = case("self_training", of_host={"warm_up": 0.2, "rounds": 2}).build()
    assert isinstance(method, Mic)
    assert method.round_starts() == method.host.round_starts() == (0.2, pytest.approx(0.6))
    begun: list[int] = []
    chosen, image = torch.tensor([True, False]), torch.randn(2, 3, 32, 32)
    method.host.begin_round = begun.append
    method.host.choose_source = lambda images, *, number: chosen
    method.begin_round(2)
    assert begun == [2]
    assert method.choose_source([image], number=1) is chosen
    with torch.inference_mode():
        got, expected = method.eval().pseudo_labels([image], number=1), method.host.pseudo_labels([image], number=1)
        assert got is not None
        assert torch.equal(next(got).label, next(expected).label)


@pytest.mark.parametrize(("size", "side"), [((32, 48), 8), ((33, 47), 8), ((16, 16), 1)])
def test_masks_are_whole_squares_of_which_the_ratio_is_hidden(size, side):
    generators = [torch.Generator().manual_seed(number) for number in range(200)]
    masks = draw_masks(size, side=side, ratio=0.7, generators=generators, device=torch.device("cpu"))
    assert masks.shape == (200, *size)
    for top in range(0, size[0], side):
        for left in range(0, size[1], side):
            square = masks[:, top : top + side, left : left + side].flatten(1)
            assert torch.equal(square.all(1), square.any(1))
    assert float(masks.float().mean()) == pytest.approx(0.7, abs=0.03)
    alone = draw_masks(
        size, side=side, ratio=0.7, generators=[torch.Generator().manual_seed(3)], device=torch.device("cpu")
    )
    assert torch.equal(alone[0], masks[3])
    for ratio, everything in ((0.0, False), (1.0, True)):
        masks = draw_masks(size, side=side, ratio=ratio, generators=generators, device=torch.device("cpu"))
        assert bool(masks.all()) == everything
        assert bool(masks.any()) == everything


def configured(method: dict[str, object], **data: object) -> TrainConfig:
    domain = {"dataset": "scenes"}
    return TrainConfig.model_validate(
        {
            "data": {
                "source": domain | {"domain": "urban"},
                "target": domain | {"domain": "rural"},
                "height": 64,
                "width": 64,
                **data,
            },
            "method": {"name": "mic", **method},
            "steps": 1,
        }
    )


def test_the_host_has_its_own_settings_and_is_dacs_where_none_is_named():
    assert configured({}).method.model_dump()["host"]["name"] == "dacs"
    assert configured({"host": {"tau": 0.5}}).method.model_dump()["host"]["tau"] == 0.5
    assert configured({"host": {"name": "min_entropy"}}).method.model_dump()["host"]["lambda_ent"] == 1e-3
    one, other = configured({"host": {"tau": 0.5}}), configured({"host": {"tau": 0.6}})
    assert one.fingerprint() != other.fingerprint()


def test_a_host_with_few_shots_needs_their_images_and_others_refuse_them():
    assert configured({"host": {"name": "joint"}}, few_shot={"images": 2}).data.few_shot is not None
    with pytest.raises(ValueError, match="method mic on joint trains with a few labelled target images"):
        configured({"host": {"name": "joint"}})
    with pytest.raises(ValueError, match="method mic on dacs uses no target labels"):
        configured({"host": {"name": "dacs"}}, few_shot={"images": 2})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"host": {"name": "target_only"}}, "target_only is an upper bound and adapts nothing"),
        ({"host": {"name": "mic"}}, "unknown host method 'mic'"),
        ({"host": {"name": "dacs", "tauu": 0.5}}, "tauu"),
        ({"ratio": 1.1}, "ratio"),
        ({"block": 0.0}, "block"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MicConfig.model_validate(settings)


def test_until_the_warm_up_has_passed_a_step_is_the_host_s():
    used = case("source_only", tau=0.0, warm_up=0.5)
    method = used.build().train()
    early, late = (used.step(3)._replace(progress=progress) for progress in (0.49, 0.5))
    output = method.training_step(early)
    assert output.losses["segmenter"].value.item() == pytest.approx(output.logs["loss_seg"].value.item())
    assert "loss_masked" not in output.logs
    assert method.training_step(late).logs["loss_masked"].value.item() > 0
