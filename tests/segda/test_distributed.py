"""Several processes that train one network: the same arithmetic as one, and an orderly end in every case.

Sums, losses and normalization are compared between two threads, each a rank of a Gloo group, and one computation on the whole
batch. Training is compared between real processes.
"""

import copy
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from segda.checkpoint import read_checkpoint
from segda.config import TrainConfig
from segda.datasets.loaders import training_batches
from segda.datasets.scenes import generate_scenes
from segda.distributed import global_mean, global_sum, joined, synchronize_batch_norm
from segda.errors import ConfigError, DeviceError, OutOfMemoryError, ProcessLostError, TrainingDivergedError
from segda.processes import rank_device
from segda.splits import open_splits
from segda.training import TrainResult, train


def on_two_ranks(place: Path, work: Callable[[int], Any]) -> list[Any]:
    """Return what a function of the rank returns on each of two ranks of one group."""

    def member(rank: int) -> Any:
        store = dist.FileStore(str(place / "rendezvous"), 2)
        group = dist.ProcessGroupGloo(store, rank, 2, timedelta(seconds=30))
        with joined(group):
            result = work(rank)
        group.barrier().wait()  # who leaves at once may leave while the other one is still connecting
        return result

    with ThreadPoolExecutor(2) as ranks:
        return list(ranks.map(member, range(2)))


def half(batch: Tensor, rank: int) -> Tensor:
    return batch.chunk(2)[rank]


def close(got: Tensor, expected: Tensor, *, tolerance: float) -> bool:
    return float((got - expected).norm()) <= tolerance * float(expected.norm())


def test_without_a_group_sums_and_means_are_the_tensor_itself():
    tensor = torch.ones(3, requires_grad=True)
    assert global_sum(tensor) is tensor
    assert global_mean(tensor) is tensor


def test_sums_and_means_run_over_the_ranks_and_keep_the_type(tmp_path):
    def work(rank: int) -> tuple[Tensor, Tensor]:
        return global_sum(torch.tensor([rank + 1])), global_mean(torch.tensor(4.0 * rank))

    for total, mean in on_two_ranks(tmp_path, work):
        assert total.dtype == torch.int64
        assert (total.item(), mean.item()) == (3, 2.0)


def test_synchronized_batch_norm_takes_what_autocast_gives_it(tmp_path):
    """Activations in bfloat16, statistics and weights in float32."""
    image = (3 + torch.randn(4, 6, 5, 7)).bfloat16()
    plain = nn.Sequential(nn.BatchNorm2d(6))
    expected = plain(image)

    def work(rank: int) -> tuple[Tensor, Tensor]:
        own = nn.Sequential(nn.BatchNorm2d(6))
        synchronize_batch_norm(own)
        leaf = half(image, rank).clone().requires_grad_()
        output = own(leaf)
        output.square().sum().backward()
        assert output.dtype == leaf.grad.dtype == torch.bfloat16
        return output.detach(), own[0].running_var

    (first, variance), (second, _) = on_two_ranks(tmp_path, work)
    assert close(torch.cat([first, second]).float(), expected.detach().float(), tolerance=1e-2)
    assert close(variance, plain[0].running_var, tolerance=1e-4)


def test_synchronized_batch_norm_is_batch_norm_of_the_whole_batch(tmp_path):
    generator = torch.Generator().manual_seed(0)
    image = 3 + torch.randn(4, 6, 5, 7, dtype=torch.float64, generator=generator)
    image[2:] *= 4  # ranks whose own statistics are far from the common ones
    wanted = torch.randn(4, 6, 5, 7, dtype=torch.float64, generator=generator)
    plain = nn.Sequential(nn.BatchNorm2d(6)).double()
    nn.init.normal_(plain[0].weight, generator=generator)

    def step(network: nn.Module, image: Tensor, wanted: Tensor) -> tuple[Tensor, ...]:
        image = image.clone().requires_grad_()
        output = network(image)
        (output * wanted).square().sum().backward()
        return output.detach(), image.grad, network[0].weight.grad, network[0].bias.grad

    def work(rank: int) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        own = copy.deepcopy(plain)
        synchronize_batch_norm(own)
        return step(own, half(image, rank), half(wanted, rank)), own.state_dict()

    (first, first_state), (second, second_state) = on_two_ranks(tmp_path, work)
    output, grad_image, grad_weight, grad_bias = step(plain, image, wanted)
    assert close(torch.cat([first[0], second[0]]), output, tolerance=1e-12)
    assert close(torch.cat([first[1], second[1]]), grad_image, tolerance=1e-12)
    assert close(first[2] + second[2], grad_weight, tolerance=1e-12)
    assert close(first[3] + second[3], grad_bias, tolerance=1e-12)
    for state in (first_state, second_state):
        assert list(state) == list(plain.state_dict())
        assert all(torch.allclose(state[name], value, rtol=1e-12) for name, value in plain.state_dict().items())


def test_synchronized_batch_norm_evaluates_like_the_plain_one(tmp_path):
    image = torch.randn(2, 6, 4, 4)
    plain = nn.Sequential(nn.BatchNorm2d(6)).eval()
    synchronized = copy.deepcopy(plain)
    synchronize_batch_norm(synchronized)
    for output in on_two_ranks(tmp_path, lambda _: synchronized(image)):
        assert torch.equal(output, plain(image))
    alone = functional.batch_norm(image, None, None, torch.ones(6), torch.zeros(6), training=True)
    assert torch.equal(synchronized.train()(image), alone)


def test_each_rank_of_a_gpu_machine_has_the_gpu_of_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert rank_device("cuda", rank=2, processes=4) == torch.device("cuda:2")
    assert rank_device("cpu", rank=2, processes=8) == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"need a GPU each, device cuda:1 is a single one"):
        rank_device("cuda:1", rank=0, processes=2)
    with pytest.raises(DeviceError, match=r"5 processes need a GPU each, 4 can be seen"):
        rank_device("cuda", rank=0, processes=5)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """Six tiles of each domain, whose void pixels grow from tile to tile."""
    root = generate_scenes(tmp_path_factory.mktemp("data") / "scenes", size=64, train=6, val=2, seed=1)
    for number, path in enumerate(sorted((root / "Train" / "Urban" / "masks_png").iterdir())):
        with Image.open(path) as label:
            stored = np.array(label)
        stored[: 10 * number] = 0
        Image.fromarray(stored).save(path)
    return root


def configure(root: Path, method: str, /, **changes: Any) -> TrainConfig:
    """Crops of 32 x 64 and batches of four.

    The rates are small because a network with random weights amplifies roundings from step to step: at 1e-2 even one process with
    one thread and one with two are a per cent apart after six steps.
    """
    plain: dict[str, Any] = {
        "data": {
            "source": {"dataset": "scenes", "domain": "urban", "root": root},
            "target": {"dataset": "scenes", "domain": "rural", "root": root},
            "height": 64,
            "width": 64,
            "crop_height": 32,
            "crop_width": 64,
            "augmentation": "nadir_color",
            "cache": root.parent / "cache",
        },
        "model": {"pretrained": "none"},
        "method": {"name": method},
        "optimizer": {"lr": 1e-6},
        "discriminator_optimizer": {"lr": 1e-5},
        "steps": 6,
        "report_every": 1,
        "batch_size": 4,
        "precision": "fp32",
        "device": "cpu",
        "oracle": "never",
    }
    return TrainConfig.model_validate(plain | changes)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Reports(list):
    """Metrics by report, and the weights at the first one."""

    def __call__(self, step: int, metrics: dict[str, float], checkpoint: Path) -> None:
        if not self:
            self.first_weights = read_checkpoint(checkpoint)["method"]
        self.append(metrics)


def assert_moved_alike(start: dict[str, Tensor], one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    """Compare the ends of two runs with how far they moved: losses alone change too little to tell."""
    names = [name for name, value in one.items() if value.is_floating_point() and "running" not in name]
    for group in {name.partition(".")[0] for name in names}:
        trained = [name for name in names if name.startswith(group)]
        moved = torch.cat([(one[name] - start[name]).flatten() for name in trained])
        apart = torch.cat([(one[name] - two[name]).flatten() for name in trained])
        assert float(apart.norm()) < 0.02 * float(moved.norm()), group


def ranks_of(process: psutil.Process) -> list[psutil.Process]:
    """Return the ranks that a process has started."""
    return [child for child in process.children(recursive=True) if "segda.rank" in child.cmdline()]


def kill_a_rank() -> None:
    ranks_of(psutil.Process())[0].kill()


def test_ranks_read_what_one_process_would_read(scenes):
    split = open_splits(configure(scenes, "source_only")).labeled

    def images(batch_size: int, **part: int) -> list[Tensor]:
        settings = {"recipe": "nadir_color", "size": (32, 64), "seed": 0, "start_step": 3, "steps": 3}
        return [batch.image for batch in training_batches(split, batch_size=batch_size, **settings, **part)]

    parts = zip(*(images(6, rank=rank, ranks=3) for rank in range(3)), strict=True)
    for whole, cut in zip(images(6), parts, strict=True):
        assert torch.equal(torch.cat(cut), whole)
    with pytest.raises(ConfigError, match=r"a batch of 6 cannot be cut into 4 equal parts"):
        images(6, rank=0, ranks=4)


class Pair(NamedTuple):
    """The same run by one process and by two."""

    config: TrainConfig
    one: Reports
    two: Reports
    folder: Path

    def weights(self, run: str) -> dict[str, Tensor]:
        return read_checkpoint(self.folder / run / "checkpoint.pt")["method"]


SETTINGS = {
    "source_only": {},
    "adversarial": {},
    "dacs": {"tau": 0.2},  # random weights are sure of nothing
    "self_training": {"warm_up": 0.0, "rounds": 2},
}


@pytest.fixture(scope="module", params=SETTINGS)
def pair(request, scenes, tmp_path_factory) -> Pair:
    folder = tmp_path_factory.mktemp(request.param)
    config = configure(scenes, request.param, method={"name": request.param} | SETTINGS[request.param])
    one, two = Reports(), Reports()
    train(config, one, folder=folder / "one")
    # As in a worker of a cluster: not in the main thread.
    with ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(train, config, two, folder=folder / "two", processes=2).result()
    return Pair(config, one, two, folder)


def test_two_ranks_give_the_loss_curve_of_one_process(pair):
    assert len(pair.one) == len(pair.two) == 6
    losses = [name for name in pair.one[0] if name.startswith("train/loss_")]
    assert losses
    for one, two in zip(pair.one, pair.two, strict=True):
        for name in losses:
            assert two[name] == pytest.approx(one[name], rel=1e-5), name


def test_two_ranks_move_the_weights_as_one_process_does(pair):
    start, one, two = pair.one.first_weights, pair.weights("one"), pair.weights("two")
    assert list(one) == list(two)
    assert_moved_alike(start, one, two)
    for name in one:
        if "running" in name:
            assert close(two[name], one[name], tolerance=1e-4), name
        elif not one[name].is_floating_point():
            assert torch.equal(one[name], two[name]), name


@pytest.mark.slow  # two trainings on larger batches, and the start of a process
def test_ranks_that_train_in_micro_batches_average_their_gradients_once_over_all(tmp_path):
    """With two training images every micro-batch of two holds both: BatchNorm sees the same in each as in the whole batch."""
    root = generate_scenes(tmp_path / "scenes", size=64, train=2, val=2, seed=1)
    plain = configure(root, "adversarial", batch_size=8, steps=3).model_dump(mode="json")
    plain["data"] |= {"augmentation": "none", "crop_height": None, "crop_width": None}
    config = TrainConfig.model_validate(plain)
    one, two = Reports(), Reports()
    train(config, one, folder=tmp_path / "one")
    train(config, two, folder=tmp_path / "two", processes=2, micro_batch=2)
    for whole, parts in zip(one, two, strict=True):
        for name in ("train/loss_seg", "train/loss_adv", "train/loss_discriminator"):
            assert parts[name] == pytest.approx(whole[name], rel=1e-5), name
    final = [read_checkpoint(tmp_path / run / "checkpoint.pt")["method"] for run in ("one", "two")]
    assert_moved_alike(one.first_weights, *final)


@pytest.mark.slow  # processes start twice
@pytest.mark.parametrize("pair", ["adversarial"], indirect=True)
def test_a_report_that_stops_the_run_ends_all_ranks_and_two_ranks_go_on_bit_for_bit(pair, tmp_path):
    """The seam is the same: a scheduler stops a trial by an exception that is not an error."""
    torch.set_num_threads(3)
    seen: list[psutil.Process] = []

    def stop_at_two(step: int, metrics: dict[str, float], checkpoint: Path) -> None:
        if step == 2:
            seen.extend(ranks_of(psutil.Process()))
            raise SystemExit

    with pytest.raises(SystemExit):
        train(pair.config, stop_at_two, folder=tmp_path / "parts", processes=2)
    assert len(seen) == 1
    assert not seen[0].is_running()
    assert not dist.is_initialized()
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)

    rest = Reports()
    train(pair.config, rest, folder=tmp_path / "parts", acknowledged=2, processes=2)
    assert len(rest) == 4
    resumed = read_checkpoint(tmp_path / "parts" / "checkpoint.pt")["method"]
    assert all(torch.equal(resumed[name], value) for name, value in pair.weights("two").items())


@pytest.mark.parametrize("when", ["between reports", "at a report"])
def test_a_rank_that_is_killed_ends_the_run_with_one_error(scenes, tmp_path, when):
    killed: list[float] = []

    def kill(*_: object) -> None:
        if not killed:
            kill_a_rank()
            killed.append(time.monotonic())

    # `on_step` comes in the middle of a stretch of steps: the next collective operation finds the rank gone.
    between = when == "between reports"
    config = configure(scenes, "source_only", steps=400, report_every=400 if between else 1)

    def run() -> TrainResult:
        if between:
            return train(config, Reports(), folder=tmp_path, on_step=kill, processes=2)
        return train(config, kill, folder=tmp_path, processes=2)

    with pytest.raises(ProcessLostError, match=r"rank 1 of 2 was ended by signal 9; start again"):
        run()
    assert time.monotonic() - killed[0] < 10
    assert not dist.is_initialized()


def test_what_the_first_rank_reads_out_of_an_aborted_operation_is_no_divergence(scenes, tmp_path):
    def read_garbage(*_: object) -> None:
        (rank,) = ranks_of(psutil.Process())
        rank.kill()
        while psutil.pid_exists(rank.pid):  # until who watches it has seen it end, and aborts
            time.sleep(0.01)
        raise TrainingDivergedError("the loss became NaN")

    config = configure(scenes, "source_only", steps=400, report_every=400)
    with pytest.raises(ProcessLostError, match=r"rank 1 of 2 was ended by signal 9"):
        train(config, Reports(), folder=tmp_path, on_step=read_garbage, processes=2)


@pytest.mark.parametrize(
    ("broken", "expected", "words"),
    [
        # Not a lost process: who asked for the run halves the micro-batch.
        ("torch.empty(2**50)", OutOfMemoryError, "ran out of memory with 2 images of 32x64 at once"),
        # Nor is a full disk: to start again at once on the same node is no help.
        (
            "open('/dev/full', 'w').write('x' * 2**20)",
            OSError,
            "rank 1 of 2 failed: OSError: .* No space left on device",
        ),
    ],
)
def test_what_ends_another_rank_is_told_as_what_it_is(scenes, tmp_path, monkeypatch, broken, expected, words):
    code = f"""
        import sys, torch
        if "segda.rank" in " ".join(sys.orig_argv):
            import segda.gradients
            def compute(*_, **__):
                {broken}
            segda.gradients.Gradients.compute = compute
    """
    lines = [line.removeprefix(" " * 8) for line in code.splitlines()]
    (tmp_path / "sitecustomize.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(expected, match=words) as raised:
        train(configure(scenes, "source_only"), Reports(), folder=tmp_path / "run", processes=2)
    if expected is OSError:
        assert raised.value.errno == errno.ENOSPC
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.slow  # two processes start one after the other
def test_ranks_end_when_the_first_one_is_killed(scenes, tmp_path):
    (tmp_path / "config.json").write_text(configure(scenes, "source_only").model_dump_json())
    script = f"""
import time
from pathlib import Path
from segda.config import TrainConfig
from segda.training import train
config = TrainConfig.model_validate_json(Path({str(tmp_path / "config.json")!r}).read_text())
def report(*_):
    print("reported", flush=True)
    time.sleep(100)
train(config, report, folder=Path({str(tmp_path / "run")!r}), processes=2)
"""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "reported\n"
        (rank,) = ranks_of(psutil.Process(first.pid))
        os.kill(first.pid, signal.SIGKILL)
    gone, alive = psutil.wait_procs([rank], timeout=10)
    assert (len(gone), alive) == (1, [])
