import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segda.efficiency import idleness, latency, measure_latency
from segda.efficiency.latency import measure_side_by_side
from segda.errors import DeviceError


class Recorder(nn.Module):
    """Remembers under which circumstances it was called, in a list that copies share."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.seconds = seconds
        calls: list[dict[str, Any]] = []
        self.conv.register_forward_pre_hook(lambda module, args: calls.append(circumstances(module, args[0])))
        self.calls = lambda: calls

    def forward(self, image: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return self.conv(image)


def circumstances(module: nn.Module, image: Tensor) -> dict[str, Any]:
    return {
        "training": module.training,
        "inference": torch.is_inference_mode_enabled(),
        "shape": tuple(image.shape),
        "dtype": (image.dtype, module.weight.dtype),
        "channels_last": image.is_contiguous(memory_format=torch.channels_last),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }


def test_every_run_is_made_and_counted() -> None:
    module = Recorder()

    result = measure_latency(module, input_shape=(1, 3, 8, 10), warmup=3, runs=7)

    assert len(module.calls()) == 3 + 7
    assert (result.warmup, result.runs) == (3, 7)


def test_defaults_on_a_cpu_are_20_and_100_runs() -> None:
    module = Recorder()

    result = measure_latency(module, input_shape=(1, 3, 4, 4))

    assert (result.warmup, result.runs) == (20, 100)
    assert len(module.calls()) == 120


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_runs_follow_the_protocol(precision: Any, dtype: torch.dtype) -> None:
    module = Recorder().train()

    measure_latency(module, input_shape=(2, 3, 8, 10), precision=precision, warmup=1, runs=1)

    expected = {
        "training": False,
        "inference": True,
        "shape": (2, 3, 8, 10),
        "dtype": (dtype, dtype),
        "channels_last": True,
        "cudnn_benchmark": True,
    }
    assert module.calls() == [expected, expected]


def test_the_module_and_global_settings_are_left_alone() -> None:
    module = Recorder().train()
    benchmark = torch.backends.cudnn.benchmark

    measure_latency(module, input_shape=(1, 3, 4, 4), precision="bf16", warmup=1, runs=1)

    assert module.training
    assert module.conv.weight.dtype == torch.float32
    assert torch.backends.cudnn.benchmark == benchmark


def test_a_slow_module_stops_at_the_time_bound_but_not_before_ten_runs() -> None:
    result = measure_latency(Recorder(seconds=0.02), input_shape=(1, 3, 4, 4), max_seconds=0.05)

    assert result.warmup < 20
    assert 10 <= result.runs < 100
    assert result.median_ms >= 20


def test_the_time_bound_never_adds_runs() -> None:
    result = measure_latency(Recorder(), input_shape=(1, 3, 4, 4), warmup=1, runs=2, max_seconds=0.0)

    assert result.runs == 2


def test_statistics_are_those_of_the_timed_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [1000.0, 1000.0] + [float(value) for value in range(1, 12)]
    queue = iter(times)
    monkeypatch.setattr(latency, "_timed_on_cpu", lambda module, image: next(queue))

    result = measure_latency(Recorder(), input_shape=(1, 3, 4, 4), warmup=2, runs=11)

    timed = np.arange(1, 12)
    assert result.median_ms == 6
    assert result.fps == pytest.approx(1000 / 6)
    assert result.p90_ms == pytest.approx(np.percentile(timed, 90))
    assert result.p95_ms == pytest.approx(np.percentile(timed, 95))
    assert result.p99_ms == pytest.approx(np.percentile(timed, 99))
    assert result.iqr_ms == pytest.approx(5)


def timed_as(monkeypatch: pytest.MonkeyPatch, times: list[float], **reading: Any) -> latency.Latency:
    """Measure runs of given times on a machine with two readings: at the beginning, and 10 s later."""
    queue = iter([1.0, *times])
    monkeypatch.setattr(latency, "_timed_on_cpu", lambda module, image: next(queue))
    first = idleness.Reading(at=0.0, busy=0.0, own=0.0, stolen=0.0, slowed={}, processes={})
    readings = iter([first, replace(first, **{"at": 10.0, "busy": 10.0, "own": 10.0} | reading)])
    monkeypatch.setattr(idleness.Machine, "read", lambda self: next(readings))
    return measure_latency(Recorder(), input_shape=(1, 3, 4, 4), warmup=1, runs=len(times))


def test_a_module_that_was_measured_alone_and_repeats_is_reliable(monkeypatch: pytest.MonkeyPatch) -> None:
    result = timed_as(monkeypatch, [10.0, 10.5, 30.0, 10.0] * 10)
    assert (result.is_reliable, result.doubts, result.spread) == (True, (), 0.0)


def test_a_machine_that_was_slow_most_of_the_time_is_a_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    result = timed_as(monkeypatch, [10.0] * 16 + [13.0] * 24)
    assert result.doubts == ("the median is 13 ms, that of the fastest of 10 blocks of runs 10 ms",)
    assert result.spread == pytest.approx(3 / 13)


def test_a_machine_that_was_slow_for_a_while_shows_it_in_the_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    result = timed_as(monkeypatch, [10.0] * 24 + [13.0] * 16)
    assert result.is_reliable
    assert (result.median_ms, result.spread) == (10, pytest.approx(0.3))


def test_what_others_did_meanwhile_is_a_doubt_however_well_runs_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    result = timed_as(monkeypatch, [10.0] * 20, busy=19.0, processes={7: ("stress", 9.0)})
    assert [line.partition("used")[0] for line in result.doubts] == ["others "]
    assert result.doubts[0].endswith("stress (process 7)")


def test_runs_that_cannot_show_whether_they_repeat_are_doubtful(monkeypatch: pytest.MonkeyPatch) -> None:
    result = timed_as(monkeypatch, [10.0] * 4)
    assert result.doubts == ("4 runs do not show whether it repeats, at least 10 do",)


class Clock:
    """Time passes only in runs: each takes what a function of the time says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, milliseconds: Callable[[float], float]) -> None:
        self.now = 0.0
        self.ran: list[nn.Module] = []
        monkeypatch.setattr(latency, "_timed_on_cpu", self.timed)
        monkeypatch.setattr(latency.time, "monotonic", lambda: self.now / 1000)
        idle = idleness.Reading(at=0.0, busy=0.0, own=0.0, stolen=0.0, slowed={}, processes={})
        monkeypatch.setattr(idleness.Machine, "read", lambda machine: idle)
        self.milliseconds = milliseconds

    def timed(self, module: nn.Module, image: Tensor) -> float:
        self.ran.append(module)
        took = self.milliseconds(self.now)
        self.now += took
        return took


def test_several_take_turns_in_ten_blocks_whose_first_run_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, lambda now: 1.0)

    both = measure_side_by_side([Recorder(), Recorder()], input_shape=(1, 3, 4, 4), warmup=3, runs=20)

    names = dict(zip(dict.fromkeys(clock.ran), "AB", strict=True))
    assert "".join(names[module] for module in clock.ran) == "AAABBB" + "AAABBB" * 10
    assert [(each.warmup, each.runs) for each in both] == [(3, 20)] * 2


def test_a_network_measured_twice_differs_by_less_than_the_spread_that_is_stated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(0)
    # As times of processes are: never much shorter than usual, now and then much longer.
    Clock(monkeypatch, lambda now: 20 * (1 + random.gamma(1.0, 0.05) + 2 * (random.random() < 0.03)))
    shares = []
    for _ in range(100):
        one, other = (measure_latency(Recorder(), input_shape=(1, 3, 4, 4)) for _ in range(2))
        assert one.is_reliable
        assert other.is_reliable
        stated = max(one.spread, other.spread)
        shares.append(abs(one.median_ms - other.median_ms) / one.median_ms / stated)
    assert max(shares) < 1
    assert np.median(shares) > 0.05, "a spread that is far too large would say nothing"


def test_slow_spells_of_a_machine_are_seen_by_whoever_measures_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    # Spells in which another machine uses the same cores: a fifth slower for seconds, and nothing else tells of it.
    ends = np.cumsum([length for _ in range(400) for length in random.gamma(2.0, [8000, 3000])])

    def spells(now: float) -> float:
        is_slow = np.searchsorted(ends, now) % 2 == 1
        return 20 * (1.2 if is_slow else 1.0) * (1 + random.gamma(1.0, 0.02))

    def wrong_among_reliable(min_seconds: float) -> tuple[float, int]:
        Clock(monkeypatch, spells)
        found = [
            measure_latency(Recorder(), input_shape=(1, 3, 4, 4), min_seconds=min_seconds, max_seconds=1e6)
            for _ in range(60)
        ]
        pairs = [pair for pair in itertools.combinations(found, 2) if pair[0].is_reliable and pair[1].is_reliable]
        wrong = [
            abs(one.median_ms - other.median_ms) / one.median_ms >= max(one.spread, other.spread)
            for one, other in pairs
        ]
        return sum(wrong) / len(wrong), len(pairs)

    assert wrong_among_reliable(0.0)[0] > 0.1
    share, pairs = wrong_among_reliable(latency.STEADY_SECONDS)
    assert share < 0.02
    assert pairs > 50


def test_time_that_is_asked_for_is_shared_among_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, lambda now: 10.0)

    both = measure_side_by_side([Recorder(), Recorder()], input_shape=(1, 3, 4, 4), warmup=1, runs=20, min_seconds=11.9)

    # A turn is two counted runs of each and one before them: 60 ms, 20 of which make up the 1.2 s of a block.
    assert [each.runs for each in both] == [10 * 20 * 2] * 2
    assert clock.now == pytest.approx(12_000 + 20)


def test_drift_hits_networks_that_are_measured_in_turn_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    def drifting(now: float) -> float:
        return 20 * (1 + now / 50_000)

    Clock(monkeypatch, drifting)
    one, other = measure_side_by_side([Recorder(), Recorder()], input_shape=(1, 3, 4, 4))
    in_turn = abs(one.median_ms - other.median_ms) / one.median_ms
    assert in_turn < min(one.spread, other.spread)

    Clock(monkeypatch, drifting)
    one, other = (measure_latency(Recorder(), input_shape=(1, 3, 4, 4)) for _ in range(2))
    one_after_the_other = abs(one.median_ms - other.median_ms) / one.median_ms
    assert one_after_the_other > max(one.spread, other.spread), "else this clock would show nothing"
    assert in_turn < one_after_the_other / 4


def test_what_drifts_far_is_doubted_in_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch, lambda now: 20 * (1 + now / 10_000))
    for each in measure_side_by_side([Recorder(), Recorder()], input_shape=(1, 3, 4, 4)):
        assert [line.partition(" is ")[0] for line in each.doubts] == ["the median"]


def test_an_absent_device_is_an_error() -> None:
    with pytest.raises(DeviceError):
        measure_latency(Recorder(), input_shape=(1, 3, 4, 4), device="cuda:99")


@pytest.mark.parametrize(("warmup", "runs"), [(0, 5), (1, 0)])
def test_no_runs_are_refused(warmup: int, runs: int) -> None:
    with pytest.raises(ValueError, match="at least one warm-up run and one timed run"):
        measure_latency(Recorder(), input_shape=(1, 3, 4, 4), warmup=warmup, runs=runs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_runs_are_waited_for() -> None:
    conv = nn.Conv2d(64, 64, 3, padding=1)

    small = measure_latency(conv, input_shape=(1, 64, 64, 64), device="cuda", runs=20)
    large = measure_latency(conv, input_shape=(1, 64, 2048, 2048), device="cuda", runs=20)

    # Without waiting both would be the time of a launch.
    assert large.median_ms > 10 * small.median_ms
