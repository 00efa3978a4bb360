"""What every adaptation method must show; a new line in METHODS is tested from then on."""

import pytest
import torch

from segda.losses import mean
from segda.methods import METHODS, Method, MethodConfig, StepInput, StepOutput
from segda.methods.self_training import SelfTraining
from segda.methods.teacher import make_teacher
from segda.testing.methods import (
    METHOD_CHECKS,
    MethodCase,
    check_parts_equal_the_whole,
    check_rounds_begin_in_place,
    check_rounds_choose_source_images,
    check_rounds_label_every_image,
    check_two_ranks_equal_the_whole,
)

pytestmark = pytest.mark.usefixtures("narrow_discriminator")

# Settings beyond the defaults that deserve the contract too.
CASES = {name: MethodCase(METHODS[name]) for name in METHODS} | {
    "adversarial-multi": MethodCase(METHODS["adversarial"], {"levels": "multi"}),
    "adversarial-least-squares": MethodCase(METHODS["adversarial"], {"kind": "least_squares", "discriminator": "dwd"}),
    "adversarial-tfd": MethodCase(METHODS["adversarial"], {"discriminator": "tfd", "rank": 0.25}),
    "adversarial-cp": MethodCase(METHODS["adversarial"], {"discriminator": "cp", "rank": 0.1}),
    "adversarial-multi-class": MethodCase(
        METHODS["adversarial"], {"discriminator": "multi_class_light", "levels": "multi"}
    ),
    "adversarial-information": MethodCase(
        METHODS["adversarial"],
        {"input": "self_information", "scaled_information": True, "discriminator": "light_light"},
    ),
    "adversarial-source-statistics": MethodCase(METHODS["adversarial"], {"batch_norm": "source"}),
    "adversarial-joint-statistics": MethodCase(METHODS["adversarial"], {"batch_norm": "joint", "levels": "multi"}),
    "fine_tune-from-the-start": MethodCase(METHODS["fine_tune"], {"warm_up": 0.0}),
    "min_entropy-auxiliary": MethodCase(
        METHODS["min_entropy"], {"lambda_ent": 0.5, "lambda_ent_auxiliary": 0.1, "prior_share": 0.9}
    ),
    "self_training-adaptive": MethodCase(
        METHODS["self_training"], {"thresholds": "instance_adaptive", "lambda_ent": 0.4, "lambda_uniform": 0.02}
    ),
    "self_training-joint-statistics": MethodCase(METHODS["self_training"], {"batch_norm": "joint"}),
    "pixda-joint-statistics": MethodCase(METHODS["pixda"], {"batch_norm": "joint"}),
    "pixda-weights-with-gradients": MethodCase(METHODS["pixda"], {"detached": False, "lambda_adv": 1.0}),
    "lse-constant": MethodCase(METHODS["lse"], {"thresholds": "constant", "batch_norm": "source"}),
    "fda-rounds": MethodCase(METHODS["fda"], {"beta": 0.05, "rounds": 2, "entropy_from": 0.5, "batch_norm": "joint"}),
    "dacs-confident": MethodCase(METHODS["dacs"], {"tau": 0.25, "lambda_mix": 0.5}),
    "mic-on-source_only": MethodCase(METHODS["mic"], {"host": {"name": "source_only"}, "tau": 0.3}),
    "mic-on-adversarial": MethodCase(METHODS["mic"], {"host": {"name": "adversarial", "levels": "multi"}, "tau": 0.5}),
    "mic-on-joint": MethodCase(METHODS["mic"], {"host": {"name": "joint"}, "tau": 0.3}),
    "mic-on-self_training": MethodCase(METHODS["mic"], {"host": {"name": "self_training"}, "tau": 0.3}),
    "mic-on-dacs": MethodCase(METHODS["mic"], {"host": {"name": "dacs", "tau": 0.3}, "tau": 0.3}),
    "dacs-warm-up": MethodCase(METHODS["dacs"], {"tau": 0.3, "warm_up": 0.5}),
    "dacs-cutmix": MethodCase(METHODS["dacs"], {"tau": 0.3, "mix": "cutmix"}),
    "dacs-source-statistics": MethodCase(METHODS["dacs"], {"tau": 0.3, "batch_norm": "source"}),
    "dacs-joint-statistics": MethodCase(METHODS["dacs"], {"tau": 0.3, "batch_norm": "joint", "alpha": 0.5}),
    # The colors of toy images are their classes, and nothing but jittered images supervises it.
    "corte": MethodCase(METHODS["corte"], {"jitter": 0.05}),
    "external_labels-plain": MethodCase(METHODS["external_labels"], {"filter": "none", "refine": False, "mix": "none"}),
    "external_labels-threshold": MethodCase(
        METHODS["external_labels"],
        {"filter": "threshold", "threshold": 0.4, "weighting": "confidence", "mix": "cutmix", "batch_norm": "joint"},
    ),
    "mic-external_labels": MethodCase(METHODS["mic"], {"host": {"name": "external_labels"}, "tau": 0.25}),
    "external_labels-sure": MethodCase(
        METHODS["external_labels"], {"filter": "none", "weighting": "confidence", "alpha": 0.5, "batch_norm": "source"}
    ),
}

# A method with rounds may do something else before the first one and in the last one.
CASES |= {
    f"{name}-in-round-{number}": MethodCase(case.method, case.settings, round=number)
    for name, case in CASES.items()
    for number in (0, len(case.build().round_starts()))
    if case.build().round_starts() and number != case.round
}


@pytest.mark.parametrize("check", METHOD_CHECKS)
@pytest.mark.parametrize("case", CASES)
def test_every_method_keeps_the_contract(case, check):
    METHOD_CHECKS[check](CASES[case])


@pytest.mark.parametrize("check", ["losses_are_finite", "parts_equal_the_whole", "two_ranks_equal_the_whole"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_the_contract_with_a_loss_that_weighs_classes_and_picks_pixels(name, check):
    loss = {"name": "ohem", "least": 0.2, "class_weight": [0.4, 3.0, 1.0, 9.0, 0.2], "auxiliary_weight": 0.5}
    METHOD_CHECKS[check](MethodCase(METHODS[name], loss=loss))


@pytest.mark.parametrize("rule", ["detail", "balanced"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_where_classes_meet_and_as_a_whole_batch_does(name, rule):
    case = MethodCase(METHODS[name], loss={"name": "cross_entropy", "boundary_weight": 0.5}, boundary=rule)
    method = case.build()

    method.training_step(case.step()).losses["segmenter"].value.backward()

    # Several processes wait for every gradient, be it zero for want of a known boundary.
    assert method.segmenter.boundary_head.weight.grad is not None
    check_parts_equal_the_whole(case)


class MeanOfConfident(Method):
    """Wrong on purpose: a mean over some pixels that is handed over as if it were one over a fixed number."""

    class Config(MethodConfig):
        name: str = "mean_of_confident"

    def training_step(self, step: StepInput) -> StepOutput:
        loss_seg = self.loss(self.segmenter(step.labeled.image), step.labeled.label)
        confidence, _ = self.segmenter(step.target.image).logits.softmax(1).max(1)
        confident = confidence > confidence.median()
        confident[0] = False
        loss_confident = mean(-confidence.log()[confident].mean(), 1)
        return StepOutput({"segmenter": loss_seg + loss_confident}, {"loss_seg": loss_seg})


def test_a_mean_over_some_pixels_that_hides_its_count_is_caught():
    with pytest.raises(AssertionError, match=r"% off \(relative L2\) when the batch is computed in two parts"):
        check_parts_equal_the_whole(MethodCase(MeanOfConfident))
    with pytest.raises(AssertionError, match=r"% off \(relative L2\) when the batch is computed on two ranks"):
        check_two_ranks_equal_the_whole(MethodCase(MeanOfConfident))


class Counting(SelfTraining):
    """Wrong on purpose: labels that depend on how often labels were asked for."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.register_buffer("times", torch.zeros(()))

    def pseudo_labels(self, images, *, number):
        self.times += 1
        yield from super().pseudo_labels(images, number=number)


class Forgetful(SelfTraining):
    """Wrong on purpose: an image too few in every batch."""

    def pseudo_labels(self, images, *, number):
        for pseudo in super().pseudo_labels(images, number=number):
            yield pseudo._replace(label=pseudo.label[1:])


def test_labels_that_change_the_method_or_miss_images_are_caught():
    with pytest.raises(AssertionError, match="pseudo_labels changed times"):
        check_rounds_label_every_image(MethodCase(Counting))
    with pytest.raises(AssertionError, match="pseudo-labels must have the images' size"):
        check_rounds_label_every_image(MethodCase(Forgetful))


class Replacing(SelfTraining):
    """Wrong on purpose: the frozen copy of each round is a new module."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.teacher = make_teacher(self.segmenter)

    def begin_round(self, number):
        self.teacher = make_teacher(self.segmenter)


class Drawing(SelfTraining):
    """Wrong on purpose: a round begins with something that was drawn, and no other process draws the same."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.register_buffer("noise", torch.zeros(()))

    def begin_round(self, number):
        self.noise.normal_()


class Choosing(SelfTraining):
    """Wrong on purpose: a choice of no image."""

    def choose_source(self, images, *, number):
        return torch.zeros(sum(map(len, images)), dtype=torch.bool)


def test_rounds_that_replace_draw_or_choose_nothing_are_caught():
    with pytest.raises(AssertionError, match="begin_round replaced parameters or buffers"):
        check_rounds_begin_in_place(MethodCase(Replacing))
    with pytest.raises(AssertionError, match="begin_round left another noise"):
        check_rounds_begin_in_place(MethodCase(Drawing))
    with pytest.raises(AssertionError, match="choose_source must choose at least one image"):
        check_rounds_choose_source_images(MethodCase(Choosing))
