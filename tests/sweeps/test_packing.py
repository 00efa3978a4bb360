"""How many trials share a GPU."""

import pytest
import torch

from segda.errors import DeviceError
from sweeps.ledger.records import Allotment, Device, SweepInfo
from sweeps.planning import packing
from sweeps.planning.canary import CanaryResult, Costs
from sweeps.planning.coverage import heaviest
from sweeps.planning.machines import Machines
from sweeps.planning.packing import Gpu, Packing, ProbeResult, allotted, pack, pack_trials, packed
from sweeps.planning.profiles import Architecture, Profile, describe_device, infeasible, reachable

GIB = 2**30


class FakeGpu:
    """Copies share a device that makes `limit` steps per second at most; one copy makes `alone`."""

    def __init__(self, *, alone=10.0, limit=1000.0, gib=1.0, fails_at=None):
        self.alone, self.limit, self.gib, self.fails_at = alone, limit, gib, fails_at
        self.asked = []

    def __call__(self, copies):
        self.asked.append(copies)
        if self.fails_at is not None and copies >= self.fails_at:
            return ProbeResult(0.0, 0, "OutOfMemoryError: no memory left")
        return ProbeResult(min(self.alone * copies, self.limit), round(self.gib * copies * GIB))


def test_memory_bounds_the_packing_and_what_cannot_fit_is_not_even_tried():
    gpu = FakeGpu(gib=3.0)
    found = pack(gpu, gpu_memory_bytes=10 * GIB)
    assert found.per_gpu == 3  # 9 GiB are nine tenths of 10
    assert gpu.asked == [1, 2, 3]
    assert "4 would need 12.0 GiB of 10.0 GiB" in found.reason


def test_throughput_bounds_the_packing():
    found = pack(FakeGpu(alone=10, limit=25), gpu_memory_bytes=80 * GIB)
    assert found.per_gpu == 3
    assert found.reason == "4 make 25 steps per second together, 3 make 25"
    assert [row.steps_per_second for row in found.rows] == [10, 20, 25, 25]


def test_a_trial_that_fills_the_gpu_stays_alone():
    assert pack(FakeGpu(alone=10, limit=10.4), gpu_memory_bytes=80 * GIB).per_gpu == 1


@pytest.mark.parametrize(("limit", "per_gpu"), [(10.6, 2), (10.4, 1)])
def test_a_second_trial_must_gain_a_twentieth(limit, per_gpu):
    assert pack(FakeGpu(alone=10, limit=limit), gpu_memory_bytes=80 * GIB).per_gpu == per_gpu


def test_copies_that_fail_together_bound_the_packing():
    found = pack(FakeGpu(fails_at=3), gpu_memory_bytes=80 * GIB)
    assert found.per_gpu == 2
    assert "3 fail together: OutOfMemoryError" in found.reason


def test_memory_that_grows_faster_than_expected_is_noticed_when_measured():
    def probe(copies):
        return ProbeResult(10.0 * copies, {1: 2, 2: 5, 3: 11}[copies] * GIB)

    found = pack(probe, gpu_memory_bytes=12 * GIB)
    assert found.per_gpu == 2
    assert "3 need 11.0 GiB of 12.0 GiB" in found.reason


def test_a_configuration_that_fails_alone_gets_a_gpu_of_its_own():
    found = pack(FakeGpu(fails_at=1), gpu_memory_bytes=80 * GIB)
    assert (found.per_gpu, found.gpus_per_trial) == (1, 1.0)
    assert "fails alone" in found.reason


def test_no_more_than_the_bound_are_tried():
    gpu = FakeGpu(gib=0.1)
    assert pack(gpu, gpu_memory_bytes=80 * GIB, max_per_gpu=4).per_gpu == 4
    assert gpu.asked == [1, 2, 3, 4]


@pytest.mark.parametrize("per_gpu", range(1, 9))
def test_all_shares_of_a_gpu_fit_in_rays_four_digits(per_gpu):
    share = Packing(per_gpu, "").gpus_per_trial
    assert round(share * 10_000) * per_gpu <= 10_000
    assert int(1 / share) == per_gpu


# Into the sweep


def auto(make_spec, *, concurrency=1, **changes):
    return make_spec(resources={"cpus": 1, "gpus": "auto"}, budget={"trials": 9, "concurrency": concurrency}, **changes)


def never(function, *arguments):
    pytest.fail(f"{function} was called")


def machines(*gpus, cpus=64.0, call=never):
    return Machines(nodes=tuple({"CPU": cpus, "GPU": float(count)} for count in gpus), call=call, look=call)


def test_a_number_in_the_file_is_left_alone(make_spec, ledger):
    spec = make_spec(resources={"cpus": 1, "gpus": 0.5})
    assert pack_trials(spec, ledger=ledger, machines=machines(2)) == Allotment(
        gpus=0.5, concurrency=spec.budget.concurrency
    )


THREE = Packing(3, "")


def test_as_many_trials_run_as_all_gpus_hold(make_spec):
    found = packed(auto(make_spec), THREE, machines=machines(1, 1))
    assert found == Allotment(gpus=0.3333, concurrency=6)


def test_no_more_trials_run_than_processors_hold(make_spec):
    spec = make_spec(resources={"cpus": 4, "gpus": "auto"}, budget={"trials": 9})
    assert packed(spec, THREE, machines=machines(4, cpus=8.0)).concurrency == 2
    with pytest.raises(DeviceError, match="needs 4 CPUs"):
        packed(spec, THREE, machines=machines(4, cpus=2.0))


@pytest.mark.parametrize(("asked", "expected"), [(4, 4), (40, 6)])
def test_a_concurrency_in_the_file_remains_a_bound(make_spec, asked, expected):
    spec = auto(make_spec, concurrency=asked)
    assert packed(spec, THREE, machines=machines(2)).concurrency == expected


def test_without_gpus_trials_run_on_processors(make_spec, ledger):
    found = pack_trials(auto(make_spec, concurrency=3), ledger=ledger, machines=machines(0))
    assert found == Allotment(gpus=0.0, concurrency=3)


def test_readers_of_the_ledger_find_the_packing_again(make_spec):
    spec = auto(make_spec)
    found = packed(spec, THREE, machines=machines(1))
    assert allotted(spec, SweepInfo(allotment=found)) == found
    assert allotted(spec, SweepInfo()) == Allotment(gpus=1.0, concurrency=1)
    # A file that names a number is what counts, whatever an earlier one had.
    number = make_spec(resources={"cpus": 1, "gpus": 0.5}, budget={"trials": 9, "concurrency": 2})
    assert allotted(number, SweepInfo(allotment=found)) == Allotment(gpus=0.5, concurrency=2)


class FakeNode:
    """Answers what would be called on a node with a GPU."""

    def __init__(self, *, gib, doubts=()):
        self.gib = gib  # name of a method -> memory of a trial
        self.doubts = doubts
        self.probed = []
        self.measured = []

    def __call__(self, function, *arguments):
        if function is describe_device:
            return Device("cuda", "GPU", 1)
        if function is packing.describe_gpu:
            return Gpu("GPU", 16 * GIB)
        if function is packing.run_probe:
            task, copies = arguments
            self.probed.append((task.config["method"]["name"], task.config["batch_size"], copies))
            gib = self.gib[task.config["method"]["name"]]
            return ProbeResult(10.0 * copies, gib * copies * GIB, doubts=self.doubts)
        if function is packing.measure:
            (task,) = arguments
            self.measured.append(task.config["method"]["name"])
            gib = self.gib[task.config["method"]["name"]]
            return CanaryResult((Costs(0.1, 1.0, 2.0, 3.0, gib * GIB, 0, 10, "GPU"),))
        pytest.fail(f"{function} was called")


@pytest.fixture
def known_profiles(monkeypatch):
    def profiles(architectures, **_):
        macs = {"resnet18": 1e9, "resnet101": 8e9}
        return ((item, Profile({"macs": macs[item.model.backbone]})) for item in architectures)

    monkeypatch.setattr(packing, "profile_all", profiles)


SEARCH = {
    "method.name": ["source_only", "adversarial"],
    "model.backbone": ["resnet101", "resnet18"],
    "batch_size": [2, 8, 4],
    "optimizer.lr": {"low": 1e-3, "high": 1e-1, "log": True},
}


def test_the_largest_configuration_of_the_hungriest_method_is_probed(make_spec, ledger, known_profiles):
    node = FakeNode(gib={"source_only": 5, "adversarial": 3})
    said = []
    spec = auto(make_spec, search=SEARCH)
    found = pack_trials(spec, ledger=ledger, machines=machines(1, call=node), say=said.append)
    assert sorted(node.measured) == ["adversarial", "source_only"]
    assert node.probed == [("source_only", 8, 1), ("source_only", 8, 2)]
    assert found == Allotment(gpus=0.5, concurrency=2)
    assert "2 at once (3 would need 15.0 GiB of 16.0 GiB)" in said[0]


def test_a_packing_is_found_once(make_spec, ledger, known_profiles):
    spec = auto(make_spec, search=SEARCH)
    first = pack_trials(
        spec, ledger=ledger, machines=machines(1, call=FakeNode(gib={"source_only": 2, "adversarial": 3}))
    )
    again = FakeNode(gib={})
    assert pack_trials(spec, ledger=ledger, machines=machines(1, call=again)) == first
    assert again.probed == again.measured == []


def test_a_packing_that_was_found_in_company_is_used_and_looked_for_again(make_spec, ledger, known_profiles):
    spec, said = auto(make_spec, search=SEARCH), []
    gib = {"source_only": 5, "adversarial": 3}
    busy = machines(1, call=FakeNode(gib=gib, doubts=("others used 9 of 16 processors",)))
    first = pack_trials(spec, ledger=ledger, machines=busy, say=said.append)
    assert "while others computed, and is looked for again next time: others used 9 of 16" in said[0]
    again = FakeNode(gib=gib)
    assert pack_trials(spec, ledger=ledger, machines=machines(1, call=again)) == first
    assert again.probed
    last = FakeNode(gib=gib)
    pack_trials(spec, ledger=ledger, machines=machines(1, call=last))
    assert last.probed == []


def test_another_batch_is_another_packing(make_spec, ledger, known_profiles):
    gib = {"source_only": 2, "adversarial": 3}
    pack_trials(auto(make_spec, search=SEARCH), ledger=ledger, machines=machines(1, call=FakeNode(gib=gib)))
    node = FakeNode(gib=gib)
    pack_trials(
        auto(make_spec, search=SEARCH | {"batch_size": [2, 16]}), ledger=ledger, machines=machines(1, call=node)
    )
    assert node.probed[0] == ("adversarial", 16, 1)


def test_an_infeasible_architecture_is_never_the_largest(make_spec):
    references = {"large": {"model.backbone": "resnet101", "method.name": "adversarial"}}
    spec = auto(make_spec, search=SEARCH, constraints=["macs <= 4e9"], references=references)
    macs = {"resnet18": 1e9, "resnet101": 8e9}
    profiles = {item: Profile({"macs": macs[item.model.backbone]}) for item in reachable(spec)}
    found = heaviest(spec, profiles, infeasible=infeasible(spec, profiles).keys())
    trunks = {Architecture.of(spec.train_config(case.params, seed=0)).model.backbone for case in found}
    assert trunks == {"resnet18"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_is_described():
    assert packing.describe_gpu().memory_bytes > GIB
