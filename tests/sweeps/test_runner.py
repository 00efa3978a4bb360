"""Sweeps on a real Ray with fake training."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import fakes
import pytest
from records import trial as trial_record

from segda.errors import ConfigError, DeviceError
from sweeps.execution import cluster, long_waits, runner
from sweeps.execution.ray_processes import RayWatch
from sweeps.execution.runner import run_sweep
from sweeps.execution.trial_log import LOG
from sweeps.failures import FailureClass
from sweeps.ledger import lease
from sweeps.ledger.database import LeaseLostError
from sweeps.ledger.records import RETRIED, STARTED
from sweeps.trial import TrialKind, TrialState

pytestmark = pytest.mark.usefixtures("ray_cluster", "no_profiling")


@pytest.fixture
def sweep(begun, ledger, store):
    """Run a sweep to its end and return (outcome, trials)."""

    def run(spec, train="fakes:quadratic", **options):
        begun(spec)
        outcome = run_sweep(spec, ledger=ledger, store=store, train=train, fingerprint=fakes.fingerprint, **options)
        return outcome, ledger.trials(spec.name)

    return run


def states(trials):
    return [trial.state for trial in trials]


def test_a_sweep_trains_every_step_of_every_trial_once_and_the_same_sweep_none(
    sweep, make_spec, ledger, executed, store
):
    spec = make_spec(references={"bound": {"method.name": "target_only", "optimizer.lr": 0.025}})
    outcome, trials = sweep(spec)
    assert outcome.exit_code == 0
    assert states(trials) == [TrialState.COMPLETE] * 4
    assert executed() == {(number, step): 1 for number in range(4) for step in range(1, 7)}
    assert [len(ledger.points("demo", trial.number)) for trial in trials] == [6] * 4
    assert all(trial.worker and trial.attempt == 1 for trial in trials)
    assert ledger.sweep("demo").state == "finished"
    assert not store.executor("demo").exists()

    again = run_sweep(spec, ledger=ledger, store=store, train="fakes:quadratic", fingerprint=fakes.fingerprint)
    assert again.exit_code == 0
    assert list(again.trials) == trials  # nothing was left to do

    _, reused = sweep(make_spec(name="again", references=spec.references))
    assert states(reused) == [TrialState.COMPLETE] * 4
    assert [trial.reused for trial in reused] == [f"demo/{number}" for number in range(4)]
    assert not (store.sweep("again") / fakes.EXECUTED).exists()


def test_what_was_measured_in_company_is_measured_again_when_the_trials_have_ended(sweep, make_spec, monkeypatch):
    figures = iter([{"latency_ms": 75.2, "latency_reliable": 0.0}, {"latency_ms": 11.1, "latency_reliable": 1.0}])

    def profile_all(architectures, **_):
        known = fakes.Profile({"macs": 1e9} | next(figures))
        return ((architecture, known) for architecture in architectures)

    monkeypatch.setattr(cluster, "profile_all", profile_all)
    spec = make_spec(constraints=["latency_ms <= 20"], budget={"trials": 1, "concurrency": 1})
    outcome, trials = sweep(spec)
    assert states(trials) == [TrialState.COMPLETE]
    assert dict(trials[0].profile) == {"macs": 1e9, "latency_ms": 11.1, "latency_reliable": 1.0}
    assert list(outcome.trials) == trials


def test_asha_stops_the_worse_trials_early(sweep, make_spec, executed):
    spec = make_spec(
        base=make_spec().base | {"steps": 9},
        scheduler={"name": "asha", "reduction_factor": 2, "min_steps": 1},
        budget={"trials": 8, "concurrency": 1},
    )
    _, trials = sweep(spec)
    pruned = [trial for trial in trials if trial.state is TrialState.PRUNED]
    assert pruned
    best = max(trials, key=lambda trial: trial.metrics["source/val/miou"])
    assert best.state is TrialState.COMPLETE
    count = executed()
    assert all(count[(trial.number, trial.step + 1)] == 0 for trial in pruned)


def test_workers_start_side_by_side_however_many_trials_are_open(sweep, make_spec, ledger):
    open_at_first_start = []

    def listen(kind, record, message):
        if kind == "started" and not open_at_first_start:
            open_at_first_start.extend(trial.state for trial in ledger.trials("demo"))

    sweep(
        make_spec(budget={"trials": 5, "concurrency": 4}, resources={"cpus": 0.5, "gpus": 0}),
        train="fakes:slow",
        listener=listen,
    )
    assert open_at_first_start == [TrialState.RUNNING] * 4


def test_trials_that_wait_for_a_worker_are_told_of(sweep, make_spec, ledger, monkeypatch):
    monkeypatch.setattr(long_waits, "_SAY_AFTER", 0.5)
    _, trials = sweep(make_spec(budget={"trials": 4, "concurrency": 4}), train="fakes:slow")
    assert states(trials) == [TrialState.COMPLETE] * 4
    told = [event.message for event in ledger.events("demo") if "for a worker" in event.message]
    who = r"trial [0-3] (has|and [1-3] more have)"  # who began to wait first is Ray's to say
    assert told
    for message in told:
        assert re.fullmatch(
            who + r" waited [0-9]+ s for a worker; the cluster has 1 node \(2 CPUs and 0 GPUs\)", message
        )


@pytest.mark.slow  # waits for it
def test_a_stopped_trial_that_cleans_up_for_a_while_costs_the_next_one_nothing(sweep, make_spec):
    _, trials = sweep(
        make_spec(
            scheduler={"name": "asha", "reduction_factor": 2, "min_steps": 1}, budget={"trials": 5, "concurrency": 1}
        ),
        train="fakes:cleans_up_slowly",
    )
    assert TrialState.PRUNED in states(trials[:-1])
    assert [trial.attempt for trial in trials] == [1] * 5


def test_a_killed_worker_is_replaced_and_goes_on_from_the_checkpoint(sweep, make_spec, executed, ledger, store):
    _, trials = sweep(make_spec(budget={"trials": 1, "concurrency": 1}), train="fakes:dies_once")
    assert (trials[0].state, trials[0].attempt, trials[0].step) == (TrialState.COMPLETE, 2, 6)
    assert executed() == {(0, step): 1 for step in range(1, 7)}
    (event,) = [event for event in ledger.events("demo") if event.kind == RETRIED]
    assert event.failure is FailureClass.WORKER_LOST
    assert "The actor is dead because its worker process has died" in event.message
    begun = [event.message for event in ledger.events("demo") if event.kind == STARTED]
    assert [message.split()[:3] for message in begun] == [["attempt", "1", "on"], ["attempt", "2", "on"]]
    lines = (store.trial(trials[0]) / LOG).read_text().splitlines()
    told = [line.partition(" ")[2].partition(",")[0].partition(" on ")[0] for line in lines]
    assert [line.partition(": ")[2].partition(":")[0] for line in told] == [
        "begins",
        *("step 1 of 6", "step 2 of 6"),  # and not a word of the signal
        "begins",
        *(f"step {step} of 6" for step in range(3, 7)),
        "trained to its end",
    ]


def test_failures_are_told_apart_and_end_no_sweep(sweep, make_spec, store):
    references = {f"case{case}": {"optimizer.momentum": case / 10, "optimizer.lr": 0.01} for case in range(1, 7)}
    base = fakes.plain_spec()["base"] | {"batch_size": 8}
    outcome, trials = sweep(
        make_spec(base=base, references=references, budget={"trials": 1, "concurrency": 1}),
        train="fakes:fails_by_seed",
    )
    assert (outcome.exit_code, outcome.is_done) == (3, True)
    assert outcome.shortfall.startswith("7 of 7 trained trials failed, most often by ")
    found = {trial.name: trial.failure for trial in trials if trial.kind is TrialKind.REFERENCE}
    assert found == {
        "case1": FailureClass.DIVERGED,
        "case2": FailureClass.OUT_OF_MEMORY,
        "case3": FailureClass.INVALID,
        "case4": FailureClass.ERROR,
        "case5": FailureClass.INVALID,
        "case6": FailureClass.DIVERGED,
    }
    # Memory is tried again with half of the batch of eight at a time.
    attempts = {trial.name: trial.attempt for trial in trials}
    assert attempts == dict.fromkeys(attempts, 1) | {"case2": 2}
    assert {trial.state for trial in trials} == {TrialState.FAILED}
    assert trials[2].error == "ConfigError: class list has two lines"
    assert "KeyError: 'bug'" in (store.trial(trials[3]) / "error.txt").read_text()


def test_a_request_that_no_node_can_meet_is_refused_at_once(sweep, make_spec):
    started = time.monotonic()
    with pytest.raises(DeviceError, match=r"needs 1 CPUs and 4 GPUs .* has 1 node \(2 CPUs and 0 GPUs\)"):
        sweep(make_spec(resources={"cpus": 1, "gpus": 4}))
    assert time.monotonic() - started < 5


def test_a_resource_that_no_node_has_is_refused_at_once_by_its_name(sweep, make_spec):
    with pytest.raises(DeviceError, match=r"needs 1 CPUs and 0 GPUs and 1 tensor_unit on one node"):
        sweep(make_spec(resources={"cpus": 1, "custom": {"tensor_unit": 1}}))


@pytest.fixture
def short(make_spec):
    """A sweep of one trial."""
    return make_spec(budget={"trials": 1, "concurrency": 1})


def at_first_point(*actions):
    """Return a listener that acts when the first report has been written down."""

    def listen(kind, record, message):
        if kind == "point" and record.step == 1:
            for action in actions:
                action()

    return listen


def send(number):
    return lambda: signal.raise_signal(number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_queues_what_runs_and_gives_its_exit_code(sweep, short, number, ledger):
    before = signal.getsignal(number)
    outcome, trials = sweep(short, train="fakes:slow", listener=at_first_point(send(number)))
    assert (outcome.exit_code, outcome.reason) == (75, f"stopped by {number.name}")
    assert states(trials) == [TrialState.QUEUED]
    assert 1 <= trials[0].step <= 3  # Tune has a thread of its own
    assert ledger.sweep("demo").state == "interrupted"
    assert signal.getsignal(number) is before


def test_launchers_may_ask_more_than_once(sweep, short):
    again = [send(signal.SIGTERM)] * 3 + [send(signal.SIGINT), send(signal.SIGTERM)]
    outcome, trials = sweep(short, train="fakes:slow", listener=at_first_point(*again))
    assert outcome.exit_code == 75
    assert states(trials) == [TrialState.QUEUED]


def test_a_sweep_whose_ray_is_gone_ends_at_once_and_counts_no_failure(sweep, short, ledger, monkeypatch):
    gone = []
    monkeypatch.setattr(RayWatch, "look", lambda watch: setattr(watch, "lost", gone[0] if gone else None) or watch.lost)
    outcome, trials = sweep(short, train="fakes:slow", listener=at_first_point(lambda: gone.append("raylet was ended")))
    assert (outcome.exit_code, outcome.is_lost, outcome.reason) == (75, True, "raylet was ended")
    assert states(trials) == [TrialState.QUEUED]
    assert ledger.sweep("demo").state == "interrupted"
    assert [event.failure for event in ledger.events("demo") if event.failure] == []


def test_a_tune_that_does_not_return_from_a_lost_ray_keeps_no_sweep_waiting(monkeypatch):
    forever = threading.Event()
    monkeypatch.setattr(runner, "_tune", lambda *_: forever.wait(60))
    watch = SimpleNamespace(lost="GCS was ended", look=lambda: "GCS was ended")
    began = time.monotonic()
    assert runner._execute(None, None, None, watch) == "GCS was ended"
    assert time.monotonic() - began < 5
    forever.set()


def test_a_second_ctrl_c_interrupts_at_once(sweep, short, ledger):
    with pytest.raises(KeyboardInterrupt):
        # Python notes two signals of one kind as one until its main thread has looked.
        sweep(
            short,
            train="fakes:slow",
            listener=at_first_point(send(signal.SIGINT), lambda: time.sleep(1), send(signal.SIGINT)),
        )
    assert ledger.sweep("demo").driver is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_preparation_at_once(short, begun, ledger, store, number):
    begun(short)
    ledger.add_trial(trial_record(0, state=TrialState.RUNNING, attempt=1))  # of a driver that died
    went_on = []

    def decode(config):
        signal.raise_signal(number)
        went_on.append(config)

    outcome = run_sweep(short, ledger=ledger, store=store, train="fakes:slow", fingerprint=decode)
    assert not went_on
    assert (outcome.exit_code, outcome.is_done, outcome.reason) == (75, False, f"stopped by {number.name}")
    assert states(outcome.trials) == states(ledger.trials("demo")) == [TrialState.QUEUED]
    assert ledger.sweep("demo").state == "interrupted"
    assert ledger.sweep("demo").driver is None


def test_sigterm_while_ray_starts_is_answered_as_at_any_other_time(short, begun, ledger, store, monkeypatch):
    begun(short)

    def start(address):
        sys.exit(signal.SIGTERM)  # what the handler does that Ray installs

    monkeypatch.setattr(runner, "connected", start)
    outcome = run_sweep(short, ledger=ledger, store=store, fingerprint=fakes.fingerprint)
    assert (outcome.exit_code, outcome.reason) == (75, "stopped by SIGTERM")


def test_spent_hours_queue_the_running_trial_and_a_larger_budget_finishes_it(sweep, make_spec, ledger, store, executed):
    budget = {"trials": 1, "concurrency": 1, "hours": 1e-9}
    spec = make_spec(budget=budget)
    outcome, trials = sweep(spec)
    assert outcome.reason == "budget.hours is spent"
    assert outcome.exit_code == 0
    assert trials == []  # the hours were spent before the first
    longer = type(spec).model_validate(
        spec.canonical() | {"base": spec.base | {"steps": 300}, "budget": budget | {"hours": 6 / 3600}}
    )
    outcome = run_sweep(longer, ledger=ledger, store=store, train="fakes:slow", fingerprint=fakes.fingerprint)
    assert outcome.reason == "budget.hours is spent"
    assert [trial.state for trial in outcome.trials] == [TrialState.QUEUED]
    assert ledger.sweep("demo").seconds >= 6
    assert ledger.sweep("demo").state == "out_of_budget"


def test_a_sweep_is_admitted_when_its_lease_is_held_and_its_search_takes_the_trials(sweep, make_spec, ledger, store):
    holders = []

    def admitted():
        holders.append(ledger.sweep("demo").driver)

    budget = {"trials": 1, "concurrency": 1}
    sweep(make_spec(budget=budget), admitted=admitted)
    assert len(holders) == 1
    assert holders[0] is not None
    other_space = make_spec(budget=budget, search={"optimizer.lr": [0.5]})
    with pytest.raises(ConfigError, match="does not fit the search space"):
        run_sweep(other_space, ledger=ledger, store=store, fingerprint=fakes.fingerprint, admitted=admitted)
    assert len(holders) == 1


def test_sweeps_stop_ends_a_sweep_for_good(sweep, short, ledger, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)

    def ask():
        ledger.update_sweep("demo", stop_requested=time.time())

    outcome, trials = sweep(short, train="fakes:slow", listener=at_first_point(ask))
    # Not the code that makes Slurm, Kubernetes or Docker start it again.
    assert (outcome.exit_code, outcome.stop_requested) == (0, True)
    assert outcome.reason == "stopped by sweeps stop"
    assert states(trials) == [TrialState.QUEUED]
    assert ledger.sweep("demo").driver is None


def test_a_sweep_that_waits_for_its_data_hears_a_signal_at_once(sweep, make_spec):
    asked = []

    def ask():
        asked.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    def listen(kind, record, message):
        if message.startswith("nothing works now"):
            threading.Timer(1.5, ask).start()  # Tune has nothing open then

    outcome, trials = sweep(make_spec(), train="fakes:finds_no_data", listener=listen)
    assert time.monotonic() - asked[0] < 3  # the next probe would be later
    assert (outcome.exit_code, outcome.reason) == (75, "stopped by SIGTERM")
    assert set(states(trials)) == {TrialState.QUEUED}


def test_a_sweep_whose_data_stay_away_ends_to_be_resumed(sweep, make_spec, ledger, store):
    spec = make_spec(resources={"outage_minutes": 0.05})
    outcome, trials = sweep(spec, train="fakes:finds_no_data")
    assert (outcome.exit_code, outcome.is_stalled, outcome.is_done) == (75, True, False)
    assert outcome.reason.startswith("nothing has worked for ")
    assert "data: DatasetNotFoundError: camvid: no such folder: /data" in outcome.reason
    assert set(states(trials)) == {TrialState.QUEUED}
    assert ledger.sweep("demo").state == "stalled"
    again = run_sweep(spec, ledger=ledger, store=store, train="fakes:quadratic", fingerprint=fakes.fingerprint)
    assert (again.exit_code, again.is_done) == (0, True)
    assert states(again.trials) == [TrialState.COMPLETE] * 3


@pytest.mark.parametrize("notices", [True, False], ids=["noticed", "not noticed"])
def test_a_driver_whose_lease_was_taken_ends_and_writes_no_more(sweep, short, ledger, store, monkeypatch, notices):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1 if notices else 1000.0)
    thief = lease.Lease(ledger, "demo")

    def take():
        monkeypatch.setattr(lease, "is_free", lambda driver: True)
        thief.take()

    with pytest.raises(LeaseLostError, match="another process has taken over sweep 'demo'"):
        sweep(short, train="fakes:slow", listener=at_first_point(take))
    assert ledger.sweep("demo").driver == thief.holder
    assert ledger.sweep("demo").state == "running"
    # What becomes of it is the new driver's business.
    assert [(trial.state, trial.step) for trial in ledger.trials("demo")] == [(TrialState.RUNNING, 1)]
    assert store.executor("demo").exists()


def test_memory_that_does_not_suffice_is_answered_with_smaller_micro_batches(sweep, make_spec, executed):
    spec = make_spec(base=make_spec().base | {"batch_size": 16}, budget={"trials": 1, "concurrency": 1})
    _, trials = sweep(spec, train="fakes:needs_small_micro_batches")
    assert (trials[0].state, trials[0].micro_batch, trials[0].attempt) == (TrialState.COMPLETE, 4, 3)
    assert executed() == {(0, step): 1 for step in range(1, 7)}


def test_a_trial_that_hangs_is_ended_by_its_watchdog_and_tried_again(sweep, make_spec, ledger):
    resources = {"watchdog_minutes": 0.15}
    _, trials = sweep(make_spec(budget={"trials": 1, "concurrency": 1}, resources=resources), train="fakes:hangs_once")
    assert (trials[0].state, trials[0].attempt) == (TrialState.COMPLETE, 2)
    (event,) = [event for event in ledger.events("demo") if event.kind == RETRIED]
    assert event.failure is FailureClass.HANG


DRIVER = """
import sys
import fakes
from sweeps.execution import cluster, runner
from sweeps.ledger.database import Ledger
from sweeps.file.spec import SweepSpec
from sweeps.store import Store

cluster.profile_all = lambda architectures, **_: ((item, fakes.profile(item)) for item in architectures)
name, root, address, paths = sys.argv[1:]
cluster.ray.init(address, runtime_env={"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}}, log_to_driver=False)
store = Store.at(root)
with Ledger.open(store.ledger) as ledger:
    spec = SweepSpec.model_validate(ledger.sweep(name).spec)
    runner.run_sweep(spec, ledger=ledger, store=store, train="fakes:quadratic", fingerprint=fakes.fingerprint)
"""


def test_two_sweeps_of_one_store_run_at_once_without_touching_each_other(
    ray_cluster, sweep, make_spec, begun, ledger, store
):
    """Each by a driver of its own, on the same Ray."""
    other = begun(make_spec(name="other", seed=1))
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONWARNINGS": "ignore"}
    words = [other.name, str(store.root), ray_cluster.get_runtime_context().gcs_address, paths]
    command = [sys.executable, "-c", DRIVER, *words]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as driver:
        outcome, _ = sweep(make_spec())
        output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 0, output
    assert outcome.is_done
    for name in ("demo", "other"):
        trials = ledger.trials(name)
        assert states(trials) == [TrialState.COMPLETE] * 3
        assert [len(ledger.points(name, trial.number)) for trial in trials] == [6] * 3


def test_a_second_driver_of_a_running_sweep_is_refused(sweep, make_spec, ledger, store):
    spec = make_spec(budget={"trials": 1, "concurrency": 1})
    refused = []

    def listen(kind, record, message):
        if kind == "point" and not refused:
            with pytest.raises(ConfigError, match="is being run by process") as error:
                run_sweep(spec, ledger=ledger, store=store, train="fakes:quadratic", fingerprint=fakes.fingerprint)
            refused.append(error)

    outcome, _ = sweep(spec, listener=listen)
    assert refused
    assert outcome.is_done
