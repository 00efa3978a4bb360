"""A budget in the user's money: what an hour costs, when it is spent, and what was paid for."""

import math

import fakes
import pytest
import torch
from records import trial

from segda.errors import ConfigError
from sweeps.checks.makers import load_spec
from sweeps.checks.resources import check_price
from sweeps.execution.coordinator import Coordinator
from sweeps.execution.runner import _Clock, _Stopper
from sweeps.execution.task import Task
from sweeps.execution.worker import describe_device
from sweeps.file.prices import Prices
from sweeps.ledger.records import Device, Event, SweepState
from sweeps.planning.account import account
from sweeps.planning.canary import Costs
from sweeps.planning.coverage import cases
from sweeps.planning.estimate import Span, Tried, estimate, verdicts
from sweeps.planning.machines import stated
from sweeps.planning.profiles import reachable
from sweeps.reports.status import read_status
from sweeps.reports.status_table import header_lines
from sweeps.trial import TrialKind, TrialState

A100 = "GPU 0 (NVIDIA A100-SXM4-80GB)"


@pytest.fixture
def priced(make_spec):
    """A sweep on half a GPU each, at 4 EUR an hour of a whole one."""
    return make_spec(
        resources={"gpus": 0.5},
        budget={"trials": 3, "concurrency": 2, "cost": 1.0, "price_per_hour": {"A100": 4.0}, "currency": "EUR"},
    )


# What an hour costs


@pytest.mark.parametrize(
    ("per_hour", "asked", "device", "price"),
    [
        ({"cpu": 0.1, "A100": 2.5}, (), "cpu", 0.1),
        ({"cpu": 0.1, "A100": 2.5}, (), A100, 2.5),
        ({"a100": 2.5}, (), A100, 2.5),
        ({"A10": 1.0}, (), A100, None),
        ({"A100": 2.5, "NVIDIA A100-SXM4-80GB": 3.0}, (), A100, 3.0),
        ({"GPU": 2.0}, (), A100, 2.0),
        ({"accelerator_type:A100": 5.0, "A100": 2.5}, ("accelerator_type:A100",), A100, 5.0),
        ({"accelerator_type:A100": 5.0, "A100": 2.5}, (), A100, 2.5),
        ({"spot": 0.5}, ("spot",), "cpu", 0.5),
        ({"A100 (80": 2.5}, (), A100, None),  # no pattern of any kind
    ],
)
def test_a_device_has_the_price_of_the_longest_name_in_its_own(per_hour, asked, device, price):
    assert Prices(per_hour, asked).of(device) == price


@pytest.mark.parametrize(("gpus", "paid"), [(0.0, 2.0), (0.25, 0.5), (2.0, 4.0)])
def test_a_share_of_a_gpu_costs_that_share(gpus, paid):
    assert Prices({"A100": 4.0}, gpus=gpus).paid(1800, A100) == paid


@pytest.mark.parametrize("device", [None, "GPU 0", "GPU 1 (NVIDIA H200)"])
def test_a_device_without_a_price_counts_as_the_dearest(device):
    assert Prices({"A100": 4.0, "cpu": 0.1}).paid(3600, device) == 4.0


def test_a_worker_says_which_gpu_it_has(monkeypatch):
    task = Task.__new__(Task)
    object.__setattr__(task, "config", {"device": "auto"})
    object.__setattr__(task, "processes", 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"NVIDIA H200 of index {index}")
    assert describe_device(task) == "GPU 2,3 (NVIDIA H200 of index 0)"


# When it is spent


@pytest.fixture
def coordinate(begun, ledger, store):
    clock = [100.0]

    def start(spec):
        if spec.name not in {sweep.name for sweep in ledger.sweeps()}:
            begun(spec)
        coordinator = Coordinator(
            spec,
            allotment=stated(spec),
            ledger=ledger,
            store=store,
            profiles={architecture: fakes.profile(architecture) for architecture in reachable(spec)},
            fingerprint=fakes.fingerprint,
            clock=lambda: clock[0],
        )
        return coordinator, clock

    return start


class Unasked:
    is_lost, stop_requested, by, lost = False, False, None, None


def started(coordinator, device=A100):
    task = coordinator.next_task()
    coordinator.on_message(task.number, task.attempt, {"event": "started", "worker": "node:1", "device": device})
    return task


def test_the_sweep_ends_when_its_money_is_spent_and_goes_on_with_more(priced, coordinate):
    coordinator, clock = coordinate(priced)
    stopper = _Stopper(coordinator, _Clock(spent=0.0), Unasked(), Unasked())
    started(coordinator)
    started(coordinator)
    clock[0] += 890  # two halves of a GPU at 4 an hour
    assert coordinator.cost == pytest.approx(2 * 890 / 3600 * 2)
    assert stopper.reason is None
    clock[0] += 20
    assert stopper.reason == "budget.cost is spent"
    assert stopper.state is SweepState.OUT_OF_BUDGET
    coordinator.release(stopper.reason)
    assert {record.state for record in coordinator.records} == {TrialState.QUEUED}
    again, _ = coordinate(priced)
    assert again.cost == pytest.approx(coordinator.cost)


def test_each_trial_is_paid_at_the_price_of_the_device_that_had_it(make_spec, coordinate):
    spec = make_spec(
        resources={"gpus": 1}, budget={"trials": 3, "concurrency": 2, "price_per_hour": {"A100": 4.0, "H200": 10.0}}
    )
    coordinator, clock = coordinate(spec)
    first = started(coordinator)
    started(coordinator, "GPU 1 (NVIDIA H200)")
    clock[0] += 3600
    coordinator.on_message(first.number, first.attempt, {"event": "failed", "failure": "diverged", "error": "no"})
    assert coordinator.cost == pytest.approx(14.0)


# What was paid for


def test_what_was_paid_for_adds_up_to_the_total(priced):
    records = [
        trial(0, seconds=3600.0, device=A100),
        trial(1, seconds=1800.0, device=A100, state=TrialState.PRUNED),
        trial(2, seconds=900.0, device=A100, state=TrialState.FAILED),
        trial(3, seconds=400.0, device=A100, state=TrialState.RUNNING),
        trial(4, seconds=500.0, device=A100, kind=TrialKind.REFERENCE),
        trial(5, seconds=600.0, device=A100, kind=TrialKind.REPLICATE, started=1000.0),
        trial(6, seconds=0.0, device=None, reused="earlier/1"),
    ]
    lost = Event(id=0, kind="lost", message="a worker died", number=5, timestamp=1090.0)
    found = account(priced, records, [lost], wall_seconds=4000.0)
    assert found.paid == pytest.approx(
        {
            "trials in full": 2.0,
            "trials stopped early": 1.0,
            "trials that failed": 0.5,
            "trials under way": 400 / 1800,
            "references": 500 / 1800,
            "replicates": 510 / 1800,
            "attempts made again": 90 / 1800,
        }
    )
    assert found.cost == pytest.approx(math.fsum(found.paid.values()))
    assert found.cost == pytest.approx(sum(record.seconds for record in records) / 1800)
    rows = dict(found.rows())
    assert rows["cost"] == "4.33 EUR"
    assert rows["paid for"].startswith("trials in full 2.00 (46%), trials stopped early 1.00 (23%), ")


def test_without_prices_nobody_speaks_of_money(make_spec):
    found = account(make_spec(), [trial(0, seconds=10.0)], [])
    assert (found.cost, found.paid) == (None, {})
    assert not {"cost", "paid for"} & dict(found.rows()).keys()


def test_status_says_what_was_spent_of_what(priced, begun, ledger):
    begun(priced)
    ledger.add_trial(trial(0, seconds=900.0, device=A100))
    status = read_status(ledger, "demo")
    assert status.cost == pytest.approx(0.5)
    assert "0.50 EUR of 1 spent" in "\n".join(header_lines(status))


# What it is going to cost


def tried(spec, seconds, device):
    costs = Costs(seconds, 0.0, 0.0, 0.0, 0, 0, 0, device)
    return [Tried(case, costs) for case in cases(spec)]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (10, "budget.cost 1 is enough"),
        (600, "budget.cost 1 is not enough: it takes at least 6, so at most about 0 of 3 trials will be run"),
    ],
)
def test_a_plan_says_what_the_sweep_will_cost(priced, seconds, said):
    found = estimate(priced, tried(priced, seconds, "NVIDIA A100-SXM4-80GB"))
    assert found.cost == pytest.approx((3 * 6 * seconds / 1800,) * 2)
    assert verdicts(priced, found) == [said]


def test_a_plan_on_a_processor_has_its_price(make_spec):
    spec = make_spec(budget={"trials": 3, "price_per_hour": {"cpu": 2.0}})
    assert estimate(spec, tried(spec, 100, "any maker's name")).cost == Span(1.0, 1.0)


# Wrong files


@pytest.mark.parametrize(
    ("budget", "gpus", "message"),
    [
        ({"cost": 20}, 0, "budget.cost: needs prices; add e.g. `price_per_hour: {A100: 2.5, cpu: 0.1}` under budget"),
        ({"currency": "EUR"}, 0, "budget.currency: needs prices"),
        ({"cost": 20, "price_per_hour": {"A100": 2}}, 0, "has no price for cpu, on which all trials compute"),
        ({"cost": 20, "price_per_hour": {"cpu": 2}}, 1, "has no price for a GPU, on which all trials compute"),
        ({"cost": 20, "price_per_hour": {"cpu": 2}}, "auto", "has no price for a GPU, on which all trials compute"),
        ({"cost": 0, "price_per_hour": {"cpu": 2}}, 0, "budget.cost: "),
        ({"cost": 20, "price_per_hour": {"cpu": -1}}, 0, "budget.price_per_hour.cpu: "),
        ({"cost": 20, "price_per_hour": {"cpu": "much"}}, 0, "budget.price_per_hour.cpu: "),
        ({"cost": 20, "price_per_hour": {"": 1}}, 0, "budget.price_per_hour"),
    ],
)
def test_wrong_prices_are_refused_in_one_line(budget, gpus, message):
    with pytest.raises(ConfigError) as caught:
        load_spec(fakes.plain_spec(budget={"trials": 3, **budget}, resources={"gpus": gpus}))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gpu_without_a_price_is_refused_where_trials_would_begin(priced):
    check_price(priced, Device("cuda", "NVIDIA A100-SXM4-80GB", 1))
    with pytest.raises(ConfigError, match="has no price for NVIDIA H200, on which its trials compute, only for A100"):
        check_price(priced, Device("cuda", "NVIDIA H200", 1))


def test_a_sweep_without_prices_runs_anywhere(make_spec):
    check_price(make_spec(), Device("cpu", "any", 1))
