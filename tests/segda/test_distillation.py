"""Learning from a trained network beside any method, on files: the loss, the pass that is used, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segda.checkpoint import load_segmenter, network_checkpoint, read_checkpoint
from segda.compression.channels import slim
from segda.config import DistillationConfig, DomainConfig, TrainConfig
from segda.datasets.scenes import generate_scenes
from segda.distillation import Distillation
from segda.draws import Draws
from segda.efficiency import count_parameters
from segda.errors import ConfigError
from segda.losses import SegmentationLoss, mean
from segda.methods import METHODS, Method, StepInput, StepOutput
from segda.models import MODELS, build_segmenter
from segda.predecessors import load_teacher
from segda.testing.runs import RUN_CHECKS, SIDE, RunCase
from segda.training import train
from segda.types import IGNORE_INDEX, LabeledBatch, UnlabeledBatch

CLASSES = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Scenes, and checkpoints of a teacher and of networks that may not teach."""
    base = tmp_path_factory.mktemp("distillation")
    root = generate_scenes(base / "scenes", size=SIDE, train=4, val=1, seed=1)
    cases = {
        "teacher": RunCase(
            "source_only", fields={"steps": 2, "seed": 7, "model": {"name": "ddrnet_23_slim", "width": 0.5}}
        ),
        "segformer": RunCase("source_only", fields={"steps": 2, "seed": 7, "model": {"name": "segformer_b0"}}),
        "supervised": RunCase("target_only", fields={"steps": 1}),
        "few": RunCase("joint", fields={"steps": 1}),
    }
    for name, case in cases.items():
        train(case.config(root, base / "cache"), lambda *_: None, folder=base / name)
    return base


def config_of(place: Path, method: str = "source_only", **fields) -> TrainConfig:
    return RunCase(method, fields=fields).config(place / "scenes", place / "cache")


@pytest.fixture
def teacher(place) -> dict[str, str]:
    return {"checkpoint": str(place / "teacher" / "checkpoint.pt")}


@pytest.fixture
def features(place) -> dict[str, object]:
    """Fields of a training in which SCTNet learns a transformer's features."""
    checkpoint = str(place / "segformer" / "checkpoint.pt")
    return {"model": {"name": "sctnet"}, "distillation": {"checkpoint": checkpoint, "learned": "features"}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A folder for each case of a contract, in which its checks share a training."""
    return {name: tmp_path_factory.mktemp(name) for name in ("source", "target", "both", "features")}


@pytest.mark.parametrize("check", RUN_CHECKS.values(), ids=RUN_CHECKS)
@pytest.mark.parametrize("images", ["source", "target", "both"])
def test_whole_trainings_keep_the_contract(check, images, teacher, folders):
    """Also of a method that reads no target images by itself: resumed bit for bit, and without a look at a target label."""
    check(RunCase("source_only", fields={"distillation": {**teacher, "images": images}}), folders[images])


@pytest.mark.parametrize("check", RUN_CHECKS.values(), ids=RUN_CHECKS)
def test_trainings_on_features_keep_it_too(check, features, folders):
    check(RunCase("source_only", fields=features), folders["features"])


@pytest.mark.parametrize("method", ["adversarial", "dacs"])
def test_methods_with_one_pass_or_several_learn_features_too(method, place, features, tmp_path):
    """One normalizes both domains together by default or passes them one by one, the other one mixes images."""
    result = train(config_of(place, method, **features, steps=1), lambda *_: None, folder=tmp_path / "run")
    assert result.metrics["train/loss_distillation"] > 0


@pytest.mark.parametrize("method", ["adversarial", "dacs", "self_training", "mic", "pixda", "external_labels"])
def test_every_kind_of_method_can_learn_from_a_teacher_too(method, teacher, tmp_path):
    case = RunCase(method, fields={"distillation": teacher, "steps": 2, "report_every": 2})
    root = generate_scenes(tmp_path / "scenes", size=SIDE, train=4, val=1, seed=1)
    result = train(case.config(root, tmp_path / "cache"), lambda *_: None, folder=tmp_path / "run")
    assert result.metrics["train/loss_distillation"] > 0


def softmax(logits: torch.Tensor, temperature: float) -> np.ndarray:
    plain = logits.detach().double().numpy() / temperature
    raised = np.exp(plain - plain.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def divergence(student: torch.Tensor, teacher: torch.Tensor, where: np.ndarray, temperature: float) -> float:
    p, q = softmax(student, temperature), softmax(teacher, temperature)
    return float((temperature**2 * (q * (np.log(q) - np.log(p))).sum(1))[where].mean())


class Restyling(Method):
    """A method that never passes the images of a step as they are through its segmenter."""

    Config = METHODS["source_only"].Config

    def training_step(self, step: StepInput) -> StepOutput:
        logits = self.segmenter(step.labeled.image * 0.5, auxiliary=False).logits
        loss = mean(logits.square().sum(), logits.numel())
        return StepOutput({"segmenter": loss}, {"loss_seg": loss})


def networks(method: str | type[Method]) -> tuple[Method, nn.Module]:
    torch.manual_seed(0)
    small = MODELS["ddrnet_23_slim"].Config()  # without dropout
    segmenter, teacher = (build_segmenter(small, num_classes=CLASSES) for _ in range(2))
    kind = METHODS[method] if isinstance(method, str) else method
    loss = SegmentationLoss(name="cross_entropy", auxiliary_weight=1.0, boundary_weight=1.0)
    return kind(segmenter, config=kind.Config(), loss=loss, num_classes=CLASSES).train(), teacher.eval()


def step_of() -> StepInput:
    generator = torch.Generator().manual_seed(1)
    image, target = (torch.randn(4, 3, 64, 64, generator=generator) for _ in range(2))
    label = torch.randint(0, CLASSES, (4, 64, 64), generator=generator)
    label[:, :8] = IGNORE_INDEX
    valid = torch.ones(4, 64, 64, dtype=torch.bool)
    valid[..., 50:] = False
    return StepInput(
        LabeledBatch(image, label), UnlabeledBatch(target, valid=valid), None, 0.0, Draws(seed=0, step=0, first=0)
    )


def settings(**given) -> DistillationConfig:
    return DistillationConfig(digest="0" * 64, **given)


@pytest.mark.parametrize("images", ["source", "target", "both"])
@pytest.mark.parametrize("method", ["source_only", Restyling])
def test_the_loss_is_that_of_the_formula_over_the_pixels_that_count(method, images):
    trained, teacher = networks(method)
    step = step_of()
    expected = 0.0
    with torch.no_grad():
        for name, image, where in (
            ("source", step.labeled.image, step.labeled.label != IGNORE_INDEX),
            ("target", step.target.image, step.target.valid),
        ):
            if images in (name, "both"):
                expected += divergence(trained.segmenter(image).logits, teacher(image).logits, where.numpy(), 3.0)
        alone = trained.training_step(step).losses["segmenter"].value.item()
    output = Distillation(teacher, settings(weight=0.7, temperature=3.0, images=images)).training_step(trained, step)
    assert output.logs["loss_distillation"].value.item() == pytest.approx(expected, rel=1e-4)
    assert output.losses["segmenter"].value.item() == pytest.approx(alone + 0.7 * expected, rel=1e-4)


@pytest.mark.parametrize(
    ("method", "images", "passes"), [("source_only", "source", 1), ("source_only", "both", 2), (Restyling, "both", 3)]
)
def test_a_pass_of_the_method_is_used_and_a_further_one_moves_no_running_average(method, images, passes):
    trained, teacher = networks(method)
    alone, _ = networks(method)
    step = step_of()
    alone.training_step(step)
    count = 0

    def look(*_):
        nonlocal count
        count += 1

    trained.segmenter.register_forward_hook(look)
    output = Distillation(teacher, settings(images=images)).training_step(trained, step)
    assert count == passes
    for (name, value), expected in zip(trained.named_buffers(), alone.buffers(), strict=True):
        assert torch.equal(value, expected), name
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    output.losses["segmenter"].value.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_training_on_it_alone_brings_the_student_to_the_teacher():
    trained, teacher = networks("source_only")
    optimizer = torch.optim.Adam(trained.parameters(), lr=1e-3)
    distillation, step = Distillation(teacher, settings(images="target")), step_of()
    losses = []
    for _ in range(4):
        loss = distillation.training_step(trained, step).logs["loss_distillation"].value
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


def test_micro_batches_give_the_loss_of_the_whole_batch(place, teacher, tmp_path):
    """Layers normalize by parts, so that the numbers differ a little; without the teacher's share they would by much."""
    found = {}
    for micro_batch in (None, 4):
        config = config_of(place, batch_size=8, steps=1, distillation=teacher)
        result = train(config, lambda *_: None, folder=tmp_path / str(micro_batch), micro_batch=micro_batch)
        found[micro_batch] = result.metrics["train/loss_distillation"]
    assert found[4] == pytest.approx(found[None], rel=0.15)


def test_micro_batches_and_processes_give_the_distance_of_features_of_the_whole_batch(place, features, tmp_path):
    found = {}
    for name, settings in {"whole": {}, "parts": {"micro_batch": 4}, "processes": {"processes": 2}}.items():
        config = config_of(place, batch_size=8, steps=2, report_every=1, **features)
        losses = []
        train(
            config,
            lambda _step, metrics, _path, losses=losses: losses.append(metrics["train/loss_distillation"]),
            folder=tmp_path / name,
            **settings,
        )
        found[name] = losses
    # Parts are normalized by their own statistics in the network; processes exchange these.
    assert found["parts"] == pytest.approx(found["whole"], rel=0.1)
    assert found["processes"] == pytest.approx(found["whole"], rel=1e-3)


def test_the_digest_is_in_the_fingerprint_and_the_path_is_not(place, teacher, tmp_path):
    moved = tmp_path / "moved.pt"
    shutil.copy(teacher["checkpoint"], moved)
    here, there, other, without = (
        config_of(place, **({} if chosen is None else {"distillation": chosen}))
        for chosen in (teacher, {"checkpoint": moved}, {"checkpoint": place / "few" / "checkpoint.pt"}, None)
    )
    assert here.fingerprint() == there.fingerprint()
    assert len({here.fingerprint(), other.fingerprint(), without.fingerprint()}) == 3
    assert not {"distillation", "start"} & without.model_dump().keys()


def test_a_checkpoint_does_not_hold_the_teacher(place, teacher, tmp_path):
    train(config_of(place, distillation=teacher, steps=1), lambda *_: None, folder=tmp_path / "run")
    train(config_of(place, steps=1), lambda *_: None, folder=tmp_path / "alone")
    with_teacher, alone = (read_checkpoint(tmp_path / name / "checkpoint.pt")["method"] for name in ("run", "alone"))
    assert with_teacher.keys() == alone.keys()


def test_layers_that_compare_features_are_trained_and_kept_beside_the_network(place, features, tmp_path):
    result = train(config_of(place, **features, steps=3), lambda *_: None, folder=tmp_path / "run")
    train(config_of(place, **features, steps=1), lambda *_: None, folder=tmp_path / "first")
    state = read_checkpoint(result.checkpoint)
    method, before = state["method"], read_checkpoint(tmp_path / "first" / "checkpoint.pt")["method"]
    layers = {name for name in method if not name.startswith("segmenter.")}
    assert layers == {
        f"alignment.{layer}.{part}" for layer in ("sixteenth", "thirty_second", "joined") for part in ("weight", "bias")
    }
    assert not any(torch.equal(method[name], before[name]) for name in layers)
    segmenter, _ = load_segmenter(result.checkpoint)
    assert segmenter.state_dict().keys() == {name.removeprefix("segmenter.") for name in method.keys() - layers}
    assert count_parameters(segmenter) == count_parameters(
        build_segmenter(segmenter.config, num_classes=segmenter.num_classes)
    )


def test_a_slimmed_network_learns_features_again(place, features, tmp_path):
    first = train(config_of(place, **features, steps=1), lambda *_: None, folder=tmp_path / "first")
    dense, own = load_segmenter(first.checkpoint)
    small = slim(dense, ratio=0.3)
    state = read_checkpoint(first.checkpoint)
    plain = own.model_dump(mode="json")
    plain["model"]["widths"] = small.config.model_dump(mode="json")["widths"]
    (tmp_path / "slim.pt").write_bytes(network_checkpoint(state | {"config": json.dumps(plain)}, small.state_dict()))
    config = config_of(
        place,
        model=None,
        start={"checkpoint": str(tmp_path / "slim.pt")},
        distillation=features["distillation"],
        steps=1,
    )
    result = train(config, lambda *_: None, folder=tmp_path / "again")
    assert count_parameters(load_segmenter(result.checkpoint)[0]) < 0.8 * count_parameters(dense)


def test_features_have_a_temperature_of_their_own_and_predictions_keep_their_fingerprint(place, features, teacher):
    learned = config_of(place, **features).distillation
    assert (learned.learned, learned.temperature) == ("features", 4.0)
    assert DistillationConfig.model_validate(learned.model_dump()) == learned
    assert DistillationConfig(**features["distillation"], temperature=1.5).temperature == 1.5
    assert DistillationConfig(**teacher).temperature == 2.0
    assert "learned" not in DistillationConfig(**teacher, learned="predictions").model_dump()


def test_features_of_a_network_that_cannot_be_compared_are_refused(place, features, teacher, tmp_path):
    with pytest.raises(ValueError, match="fast_scnn cannot learn the features of another network, sctnet can"):
        config_of(place, distillation=features["distillation"])
    config = config_of(place, model={"name": "sctnet"}, distillation={**teacher, "learned": "features"})
    with pytest.raises(ConfigError, match="the features of a segformer, the teacher is ddrnet_23_slim") as raised:
        train(config, lambda *_: None, folder=tmp_path / "run")
    assert "\n" not in str(raised.value)


def test_teachers_of_other_classes_are_refused(place, features):
    config = config_of(place, **features)
    streets = {domain: DomainConfig(dataset="camvid", domain="day") for domain in ("source", "target")}
    elsewhere = config.model_copy(update={"data": config.data.model_copy(update=streets)})
    with pytest.raises(ConfigError, match=r"knows the classes .* the configuration has") as raised:
        load_teacher(elsewhere)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"), [("supervised", "is supervised by the target"), ("few", "the labels of some target images")]
)
def test_teachers_that_have_seen_target_labels_are_refused(place, tmp_path, name, message):
    config = config_of(place, distillation={"checkpoint": place / name / "checkpoint.pt"})
    with pytest.raises(ConfigError, match=f"{message}.*choose a teacher") as raised:
        train(config, lambda *_: None, folder=tmp_path / "run")
    assert "\n" not in str(raised.value)


def test_a_teacher_that_was_replaced_is_refused(place, teacher, tmp_path):
    path = tmp_path / "teacher.pt"
    shutil.copy(teacher["checkpoint"], path)
    config = config_of(place, distillation={"checkpoint": path})
    shutil.copy(place / "few" / "checkpoint.pt", path)
    with pytest.raises(ConfigError, match="not the checkpoint that the configuration was made with"):
        train(config, lambda *_: None, folder=tmp_path / "run")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "distillation.checkpoint: must be the path"),
        ({"checkpoint": "nowhere.pt"}, "distillation.checkpoint: nowhere.pt cannot be read"),
        ({"digest": "0" * 64, "temperature": 0}, "temperature"),
        ({"digest": "0" * 64, "learned": "features"}, "distillation.learned: bisenet_v1 cannot learn the features"),
        ({"digest": "0" * 64, "weight": -1}, "weight"),
    ],
)
def test_a_wrong_setting_is_told_with_its_key(given, message):
    from segda.config_problems import validated

    plain = {
        "data": {
            "source": {"dataset": "scenes", "domain": "urban"},
            "target": {"dataset": "scenes", "domain": "rural"},
            "height": SIDE,
            "width": SIDE,
        },
        "method": {"name": "source_only"},
        "steps": 1,
        "distillation": given,
    }
    with pytest.raises(ConfigError, match=message):
        validated(TrainConfig, plain, where="here")
