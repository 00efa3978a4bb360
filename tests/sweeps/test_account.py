"""What a sweep has spent, and what it had planned."""

import pytest
from records import trial

from sweeps.failures import FailureClass
from sweeps.ledger.records import Allotment, Event
from sweeps.planning.account import account, account_of
from sweeps.planning.estimate import Estimate, Span
from sweeps.planning.plan import save_plan
from sweeps.trial import TrialKind, TrialRecord, TrialState

PLAN = Estimate(
    trials=4,
    concurrency=2,
    gpus_per_trial=0.5,
    steps=Span(250, 400),
    worker_seconds=Span(3600, 7200),
    wall_seconds=Span(1800, 3600),
    gpu_seconds=Span(1800, 3600),
    disk_bytes=10,
)


def event(number, timestamp, kind="lost"):
    return Event(id=0, kind=kind, message="a worker died", number=number, timestamp=timestamp)


@pytest.fixture
def spec(make_spec):
    return make_spec(resources={"cpus": 1, "gpus": 0.5}, budget={"trials": 4, "concurrency": 2})


def test_time_of_workers_and_gpus_adds_up(spec):
    records = [
        trial(0, seconds=100.0),
        trial(1, seconds=300.0, step=40, state=TrialState.PRUNED),
        trial(2, seconds=50.0, step=10, state=TrialState.FAILED),
    ]
    found = account(spec, records, [], wall_seconds=300.0)
    assert found.worker_seconds == 450
    assert found.gpu_seconds == 225
    assert found.failed_seconds == 50
    assert found.steps == 150
    assert found.busy_share == pytest.approx(450 / 600)
    assert found.states == {TrialState.COMPLETE: 1, TrialState.PRUNED: 1, TrialState.FAILED: 1}


def test_a_lost_attempt_costs_what_came_after_its_last_report(spec):
    records = [trial(0, seconds=500.0, started=1000.0)]
    reported = {0: [1100.0, 1200.0, 1400.0]}
    found = account(spec, records, [event(0, 1230.0)], reported=reported, wall_seconds=500.0)
    assert found.retried_seconds == 30
    assert found.retries == 1


def test_a_worker_lost_twice_without_a_report_in_between_is_not_counted_twice(spec):
    records = [trial(0, seconds=500.0, started=1000.0)]
    found = account(spec, records, [event(0, 1060.0), event(0, 1100.0)], wall_seconds=500.0)
    assert found.retried_seconds == 100


def test_no_more_is_lost_than_workers_had(spec):
    records = [trial(0, seconds=20.0, started=1000.0)]
    assert account(spec, records, [event(0, 1060.0)], wall_seconds=500.0).retried_seconds == 20


def test_a_reused_result_costs_no_steps(spec):
    found = account(spec, [trial(0, reused="earlier/3")], [], wall_seconds=1.0)
    assert (found.reused, found.steps) == (1, 0)
    assert ("taken from earlier results", "1 trials") in found.rows()


def test_without_a_clock_the_wall_time_reaches_from_first_begin_to_last_end(spec):
    records = [trial(0, started=10.0, finished=40.0), trial(1, started=20.0, finished=70.0)]
    assert account(spec, records, []).wall_seconds == 60


def test_rows_show_plan_and_losses(spec):
    records = [trial(0, seconds=4000.0, started=0.0), trial(1, seconds=1000.0, started=0.0, state=TrialState.FAILED)]
    events = [event(0, 600.0), event(None, 700.0, kind="resumed")]
    rows = dict(account(spec, records, events, wall_seconds=2700.0, planned=PLAN).rows())
    assert rows["trials"] == "1 complete, 1 failed (planned: 4)"
    assert rows["training steps"] == "200 (planned: 250 to 400)"
    assert rows["worker time"] == "1 h 23 min (planned: 1 h 00 min to 2 h 00 min)"
    assert rows["GPU hours"] == "0.694 (planned: 0.5 to 1)"
    assert rows["workers busy"] == "93% of 2"
    assert rows["spent on trials that failed"] == "16 min 40 s (20.0%)"
    assert rows["lost with workers"] == "at most 10 min 00 s (12.0%), 1 attempt made again"
    assert rows["drivers"] == "2"


def test_a_sweep_that_has_not_begun_has_an_account_too(spec):
    rows = dict(account(spec, [], []).rows())
    assert rows["trials"] == "none yet"
    assert rows["workers busy"] == "0% of 2"


def test_the_account_of_a_ledger_knows_plan_packing_and_reports(make_spec, begun, ledger, store):
    spec = begun(make_spec(resources={"cpus": 1, "gpus": "auto"}))
    save_plan(store, spec, PLAN, [], gpus=0.25)
    ledger.update_sweep(spec.name, seconds=100.0)
    ledger.update_info(spec.name, allotment=Allotment(gpus=0.25, concurrency=4))
    record = TrialRecord(spec.name, 0, "key", TrialKind.SEARCH, params={}, config={"steps": 6}, seed=0)
    ledger.add_trial(record)
    ledger.start_attempt(spec.name, 0, worker="here:1")
    began = ledger.trial(spec.name, 0).started
    ledger.add_point(
        spec.name, 0, attempt=1, step=1, timestamp=began + 10, metrics={"source/val/miou": 0.5}, seconds=10.0
    )
    ledger.add_event(
        spec.name, "lost", "a worker died", number=0, timestamp=began + 14, failure=FailureClass.WORKER_LOST
    )
    ledger.update_trial(spec.name, 0, seconds=80.0)
    found = account_of(ledger, store, spec.name, trials=ledger.trials(spec.name))
    assert found.planned == PLAN
    assert found.gpu_seconds == 20
    assert found.concurrency == 4
    assert found.retried_seconds == pytest.approx(4)
    assert found.busy_share == pytest.approx(0.2)
