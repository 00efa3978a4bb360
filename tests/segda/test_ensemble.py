"""Several checkpoints as one network: the mean of probabilities, and what cannot be averaged."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from segda.checkpoint import load_segmenter
from segda.ensemble import Ensemble
from segda.errors import ConfigError
from segda.evaluation import evaluate
from segda.loading import load_config
from segda.prediction import predict_batch
from segda.testing.methods import NUM_CLASSES, ToySegmenter
from segda.trained import make_ready
from segda.training import train


class Toy(ToySegmenter):
    """The toy network with what an ensemble reads of a network."""

    config = None
    num_classes = NUM_CLASSES


def toys(number: int) -> list[Toy]:
    found = []
    for seed in range(number):
        torch.manual_seed(seed)
        found.append(Toy())
        found[-1].head.weight.data *= 6  # opinions that differ
    return found


def softmax(logits: torch.Tensor) -> np.ndarray:
    scores = logits.detach().numpy().astype(np.float64)
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_probabilities_are_averaged_and_not_logits():
    members, image = toys(3), torch.randn(2, 3, 32, 40, generator=torch.Generator().manual_seed(5))
    ensemble = Ensemble(members)
    output = ensemble(image)
    scores = [member.eval()(image).logits for member in members]
    expected = np.mean([softmax(logits) for logits in scores], axis=0)
    assert np.allclose(softmax(output.logits), expected, atol=1e-6)
    assert np.allclose(np.exp(output.logits.detach().double().numpy()), expected, atol=1e-6)
    assert output.auxiliary == ()
    geometric = softmax(torch.stack(scores).mean(0))
    assert np.abs(geometric - expected).max() > 0.01
    assert (geometric.argmax(1) != expected.argmax(1)).any()


def test_members_stay_in_evaluation_mode_and_one_member_is_itself():
    (member,) = toys(1)
    ensemble = Ensemble([member.train()])
    assert not any(module.training for module in ensemble.members.modules())
    image = torch.randn(2, 3, 32, 32)
    assert torch.allclose(ensemble(image).logits.softmax(1), member(image).logits.softmax(1), atol=1e-6)


def test_a_class_that_all_members_exclude_leaves_finite_logits_that_can_be_interpolated():
    members = toys(2)
    for member in members:
        member.head.bias.data[0] = -1e4
    ensemble = Ensemble(members)
    assert ensemble(torch.randn(1, 3, 32, 32)).logits.isfinite().all()
    images = np.random.default_rng(0).integers(0, 256, (1, 48, 40, 3), dtype=np.uint8)
    assert set(np.unique(predict_batch(ensemble, images, size=(32, 32)))) <= set(range(1, NUM_CLASSES))


@pytest.fixture(scope="module")
def others(trained, tmp_path_factory) -> dict[str, Path]:
    """Further runs like `trained`: with another seed, in the other direction, at another size."""
    base = tmp_path_factory.mktemp("others")
    plain = yaml.safe_load(trained.config.read_text())
    changes = {
        "seed": {"seed": 1},
        "direction": {"data": plain["data"] | {"source": plain["data"]["target"], "target": plain["data"]["source"]}},
        "size": {"data": plain["data"] | {"height": 32}},
    }
    for name, change in changes.items():
        (base / f"{name}.yaml").write_text(yaml.safe_dump(plain | change | {"oracle": "never"}))
        config = load_config(base / f"{name}.yaml", data_roots={"loveda": trained.root})
        train(config, lambda *_: None, folder=base / name)
    return {name: base / name / "checkpoint.pt" for name in changes}


def test_checkpoints_are_scored_by_the_mean_of_their_probabilities(trained, others, segda):
    paths = [trained.checkpoint, others["seed"]]
    scored = evaluate(paths, data_roots={"loveda": trained.root}, splits=["target/val"], precision="fp32")
    members = [load_segmenter(path)[0] for path in paths]
    config = load_segmenter(paths[0])[1]
    same = evaluate(
        Ensemble(members), config, data_roots={"loveda": trained.root}, splits=["target/val"], precision="fp32"
    )
    assert np.array_equal(scored["target/val"].confusion, same["target/val"].confusion)
    code, output, _ = segda(
        "evaluate", *paths, "--data-root", f"loveda={trained.root}", "--split", "target/val", "--precision", "fp32"
    )
    assert code == 0
    assert "mean of 2 networks" in " ".join(output.split())
    assert f"{100 * scored['target/val'].miou:.2f}" in output


def test_predict_takes_further_checkpoints(trained, others, segda, tmp_path):
    image = trained.root / "Val" / "Rural" / "images_png" / "0.png"
    assert segda("predict", trained.checkpoint, image, tmp_path / "a.png", "--with", others["seed"]).code == 0
    assert (tmp_path / "a.png").is_file()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("direction", r"must be trained for the same thing: \S+ has the source loveda/urban, \S+ has loveda/rural"),
        ("size", r"has the image size 64x64, \S+ has 32x64; leave one of them out"),
    ],
)
def test_checkpoints_of_other_data_are_refused_in_one_line(trained, others, segda, other, message):
    with pytest.raises(ConfigError, match=message):
        make_ready([trained.checkpoint, others[other]], None, device="cpu", precision="fp32")
    code, _, errors = segda("evaluate", trained.checkpoint, others[other])
    assert code == 2
    assert errors.count("\n") == 1


def test_nothing_is_no_ensemble():
    with pytest.raises(ConfigError, match="no checkpoint was given"):
        make_ready([], None, device="cpu", precision="fp32")
