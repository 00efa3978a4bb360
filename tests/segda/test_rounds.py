"""Rounds of pseudo-labels in the real loop: maps that survive every interruption, and that arrive with their images."""

import errno
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from segda import rounds, training_run
from segda.checkpoint import read_checkpoint
from segda.config import TrainConfig
from segda.datasets.scenes import generate_scenes
from segda.errors import DamagedCheckpointError
from segda.methods import METHODS
from segda.rounds import forget_rounds, is_round_file, make_round, round_steps
from segda.splits import open_splits
from segda.testing.methods import MethodCase
from segda.training import train
from segda.training_run import TrainingRun
from segda.types import IGNORE_INDEX

GUESTS = """
    import torch
    from torch import nn
    from torch.nn import functional

    from segda.losses import mean
    from segda.losses.cross_entropy import cross_entropy
    from segda.methods import MethodConfig, StepOutput
    from segda.methods.self_training import SelfTraining
    from segda.methods.source_only import SourceOnly
    from segda.methods.teacher import copy_weights, make_teacher
    from segda.models import ModelConfig, Segmenter
    from segda.types import IGNORE_INDEX, PseudoLabel, SegmentationOutput

    class Tiny(Segmenter):
        Config = ModelConfig

        def __init__(self, config, *, num_classes):
            super().__init__(config, num_classes=num_classes)
            self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
            self.classifier = nn.Conv2d(8, num_classes, 1)

        def forward(self, image, *, auxiliary=None):
            features = self.trunk(image)
            logits = functional.interpolate(self.classifier(features).float(), image.shape[2:], mode="bilinear")
            return SegmentationOutput(logits, (), features)

    seen = []

    class Logging(SelfTraining):
        \"\"\"Logs a number that is no loss: each process has its own.\"\"\"

        def training_step(self, step):
            losses, logs, _ = super().training_step(step)
            return StepOutput(losses, {**logs, "brightness": step.labeled.image.mean().detach()})

    class StagedConfig(MethodConfig):
        starts: tuple[float, ...] = (0.25, 0.5, 0.75)
        labeled: tuple[int, ...] | None = (1, 3)
        chosen: tuple[int, ...] | None = (0, 2, 5)

    class Staged(SourceOnly):
        \"\"\"Learns from a copy of itself that each round begins with, labels some images with their numbers, chooses some.\"\"\"

        Config = StagedConfig
        needs_target = True
        draws_labeled_only = True

        def __init__(self, segmenter, **options):
            super().__init__(segmenter, **options)
            self.teacher = make_teacher(segmenter)
            self.register_buffer("begun", torch.zeros((), dtype=torch.int64))

        def train(self, mode=True):
            super().train(mode)
            self.teacher.eval()
            return self

        def round_starts(self):
            return self.config.starts

        def begin_round(self, number):
            copy_weights(self.teacher, self.segmenter)
            self.begun += 1

        def training_step(self, step):
            seen.append(step)
            losses, logs, _ = super().training_step(step)
            logits, wanted = (net(step.target.image).logits for net in (self.segmenter, self.teacher))
            loss_target = mean((logits - wanted.detach()).abs().sum(), logits.numel())
            if step.target.pseudo_label is not None:
                loss_target = loss_target + cross_entropy(logits, step.target.pseudo_label.label)
            logs = {**logs, "loss_target": loss_target, "brightness": step.labeled.image.mean().detach()}
            if step.round:
                logs["number"] = loss_target.value.detach() * 0 + step.round
            return StepOutput({"segmenter": losses["segmenter"] + step.round * loss_target}, logs)

        def pseudo_labels(self, images, *, number):
            return None if self.config.labeled is None else self._labels(images)

        def _labels(self, images):
            first = 0
            for image in images:
                numbers = torch.arange(first, first + len(image)).view(-1, 1, 1).expand(-1, *image.shape[2:])
                kept = torch.isin(numbers, torch.tensor(self.config.labeled))
                yield PseudoLabel(torch.where(kept, numbers, IGNORE_INDEX))
                first += len(image)

        def choose_source(self, images, *, number):
            assert not self.training
            if self.config.chosen is None:
                return None
            return torch.isin(torch.arange(sum(map(len, images))), torch.tensor(self.config.chosen))

    class WeightedConfig(MethodConfig):
        starts: tuple[float, ...] = (0.5,)
        images_left_out: int = 0
        margin: int = 0
        label: int = 1
        weight: float = 0.2
        of: float = 1.0

    class Weighted(SourceOnly):
        \"\"\"Takes the colors for the classes, and is surer of one than of the other.\"\"\"

        Config = WeightedConfig
        needs_target = True

        def training_step(self, step):
            seen.append(step)
            return super().training_step(step)

        def round_starts(self):
            return self.config.starts

        @staticmethod
        def colors(image):
            label = (image[:, 0] > image[:, 1]).long()
            return torch.where(image[:, 2] > 0.5, IGNORE_INDEX, label)

        def pseudo_labels(self, images, *, number):
            config = self.config
            for image in images:
                image = image[: len(image) - config.images_left_out, :, config.margin :]
                label = self.colors(image)
                weight = torch.where(label == 0, torch.tensor(config.weight) / config.of, 0.6)
                yield PseudoLabel(torch.where(label == 1, config.label, label), weight)
"""

STAGED = "guests_of_rounds:Staged"
SELF_TRAINING = {"name": "self_training", "warm_up": 0.25, "rounds": 3}
SPEED = {"train/seconds_per_step", "train/images_per_second"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return generate_scenes(tmp_path_factory.mktemp("data") / "scenes", size=64, train=6, val=2, seed=1)


@pytest.fixture
def guests(guest_folder, monkeypatch) -> Any:
    """Guests to train with, as the module that they are imported from."""
    monkeypatch.setattr(rounds, "BATCH_SIZE", 4)  # of six images: a second, smaller batch
    (guest_folder / "guests_of_rounds.py").write_text(textwrap.dedent(GUESTS))
    import guests_of_rounds  # type: ignore[import-not-found]

    return guests_of_rounds


@pytest.fixture
def configure(guests, scenes) -> Callable[..., TrainConfig]:
    """Return a run of twelve steps that learns fast enough for the labels of its three rounds to differ."""

    def configure(
        *,
        augmentation: str = "nadir_color",
        crop: int = 32,
        workers: int = 0,
        few_shot: dict[str, int] | None = None,
        **changes: Any,
    ) -> TrainConfig:
        plain: dict[str, Any] = {
            "data": {
                "source": {"dataset": "scenes", "domain": "urban", "root": scenes},
                "target": {"dataset": "scenes", "domain": "rural", "root": scenes},
                "height": 64,
                "width": 64,
                "crop_height": crop,
                "crop_width": crop,
                "augmentation": augmentation,
                "few_shot": few_shot,
                "workers": workers,
                "cache": scenes.parent / "cache",
            },
            "model": {"name": "guests_of_rounds:Tiny"},
            "method": SELF_TRAINING,
            "steps": 12,
            "report_every": 5,
            "batch_size": 4,
            "precision": "fp32",
            "device": "cpu",
            "oracle": "never",
            "optimizer": {"lr": 0.05},
        }
        return TrainConfig.model_validate(plain | changes)

    return configure


class Reports(dict):
    """Step -> metrics, without speeds; may stop the run at a step."""

    def __init__(self, *, stop_at: int | None = None) -> None:
        super().__init__()
        self.stop_at = stop_at

    def __call__(self, step: int, metrics: dict[str, float], checkpoint: Path) -> None:
        if step == self.stop_at:
            raise Killed
        assert step not in self
        self[step] = {name: value for name, value in metrics.items() if name not in SPEED}


class Killed(BaseException):
    """Ends a run where no code of it can do anything about it."""


def assert_same_end(one: Path, other: Path) -> None:
    """Compare all that two runs left but times."""
    first, second = (read_checkpoint(folder / "checkpoint.pt") for folder in (one, other))
    assert first["step"] == second["step"]
    assert first["round"] == second["round"]
    assert_equal(first["method"], second["method"])
    assert_equal(first["optimizers"], second["optimizers"])
    assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_equal(one[name], other[name])
    elif isinstance(one, Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def round_files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if "round-" in path.name}


def kill_in_step(step: int) -> Callable[[pytest.MonkeyPatch], None]:
    def kill(patch: pytest.MonkeyPatch) -> None:
        update = TrainingRun.update

        def updated(run: TrainingRun, factor: float) -> None:
            if run.step == step:
                raise Killed
            update(run, factor)

        patch.setattr(TrainingRun, "update", updated)

    return kill


def kill_before_the_checkpoint_of_step(step: int) -> Callable[[pytest.MonkeyPatch], None]:
    def kill(patch: pytest.MonkeyPatch) -> None:
        save = TrainingRun.save

        def saved(run: TrainingRun) -> None:
            if run.step == step:
                raise Killed
            save(run)

        patch.setattr(TrainingRun, "save", saved)

    return kill


kill_in_the_middle_of_a_round = kill_in_step(7)


def kill_in_the_middle_of_writing_maps(patch: pytest.MonkeyPatch) -> None:
    add = rounds._Maps.add

    def added(maps: Any, more: Tensor) -> None:
        if len(maps.labeled) == 4 and "round-2" in maps.path.name:
            # What SIGKILL leaves: nobody tidies up.
            maps.path.with_name(".round-2-labels.npy.dead.partial").write_bytes(b"half")
            raise Killed
        add(maps, more)

    patch.setattr(rounds._Maps, "add", added)


def kill_between_maps_and_their_record(patch: pytest.MonkeyPatch) -> None:
    write_json = rounds.write_json

    def written(path: Path, content: Any) -> None:
        if path.name == "round-2.json":
            raise Killed
        write_json(path, content)

    patch.setattr(rounds, "write_json", written)


kill_between_maps_and_checkpoint = kill_before_the_checkpoint_of_step(6)


def kill_between_checkpoint_and_deleting_old_maps(patch: pytest.MonkeyPatch) -> None:
    def forgotten(folder: Path, *, keep: int | None) -> None:
        if keep == 2:
            raise Killed
        forget_rounds(folder, keep=keep)

    patch.setattr(training_run, "forget_rounds", forgotten)


@pytest.fixture
def whole(configure, tmp_path) -> tuple[Path, Reports]:
    """The run that nothing interrupts."""
    reports = Reports()
    train(configure(), reports, folder=tmp_path / "whole")
    assert list(reports) == [5, 10, 12]
    return tmp_path / "whole", reports


@pytest.mark.parametrize(
    ("kill", "left", "goes_on_at"),
    [
        (kill_in_the_middle_of_a_round, {"round-2-labels.npy", "round-2.json"}, 6),
        (
            kill_in_the_middle_of_writing_maps,
            {"round-1-labels.npy", "round-1.json", ".round-2-labels.npy.dead.partial"},
            5,
        ),
        (kill_between_maps_and_their_record, {"round-1-labels.npy", "round-1.json", "round-2-labels.npy"}, 5),
        (
            kill_between_maps_and_checkpoint,
            {"round-1-labels.npy", "round-1.json", "round-2-labels.npy", "round-2.json"},
            5,
        ),
        (
            kill_between_checkpoint_and_deleting_old_maps,
            {"round-1-labels.npy", "round-1.json", "round-2-labels.npy", "round-2.json"},
            6,
        ),
    ],
)
def test_a_run_that_is_killed_anywhere_goes_on_bit_for_bit(
    configure, whole, tmp_path, monkeypatch, kill, left, goes_on_at
):
    folder, parts = tmp_path / "parts", Reports()
    with monkeypatch.context() as patch:
        kill(patch)
        with pytest.raises(Killed):
            train(configure(), parts, folder=folder)
    assert list(parts) == [5]
    assert round_files(folder) == left
    assert read_checkpoint(folder / "checkpoint.pt")["step"] == goes_on_at
    rest = Reports()
    train(configure(), rest, folder=folder, acknowledged=5)
    assert parts | rest == whole[1]
    assert_same_end(folder, whole[0])
    assert round_files(folder) == set()


def kill_between_beginning_and_maps(patch: pytest.MonkeyPatch) -> None:
    make = training_run.make_round

    def made(*arguments: Any, number: int, **options: Any) -> Any:
        if number == 2:
            raise Killed
        return make(*arguments, number=number, **options)

    patch.setattr(training_run, "make_round", made)


@pytest.mark.parametrize(
    "settings",
    [{}, {"labeled": None}, {"labeled": None, "chosen": None}],
    ids=["labels-and-choice", "choice", "neither"],
)
@pytest.mark.parametrize(
    ("kill", "goes_on_at"),
    [
        (kill_between_beginning_and_maps, 5),
        (kill_between_maps_and_checkpoint, 5),
        (kill_between_checkpoint_and_deleting_old_maps, 6),
        (kill_in_the_middle_of_a_round, 6),
    ],
)
def test_rounds_that_change_the_method_and_choose_images_are_not_begun_twice(
    configure, tmp_path, monkeypatch, kill, goes_on_at, settings
):
    config = configure(method={"name": STAGED} | settings)
    whole, parts, rest = Reports(), Reports(), Reports()
    train(config, whole, folder=tmp_path / "whole")
    with monkeypatch.context() as patch:
        kill(patch)
        with pytest.raises(Killed):
            train(config, parts, folder=tmp_path / "parts")
    assert read_checkpoint(tmp_path / "parts" / "checkpoint.pt")["step"] == goes_on_at
    train(config, rest, folder=tmp_path / "parts", acknowledged=5)
    assert parts | rest == whole
    assert_same_end(tmp_path / "parts", tmp_path / "whole")
    assert read_checkpoint(tmp_path / "parts" / "checkpoint.pt")["method"]["begun"] == 3


LSE = {"name": "lse", "warm_up": 0.25, "rounds": 3}
PIXDA = {"name": "pixda", "warm_up": 0.25, "rounds": 2, "distillation": 0.25, "smallest_share": 0.5, "threshold": 0.69}


# Stages begin at steps 3, 6 and 9: rounds of lse; for pixda two choices of source images and the distillation.
KILLS = [
    (kill_in_step(4), 3),
    (kill_before_the_checkpoint_of_step(9), 6),
    (kill_in_step(9), 9),
    (kill_in_step(11), 10),
]


@pytest.mark.usefixtures("narrow_discriminator")
@pytest.mark.parametrize("method", [LSE, PIXDA], ids=["lse", "pixda"])
def test_methods_in_stages_that_are_killed_in_any_of_them_go_on_bit_for_bit(configure, tmp_path, monkeypatch, method):
    config = configure(method=method, few_shot={"images": 2} if method is PIXDA else None)
    whole = Reports()
    train(config, whole, folder=tmp_path / "whole")
    for number, (kill, goes_on_at) in enumerate(KILLS):
        folder, parts, rest = tmp_path / str(number), Reports(), Reports()
        with monkeypatch.context() as patch:
            kill(patch)
            with pytest.raises(Killed):
                train(config, parts, folder=folder)
        assert read_checkpoint(folder / "checkpoint.pt")["step"] == goes_on_at
        train(config, rest, folder=folder, acknowledged=max(parts, default=0))
        assert parts | rest == whole
        assert_same_end(folder, tmp_path / "whole")


# One process imports everything, and before it computes anything it forks one for each run, which ends as a lost machine does: no
# `finally` runs, no file is closed.
KILLED_FOR_REAL = """
import json, os, signal, sys
from pathlib import Path

from segda import rounds
from segda.config import TrainConfig
from segda.discriminators import FCD
from segda.methods import pixda
from segda.training import train
from segda.training_run import TrainingRun

def killed_when(is_time, function):
    def run(*arguments, **options):
        if is_time(*arguments):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return run

def in_step(number):
    TrainingRun.update = killed_when(lambda run, factor: run.step == number, TrainingRun.update)

def labelling_in_round(number):
    half = lambda maps, more: len(maps.labeled) == 4 and f"round-{number}-" in str(maps.path)
    rounds._Maps.add = killed_when(half, rounds._Maps.add)

def choosing_in_round(number):
    calls = iter(range(1, 100))
    pixda.choose_above = killed_when(lambda losses: next(calls) == number, pixda.choose_above)

rounds.BATCH_SIZE = 4
FCD.hidden = (8, 16, 32, 64)
for folder, config, moment, number in json.loads(Path(sys.argv[1]).read_text()):
    child = os.fork()
    if child == 0:
        globals()[moment](number)
        train(TrainConfig.model_validate(config), lambda *_: None, folder=Path(folder))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (moment, number, status)
"""


@pytest.mark.slow  # a process starts, and ten small runs
@pytest.mark.usefixtures("narrow_discriminator")
def test_sigkill_in_any_stage_or_labelling_is_made_good_bit_for_bit(configure, guest_folder, tmp_path):
    moments = {
        "self_training": (SELF_TRAINING, None, [("labelling_in_round", 2)]),
        "lse": (LSE, None, [("labelling_in_round", 3), ("in_step", 7)]),
        # The warm-up, the choice of source images, the adversarial stage and the distillation.
        "pixda": (PIXDA, {"images": 2}, [("in_step", 1), ("choosing_in_round", 2), ("in_step", 7), ("in_step", 11)]),
    }
    configs = {name: configure(method=method, few_shot=few) for name, (method, few, _) in moments.items()}
    jobs = [
        (str(tmp_path / f"{name}-{moment}-{number}"), configs[name].model_dump(mode="json"), moment, number)
        for name, (_, _, kills) in moments.items()
        for moment, number in kills
    ]
    script, todo = tmp_path / "killed.py", tmp_path / "jobs.json"
    script.write_text(KILLED_FOR_REAL)
    todo.write_text(json.dumps(jobs))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(guest_folder), *sys.path]), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, script, todo], env=environment, check=True)
    for name, config in configs.items():
        whole = Reports()
        train(config, whole, folder=tmp_path / name)
        for folder, _, moment, number in jobs:
            if Path(folder).name.startswith(f"{name}-"):
                reports = Reports()
                train(config, reports, folder=Path(folder))
                assert reports == whole, (name, moment, number)
                assert_same_end(Path(folder), tmp_path / name)


def test_a_frozen_copy_is_what_the_segmenter_was_when_the_round_began(guests, configure, tmp_path):
    config = configure(method={"name": STAGED}, steps=8)

    def report(step: int, metrics: dict[str, float], checkpoint: Path) -> None:
        kept[step] = read_checkpoint(checkpoint)["method"]

    kept: dict[int, dict[str, Tensor]] = {}
    train(config.model_copy(update={"report_every": 2}), report, folder=tmp_path / "run")
    assert list(kept) == [2, 4, 6, 8]  # rounds begin at 2, 4 and 6, after the reports
    for began, inside in ((2, 4), (4, 6), (6, 8)):
        for name, value in kept[inside].items():
            if name.startswith("teacher."):
                of_segmenter = name.replace("teacher.", "segmenter.", 1)
                assert torch.equal(value, kept[began][of_segmenter]), name
    assert not torch.equal(kept[4]["teacher.trunk.0.weight"], kept[8]["teacher.trunk.0.weight"])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_round_draws_only_labeled_target_images_and_chosen_source_images(guests, configure, tmp_path, workers):
    method = {"name": STAGED, "starts": [0.5], "labeled": [1, 3], "chosen": [0, 5]}
    config = configure(method=method, augmentation="none", crop=64, workers=workers, steps=12, report_every=6)
    reports = Reports()
    train(config, reports, folder=tmp_path / "run")
    splits = open_splits(config)
    known = list(rounds._Images(splits.labeled, torch.device("cpu")))

    def drawn(steps: list[Any]) -> list[set[int]]:
        images = torch.cat([step.labeled.image for step in steps])
        distances = (images[:, None] - torch.cat(known)).abs().amax(dim=(2, 3, 4))
        labels = [step.target.pseudo_label.label for step in steps if step.target.pseudo_label is not None]
        return [set(distances.argmin(1).tolist()), {int(value) for label in labels for value in label.unique()}]

    assert drawn(guests.seen[:6]) == [set(range(6)), set()]
    assert drawn(guests.seen[6:]) == [{0, 5}, {1, 3}]
    assert {"train/drawn_source", "train/drawn_target", "train/pseudo_labeled"}.isdisjoint(reports[6])
    shares = [reports[12][f"train/{name}"] for name in ("drawn_source", "drawn_target", "pseudo_labeled")]
    assert shares == [2 / 6, 2 / 6, 2 / 6]


def test_what_is_logged_in_rounds_alone_is_averaged_over_their_steps(configure, tmp_path):
    reports = Reports()
    train(
        configure(method={"name": STAGED, "starts": [0.5]}, steps=6, report_every=6), reports, folder=tmp_path / "run"
    )
    assert reports[6]["train/number"] == 1


def test_a_round_without_any_label_draws_all_target_images(guests, configure, tmp_path):
    config = configure(method={"name": STAGED, "starts": [0.0], "labeled": [], "chosen": None}, steps=3)
    reports = Reports()
    train(config, reports, folder=tmp_path / "run")
    assert reports[3]["train/pseudo_labeled"] == 0
    assert "train/drawn_target" not in reports[3]
    assert len({float(image.sum()) for step in guests.seen for image in step.target.image}) > 2


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (torch.zeros(6, dtype=torch.bool), "Staged.choose_source chose none of 6 images"),
        (
            torch.ones(5, dtype=torch.bool),
            r"choose_source must give bool \[6\], one per training image, got torch.bool \[5\]",
        ),
        (torch.arange(6), r"choose_source must give bool \[6\], one per training image, got torch.int64 \[6\]"),
    ],
)
def test_a_choice_of_nothing_or_of_other_images_is_told_and_leaves_no_map(
    guests, configure, tmp_path, monkeypatch, choice, message
):
    monkeypatch.setattr(guests.Staged, "choose_source", lambda *_, **__: choice)
    config = configure(method={"name": STAGED, "starts": [0.0]})
    with pytest.raises(ValueError, match=message):
        train(config, Reports(), folder=tmp_path / "run")
    assert round_files(tmp_path / "run") == set()


@pytest.mark.parametrize("stop_at", [3, 6, 9, 12])
@pytest.mark.parametrize("method", [SELF_TRAINING, {"name": STAGED}], ids=["labels", "stages"])
def test_a_run_that_ends_with_the_report_before_a_round_goes_on_bit_for_bit(configure, tmp_path, stop_at, method):
    config = configure(report_every=3, method=method)
    whole, parts, rest = Reports(), Reports(stop_at=stop_at), Reports()
    train(config, whole, folder=tmp_path / "whole")
    with pytest.raises(Killed):
        train(config, parts, folder=tmp_path / "parts")
    train(config, rest, folder=tmp_path / "parts", acknowledged=stop_at - 3)
    assert parts | rest == whole
    assert_same_end(tmp_path / "parts", tmp_path / "whole")


def test_a_run_that_was_suspended_and_replaced_deletes_no_maps_of_a_later_round(tmp_path):
    for number in (1, 2, 3):
        (tmp_path / f"round-{number}-labels.npy").touch()
    forget_rounds(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round-2-labels.npy", "round-3-labels.npy"]


def test_reports_say_how_much_the_present_round_labels(whole):
    first, third, still_third = (metrics["train/pseudo_labeled"] for metrics in whole[1].values())
    assert (first, third) == pytest.approx(
        (0.2, 0.3), abs=0.05
    )  # the portions of these rounds, counted at every fourth pixel
    assert third == still_third


def test_before_the_first_round_there_is_no_label(guests, configure, tmp_path):
    config = configure(method={"name": "guests_of_rounds:Weighted", "starts": [0.5]}, steps=4)
    reports = Reports()
    train(config, reports, folder=tmp_path / "run")
    assert [step.target.pseudo_label is None for step in guests.seen] == [True, True, False, False]
    assert [step.round for step in guests.seen] == [0, 0, 1, 1]


def interrupt(config: TrainConfig, folder: Path, **options: int) -> Reports:
    """Leave a run in the middle of its second round."""
    reports = Reports()
    with pytest.MonkeyPatch.context() as patch:
        kill_in_the_middle_of_a_round(patch)
        with pytest.raises(Killed):
            train(config, reports, folder=folder, **options)
    return reports


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def claim_more(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"labeled": 1.0}))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("round-2-labels.npy", Path.unlink),
        ("round-2-labels.npy", flip_a_byte),
        ("round-2-labels.npy", cut_off),
        ("round-2.json", Path.unlink),
        ("round-2.json", cut_off),
        ("round-2.json", claim_more),
        ("round-2.json", lambda path: path.write_text("[" * 100_000)),
        ("round-2-labels.npy", lambda path: (path.unlink(), path.mkdir())),
    ],
)
def test_maps_that_are_missing_or_damaged_end_the_resume_with_one_error(configure, tmp_path, name, damage):
    config = configure()
    interrupt(config, tmp_path)
    checkpoint = (tmp_path / "checkpoint.pt").read_bytes()
    damage(tmp_path / name)
    with pytest.raises(DamagedCheckpointError) as error:
        train(config, Reports(), folder=tmp_path)
    assert str(error.value) == (
        f"the checkpoint in {tmp_path} goes on with round 2, and the round-2* files beside it are missing or changed, or the "
        "training images are; bring them back, or delete the checkpoint to train again"
    )
    assert (tmp_path / "checkpoint.pt").read_bytes() == checkpoint


def test_maps_of_other_images_are_refused(configure, tmp_path, monkeypatch):
    config = configure()
    interrupt(config, tmp_path)
    splits = open_splits(config)
    digest = read_checkpoint(tmp_path / "checkpoint.pt")["round"][1]
    assert rounds.find_round(splits, tmp_path, number=2, digest=digest).digest == digest
    for others in (splits._replace(target=splits.source_val), splits._replace(labeled=splits.source_val)):
        with pytest.raises(DamagedCheckpointError, match="or the training images are"):
            rounds.find_round(others, tmp_path, number=2, digest=digest)


def test_a_disk_that_fails_is_no_damage_of_the_maps(configure, tmp_path, monkeypatch):
    config = configure()
    interrupt(config, tmp_path)

    def fail(path: Path) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(rounds, "sha256_of", fail)
    with pytest.raises(OSError, match="Input/output error"):
        train(config, Reports(), folder=tmp_path)


@pytest.mark.parametrize(
    ("augmentation", "crop", "workers"), [("nadir", 32, 0), ("scale_crop", 64, 0), ("scale_crop", 64, 1)]
)
def test_labels_and_weights_arrive_augmented_like_their_images(
    guests, configure, tmp_path, augmentation, crop, workers
):
    method = {"name": "guests_of_rounds:Weighted", "starts": [0.0]}
    config = configure(method=method, augmentation=augmentation, crop=crop, workers=workers, steps=3)
    train(config, Reports(), folder=tmp_path / "run")
    targets = [step.target for step in guests.seen]
    assert len(targets) == 3
    image = torch.cat([target.image for target in targets])
    label = torch.cat([target.pseudo_label.label for target in targets])
    weight = torch.cat([target.pseudo_label.weight for target in targets])
    assert weight.dtype == torch.float32
    assert set(label.unique().tolist()) == {0, 1, IGNORE_INDEX}
    of_classes = weight[label == 0], weight[label == 1]
    written = 51 / 255, 153 / 255  # 0.2 and 0.6 of 255ths
    if augmentation == "nadir":  # which moves pixels and mixes none
        assert all(target.valid is None for target in targets)
        assert torch.equal(label, guests.Weighted.colors(image))
        for found, expected in zip(of_classes, written, strict=True):
            assert torch.equal(found, torch.full_like(found, expected))
    else:
        # Where pixels mix their weights do too, and the padding's is 0.
        assert [float(found.median()) for found in of_classes] == pytest.approx(written)
        assert float(weight.max()) == pytest.approx(written[1])
        padded = (label == IGNORE_INDEX) & (weight == 0)
        assert padded.any()
        assert torch.equal(torch.cat([target.valid for target in targets]), ~padded)
        assert float(image[padded[:, None].expand_as(image)].abs().max()) < 0.02  # the mean color


@pytest.mark.parametrize(
    "method",
    [{"name": "guests_of_rounds:Weighted", "starts": [0.9]}, {"name": STAGED, "starts": [0.0], "labeled": None}],
    ids=["before-the-first", "without-labels"],
)
def test_padding_is_known_before_the_first_round_and_in_rounds_without_labels_too(guests, configure, tmp_path, method):
    train(configure(method=method, augmentation="scale_crop", crop=64, steps=3), Reports(), folder=tmp_path / "run")
    targets = [step.target for step in guests.seen]
    assert all(target.pseudo_label is None for target in targets)
    valid = torch.cat([target.valid for target in targets])
    image = torch.cat([target.image for target in targets])
    assert 0.1 < float(valid.float().mean()) < 0.99
    assert float(image.masked_fill(valid[:, None], 0).abs().max()) < 0.02  # the mean color
    assert float(image.abs().amax(1)[valid].median()) > 0.02


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images_left_out": 1}, r"pseudo_labels gave labels of 4 images in round 1, the target has 6"),
        ({"margin": 8}, r"pseudo-labels must have the images' size \(64, 64\), got \(56, 64\)"),
        ({"label": 7}, r"pseudo_labels gave labels other than 0\.\.6 and 255 for none"),
        ({"label": -1}, r"pseudo_labels gave labels other than 0\.\.6 and 255 for none"),
        ({"weight": 1.1}, r"pseudo_labels gave weights outside of \[0, 1\]"),
        ({"weight": 0.0, "of": 0.0}, r"pseudo_labels gave weights outside of \[0, 1\]"),
    ],
)
def test_a_method_that_labels_wrongly_is_told_and_leaves_nothing_half_written(configure, tmp_path, settings, message):
    config = configure(method={"name": "guests_of_rounds:Weighted"} | settings, steps=4)
    with pytest.raises(ValueError, match=message):
        train(config, Reports(), folder=tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", "environment.json"}


def test_a_round_leaves_the_method_in_its_mode_and_its_maps_with_their_record(configure, tmp_path):
    splits = open_splits(configure())
    method = MethodCase(METHODS["self_training"], {"thresholds": "constant", "confidence": 0.1}).build()
    folder = tmp_path / "run"
    made = make_round(method, splits, folder, number=3, device=torch.device("cpu"), dtype=torch.float32)
    assert method.training
    assert {path.name for path in folder.iterdir()} == {"round-3-labels.npy", "round-3.json"}
    assert all(is_round_file(path.name) for path in folder.iterdir())
    maps = np.load(folder / "round-3-labels.npy")
    assert maps.shape == splits.target.images.shape[:3]
    assert made.shares == {"pseudo_labeled": (maps != IGNORE_INDEX).mean()}
    assert json.loads((folder / "round-3.json").read_text())["labeled"] == made.shares["pseudo_labeled"]
    assert not is_round_file("surround-3.json")
    assert not is_round_file("result.json")


def test_rounds_that_would_begin_at_once_are_one_and_those_after_the_end_none(guests, configure, tmp_path):
    method = {"name": "guests_of_rounds:Weighted", "starts": [0.1, 0.2, 0.4, 0.9]}
    config = configure(method=method, steps=3, report_every=1)
    whole, parts, rest = Reports(), Reports(stop_at=2), Reports()
    kept = []

    def report(step: int, metrics: dict[str, float], checkpoint: Path) -> None:
        whole(step, metrics, checkpoint)
        kept.append(round_files(checkpoint.parent))

    train(config, report, folder=tmp_path / "whole")
    three = {"round-3-labels.npy", "round-3-weights.npy", "round-3.json"}
    # 0.3 and 0.6 of a step are rounded to 0 and 1, 1.2 to 1, 2.7 to 3: rounds 1, then 3; the fourth never begins.
    assert kept == [{name.replace("3", "1") for name in three}, three, set()]
    with pytest.raises(Killed):
        train(config, parts, folder=tmp_path / "parts")
    train(config, rest, folder=tmp_path / "parts", acknowledged=1)
    assert parts | rest == whole
    assert_same_end(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        ([0.5, 0.2], r"round_starts must be ascending in \[0, 1\)"),
        ([-0.1], r"round_starts must be ascending in \[0, 1\)"),
        ([0.5, 1.0], r"round_starts must be ascending in \[0, 1\)"),
    ],
)
def test_starts_out_of_order_or_range_are_refused(guests, starts, message):
    case = MethodCase(guests.Weighted, {"name": "weighted", "starts": starts})
    with pytest.raises(ValueError, match=message):
        round_steps(case.build(), steps=10)


def test_rounds_that_begin_with_nothing_are_refused_before_the_training(guests, configure, tmp_path, monkeypatch):
    monkeypatch.delattr(guests.Weighted, "pseudo_labels")
    config = configure(method={"name": "guests_of_rounds:Weighted"})
    message = "Weighted has rounds, so it must say what they begin with: begin_round, pseudo_labels, choose_source are missing"
    with pytest.raises(ValueError, match=message):
        train(config, Reports(), folder=tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_labels_without_target_images_are_refused(guests, monkeypatch):
    monkeypatch.setattr(guests.Weighted, "needs_target", False)
    with pytest.raises(ValueError, match="Weighted has pseudo_labels, so it must have needs_target"):
        round_steps(MethodCase(guests.Weighted, {"name": "weighted"}).build(), steps=10)


def test_drawing_labeled_images_without_labels_is_refused(guests, monkeypatch):
    monkeypatch.delattr(guests.Weighted, "pseudo_labels")
    monkeypatch.setattr(guests.Weighted, "choose_source", guests.Staged.choose_source)
    monkeypatch.setattr(guests.Weighted, "draws_labeled_only", True)
    with pytest.raises(ValueError, match="Weighted draws_labeled_only, so it must say which images have labels"):
        round_steps(MethodCase(guests.Weighted, {"name": "weighted"}).build(), steps=10)


def test_a_labelling_that_goes_through_the_images_twice_sees_the_same_ones(configure):
    target = open_splits(configure()).target
    images = rounds._Images(target, torch.device("cpu"))
    first, second = list(images), list(images)
    assert [len(batch) for batch in first] == [4, 2]
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.slow  # a process starts twice
@pytest.mark.parametrize(
    ("method", "logged"),
    [
        (SELF_TRAINING | {"name": "guests_of_rounds:Logging"}, {"loss_target", "brightness", "pseudo_labeled"}),
        ({"name": STAGED}, {"loss_target", "brightness", "pseudo_labeled", "drawn_source", "drawn_target"}),
        (PIXDA | {"threshold": 0.0, "threshold_step": 0.0}, {"loss_adv", "loss_kd", "drawn_source"}),
    ],
    ids=["labels", "stages", "pixda"],
)
def test_two_processes_that_were_killed_in_the_middle_of_a_round_end_as_one_that_was_not(
    configure, tmp_path, method, logged
):
    """Rates are small because a network with random weights amplifies roundings; reports between rounds average numbers.

    The discriminators' is smaller still: Adam makes whole steps of gradients that are nothing but rounding.
    """
    config = configure(
        method=method,
        optimizer={"lr": 1e-4},
        discriminator_optimizer={"lr": 1e-8},
        few_shot={"images": 2} if method["name"] == "pixda" else None,
    )
    one, rest = Reports(), Reports()
    train(config, one, folder=tmp_path / "one")
    parts = interrupt(config, tmp_path / "two", processes=2)
    assert "round-2.json" in round_files(tmp_path / "two")
    train(config, rest, folder=tmp_path / "two", acknowledged=5, processes=2)
    two = parts | rest
    assert list(two) == list(one) == [5, 10, 12]
    names = {f"train/{name}" for name in logged | {"loss_seg"}}
    assert names <= set().union(*one.values())
    for step, metrics in one.items():
        for name in metrics:
            if name.startswith("train/"):
                assert two[step][name] == pytest.approx(metrics[name], rel=1e-4), (step, name)
    first, second = (read_checkpoint(tmp_path / run / "checkpoint.pt")["method"] for run in ("one", "two"))
    for name, value in first.items():
        assert torch.allclose(second[name].double(), value.double(), rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("clip", [None, 0.5])
def test_one_gradient_scaler_serves_both_optimizers_and_is_updated_once_a_step(configure, tmp_path, monkeypatch, clip):
    """Scaled by a power of two and back, nothing changes; an update in between would unscale the second optimizer by another."""
    changes = {"method": {"name": "adversarial"}, "steps": 3, "optimizer": {"lr": 0.01, "grad_clip": clip}}
    train(configure(**changes), Reports(), folder=tmp_path / "plain")
    made = []

    class Scaler(torch.amp.GradScaler):
        def __init__(self, device: str, *, enabled: bool) -> None:
            assert not enabled
            super().__init__(
                device, init_scale=2.0**10, growth_factor=2.0, growth_interval=1
            )  # another scale after each step
            self.calls: list[str] = []
            made.append(self)

        def step(self, optimizer: torch.optim.Optimizer, *arguments: Any, **options: Any) -> float | None:
            self.calls.append("step")
            return super().step(optimizer, *arguments, **options)

        def update(self, new_scale: float | Tensor | None = None) -> None:
            self.calls.append("update")
            super().update(new_scale)

    monkeypatch.setattr(torch.amp, "GradScaler", Scaler)
    train(configure(**changes), Reports(), folder=tmp_path / "scaled")
    assert made[0].calls == ["step", "step", "update"] * 3
    assert made[0].get_scale() == 2.0**13
    plain, scaled = (read_checkpoint(tmp_path / name / "checkpoint.pt")["method"] for name in ("plain", "scaled"))
    for name, value in plain.items():
        assert torch.allclose(scaled[name].double(), value.double(), rtol=1e-5, atol=1e-7), name
