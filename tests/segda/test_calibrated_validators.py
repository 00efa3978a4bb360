"""Validators that are fitted on labelled source pixels of the same checkpoint, and the alarm for collapse."""

import math

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.optimize import linprog

from segda.validators import VALIDATORS, Evidence, scores
from segda.validators.dev import importance, weighted_risk
from segda.validators.temperature import COLDEST, HOTTEST, fitted_temperature, tempered
from segda.validators.transport import transport_alarm, transported_accuracy, whole_labels

CLASSES = 7
SOURCE_SHARES = np.array([0.30, 0.20, 0.15, 0.12, 0.10, 0.08, 0.05])
TARGET_SHARES = SOURCE_SHARES[::-1]  # a strong shift: 0.42 of the labels are other ones
COUNT = 4000


def softmax(scores):
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def network(shares, *, skill, scale=1.0, seed=0):
    """Probabilities of a network of some skill, and the labels; `scale` makes it surer, not better. Skill 0: all class 0."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(CLASSES, COUNT, p=shares)
    raw = rng.normal(size=(COUNT, CLASSES))
    if skill == 0:
        raw = 0.3 * raw + 12 * np.eye(CLASSES)[0]
    else:
        raw[np.arange(COUNT), labels] += skill
    return softmax(scale * raw), labels


def evidence(target, source):
    probs, labels = source
    return Evidence(
        target=torch.from_numpy(target[0]).float()[None],
        source=torch.from_numpy(probs).float()[None],
        source_labels=torch.from_numpy(labels).to(torch.uint8)[None],
        source_shares=torch.from_numpy(SOURCE_SHARES),
        target_features=torch.zeros(1, 4),
        source_features=torch.zeros(1, 4),
    )


def accuracy(probs, labels):
    return float((probs.argmax(axis=1) == labels).mean())


# What a network does on the target, and what it does on the source.
CASES = {
    "good, no shift": evidence(network(SOURCE_SHARES, skill=3.3), network(SOURCE_SHARES, skill=3.3, seed=1)),
    "good": evidence(network(TARGET_SHARES, skill=3.3), network(SOURCE_SHARES, skill=3.3, seed=1)),
    "medium": evidence(network(TARGET_SHARES, skill=2.0), network(SOURCE_SHARES, skill=3.3, seed=1)),
    "medium, surer on both": evidence(
        network(TARGET_SHARES, skill=2.0, scale=4), network(SOURCE_SHARES, skill=3.3, scale=4, seed=1)
    ),
    "medium, surer on target": evidence(
        network(TARGET_SHARES, skill=2.0, scale=4), network(SOURCE_SHARES, skill=3.3, seed=1)
    ),
    "collapsed on target": evidence(network(TARGET_SHARES, skill=0), network(SOURCE_SHARES, skill=3.3, seed=1)),
    "collapsed on both": evidence(network(TARGET_SHARES, skill=0), network(SOURCE_SHARES, skill=0, seed=1)),
}
FOUND = {
    name: {score: VALIDATORS[score](case) for score in ("soft_iou", "atc", "entropy", "snd")}
    | {"transport": transport_alarm(case)}
    for name, case in CASES.items()
}


def test_the_temperature_makes_confidence_on_the_source_its_accuracy():
    for scale in (0.3, 1.0, 4.0):
        probs, labels = network(SOURCE_SHARES, skill=2.0, scale=scale)
        found = fitted_temperature(torch.from_numpy(probs), torch.from_numpy(labels))
        calibrated = softmax(np.log(probs) / found)
        assert calibrated.max(axis=1).mean() == pytest.approx(accuracy(probs, labels), abs=1e-6)
        assert tempered(torch.from_numpy(probs), found).numpy() == pytest.approx(calibrated, abs=1e-12)
    unscaled = fitted_temperature(*map(torch.from_numpy, network(SOURCE_SHARES, skill=2.0)))
    surer = fitted_temperature(*map(torch.from_numpy, network(SOURCE_SHARES, skill=2.0, scale=4)))
    assert surer == pytest.approx(4 * unscaled, rel=1e-5)


def test_a_network_that_is_never_or_always_right_gets_the_last_temperature():
    probs, labels = map(torch.from_numpy, network(SOURCE_SHARES, skill=2.0))
    assert fitted_temperature(probs, (probs.argmax(dim=1) + 1) % CLASSES) == pytest.approx(HOTTEST)
    assert fitted_temperature(probs, probs.argmax(dim=1)) == pytest.approx(COLDEST)
    assert math.isnan(fitted_temperature(probs[:0], labels[:0]))


def test_the_soft_iou_is_the_formula_class_by_class():
    case = CASES["medium"]
    probs = softmax(np.log(case.target[0].double().numpy()) / case.temperature)
    predicted, terms = probs.argmax(axis=1), []
    for label in range(CLASSES):
        hits = sum(probs[pixel, label] for pixel in np.flatnonzero(predicted == label))
        union = (predicted == label).sum() + probs[:, label].sum() - hits
        terms.append(hits / union)
    assert FOUND["medium"]["soft_iou"] == pytest.approx(np.mean(terms), abs=1e-9)


def test_the_soft_iou_sees_collapse_and_confidence_that_was_driven_up_everywhere():
    soft = {name: figures["soft_iou"] for name, figures in FOUND.items()}
    assert soft["collapsed on target"] < 0.2
    assert soft["collapsed on both"] < 0.1
    assert soft["good"] == pytest.approx(soft["good, no shift"], abs=0.02)  # other class shares do not count against it
    assert soft["good"] > soft["medium"] + 0.1
    assert soft["medium, surer on both"] == pytest.approx(soft["medium"], abs=0.02)


def test_no_score_of_one_model_sees_confidence_on_the_target_only():
    """So a network that is worse wins: why these scores order one method's networks, not methods."""
    for score in ("soft_iou", "atc", "entropy"):
        assert FOUND["medium, surer on target"][score] > FOUND["good"][score]


def test_the_threshold_is_the_sources_and_is_fitted_anew_for_each_checkpoint():
    for name in ("good", "medium", "medium, surer on both"):
        case = CASES[name]
        probs, labels = case.labeled[0].numpy(), case.labeled[1].numpy()
        sure = (probs * np.log(probs)).sum(axis=1)
        wrong = (probs.argmax(axis=1) != labels).sum()
        # As many source pixels lie below it as are wrong there.
        threshold = min(value for value in sure if (sure <= value).sum() > wrong)
        assert (sure < threshold).sum() == wrong
        target = case.target[0].double().numpy()
        expected = ((target * np.log(np.maximum(target, 1e-300))).sum(axis=1) >= threshold).mean()
        assert FOUND[name]["atc"] == pytest.approx(expected)
    assert FOUND["good, no shift"]["atc"] == pytest.approx(accuracy(*network(SOURCE_SHARES, skill=3.3)), abs=0.02)
    # The surer network has other thresholds; with those of the first one all of it would count as right.
    assert FOUND["medium, surer on both"]["atc"] < 0.85
    assert FOUND["medium, surer on target"]["atc"] > 0.95
    never = CASES["good"].labeled
    hopeless = evidence((never[0].numpy(), None), (never[0].numpy(), (never[0].argmax(dim=1).numpy() + 1) % CLASSES))
    assert VALIDATORS["atc"](hopeless) == 0


def test_thresholds_and_density_are_fooled_by_collapse():
    assert FOUND["collapsed on target"]["atc"] > 0.99
    assert FOUND["collapsed on target"]["snd"] > max(FOUND[name]["snd"] for name in ("good", "medium"))


def transport_by_linear_program(probs, shares):
    """max sum g p over couplings with both marginals by SciPy's solver, and its potentials of the classes."""
    count, classes = probs.shape
    cell = np.arange(count * classes)
    ones = np.ones(len(cell))
    rows = sparse.vstack(
        [sparse.csr_matrix((ones, (cell // classes, cell))), sparse.csr_matrix((ones, (cell % classes, cell)))]
    )
    wanted = np.concatenate([np.ones(count), count * shares])
    found = linprog(-probs.ravel(), A_eq=rows, b_eq=wanted, bounds=(0, None), method="highs")
    return -found.fun / count, -found.eqlin.marginals[count:]


@pytest.mark.parametrize("scale", [0.3, 3.0, 40.0, 1e4], ids=lambda scale: f"sharpness {scale:g}")
@pytest.mark.parametrize("kind", ["spread", "collapsed"])
def test_the_transport_is_the_linear_program_and_its_dual(kind, scale):
    rng = np.random.default_rng(3)
    for count, classes in ((1, 7), (60, 2), (150, 7), (200, 19)):
        raw = rng.normal(size=(count, classes))
        raw[np.arange(count), 0 if kind == "collapsed" else rng.integers(0, classes, count)] += 2
        probs = softmax(scale * raw)
        counts = rng.multinomial(count, rng.dirichlet(np.ones(classes)))
        if kind == "collapsed":
            counts[0] += counts[-1]
            counts[-1] = 0  # a class that the source does not have
        shares = counts / count
        found = transported_accuracy(torch.from_numpy(probs), torch.from_numpy(shares))
        primal, potentials = transport_by_linear_program(probs, shares)
        assert found == pytest.approx(primal, abs=1e-8)
        assert found == pytest.approx(shares @ potentials + (probs - potentials).max(axis=1).mean(), abs=1e-8)
        # No other potentials give less: the dual bounds it from above.
        for _ in range(20):
            other = potentials + 0.1 * rng.normal(size=classes)
            assert shares @ other + (probs - other).max(axis=1).mean() >= found - 1e-8


def test_shares_that_are_no_whole_labels_change_the_transport_by_less_than_half_a_label_per_class():
    rng = np.random.default_rng(4)
    for count in (20, 100):
        probs, shares = softmax(3 * rng.normal(size=(count, 7))), rng.dirichlet(np.ones(7))
        found = transported_accuracy(torch.from_numpy(probs), torch.from_numpy(shares))
        assert abs(found - transport_by_linear_program(probs, shares)[0]) <= 7 / (2 * count)
        counts = whole_labels(torch.from_numpy(shares), count).numpy()
        assert counts.sum() == count
        assert np.abs(counts - count * shares).max() < 1


def test_the_alarm_is_loud_at_collapse_and_no_ranking_where_class_shares_differ():
    alarm = {name: figures["transport"] for name, figures in FOUND.items()}
    assert alarm["collapsed on target"] == pytest.approx(SOURCE_SHARES[0], abs=0.02)
    assert alarm["collapsed on both"] < SOURCE_SHARES[0]
    assert min(alarm[name] for name in alarm if not name.startswith("collapsed")) > 1.5 * SOURCE_SHARES[0]
    assert alarm["good, no shift"] > 0.85
    assert alarm["good"] < alarm["medium, surer on target"]  # the better one looks worse


@pytest.mark.parametrize("name", VALIDATORS)
def test_a_network_that_gives_no_numbers_on_either_domain_has_no_score(name):
    case = CASES["good"]
    target, source = case.target.clone(), case.source.clone()
    target[0, 5] = math.nan
    source[0, 5] = math.nan
    others = {
        "source_labels": case.source_labels,
        "source_shares": case.source_shares,
        "target_features": case.target_features,
        "source_features": case.source_features,
    }
    assert math.isnan(VALIDATORS[name](Evidence(target=target, source=case.source, **others)))
    if name in ("soft_iou", "atc", "dev"):
        assert math.isnan(VALIDATORS[name](Evidence(target=case.target, source=source, **others)))
        void = others | {"source_labels": torch.full_like(case.source_labels, 255)}
        assert math.isnan(VALIDATORS[name](Evidence(target=case.target, source=case.source, **void)))
        assert math.isnan(transport_alarm(Evidence(target=case.target, source=case.source, **void)))


def per_image(*, apart, images=400, seed=0):
    """Images of two domains whose features differ by `apart` standard deviations; those far out are segmented worse."""
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(images, 3))
    target = rng.normal(size=(images, 3)) + np.array([apart, 0, 0])
    wrong = rng.random((images, 50)) < np.clip(0.2 + 0.2 * source[:, :1], 0.02, 0.98)
    labels = torch.zeros(images, 50, dtype=torch.uint8)
    probs = torch.nn.functional.one_hot(torch.from_numpy(wrong.astype(int)), 2).float()
    return Evidence(
        target=probs,
        source=probs,
        source_labels=labels,
        source_shares=torch.tensor([1.0, 0.0], dtype=torch.float64),
        target_features=torch.from_numpy(target).float(),
        source_features=torch.from_numpy(source).float(),
    ), wrong.mean(axis=1)


def test_the_weighted_risk_is_the_formula():
    rng = np.random.default_rng(0)
    losses, weights = rng.random(50), rng.exponential(size=50)
    product = losses * weights
    eta = -np.cov(product, weights, bias=True)[0, 1] / np.var(weights)
    expected = product.mean() + eta * weights.mean() - eta
    assert weighted_risk(torch.from_numpy(losses), torch.from_numpy(weights)) == pytest.approx(expected)
    assert weighted_risk(torch.from_numpy(losses), torch.ones(50)) == pytest.approx(losses.mean())  # no 0 / 0


def test_weights_by_image_correct_the_risk_and_say_how_far_the_domains_are_apart():
    case, losses = per_image(apart=0.5, images=2000)
    found = importance(case)
    expected_auc = 0.638  # of two normal distributions 0.5 apart
    assert found.domain_auc == pytest.approx(expected_auc, abs=0.03)
    assert found.effective_share == pytest.approx(math.exp(-(0.5**2)), abs=0.1)
    # On the target the loss is 0.1 higher, since its features are: 0.2 + 0.2 * 0.5.
    assert -VALIDATORS["dev"](case) == pytest.approx(0.3, abs=0.05)
    assert losses.mean() < 0.25
    metrics = scores(["dev"], case)
    assert metrics["target/domain_auc"] == found.domain_auc
    assert metrics["target/effective_source_share"] == found.effective_share


@pytest.mark.parametrize("apart", [2.0, 4.0, 40.0])
def test_domains_that_are_told_apart_too_well_leave_no_sample_and_the_score_is_refused(apart):
    case, _ = per_image(apart=apart)
    found = importance(case)
    assert found.effective_share < 0.1
    assert found.domain_auc > 0.9
    assert math.isnan(VALIDATORS["dev"](case))
    assert scores(["dev"], case)["target/effective_source_share"] == found.effective_share


def test_too_few_images_tell_nothing_of_the_domains():
    case, _ = per_image(apart=0.5, images=19)
    assert importance(case) is None
    assert math.isnan(VALIDATORS["dev"](case))
    assert set(scores(["dev"], case)) == {"target/validator/dev"}
