"""The decisions of a running sweep, without an executor."""

import math
import time
from collections import Counter
from dataclasses import replace

import fakes
import numpy as np
import pytest
import torch

from segda.config import TrainConfig
from segda.errors import ConfigError, DatasetNotFoundError
from segda.target_prediction import TARGET_PREDICTION, TargetPrediction, write_target_prediction
from sweeps.execution.coordinator import Coordinator, Wait
from sweeps.failures import POLICIES, FailureClass, Policy
from sweeps.planning.machines import stated
from sweeps.planning.profiles import reachable
from sweeps.selection.choice import select
from sweeps.trial import TrialKind, TrialRecord, TrialState

STARTED = {"event": "started", "worker": "node1:7", "device": "GPU 0"}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """Try again at once."""
    monkeypatch.setattr(Policy, "pause", lambda policy, failures: 0.0)


@pytest.fixture
def clock():
    """Seconds that the coordinator sees go by, in a list of one."""
    return [100.0]


@pytest.fixture
def coordinate(begun, ledger, store, clock):
    """Start a sweep, or go on with it when it is in the ledger."""

    def start(spec, listener=None):
        if spec.name not in {sweep.name for sweep in ledger.sweeps()}:
            begun(spec)
        return Coordinator(
            spec,
            allotment=stated(spec),
            ledger=ledger,
            store=store,
            profiles={architecture: fakes.profile(architecture) for architecture in reachable(spec)},
            fingerprint=fakes.fingerprint,
            listener=listener,
            clock=lambda: clock[0],
        )

    return start


def point(step, value=0.5, **metrics):
    values = {"source/val/miou": value, "target/largest_class_share": 0.5, "target/missing_classes": 0.0}
    return {"event": "point", "step": step, "metrics": values | metrics}


COLLAPSED = {"target/largest_class_share": 0.99}


def complete(coordinator, task, value=0.5):
    assert not coordinator.on_message(task.number, task.attempt, point(6, value))
    assert coordinator.on_message(task.number, task.attempt, {"event": "finished"})


def test_a_row_is_running_in_the_ledger_before_its_task_is_handed_out(coordinate, make_spec, ledger):
    task = coordinate(make_spec()).next_task()
    record = ledger.trial("demo", task.number)
    assert record.state is TrialState.RUNNING
    assert record.attempt == task.attempt == 1
    assert task.config["optimizer"]["lr"] == record.params["optimizer.lr"]


def test_a_configuration_is_checked_when_its_trial_is_made_and_not_again(coordinate, make_spec, monkeypatch):
    spec = make_spec(seeds=[0, 1], budget={"trials": 1, "concurrency": 1}, references={"best": {"optimizer.lr": 0.01}})
    coordinator = coordinate(spec)
    checked = []

    def validate(plain):
        checked.append(plain)
        return TrainConfig.__pydantic_validator__.validate_python(plain)

    monkeypatch.setattr(TrainConfig, "model_validate", validate)
    for expected in range(1, 4):  # a reference, a proposal, a finalist with another seed
        task = coordinator.next_task()
        coordinator.on_lost(task.number, task.attempt, "killed")
        again = coordinator.next_task()
        assert (again.number, again.attempt, again.config) == (task.number, 2, task.config)
        complete(coordinator, again)
        assert len(checked) == expected


def test_what_a_worker_notes_is_an_event_of_its_trial_which_goes_on(coordinate, make_spec, ledger):
    told = []
    coordinator = coordinate(
        make_spec(), lambda kind, record, message: told.append((kind, record and record.number, message))
    )
    task = coordinator.next_task()
    assert not coordinator.on_message(task.number, task.attempt, {"event": "note", "message": "begins anew"})
    assert told[-1] == ("note", 0, "begins anew")
    event = ledger.events("demo")[-1]
    assert (event.kind, event.number, event.message) == ("note", 0, "begins anew")
    complete(coordinator, task)


def test_no_more_trials_run_at_once_than_the_budget_allows(coordinate, make_spec):
    coordinator = coordinate(make_spec())
    first, second = coordinator.next_task(), coordinator.next_task()
    assert {first.number, second.number} == {0, 1}
    assert coordinator.next_task() is Wait.NOT_NOW


def test_a_sweep_is_done_when_its_trials_are_spent_and_none_runs(coordinate, make_spec):
    coordinator = coordinate(make_spec(budget={"trials": 2, "concurrency": 2}))
    first, second = coordinator.next_task(), coordinator.next_task()
    complete(coordinator, first)
    assert coordinator.next_task() is Wait.NOT_NOW
    complete(coordinator, second)
    assert coordinator.next_task() is Wait.DONE


def test_references_come_before_proposals(coordinate, make_spec):
    spec = make_spec(references={"upper_bound": {"method.name": "target_only", "optimizer.lr": 0.025}})
    record = coordinate(spec).records
    assert record == []
    coordinator = coordinate(spec)
    task = coordinator.next_task()
    assert coordinator.records[0].kind is TrialKind.REFERENCE
    assert coordinator.records[0].name == "upper_bound"
    assert task.config["method"]["name"] == "target_only"
    coordinator.next_task()
    assert coordinator.records[1].kind is TrialKind.SEARCH


def test_a_message_of_a_replaced_attempt_changes_nothing_and_stops_the_worker(coordinate, make_spec, ledger):
    coordinator = coordinate(make_spec())
    task = coordinator.next_task()
    coordinator.on_lost(task.number, task.attempt, "node died")
    again = coordinator.next_task()
    assert (again.number, again.attempt) == (task.number, 2)
    assert coordinator.on_message(task.number, task.attempt, point(1))
    assert ledger.points("demo", task.number) == []
    assert not coordinator.on_message(again.number, again.attempt, point(1))
    assert [kept.step for kept in ledger.points("demo", task.number)] == [1]


def test_a_lost_trial_continues_after_the_last_acknowledged_step(coordinate, make_spec):
    coordinator = coordinate(make_spec())
    task = coordinator.next_task()
    coordinator.on_message(task.number, task.attempt, point(1))
    coordinator.on_message(task.number, task.attempt, point(2))
    coordinator.on_lost(task.number, task.attempt, "node died")
    again = coordinator.next_task()
    assert again.acknowledged == 2
    assert again.folder == task.folder


def test_time_with_workers_is_added_up_over_attempts(coordinate, make_spec, ledger, clock):
    coordinator = coordinate(make_spec(resources={"gpus": 0.5}))
    for _ in range(2):
        task = coordinator.next_task()
        clock[0] += 500  # waiting for a worker costs nothing
        coordinator.on_message(task.number, task.attempt, STARTED)
        clock[0] += 60
        coordinator.on_lost(task.number, task.attempt, "killed")
    assert ledger.trial("demo", 0).seconds == pytest.approx(120)
    assert coordinator.gpu_hours == pytest.approx(0.5 * 120 / 3600)


def test_workers_lost_with_progress_between_them_are_no_reason_to_give_up(coordinate, make_spec, ledger):
    coordinator = coordinate(make_spec())
    for step in range(1, 6):
        task = coordinator.next_task()
        coordinator.on_message(task.number, task.attempt, point(step))
        coordinator.on_lost(task.number, task.attempt, "killed")
    assert ledger.trial("demo", 0).state is TrialState.QUEUED


def test_preempted_trials_are_never_given_up(coordinate, make_spec, ledger):
    coordinator = coordinate(make_spec())
    for _ in range(20):
        task = coordinator.next_task()
        coordinator.on_lost(task.number, task.attempt, "taken away", failure=FailureClass.PREEMPTED)
    assert ledger.trial("demo", 0).state is TrialState.QUEUED


def test_a_failed_trial_waits_while_others_go_on(coordinate, make_spec, monkeypatch):
    monkeypatch.setattr(Policy, "pause", lambda policy, failures: 3600.0)
    coordinator = coordinate(make_spec(budget={"trials": 2, "concurrency": 1}))
    task = coordinator.next_task()
    coordinator.on_lost(task.number, task.attempt, "killed")
    other = coordinator.next_task()
    assert other.number == 1
    complete(coordinator, other)
    assert coordinator.next_task() is Wait.NOT_NOW
    assert not coordinator.is_done


def test_out_of_memory_halves_the_micro_batch_down_to_what_batch_normalization_needs(coordinate, make_spec, ledger):
    spec = make_spec()
    base = spec.base | {"batch_size": 16}
    coordinator = coordinate(make_spec(base=base))
    sizes = []
    while (task := coordinator.next_task()).number == 0:
        sizes.append(task.micro_batch)
        failed = {"event": "failed", "failure": "out_of_memory", "error": "CUDA out of memory"}
        coordinator.on_message(task.number, task.attempt, failed)
    assert sizes == [None, 8, 4]
    record = ledger.trial("demo", 0)
    assert (record.state, record.failure) == (TrialState.FAILED, FailureClass.OUT_OF_MEMORY)
    assert record.micro_batch == 4
    assert record.config["batch_size"] == 16
    assert "CUDA out of memory; no smaller micro-batch is tried" in record.error
    assert "do not leave batch normalization 4 images at once" in record.error


def test_a_micro_batch_that_fits_is_kept_over_restarts(coordinate, make_spec, ledger):
    spec = make_spec(base=make_spec().base | {"batch_size": 8})
    coordinator = coordinate(spec)
    task = coordinator.next_task()
    failed = {"event": "failed", "failure": "out_of_memory", "error": "CUDA out of memory"}
    coordinator.on_message(task.number, task.attempt, failed)
    again = coordinate(spec).next_task()
    assert (again.number, again.micro_batch) == (0, 4)
    assert any("micro-batches of 4" in event.message for event in ledger.events("demo"))


def test_a_process_that_ends_after_a_silence_as_long_as_its_watchdog_waits_is_a_hang(
    coordinate, make_spec, ledger, clock
):
    coordinator = coordinate(make_spec(resources={"watchdog_minutes": 10}))
    for _ in range(POLICIES[FailureClass.HANG].retries + 1):
        task = coordinator.next_task()
        coordinator.on_message(task.number, task.attempt, STARTED)
        clock[0] += 601
        coordinator.on_lost(task.number, task.attempt, "its process died")
    record = ledger.trial("demo", 0)
    assert (record.state, record.failure) == (TrialState.FAILED, FailureClass.HANG)
    assert "no report for 10 minutes; hang.txt in its folder on node1:7 shows where it stood" in record.error


def test_a_process_that_ends_before_its_watchdog_would_end_it_is_lost(coordinate, make_spec, ledger, store, clock):
    coordinator = coordinate(make_spec(resources={"watchdog_minutes": 10}))
    task = coordinator.next_task()
    folder = store.trial(ledger.trial("demo", task.number))
    folder.mkdir(parents=True)
    (folder / "hang.txt").write_text("of an earlier attempt")
    clock[0] += 3600  # waiting for a worker is no silence
    coordinator.on_message(task.number, task.attempt, STARTED)
    for step in (1, 2):
        clock[0] += 500
        coordinator.on_message(task.number, task.attempt, point(step))
    clock[0] += 500
    coordinator.on_lost(task.number, task.attempt, "its process died")
    assert ledger.trial("demo", 0).failure is FailureClass.WORKER_LOST


def test_a_silent_worker_whose_node_is_gone_is_no_hang(coordinate, make_spec, ledger, clock):
    coordinator = coordinate(make_spec(resources={"watchdog_minutes": 10}))
    task = coordinator.next_task()
    coordinator.on_message(task.number, task.attempt, STARTED)
    clock[0] += 3600
    coordinator.on_lost(task.number, task.attempt, "its node has died", failure=FailureClass.NODE_LOST)
    assert ledger.trial("demo", 0).failure is FailureClass.NODE_LOST


RETRIED = [failure for failure, policy in POLICIES.items() if policy.retries]
BY_MACHINES = [failure for failure in RETRIED if not POLICIES[failure].blames_configuration]


def fail(coordinator, failure=FailureClass.DATA, error="gone"):
    """Hand a trial out and let it fail; return its number."""
    task = coordinator.next_task()
    coordinator.on_lost(task.number, task.attempt, error, failure=failure)
    return task.number


@pytest.mark.parametrize("failure", RETRIED)
def test_the_bound_of_a_class_counts_failures_of_that_class_alone(coordinate, make_spec, ledger, failure):
    coordinator = coordinate(make_spec(base=make_spec().base | {"batch_size": 16}))
    tried, other = coordinator.next_task(), coordinator.next_task()
    others = [FailureClass.OUT_OF_MEMORY, FailureClass.PREEMPTED, FailureClass.OUT_OF_MEMORY]
    others += [other for other in RETRIED if other is not failure]
    for step, cause in enumerate([*others, *[failure] * POLICIES[failure].retries, failure]):
        assert ledger.trial("demo", 0).state is TrialState.RUNNING
        coordinator.on_lost(tried.number, tried.attempt, "gone", failure=cause)
        coordinator.on_message(other.number, other.attempt, point(step + 1))  # it is alone with that
        tried = coordinator.next_task()
    record = ledger.trial("demo", 0)
    assert (record.state, record.failure) == (TrialState.FAILED, failure)
    assert record.error == f"given up after {POLICIES[failure].retries + 1} such failures without a report; last: gone"


def test_hangs_are_counted_over_restarts_and_interruptions_and_what_machines_did_are_not(coordinate, make_spec, ledger):
    spec = make_spec()
    for failure in [FailureClass.DATA] * 9 + [FailureClass.HANG]:
        assert fail(coordinate(spec), failure) == 0
        coordinate(spec).next_task()
    assert fail(coordinate(spec), FailureClass.HANG) == 0
    record = ledger.trial("demo", 0)
    assert (record.state, record.failure) == (TrialState.FAILED, FailureClass.HANG)


# Failures that blame no configuration


@pytest.fixture
def heard():
    return []


@pytest.fixture
def listen(heard):
    return lambda kind, record, message: heard.append((kind, record.number if record else None, message))


@pytest.mark.parametrize("failure", BY_MACHINES)
def test_when_different_trials_are_failed_by_the_machines_the_sweep_waits_and_tries_one_at_a_time(
    coordinate, make_spec, ledger, clock, heard, listen, failure
):
    coordinator = coordinate(make_spec(budget={"trials": 4, "concurrency": 3}), listen)
    tasks = [coordinator.next_task() for _ in range(3)]
    for task in tasks[:2]:
        coordinator.on_lost(task.number, task.attempt, "gone", failure=failure)
    assert coordinator.next_task() is Wait.NOT_NOW
    assert heard[-2][2].startswith("nothing works now")
    assert [event.kind for event in ledger.events("demo")] == ["lost", "outage", "lost"]
    clock[0] += 5
    probe = coordinator.next_task()
    assert coordinator.next_task() is Wait.NOT_NOW  # one only, though two slots are free
    coordinator.on_lost(probe.number, probe.attempt, "gone", failure=failure)
    clock[0] += 9
    assert coordinator.next_task() is Wait.NOT_NOW
    clock[0] += 1
    probe = coordinator.next_task()
    coordinator.on_message(probe.number, probe.attempt, point(1))
    assert ledger.events("demo")[-1].kind == "outage_over"
    assert {coordinator.next_task().number, probe.number, tasks[2].number} == {0, 1, 2}
    assert {record.state for record in ledger.trials("demo")} == {TrialState.RUNNING}


def test_an_outage_loses_no_trial_and_spends_no_budget(coordinate, make_spec, ledger, clock):
    coordinator = coordinate(make_spec(budget={"trials": 6, "concurrency": 2}))
    for _ in range(300):
        clock[0] += 3
        while not isinstance(task := coordinator.next_task(), Wait):
            coordinator.on_message(task.number, task.attempt, {"event": "failed", "failure": "disk", "error": "full"})
    assert coordinator.stalled is None
    assert {record.state for record in ledger.trials("demo")} == {TrialState.QUEUED}
    while not isinstance(task := coordinator.next_task(), Wait) or not coordinator.is_done:
        clock[0] += 1
        if not isinstance(task, Wait):
            complete(coordinator, task)
    assert [record.state for record in ledger.trials("demo")] == [TrialState.COMPLETE] * 6


def test_an_outage_that_lasts_ends_the_sweep_with_one_line_and_the_next_driver_goes_on(
    coordinate, make_spec, ledger, clock
):
    spec = make_spec(budget={"trials": 2, "concurrency": 2}, resources={"outage_minutes": 10})
    coordinator = coordinate(spec)
    begun = clock[0]
    while coordinator.stalled is None:
        clock[0] += 1
        while not isinstance(task := coordinator.next_task(), Wait):
            coordinator.on_lost(task.number, task.attempt, "no such folder: /data", failure=FailureClass.DATA)
    assert clock[0] - begun == pytest.approx(600, abs=2)
    assert not coordinator.is_done
    assert coordinator.stalled.startswith("nothing has worked for 10 min 00 s, last trial ")
    assert coordinator.stalled.endswith("data: no such folder: /data; see that every node can read the data")
    assert {record.state for record in ledger.trials("demo")} == {TrialState.QUEUED}
    coordinator = coordinate(spec)
    assert coordinator.stalled is None
    complete(coordinator, coordinator.next_task())
    complete(coordinator, coordinator.next_task())
    assert coordinator.next_task() is Wait.DONE
    assert coordinator.is_done


def test_a_worker_that_still_trains_keeps_the_sweep_from_giving_up(coordinate, make_spec, clock):
    coordinator = coordinate(make_spec(budget={"trials": 3, "concurrency": 3}))
    tasks = [coordinator.next_task() for _ in range(3)]
    coordinator.on_message(tasks[2].number, tasks[2].attempt, STARTED)
    for task in tasks[:2]:
        coordinator.on_lost(task.number, task.attempt, "gone", failure=FailureClass.DATA)
    clock[0] += 3600
    assert coordinator.stalled is None
    coordinator.on_lost(tasks[2].number, tasks[2].attempt, "gone", failure=FailureClass.DATA)
    assert coordinator.stalled is not None


def test_the_only_trial_of_a_sweep_waits_for_its_data_too(coordinate, make_spec, ledger, clock):
    coordinator = coordinate(make_spec(budget={"trials": 1, "concurrency": 1}))
    for _ in range(20):
        fail(coordinator)
        clock[0] += 300
    assert ledger.trial("demo", 0).state is TrialState.QUEUED
    complete(coordinator, coordinator.next_task())
    assert coordinator.next_task() is Wait.DONE
    assert coordinator.is_done


def test_preempted_trials_are_no_outage(coordinate, make_spec):
    coordinator = coordinate(make_spec())
    for _ in range(2):
        fail(coordinator, FailureClass.PREEMPTED)
        fail(coordinator, FailureClass.PREEMPTED)
    assert not isinstance(coordinator.next_task(), Wait)
    assert not isinstance(coordinator.next_task(), Wait)


def test_what_hangs_in_an_outage_hangs_with_everything_else(coordinate, make_spec, ledger, clock):
    coordinator = coordinate(make_spec(budget={"trials": 3, "concurrency": 3}))
    tasks = [coordinator.next_task() for _ in range(3)]
    for task in tasks[:2]:
        coordinator.on_lost(task.number, task.attempt, "gone", failure=FailureClass.STORAGE)
    for _ in range(4):
        coordinator.on_lost(tasks[2].number, tasks[2].attempt, "no report", failure=FailureClass.HANG)
        clock[0] += 300
        tasks[2] = coordinator.next_task()
    assert ledger.trial("demo", 2).state is not TrialState.FAILED


BACKBONES = {"model.backbone": ["resnet18", "resnet34"], "optimizer.lr": {"low": 1e-3, "high": 1e-1, "log": True}}


def run_with_a_broken_branch(coordinator, ledger, clock, is_broken, *, name="demo"):
    """Drive a sweep to its end, two trials at a time; those of which `is_broken` says so are failed by the machines."""
    running = []
    while coordinator.stalled is None and not coordinator.is_done:
        clock[0] += 1
        while not isinstance(task := coordinator.next_task(), Wait):
            running.append([task, 0])
        for item in list(running):
            task, step = item
            item[1] = step + 1
            if is_broken(ledger.trial(name, task.number)):
                coordinator.on_lost(task.number, task.attempt, "a.png is unreadable", failure=FailureClass.DATA)
            elif step < 6:
                coordinator.on_message(task.number, task.attempt, point(step + 1))
                continue
            else:
                coordinator.on_message(task.number, task.attempt, {"event": "finished"})
            running.remove(item)


def test_a_branch_that_alone_is_failed_by_the_machines_is_set_aside_and_takes_no_place(
    coordinate, make_spec, ledger, clock
):
    spec = make_spec(search=BACKBONES, budget={"trials": 12, "concurrency": 2})
    coordinator = coordinate(spec)
    run_with_a_broken_branch(coordinator, ledger, clock, lambda trial: trial.params["model.backbone"] == "resnet34")
    records = ledger.trials("demo")
    aside = [record.number for record in records if record.is_set_aside]
    assert aside
    counted = [record for record in records if not record.is_set_aside]
    assert len(counted) == 12
    # The last ones had nobody left to be compared with.
    assert sum(record.state is TrialState.COMPLETE for record in counted) >= 10
    assert coordinator.is_done == all(record.state is TrialState.COMPLETE for record in counted)

    again = coordinate(spec)  # the images are whole again
    assert {record.number for record in again.records if record.state is TrialState.QUEUED} >= set(aside)
    run_with_a_broken_branch(again, ledger, clock, lambda trial: False)
    assert {record.state for record in ledger.trials("demo")} == {TrialState.COMPLETE}
    assert len(ledger.trials("demo")) == len(records)
    assert again.is_done


def test_there_is_an_end_to_trials_in_place_of_those_that_the_machines_fail(coordinate, make_spec, ledger, clock):
    references = {f"fine{number}": {"optimizer.lr": 0.001 * number} for number in range(1, 9)}
    coordinator = coordinate(make_spec(references=references, budget={"trials": 3, "concurrency": 1}))
    coordinator.concurrency = 2
    fine = coordinator.next_task()
    for step in range(1, 60):
        if isinstance(task := coordinator.next_task(), Wait):
            break
        if ledger.trial("demo", task.number).kind is TrialKind.REFERENCE:
            complete(coordinator, task)
        else:
            coordinator.on_lost(task.number, task.attempt, "gone", failure=FailureClass.DATA)
            coordinator.on_message(fine.number, fine.attempt, point(step))
            coordinator.concurrency = 2
    complete(coordinator, fine)
    assert coordinator.next_task() is Wait.DONE
    assert not coordinator.is_done
    aside = [record for record in ledger.trials("demo") if record.is_set_aside]
    assert len(aside) == 3
    assert coordinator.stalled.startswith(
        "3 of 11 trials were failed by the machines, not by their configurations: data, last trial 10: given up after 4"
    )


def test_a_reference_that_the_machines_failed_is_left_over_since_nothing_can_take_its_place(
    coordinate, make_spec, ledger, clock
):
    references = {"bound": {"method.name": "target_only", "optimizer.lr": 0.025}}
    spec = make_spec(references=references, budget={"trials": 8, "concurrency": 2})
    coordinator = coordinate(spec)
    run_with_a_broken_branch(coordinator, ledger, clock, lambda trial: trial.kind is TrialKind.REFERENCE)
    assert not coordinator.is_done
    assert coordinator.stalled.startswith("1 of 9 trials were failed by the machines")
    run_with_a_broken_branch(again := coordinate(spec), ledger, clock, lambda trial: False)
    assert again.is_done
    assert again.stalled is None
    assert len(ledger.trials("demo")) == 9


@pytest.mark.parametrize(
    ("failure", "error", "is_taken"),
    [
        (FailureClass.DATA, "gone", True),
        (FailureClass.NODE_LOST, "gone", True),
        # So were full disks written down before they had a class.
        (FailureClass.ERROR, "RuntimeError: [enforce fail at inline_container.cc:672] . unexpected pos 1 vs 2", True),
        (FailureClass.ERROR, "KeyError: 1", False),
        (FailureClass.DIVERGED, "NaN", False),
        (FailureClass.HANG, "no report", False),
    ],
)
def test_a_new_driver_takes_up_what_the_machines_failed_however_long_ago(
    coordinate, make_spec, ledger, failure, error, is_taken
):
    spec = make_spec()
    task = coordinate(spec).next_task()
    ledger.add_point("demo", 0, attempt=1, step=2, timestamp=1002.0, metrics={"source/val/miou": 0.5})
    ledger.update_trial("demo", 0, state=TrialState.FAILED, failure=failure, error=error, finished=1003.0)
    coordinator = coordinate(spec)
    record = ledger.trial("demo", 0)
    assert (record.state is TrialState.QUEUED, record.finished is None) == (is_taken, is_taken)
    if is_taken:
        again = coordinator.next_task()
        assert (again.number, again.attempt, again.acknowledged) == (task.number, 2, 2)
        (event,) = [event for event in ledger.events("demo") if event.kind == "requeued"]
        assert (event.number, event.failure, event.message) == (0, failure, f"taken up again after: {error}")


def test_data_that_a_new_trial_reads_may_be_away_when_it_is_proposed(coordinate, make_spec, ledger, clock, monkeypatch):
    coordinator = coordinate(make_spec(budget={"trials": 2, "concurrency": 1}))
    coordinator._proposals._fingerprints.clear()
    is_away = [True]

    def fingerprint(config):
        if is_away[0]:
            raise DatasetNotFoundError("camvid: no such folder: /data")
        return "0123456789abcdef"

    monkeypatch.setattr(coordinator._proposals, "_fingerprint", fingerprint)
    assert coordinator.next_task() is Wait.NOT_NOW
    assert ledger.trials("demo") == []
    assert "data: DatasetNotFoundError: camvid: no such folder: /data" in ledger.events("demo")[-1].message
    assert coordinator.next_task() is Wait.NOT_NOW
    clock[0] += 5
    assert coordinator.next_task() is Wait.NOT_NOW
    is_away[0] = False
    clock[0] += 10
    complete(coordinator, coordinator.next_task())
    complete(coordinator, coordinator.next_task())
    assert coordinator.next_task() is Wait.DONE


def test_a_restart_continues_what_ran_and_repeats_nothing_that_finished(coordinate, make_spec, ledger):
    spec = make_spec()
    before = coordinate(spec)
    first, second = before.next_task(), before.next_task()
    complete(before, first)
    before.on_message(second.number, second.attempt, point(3))
    after = coordinate(spec)
    assert ledger.trial("demo", second.number).state is TrialState.QUEUED
    again = after.next_task()
    assert (again.number, again.attempt, again.acknowledged) == (second.number, 2, 3)
    assert after.next_task().number == 2


def test_the_search_proposes_the_same_after_a_restart(coordinate, make_spec, ledger):
    def proposals(name, restart):
        spec = make_spec(name=name, budget={"trials": 4, "concurrency": 1})
        coordinator = coordinate(spec)
        for _ in range(4):
            complete(coordinator, coordinator.next_task())
            if restart:
                coordinator = coordinate(spec)
        return [record.params for record in ledger.trials(name)]

    assert proposals("whole", restart=False) == proposals("restarted", restart=True)


def test_a_pruned_trial_stops_at_the_rung(coordinate, make_spec, ledger):
    scheduler = {"name": "asha", "reduction_factor": 2, "min_steps": 2}
    coordinator = coordinate(make_spec(scheduler=scheduler))
    good, bad = coordinator.next_task(), coordinator.next_task()
    assert not coordinator.on_message(good.number, good.attempt, point(2, 0.9))
    assert coordinator.on_message(bad.number, bad.attempt, point(2, 0.1))
    assert ledger.trial("demo", bad.number).state is TrialState.PRUNED
    assert ledger.trial("demo", good.number).state is TrialState.RUNNING


def test_a_new_driver_compares_with_what_was_reported_to_the_one_before(coordinate, make_spec):
    spec = make_spec(scheduler={"name": "asha", "reduction_factor": 2, "min_steps": 2})
    coordinator = coordinate(spec)
    good = coordinator.next_task()
    assert not coordinator.on_message(good.number, good.attempt, point(2, 0.9))
    coordinator = coordinate(spec)
    coordinator.next_task()
    bad = coordinator.next_task()
    assert coordinator.on_message(bad.number, bad.attempt, point(2, 0.1))


def test_what_was_decided_at_a_rung_stands_when_a_lost_checkpoint_brings_the_trial_there_again(
    coordinate, make_spec, ledger, clock
):
    scheduler = {"name": "asha", "reduction_factor": 2, "min_steps": 2}
    coordinator = coordinate(make_spec(scheduler=scheduler))
    early, late = coordinator.next_task(), coordinator.next_task()
    assert not coordinator.on_message(early.number, early.attempt, point(2, 0.1))  # it has no rivals yet
    assert not coordinator.on_message(late.number, late.attempt, point(2, 0.9))
    coordinator.on_lost(early.number, early.attempt, "its node has died", failure=FailureClass.NODE_LOST)
    again = coordinator.next_task()
    coordinator.on_message(again.number, again.attempt, STARTED)
    for step in (1, 2):
        clock[0] += 60
        assert not coordinator.on_message(again.number, again.attempt, point(step, 0.1))
    assert [kept.step for kept in ledger.points("demo", early.number)] == [2]
    assert ledger.trial("demo", early.number).seconds == pytest.approx(120)
    assert coordinator.on_message(again.number, again.attempt, point(4, 0.1)) is False
    assert not coordinator.on_message(late.number, late.attempt, point(4, 0.9))
    assert [kept.step for kept in ledger.points("demo", early.number)] == [2, 4]


def test_references_are_neither_pruned_nor_compared_with(coordinate, make_spec):
    scheduler = {"name": "asha", "reduction_factor": 2, "min_steps": 2}
    references = {"bound": {"method.name": "target_only", "optimizer.lr": 0.025}}
    coordinator = coordinate(make_spec(scheduler=scheduler, references=references))
    reference, trial = coordinator.next_task(), coordinator.next_task()
    assert not coordinator.on_message(reference.number, reference.attempt, point(2, 0.9))
    assert not coordinator.on_message(trial.number, trial.attempt, point(2, 0.5))
    assert not coordinator.on_message(reference.number, reference.attempt, point(4, 0.1))


def test_an_infeasible_architecture_is_recorded_and_never_handed_out(coordinate, make_spec, ledger):
    search = {
        "model.backbone": ["resnet18", "resnet101"],
        "optimizer.lr": {"low": 1e-3, "high": 1e-1, "log": True},
    }
    spec = make_spec(search=search, constraints=["macs <= 1.5e9"], budget={"trials": 6, "concurrency": 6})
    coordinator = coordinate(spec)
    tasks = [coordinator.next_task() for _ in range(6)]
    assert {task.config["model"]["backbone"] for task in tasks} == {"resnet18"}
    infeasible = [record for record in ledger.trials("demo") if record.state is TrialState.INFEASIBLE]
    assert infeasible
    assert all(record.params["model.backbone"] == "resnet101" and record.attempt == 0 for record in infeasible)
    assert "macs <= 1.5e+09 is broken: 8e+09" in infeasible[0].error


def test_digests_of_the_files_that_an_attempt_left_are_kept_before_its_trial_is_complete(coordinate, make_spec, ledger):
    coordinator = coordinate(make_spec())
    task = coordinator.next_task()
    coordinator.on_message(task.number, task.attempt, STARTED)
    message = {"event": "files", "digests": {"result.json": "c0ffee"}}
    assert coordinator.on_message(task.number, task.attempt, message) is False
    assert ledger.proofs("demo")[task.number].files == {"result.json": "c0ffee"}
    assert coordinator.on_message(task.number, task.attempt + 1, message | {"digests": {}}) is True  # of nobody
    assert ledger.proofs("demo")[task.number].files == {"result.json": "c0ffee"}


def test_a_key_has_the_data_that_its_method_reads(coordinate, make_spec, ledger, monkeypatch):
    """A method that is supervised on the target reads other labels, under the same settings of the data."""
    monkeypatch.setattr(fakes, "fingerprint", lambda config: f"read by {config.method.name}")
    coordinator = coordinate(make_spec(references={"bound": {"method.name": "target_only", "optimizer.lr": 0.025}}))
    coordinator.next_task()
    coordinator.next_task()
    assert [proof.data for proof in ledger.proofs("demo").values()] == ["read by target_only", "read by source_only"]


def test_an_architecture_is_trained_whose_latency_was_measured_in_company(coordinate, make_spec, ledger, monkeypatch):
    figures = {"macs": 1e9, "latency_ms": 75.2, "fps": 13.3, "latency_reliable": 0.0}
    monkeypatch.setattr(fakes, "profile", lambda architecture: fakes.Profile(figures, doubts=("others computed",)))
    coordinator = coordinate(make_spec(constraints=["latency_ms <= 20"]))
    task = coordinator.next_task()
    assert coordinator.records[task.number].state is TrialState.RUNNING
    assert ledger.trial("demo", task.number).profile == figures


def test_a_reference_that_breaks_a_constraint_is_not_trained_either(coordinate, make_spec, ledger):
    references = {"large": {"model.backbone": "resnet101", "optimizer.lr": 0.01}}
    coordinator = coordinate(make_spec(references=references, constraints=["macs <= 2e9"]))
    assert coordinator.next_task().number == 1
    record = ledger.trial("demo", 0)
    assert (record.name, record.state, record.attempt) == ("large", TrialState.INFEASIBLE, 0)
    assert "macs <= 2e+09 is broken: 8e+09" in record.error


def test_a_sweep_without_any_feasible_architecture_is_refused_with_figures(coordinate, make_spec):
    with pytest.raises(ConfigError, match=r"no architecture .* macs <= 1000 is broken: 1e\+09"):
        coordinate(make_spec(constraints=["macs <= 1e3"]))


def test_the_best_trials_are_trained_again_with_the_other_seeds(coordinate, make_spec, ledger):
    spec = make_spec(seeds=[0, 1, 2], finalists=1, budget={"trials": 3, "concurrency": 1})
    coordinator = coordinate(spec)
    for value in (0.5, 0.7, 0.6):
        complete(coordinator, coordinator.next_task(), value)
    tasks = []
    while not isinstance(task := coordinator.next_task(), Wait):
        tasks.append(task)
        complete(coordinator, task, 0.9)
    assert task is Wait.DONE
    replicates = [record for record in ledger.trials("demo") if record.kind is TrialKind.REPLICATE]
    assert [(record.parent, record.seed) for record in replicates] == [(1, 1), (1, 2)]
    assert [task.config["seed"] for task in tasks] == [1, 2]
    assert len({record.key for record in ledger.trials("demo")}) == 5


def test_further_runs_go_where_they_tell_most_and_a_new_driver_decides_as_the_one_before(coordinate, make_spec, ledger):
    """The first two are close, the third is far off: it gets no second run."""
    spec = make_spec(
        seeds={"budget": 12, "confidence": 0.999}, finalists=3, budget={"trials": 4, "concurrency": 1}, reuse=False
    )
    coordinator = coordinate(spec)
    for value in (0.3, 0.7, 0.69, 0.68):  # the default configuration is the first
        complete(coordinator, coordinator.next_task(), value)

    def train(task):
        parent, seed = ledger.trial("demo", task.number).parent, task.config["seed"]
        complete(coordinator, task, {0: 0.30, 1: 0.61, 2: 0.605, 3: 0.57}[parent] + (seed * 37 % 11 - 5) / 1000)

    decided = []
    while not isinstance(task := coordinator.next_task(), Wait):
        decided.append((ledger.trial("demo", task.number).parent, task.config["seed"]))
        if len(decided) % 2:
            coordinator = coordinate(spec)  # its driver died before the run had ended
            task = coordinator.next_task()
            assert task.config["seed"] == decided[-1][1]
        train(task)
    assert task is Wait.DONE
    assert decided[:5] == [(1, 1), (2, 1), (3, 1), (0, 1), (0, 2)]
    counts = Counter(parent for parent, _ in decided)
    assert counts[3] == 1
    assert min(counts[1], counts[2]) >= 3
    chosen = select(ledger.trials("demo"), spec)
    assert (chosen.picked.number, chosen.standing.default) == (1, 0)
    assert 0.28 < chosen.standing.gain.low < chosen.standing.gain.mean < chosen.standing.gain.high < 0.34
    assert "Of 3 finalists it is the best with probability" in chosen.reason
    assert "ahead of the default configuration, trial 0 (95 % interval" in chosen.reason


def test_a_finalist_that_a_further_seed_broke_gets_no_more_runs(coordinate, make_spec, ledger):
    spec = make_spec(seeds={"budget": 10, "confidence": 0.99}, finalists=2, budget={"trials": 3, "concurrency": 1})
    coordinator = coordinate(spec)
    for value in (0.3, 0.7, 0.69):
        complete(coordinator, coordinator.next_task(), value)
    while not isinstance(task := coordinator.next_task(), Wait):
        parent = ledger.trial("demo", task.number).parent
        if parent == 1:
            coordinator.on_message(task.number, task.attempt, point(6, 0.9, **COLLAPSED))
            assert coordinator.on_message(task.number, task.attempt, {"event": "finished"})
        else:
            complete(coordinator, task, 0.6)
    repeated = Counter(trial.parent for trial in ledger.trials("demo") if trial.kind is TrialKind.REPLICATE)
    assert repeated == {1: 1, 2: 1, 0: 2}
    assert select(ledger.trials("demo"), spec).picked.number == 2


def leave_prediction(store, ledger, number, classes):
    """Let a trial's folder have what its network predicts for the target."""
    folder = store.trial(ledger.trial("demo", number))
    folder.mkdir(parents=True, exist_ok=True)
    prediction = TargetPrediction(np.array(classes, dtype=np.uint8), 3, "same")
    write_target_prediction(folder / TARGET_PREDICTION, prediction)


def test_finalists_are_those_that_agree_most_with_all_and_stay_so_while_they_are_repeated(
    coordinate, make_spec, ledger, store
):
    spec = make_spec(selection="ensv", seeds=[0, 1, 2], finalists=2, budget={"trials": 4, "concurrency": 1})
    coordinator = coordinate(spec)
    predictions = [[0, 1, 2, 0, 1], [0, 1, 2, 2, 1], [0, 1, 2, 2, 2], [2, 2, 2, 2, 1]]
    for value, classes in zip((0.88, 0.86, 0.87, 0.9), predictions, strict=True):
        task = coordinator.next_task()
        leave_prediction(store, ledger, task.number, classes)
        complete(coordinator, task, value)
    while not isinstance(task := coordinator.next_task(), Wait):
        # With the second seed a new driver goes on, after the repetitions said something else.
        leave_prediction(store, ledger, task.number, predictions[3])
        complete(coordinator, task, 0.9)
        coordinator = coordinate(spec)
    replicates = [record for record in ledger.trials("demo") if record.kind is TrialKind.REPLICATE]
    assert {record.parent for record in replicates} == {1, 2}
    assert [record.seed for record in replicates] == [1, 1, 2, 2]


@pytest.mark.parametrize("scheduler", [{"name": "asha", "min_steps": 2, "reduction_factor": 2}])
def test_a_collapsed_network_stops_nobody_by_a_score_that_rewards_it(coordinate, make_spec, scheduler):
    metric = "target/validator/entropy"
    spec = make_spec(
        scheduler=scheduler,
        objectives=[{"metric": metric, "direction": "maximize"}],
        budget={"trials": 3, "concurrency": 3},
    )
    coordinator = coordinate(spec)
    collapsed, healthy, worse = (coordinator.next_task() for _ in range(3))
    assert not coordinator.on_message(collapsed.number, 1, point(2, **{metric: -0.01}, **COLLAPSED))
    assert not coordinator.on_message(healthy.number, 1, point(2, **{metric: -0.5}))
    assert coordinator.on_message(worse.number, 1, point(2, **{metric: -0.9}))
    # It cannot win at the next rung either.
    assert not coordinator.on_message(healthy.number, 1, point(4, **{metric: -0.5}))
    assert coordinator.on_message(collapsed.number, 1, point(4, **{metric: -0.01}, **COLLAPSED))


def test_references_are_trained_with_the_other_seeds_too_where_the_file_asks_for_it(coordinate, make_spec, ledger):
    spec = make_spec(
        references={"lower": {"optimizer.lr": 0.01}, "upper": {"method.name": "target_only", "optimizer.lr": 0.01}},
        repeat_references=True,
        seeds=[0, 1, 2],
        budget={"trials": 2, "concurrency": 1},
    )
    coordinator = coordinate(spec)
    while not isinstance(task := coordinator.next_task(), Wait):
        complete(coordinator, task, 0.5 + task.number / 100)
    replicates = [record for record in ledger.trials("demo") if record.kind is TrialKind.REPLICATE]
    assert [(record.parent, record.seed) for record in replicates] == [(0, 1), (1, 1), (3, 1), (0, 2), (1, 2), (3, 2)]
    assert [record.config["method"]["name"] for record in replicates[:2]] == ["source_only", "target_only"]
    assert coordinate(spec).next_task() is Wait.DONE


def test_finalists_wait_for_the_references_that_they_are_measured_by(coordinate, make_spec, ledger):
    """The source-only network ends last and shows that the leader lost what supervision gives for free."""
    spec = make_spec(
        base=fakes.plain_spec()["base"] | {"method": {"name": "adversarial"}},
        references={"plain": {"method.name": "source_only"}},
        seeds=[0, 1],
        budget={"trials": 2, "concurrency": 2},
    )
    coordinator = coordinate(spec)
    reference = coordinator.next_task()
    for missing, value in ((5.0, 0.7), (0.0, 0.6)):
        task = coordinator.next_task()
        classes = {f"source/val/iou/{name}": value for name in range(10)}
        missing_classes = {"target/missing_classes": missing}
        coordinator.on_message(task.number, task.attempt, point(6, value, **classes, **missing_classes))
        coordinator.on_message(task.number, task.attempt, {"event": "finished"})
    assert coordinator.next_task() is Wait.NOT_NOW
    complete(coordinator, reference, 0.6)
    complete(coordinator, coordinator.next_task(), 0.6)
    assert coordinator.next_task() is Wait.DONE
    assert [trial.parent for trial in ledger.trials("demo") if trial.kind is TrialKind.REPLICATE] == [2]
    assert coordinate(spec).next_task() is Wait.DONE


def test_a_sweep_that_goes_on_with_more_trials_repeats_the_new_best(coordinate, make_spec, ledger):
    for trials, value in ((1, 0.5), (2, 0.6)):
        coordinator = coordinate(make_spec(seeds=[0, 1], budget={"trials": trials, "concurrency": 1}))
        complete(coordinator, coordinator.next_task(), value)
        complete(coordinator, coordinator.next_task(), value)
        assert coordinator.next_task() is Wait.DONE
    assert [trial.parent for trial in ledger.trials("demo") if trial.kind is TrialKind.REPLICATE] == [0, 2]


def test_a_reference_that_was_changed_is_refused_and_not_taken_for_the_old_one(coordinate, make_spec):
    coordinate(make_spec(references={"plain": {"optimizer.lr": 0.01}})).next_task()
    with pytest.raises(
        ConfigError, match=r"'plain' .* optimizer.lr: 0.01, .* now says optimizer.lr: 0.02; give .* another name"
    ):
        coordinate(make_spec(references={"plain": {"optimizer.lr": 0.02}}))


@pytest.mark.parametrize(
    ("metrics", "failure"),
    [({}, FailureClass.INVALID), ({"source/val/miou": math.nan}, FailureClass.DIVERGED)],
    ids=["missing", "nan"],
)
def test_a_training_without_a_usable_objective_fails_instead_of_being_complete(
    coordinate, make_spec, ledger, metrics, failure
):
    coordinator = coordinate(make_spec())
    task = coordinator.next_task()
    message = point(6)
    message["metrics"] = {"train/loss_seg": 1.0} | metrics
    coordinator.on_message(task.number, task.attempt, message)
    coordinator.on_message(task.number, task.attempt, {"event": "finished"})
    record = ledger.trial("demo", task.number)
    assert (record.state, record.failure) == (TrialState.FAILED, failure)
    assert "source/val/miou" in record.error


def test_a_completed_trial_keeps_no_trace_of_an_earlier_lost_worker(coordinate, make_spec, ledger):
    coordinator = coordinate(make_spec())
    task = coordinator.next_task()
    coordinator.on_lost(task.number, task.attempt, "killed")
    complete(coordinator, coordinator.next_task())
    record = ledger.trial("demo", task.number)
    assert (record.state, record.failure, record.error) == (TrialState.COMPLETE, None, None)


def test_listeners_hear_what_happens_in_order(coordinate, make_spec):
    heard = []

    def listen(kind: str, record: TrialRecord | None, message: str) -> None:
        heard.append((kind, record.number if record else None))

    coordinator = coordinate(make_spec(), listen)
    task = coordinator.next_task()
    coordinator.on_message(task.number, task.attempt, {"event": "started", "worker": "host:1"})
    complete(coordinator, task)
    assert heard == [("started", 0), ("point", 0), ("complete", 0)]


def test_moved_data_are_read_from_the_new_place(coordinate, make_spec):
    spec = make_spec()
    coordinate(spec).next_task()
    base = dict(spec.base)
    base["data"] = base["data"] | {"source": base["data"]["source"] | {"root": "/elsewhere"}}
    moved = replace(coordinate(type(spec).model_validate(spec.canonical() | {"base": base})).next_task())
    assert moved.config["data"]["source"]["root"] == "/elsewhere"
    assert moved.attempt == 2


# Reproducible searches


def test_a_reproducible_search_waits_for_the_trials_that_it_builds_on(coordinate, make_spec):
    spec = make_spec(sampler={"name": "random", "reproducible": True}, budget={"trials": 4, "concurrency": 2})
    coordinator = coordinate(spec)
    first, second = coordinator.next_task(), coordinator.next_task()
    complete(coordinator, second)
    assert coordinator.next_task() is Wait.NOT_NOW  # trial 2 builds on trial 0
    complete(coordinator, first)
    assert coordinator.next_task().number == 2
    assert coordinator.next_task().number == 3


@pytest.mark.parametrize(
    "scheduler",
    [
        {"name": "asha", "min_steps": 1, "reduction_factor": 2},
        {"name": "mo_asha", "min_steps": 1, "reduction_factor": 2},
        {"name": "dominance", "min_steps": 1, "confidence": 0.5},
    ],
    ids=lambda scheduler: scheduler["name"],
)
def test_a_reproducible_sweep_does_not_depend_on_who_is_faster(
    coordinate, make_spec, ledger, store, tmp_path, scheduler
):
    from sweeps.ledger.database import Ledger

    def run(name, order):
        spec = make_spec(
            sampler={"name": "tpe", "startup_trials": 2, "reproducible": True},
            scheduler=scheduler,
            budget={"trials": 8, "concurrency": 2},
            finalists=3,
            seeds={"budget": 9, "confidence": 0.99},
            reuse=False,
        )
        with Ledger.open(tmp_path / f"{name}.db") as own:
            own.create_sweep("demo", spec=spec.canonical())
            coordinator = Coordinator(
                spec,
                allotment=stated(spec),
                ledger=own,
                store=store,
                profiles={architecture: fakes.profile(architecture) for architecture in reachable(spec)},
                fingerprint=fakes.fingerprint,
            )
            running = {}
            while not coordinator.is_done:
                while not isinstance(task := coordinator.next_task(), Wait):
                    running[task.number] = [task, 0]
                if not running:
                    continue
                number = order(running)
                task, step = running[number]
                luck = (task.config["seed"] * 7 + number) % 5 / 100
                value = (
                    fakes.quality(spec.train_config(own.trial("demo", number).params, seed=0)) * (0.5 + step / 12)
                    + luck
                )
                stopped = coordinator.on_message(number, task.attempt, point(step + 1, value))
                running[number][1] += 1
                if not stopped and step + 1 == 6:
                    stopped = coordinator.on_message(number, task.attempt, {"event": "finished"})
                if stopped:
                    del running[number]
            return [(record.params, record.seed, record.state, record.step) for record in own.trials("demo")]

    older_first, newer_first = run("older", min), run("newer", max)
    assert older_first == newer_first
    assert TrialState.PRUNED in {state for _, _, state, _ in older_first}
    assert 3 < sum(seed > 0 for _, seed, _, _ in older_first) <= 9


def test_a_reproducible_search_waits_for_a_trial_that_the_machines_failed_until_it_is_trained(
    coordinate, make_spec, ledger, clock
):
    def proposals(name, number):
        sampler = {"name": "tpe", "startup_trials": 2, "reproducible": True}
        spec = make_spec(name=name, sampler=sampler, budget={"trials": 6, "concurrency": 2}, reuse=False)
        coordinator = coordinate(spec)
        run_with_a_broken_branch(coordinator, ledger, clock, lambda trial: trial.number == number, name=name)
        if number is not None:
            assert coordinator.stalled.startswith("1 of 3 trials were failed by the machines")
            run_with_a_broken_branch(coordinator := coordinate(spec), ledger, clock, lambda trial: False, name=name)
        assert coordinator.is_done
        return [record.params for record in ledger.trials(name)]

    assert proposals("whole", None) == proposals("disturbed", 1)


# Budgets


def test_the_search_ends_when_the_target_value_is_reached(coordinate, make_spec, ledger):
    coordinator = coordinate(make_spec(budget={"trials": 3, "concurrency": 1, "target": 0.7}))
    complete(coordinator, coordinator.next_task(), 0.6)
    complete(coordinator, coordinator.next_task(), 0.8)
    assert coordinator.next_task() is Wait.DONE
    assert any("trial 1 reached budget.target 0.7" in event.message for event in ledger.events("demo"))


def test_a_collapsed_network_does_not_reach_the_target_value(coordinate, make_spec):
    coordinator = coordinate(make_spec(budget={"trials": 3, "concurrency": 1, "target": 0.7}))
    task = coordinator.next_task()
    coordinator.on_message(task.number, task.attempt, point(6, 0.8, **COLLAPSED))
    coordinator.on_message(task.number, task.attempt, {"event": "finished"})
    complete(coordinator, coordinator.next_task(), 0.8)
    assert coordinator.next_task() is Wait.DONE


# Results that are there already


def finish_files(store, record):
    folder = store.trial(record)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"of": record.sweep}, folder / "checkpoint.pt")
    (folder / "result.json").write_text(f"result.json of {record.sweep}")


@pytest.fixture
def twins(coordinate, make_spec, ledger, store):
    """A finished sweep, and another one that proposes the same."""
    coordinator = coordinate(make_spec(budget={"trials": 1, "concurrency": 1}))
    complete(coordinator, coordinator.next_task(), 0.8)
    finish_files(store, ledger.trial("demo", 0))

    def other(**changes):
        return make_spec(name="twin", budget={"trials": 1, "concurrency": 1}, **changes)

    return other


def test_the_same_is_not_trained_twice_also_across_sweeps(coordinate, twins, ledger, store):
    coordinator = coordinate(twins())
    assert coordinator.next_task() is Wait.DONE
    assert coordinator.is_done
    first, second = ledger.trial("demo", 0), ledger.trial("twin", 0)
    assert second.state is TrialState.COMPLETE
    assert second.reused == "demo/0"
    assert second.attempt == 0
    assert second.metrics == first.metrics
    assert [point.step for point in ledger.points("twin", 0)] == [6]
    assert torch.load(store.trial(second) / "checkpoint.pt") == {"of": "demo"}


def test_a_sweep_can_insist_on_training_again(coordinate, twins):
    assert coordinate(twins(reuse=False)).next_task().number == 0


def test_a_result_whose_checkpoint_is_damaged_is_computed_again(coordinate, twins, ledger, store):
    path = store.trial(ledger.trial("demo", 0)) / "checkpoint.pt"
    path.write_bytes(path.read_bytes().replace(b"demo", b"demp", 1))
    assert coordinate(twins()).next_task().number == 0


def test_a_result_whose_files_are_gone_is_computed_again(coordinate, twins, ledger, store):
    (store.trial(ledger.trial("demo", 0)) / "result.json").unlink()
    assert coordinate(twins()).next_task().number == 0


def test_other_data_are_no_reason_to_take_a_result_over(coordinate, twins, monkeypatch):
    monkeypatch.setattr(fakes, "fingerprint", lambda config: "other data")
    assert coordinate(twins()).next_task().number == 0


def test_reports_and_failures_are_told_in_order_whatever_the_clocks_of_the_nodes_say(coordinate, make_spec, ledger):
    coordinator = coordinate(make_spec())
    task = coordinator.next_task()
    coordinator.on_message(task.number, task.attempt, point(1) | {"timestamp": 4e9})
    coordinator.on_lost(task.number, task.attempt, "its process died")
    assert ledger.points("demo")[0].timestamp < ledger.events("demo")[-1].timestamp


def test_a_trial_ends_after_it_began_though_the_driver_that_began_it_was_ahead(coordinate, make_spec, ledger):
    task = coordinate(make_spec()).next_task()
    begun_at = time.time() + 7200
    ledger.update_trial("demo", task.number, started=begun_at)
    coordinator = coordinate(make_spec())
    complete(coordinator, coordinator.next_task())
    assert ledger.trial("demo", task.number).finished == begun_at
