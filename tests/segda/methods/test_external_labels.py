"""Students of external labels against a form of their own in NumPy, and what must not happen to them."""

import numpy as np
import pytest
import torch
from torch import nn

from segda.batch_norm import running_averages_kept
from segda.config import TrainConfig
from segda.errors import ConfigError
from segda.methods import METHODS, StepInput
from segda.methods.external_labels import reaches, refine
from segda.methods.mixing import draw_box, draw_pasted
from segda.testing.methods import BATCH_SIZE, NUM_CLASSES, MethodCase, make_optimizers, run_steps
from segda.types import IGNORE_INDEX, PseudoLabel, UnlabeledBatch

PLAIN = {"jitter_probability": 0, "blur_probability": 0}  # the student's images as they are


def case(name: str = "external_labels", **settings) -> MethodCase:
    return MethodCase(METHODS[name], settings)


def log_probs(logits: torch.Tensor) -> np.ndarray:
    """Return log softmax over axis 1, float64 [B, C, H, W]."""
    scores = logits.detach().double().numpy()
    shifted = scores - scores.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def mean_cross_entropy(logits: torch.Tensor, label: np.ndarray, weight: np.ndarray) -> float:
    """Return the sum of weighted cross-entropies over the number of labelled pixels."""
    labeled = label != IGNORE_INDEX
    entropy = -np.take_along_axis(log_probs(logits), np.where(labeled, label, 0)[:, None], axis=1)[:, 0]
    return float((entropy * weight * labeled).sum() / max(labeled.sum(), 1))


def expected_label(
    method: nn.Module, step: StepInput, *, criterion: str, threshold: float, refined: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels that a student learns from and their confidences, pixel by pixel."""
    given = step.target.pseudo_label
    label, confidence = given.label.numpy(), given.weight.double().numpy()
    means = given.class_confidence.double().numpy()
    with torch.no_grad():
        probs = np.exp(log_probs(method.teacher(step.target.image).logits)) if refined else None
    chosen, sureness = np.full(label.shape, IGNORE_INDEX), np.zeros(label.shape)
    for pixel in np.ndindex(*label.shape):
        k, c = label[pixel], confidence[pixel]
        least = {"none": 0.0, "threshold": threshold, "relative_margin": means[k] if k < NUM_CLASSES else np.inf}
        kept = k != IGNORE_INDEX and c >= least[criterion]
        sure = False
        if refined:
            own = probs[(pixel[0], slice(None), *pixel[1:])]
            q, (second, first) = int(own.argmax()), np.sort(own)[-2:]
            shown = step.target.valid is None or bool(step.target.valid[pixel])
            sure = shown and first - second >= (threshold if criterion == "threshold" else means[q])
        if kept and not (sure and q != k):
            chosen[pixel] = k
        elif sure and not kept:
            chosen[pixel] = q
        sureness[pixel] = c if kept or not refined else first - second
    return chosen, sureness


@pytest.mark.parametrize("weighting", ["uniform", "confidence"])
@pytest.mark.parametrize("mix", ["none", "classmix", "cutmix"])
@pytest.mark.parametrize(
    ("criterion", "refined"),
    [("relative_margin", True), ("relative_margin", False), ("threshold", True), ("none", True), ("none", False)],
)
def test_a_step_is_that_of_the_formula(criterion, refined, mix, weighting):
    used = case(
        filter=criterion,
        threshold=0.35,
        refine=refined,
        mix=mix,
        weighting=weighting,
        lambda_source=0.7,
        lambda_target=1.3,
        warm_up=0.3,
        **PLAIN,
    )
    method = used.build()
    run_steps(used, method, make_optimizers(method), range(12))
    step = used.step(12, padded=True)
    if refined:
        method.teacher.head.weight.data *= 8  # opinions of its own
    chosen, sureness = expected_label(method, step, criterion=criterion, threshold=0.35, refined=refined)
    share = float((chosen != IGNORE_INDEX).mean())
    assert 0.1 < share < 0.95
    if refined:  # every case of the rule occurs
        given = step.target.pseudo_label.label.numpy()
        plainly, _ = expected_label(method, step, criterion=criterion, threshold=0.35, refined=False)
        assert ((plainly != IGNORE_INDEX) & (chosen == IGNORE_INDEX)).any()
        assert ((chosen != given) & (chosen != IGNORE_INDEX)).any()
    image, label, weight = (
        step.target.image.numpy(),
        chosen,
        sureness if weighting == "confidence" else np.ones_like(sureness),
    )
    if mix != "none":
        source = step.labeled
        generators = [step.draws.generator(number, mix) for number in range(BATCH_SIZE)]
        if mix == "classmix":
            mask = draw_pasted(source.label, num_classes=NUM_CLASSES, generators=generators).numpy()
        else:
            mask = draw_box((32, 32), generators=generators, device=source.label.device).numpy()
        image = np.where(mask[:, None], source.image.numpy(), image)
        label = np.where(mask, source.label.numpy(), label)
        weight = np.where(mask, 1.0, weight)
    method.train()
    with running_averages_kept(method.segmenter):
        output = method.segmenter(torch.from_numpy(image))
    expected = sum(mean_cross_entropy(logits, label, weight) for logits in (output.logits, *output.auxiliary))
    got = method.training_step(step)
    loss_seg = got.logs["loss_seg"].value.item()
    assert got.logs["loss_target"].value.item() == pytest.approx(expected, rel=1e-5)
    assert got.logs["labeled"].value.item() == pytest.approx(share)
    assert got.losses["segmenter"].value.item() == pytest.approx(0.7 * loss_seg + 1.3 * expected, rel=1e-5)


def test_confidences_are_compared_with_the_mean_of_their_own_class():
    label = torch.tensor([[[0, 1, 2, IGNORE_INDEX]]])
    confidence = torch.full((1, 1, 4), 0.5)
    least = torch.tensor([0.5, 0.6, torch.inf])
    assert reaches(label, confidence, least).tolist() == [[[True, False, False, False]]]


def test_two_labellings_are_put_together():
    label, own = torch.tensor([0, 0, 0, 0, 1]), torch.tensor([1, 1, 1, 1, 1])
    kept, sure = torch.tensor([True, True, False, False, True]), torch.tensor([False, True, True, False, True])
    void = IGNORE_INDEX
    assert refine(label, kept, own, sure).tolist() == [0, void, 1, void, 1]


def with_labels(step: StepInput, pseudo_label: PseudoLabel) -> StepInput:
    return step._replace(target=UnlabeledBatch(step.target.image, pseudo_label))


@pytest.mark.parametrize("name", ["external_labels", "corte"])
def test_without_any_label_the_loss_is_zero_and_no_nan(name):
    """Void-only labels, absent classes."""
    used = case(name) if name == "corte" else case(mix="none", lambda_source=0)
    method, step = used.build(), used.step()
    nothing = PseudoLabel(
        torch.full_like(step.target.pseudo_label.label, IGNORE_INDEX),
        torch.zeros_like(step.target.pseudo_label.weight),
        torch.full((NUM_CLASSES,), torch.inf),
    )
    output = method.training_step(with_labels(step, nothing))
    loss = output.losses["segmenter"].value
    assert loss.item() == 0
    loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in method.segmenter.parameters())
    assert output.logs["labeled"].value.item() == 0


@pytest.mark.parametrize("name", ["external_labels", "corte"])
def test_a_student_that_has_learned_nothing_is_not_asked(name):
    """What a random network says of a class that the teacher doubts counts as sure, and spreads."""
    used = case(name, warm_up=0.5, **PLAIN)
    method = used.build()
    method.teacher.forward = None  # may not be called
    before = used.step(19)
    assert before.progress < 0.5
    kept, _ = expected_label(method, before, criterion="relative_margin", threshold=0, refined=False)
    labeled = method.training_step(before).logs["labeled"].value.item()
    assert labeled == pytest.approx(float((kept != IGNORE_INDEX).mean()))
    with pytest.raises(TypeError):
        method.training_step(used.step(20))


def test_labels_without_confidences_are_taken_as_they_are():
    used = case(filter="none", refine=False, mix="none", **PLAIN)
    method, step = used.build(), used.step()
    label = step.target.pseudo_label.label
    output = method.training_step(with_labels(step, PseudoLabel(label)))
    assert output.logs["labeled"].value.item() == pytest.approx(float((label != IGNORE_INDEX).double().mean()))


@pytest.mark.parametrize(
    ("name", "settings", "setting"),
    [
        (
            "external_labels",
            {},
            "filter and refine of external_labels decide; set there filter: none, refine: false, or label again",
        ),
        ("external_labels", {"filter": "none"}, r"by which refine of external_labels decide; set there refine: false"),
        (
            "external_labels",
            {"filter": "none", "refine": False, "weighting": "confidence"},
            "weighting of external_labels decide",
        ),
        ("corte", {}, "corte decides by confidences, and these external labels have none; label again"),
    ],
)
def test_what_needs_confidences_is_refused_without_them(name, settings, setting):
    kind = METHODS[name]
    config = kind.Config(**settings)
    kind.check_external_labels(config, has_confidences=True)
    with pytest.raises(ConfigError, match=setting):
        kind.check_external_labels(config, has_confidences=False)


def test_without_the_source_no_source_image_is_seen():
    """Not by the network either, whose statistics would be of both domains."""
    used = case(lambda_source=0, mix="none", filter="none", refine=False, **PLAIN)
    method, step = used.build(), used.step()
    seen = []
    method.segmenter.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    output = method.training_step(step)
    assert len(seen) == 1
    assert torch.equal(seen[0], step.target.image)
    assert output.logs["loss_seg"].value.item() == output.logs["loss_target"].value.item()


def test_pasting_from_a_source_that_is_not_seen_is_refused():
    with pytest.raises(ValueError, match="pastes source images, which are not seen with lambda_source 0"):
        case(lambda_source=0).build()


def test_the_averaged_student_sees_the_target_plainly_and_stays_in_evaluation_mode():
    used = case(jitter_probability=1, blur_probability=1, warm_up=0)
    method, step, seen = used.build(), used.step(), []
    method.teacher.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    method.train().training_step(step)
    assert torch.equal(seen[0], step.target.image)
    assert not any(module.training for module in method.teacher.modules())
    assert all(parameter.grad is None for parameter in method.teacher.parameters())


def test_corte_is_external_labels_with_the_settings_of_its_paper():
    settings = {"alpha": 0.9, "jitter": 0.1, "warm_up": 0}
    first, second = (
        case("corte", **settings),
        case(filter="relative_margin", refine=True, weighting="uniform", mix="none", lambda_source=0, **settings),
    )
    methods = []
    for used in (first, second):
        method = used.build()
        run_steps(used, method, make_optimizers(method), range(3))
        methods.append(method)
    for name, value in methods[0].state_dict().items():
        assert torch.equal(methods[1].state_dict()[name], value), name
    assert METHODS["corte"].reconstruction
    assert not METHODS["external_labels"].reconstruction
    assert "RECONSTRUCTION" in METHODS["corte"].__doc__


def test_configurations_need_labels_where_methods_do_and_nowhere_else():
    plain = {
        "data": {
            "source": {"dataset": "scenes", "domain": "urban"},
            "target": {"dataset": "scenes", "domain": "rural"},
            "height": 64,
            "width": 64,
        },
        "method": {"name": "corte"},
        "steps": 1,
    }
    with pytest.raises(
        ValueError, match="method corte learns from labels that something else has made; write some with `segda teach`"
    ):
        TrainConfig.model_validate(plain)
    labels = {"digest": "0" * 64}
    with pytest.raises(ValueError, match=r"method dacs uses no external labels; leave data\.external_labels out"):
        TrainConfig.model_validate(
            {**plain, "data": {**plain["data"], "external_labels": labels}, "method": {"name": "dacs"}}
        )
    assert TrainConfig.model_validate({**plain, "data": {**plain["data"], "external_labels": labels}})
    # A method on top of one that learns from them does so too.
    for host, needs in (("corte", True), ("dacs", False)):
        on_top = plain | {"method": {"name": "mic", "host": {"name": host}}}
        with_labels = on_top | {"data": {**plain["data"], "external_labels": labels}}
        accepted, refused = (with_labels, on_top) if needs else (on_top, with_labels)
        assert TrainConfig.model_validate(accepted).method.host.name == host
        with pytest.raises(ValueError, match="external_labels"):
            TrainConfig.model_validate(refused)
