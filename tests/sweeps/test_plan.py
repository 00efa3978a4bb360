"""What is tried before a sweep, and what is estimated from it."""

import dataclasses
import json
import os
import sys

import fakes
import psutil
import pytest
import yaml

from segda.cli_errors import run_cli
from segda.datasets.scenes import generate_scenes
from segda.efficiency import idleness
from segda.errors import ConfigError, DeviceError
from sweeps import cli
from sweeps.file.spec import SweepSpec
from sweeps.ledger.records import Allotment, Device
from sweeps.planning import canary
from sweeps.planning.canary import CanaryResult, CanaryTask, Costs, measure
from sweeps.planning.counts import planned_trials
from sweeps.planning.coverage import Case, cases
from sweeps.planning.estimate import Tried, estimate, verdicts
from sweeps.planning.machines import Machines
from sweeps.planning.packing import ProbeResult, run_probe
from sweeps.planning.plan import (
    as_planned,
    canary_of,
    plan_path,
    save_plan,
    saved_costs,
    saved_estimate,
)
from sweeps.planning.profiles import Architecture

LR = {"low": 1e-3, "high": 1e-1, "log": True}
COSTS = Costs(
    seconds_per_step=0.5,
    seconds_per_report=2.0,
    seconds_at_end=5.0,
    seconds_to_start=3.0,
    memory_bytes=2**30,
    device_bytes=0,
    disk_bytes=1000,
    device="some processor",
)


def branching(make_spec, **changes):
    search = {
        "method.name": ["source_only", "adversarial"],
        "method.discriminator": {"choices": ["fcd", "dwd"], "when": {"method.name": "adversarial"}},
        "method.lambda_adv": {"low": 1e-4, "high": 1e-2, "log": True, "when": {"method.name": "adversarial"}},
        "model.backbone": ["resnet18", "resnet34", "resnet50", "resnet101"],
        "batch_size": [2, 4],
        "optimizer.lr": LR,
    }
    return make_spec(search=search, **changes)


# What is tried


def test_every_branch_choice_and_architecture_is_tried_with_few_configurations(make_spec):
    spec = branching(make_spec)
    found = [case.params for case in cases(spec)]
    assert {params["method.name"] for params in found} == {"source_only", "adversarial"}
    assert {params.get("method.discriminator") for params in found} == {None, "fcd", "dwd"}
    assert {params["model.backbone"] for params in found} == {"resnet18", "resnet34", "resnet50", "resnet101"}
    assert {params["batch_size"] for params in found} == {2, 4}
    assert len(found) == 4
    for params in found:
        spec.train_config(params, seed=0)


def test_each_combination_that_conditions_name_is_a_branch_of_its_own(make_spec):
    search = {
        "method.name": ["source_only", "adversarial"],
        "model.backbone": ["resnet18", "resnet34"],
        "optimizer.lr": LR | {"when": {"method.name": "adversarial", "model.backbone": "resnet34"}},
    }
    found = {(case.params["method.name"], case.params["model.backbone"]) for case in cases(make_spec(search=search))}
    assert len(found) == 4


def test_references_are_tried_too_as_they_are(make_spec):
    spec = make_spec(references={"upper": {"method.name": "target_only", "optimizer.lr": 0.01}})
    assert cases(spec)[-1] == Case("reference: upper", spec.references["upper"], is_reference=True)


def test_infeasible_architectures_are_not_tried_and_their_branches_still_are(make_spec):
    spec = branching(make_spec)
    infeasible = frozenset(
        Architecture.of(spec.train_config(case.params, seed=0))
        for case in cases(spec)
        if case.params["model.backbone"] != "resnet18"
    )
    found = cases(spec, infeasible=infeasible)
    assert {case.params["model.backbone"] for case in found} == {"resnet18"}
    assert {case.params["batch_size"] for case in found} == {2, 4}
    assert {case.params.get("method.discriminator") for case in found} == {None, "fcd", "dwd"}


def test_labels_tell_choices_apart_and_leave_real_numbers_out(make_spec):
    assert cases(branching(make_spec))[0].label == "source_only, resnet18, batch_size 2"


def test_canaries_compute_where_trials_will(make_spec):
    spec = make_spec(resources={"cpus": 3, "gpus": 0, "watchdog_minutes": 2})
    task = canary_of(spec, cases(spec)[0], gpus=0.0)
    assert (task.config["device"], task.threads, task.timeout_seconds) == ("cpu", 3, 120)
    on_gpu = make_spec(resources={"cpus": 3, "gpus": 1})
    assert canary_of(on_gpu, cases(on_gpu)[0], gpus=1.0).config["device"] == "auto"


# Estimate


def tried(spec, costs=COSTS):
    return [Tried(case, costs) for case in cases(spec)]


def timed(make_spec, **changes):
    base = fakes.plain_spec()["base"] | {"steps": 90, "report_every": 10}
    return make_spec(**({"base": base, "budget": {"trials": 9, "concurrency": 3}} | changes))


# Start 3 s, 90 steps of 0.5 s, 8 reports of 2 s, end 5 s.
FULL = 3 + 45 + 16 + 5


def test_without_early_stopping_every_trial_costs_the_same(make_spec):
    spec = timed(make_spec)
    found = estimate(spec, tried(spec))
    assert found.worker_seconds == (9 * FULL, 9 * FULL)
    assert found.wall_seconds == (3 * FULL, 3 * FULL)
    assert found.steps == (810, 810)
    assert found.disk_bytes == 9000
    assert found.gpu_seconds == (0, 0)


def test_successive_halving_saves_at_most_what_its_factor_says(make_spec):
    spec = timed(make_spec, scheduler={"name": "asha", "min_steps": 10, "reduction_factor": 3})
    found = estimate(spec, tried(spec))
    # Of 9 trials 6 end at step 10, 2 at step 30, 1 trains in full.
    assert found.steps == (6 * 10 + 2 * 30 + 90, 810)
    assert found.worker_seconds.low == pytest.approx(6 * (3 + 5 + 2) + 2 * (3 + 15 + 6) + FULL)
    assert found.worker_seconds.high == 9 * FULL


def test_the_median_rule_is_taken_to_stop_half_at_the_first_comparison(make_spec):
    spec = timed(make_spec, scheduler={"name": "median", "min_steps": 20}, budget={"trials": 4, "concurrency": 1})
    assert estimate(spec, tried(spec)).steps == (2 * 20 + 2 * 90, 360)


def test_references_and_repetitions_train_in_full(make_spec):
    spec = timed(
        make_spec,
        scheduler={"name": "asha", "min_steps": 10, "reduction_factor": 3},
        references={"upper": {"method.name": "target_only", "optimizer.lr": 0.01}},
        seeds=[0, 1, 2],
        finalists=2,
    )
    slow = dataclasses.replace(COSTS, seconds_to_start=103.0)
    found = estimate(spec, [Tried(case, slow if case.is_reference else COSTS) for case in cases(spec)])
    assert found.trials == 9 + 1 + 4
    assert found.steps.low == 210 + 5 * 90
    assert found.worker_seconds.high == 13 * FULL + FULL + 100


FOUR = {"batch_size": [2, 4], "model.backbone": ["resnet18", "resnet34"]}


def test_a_finite_space_has_no_more_trials_than_combinations(make_spec):
    spec = timed(
        make_spec, search=FOUR, budget={"trials": 100, "concurrency": 2, "hours": 0.1}, seeds=[0, 1], finalists=3
    )
    assert planned_trials(spec) == (4, 0, 3)
    assert planned_trials(timed(make_spec, seeds=[0, 1])) == (9, 0, 1)
    both = {"upper": {"method.name": "target_only"}, "lower": {"method.name": "source_only"}}
    of_each = timed(
        make_spec,
        search=FOUR,
        seeds=[0, 1, 2],
        finalists_of_each=["batch_size"],
        references=both,
        repeat_references=True,
    )
    assert planned_trials(of_each) == (4, 2, (2 + 2) * 2)
    found = estimate(spec, tried(spec))
    assert (found.trials, found.steps) == (7, (7 * 90, 7 * 90))
    assert verdicts(spec, found) == ["budget.hours 0.1 is enough"]


def test_no_more_trials_run_at_once_than_fit(make_spec):
    spec = timed(make_spec, budget={"trials": 9, "concurrency": 100})
    assert estimate(spec, tried(spec), slots=4).concurrency == 4
    assert estimate(spec, tried(spec)).concurrency == 9


def test_a_sweep_takes_at_least_as_long_as_its_longest_trial(make_spec):
    spec = timed(make_spec, scheduler={"name": "asha", "min_steps": 10, "reduction_factor": 3})
    spec = spec.model_copy(update={"budget": spec.budget.model_copy(update={"concurrency": 9})})
    assert estimate(spec, tried(spec)).wall_seconds.low == FULL


def test_gpu_hours_count_the_share_of_a_gpu(make_spec):
    spec = timed(make_spec, resources={"cpus": 1, "gpus": 0.25})
    assert estimate(spec, tried(spec)).gpu_seconds.high == 9 * FULL / 4


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        (1.0, "budget.hours 1 is enough"),
        (0.05, "budget.hours 0.05 is enough only if early stopping saves what it can"),
        (0.01, "budget.hours 0.01 is not enough"),
    ],
)
def test_the_hours_are_judged_against_both_bounds(make_spec, hours, expected):
    spec = timed(
        make_spec,
        scheduler={"name": "asha", "min_steps": 10, "reduction_factor": 3},
        budget={"trials": 9, "concurrency": 1, "hours": hours},
    )
    (line,) = verdicts(spec, estimate(spec, tried(spec)))  # 177 s to 621 s
    assert line.startswith(expected)


def test_failed_branches_do_not_enter_the_estimate(make_spec):
    spec = branching(make_spec)
    some = tried(spec)
    some[0] = Tried(some[0].case, None, "it crashes")
    assert estimate(spec, some).worker_seconds == pytest.approx(estimate(spec, tried(spec)).worker_seconds)
    with pytest.raises(ConfigError, match="all 4 branches fail"):
        estimate(spec, [Tried(item.case, None, "it crashes") for item in some])


def test_a_plan_is_kept_beside_the_sweep_and_serves_another_budget(make_spec, store):
    spec = branching(make_spec)
    some = tried(spec)
    save_plan(store, spec, estimate(spec, some), some, gpus=0.0)
    assert saved_estimate(store, spec.name) == estimate(spec, some)
    more = branching(make_spec, budget={"trials": 30, "concurrency": 4})
    assert saved_costs(store, more, cases(more), gpus=0.0) == some
    assert saved_estimate(store, "another") is None


def test_what_gpus_auto_was_is_kept_with_the_plan(make_spec, store):
    auto = timed(make_spec, resources={"cpus": 1, "gpus": "auto"}, budget={"trials": 16})
    machines = Machines(nodes=({"CPU": 16.0, "GPU": 1.0},))
    with pytest.raises(ConfigError, match="has no plan yet"):
        as_planned(store, auto, machines)
    save_plan(store, auto, None, tried(auto), gpus=0.25)
    assert as_planned(store, auto, machines) == Allotment(gpus=0.25, concurrency=4)
    bound = timed(make_spec, resources={"cpus": 1, "gpus": "auto"}, budget={"trials": 16, "concurrency": 3})
    assert as_planned(store, bound, machines).concurrency == 3
    with pytest.raises(DeviceError, match=r"0\.25 GPUs on one node"):
        as_planned(store, auto, Machines(nodes=({"CPU": 16.0},)))
    number = timed(make_spec, resources={"cpus": 1, "gpus": 0.5}, budget={"trials": 16, "concurrency": 2})
    assert as_planned(store, number, machines) == Allotment(gpus=0.5, concurrency=2)


def test_figures_of_another_sweep_file_are_not_taken(make_spec, store):
    spec = branching(make_spec)
    save_plan(store, spec, None, tried(spec), gpus=0.0)
    other = branching(make_spec, base=fakes.plain_spec()["base"] | {"batch_size": 6, "precision": "bf16"})
    with pytest.raises(ConfigError, match="was not tried yet"):
        saved_costs(store, other, cases(other), gpus=0.0)


def test_slots_are_counted_node_by_node(make_spec):
    machines = Machines(nodes=({"CPU": 4.0, "GPU": 2.0}, {"CPU": 16.0}))
    assert machines.gpus == 2
    assert machines.slots(make_spec(resources={"cpus": 3, "gpus": 0}), gpus=0) == 6
    assert machines.slots(make_spec(resources={"cpus": 1, "gpus": 0.5}), gpus=0.5) == 4
    with pytest.raises(DeviceError, match="8 GPUs on one node"):
        machines.slots(make_spec(resources={"cpus": 1, "gpus": 8}), gpus=8)


def test_a_share_of_a_gpu_lies_on_one_gpu(make_spec):
    machines = Machines(nodes=({"CPU": 64.0, "GPU": 4.0},))
    slots = {
        gpus: machines.slots(make_spec(resources={"cpus": 1, "gpus": gpus}), gpus=gpus)
        for gpus in (0.6, 0.3333, 0.1, 1, 3)
    }
    assert slots == {0.6: 4, 0.3333: 12, 0.1: 40, 1: 4, 3: 1}


def test_only_nodes_with_the_custom_resources_hold_trials(make_spec):
    resources = {"cpus": 1, "gpus": 0, "custom": {"accelerator_type:A100": 0.5}}
    plain, special = {"CPU": 64.0}, {"CPU": 64.0, "accelerator_type:A100": 1.0}
    assert Machines(nodes=(plain, special)).slots(make_spec(resources=resources), gpus=0) == 2
    with pytest.raises(
        DeviceError, match=r"needs 1 CPUs and 0\.5 accelerator_type:A100 on one node.*64 CPUs and 0 GPUs and 0 acc"
    ):
        Machines(nodes=(plain,)).slots(make_spec(resources=resources), gpus=0)


# The command


@pytest.fixture
def call(capsys, store):
    def invoke(*words):
        with pytest.raises(SystemExit) as ended:
            run_cli(cli.sweeps, ["plan", *(str(word) for word in words), "--store", str(store.root)])
        shown = capsys.readouterr()
        return ended.value.code, shown.out, shown.err

    return invoke


@pytest.fixture
def fake_machine(monkeypatch, has_camvid):
    """A machine on which canaries cost COSTS; `fails` maps a word of the configuration to an error."""
    from sweeps.cli.actions import plan
    from sweeps.commands import machines

    fails = {}

    def measured(function, *arguments):
        assert function is measure
        text = json.dumps(arguments[0].config)
        error = next((error for word, error in fails.items() if word in text), None)
        doubts = tuple(line for word, line in fails.items() if word == "doubts")
        return CanaryResult((), error) if error else CanaryResult((COSTS,), doubts=doubts)

    monkeypatch.setattr(machines, "this_machine", lambda: Machines(nodes=({"CPU": 2.0},), call=measured))
    monkeypatch.setattr(plan, "data_fingerprint", lambda config, progress: "0123456789abcdef")
    return fails


@pytest.fixture
def sweep_file(tmp_path, make_spec):
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump(branching(make_spec).canonical(), sort_keys=False))
    return path


def test_the_command_teaches_with_an_example(call):
    code, out, _ = call("--help")
    assert code == 0
    assert "  sweeps plan" in out.split("Examples:")[1]


def test_the_command_shows_what_was_tried_and_the_estimate(call, sweep_file, fake_machine, store):
    code, out, _ = call(sweep_file)
    assert code == 0
    assert "source_only, resnet18, batch_size 2" in out
    assert "500 ms" in out
    assert "trials: 3, 2 at a time" in out
    assert plan_path(store, "demo").is_file()


def test_the_command_says_what_the_sweep_will_cost(call, sweep_file, fake_machine):
    money = ["budget.price_per_hour={cpu: 36}", "budget.currency=EUR", "budget.cost=1"]
    code, out, _ = call(sweep_file, *money, "--json")
    plan = json.loads(out)
    assert code == 0
    low, high = (seconds / 100 for seconds in plan["estimate"]["worker_seconds"])
    assert plan["estimate"]["cost"] == pytest.approx([low, high])
    assert plan["verdicts"][-1].startswith("budget.cost 1 is ")
    _, out, _ = call(sweep_file, *money, "--skip-canary")
    assert f"cost: {low:,.2f} EUR" in out


def test_a_device_without_a_price_is_told_before_anything_is_tried(call, sweep_file, fake_machine, monkeypatch):
    from sweeps.cli.actions import plan

    monkeypatch.setattr(plan, "device_of", lambda *_, **__: Device("cuda", "NVIDIA H200", 1))
    code, _, err = call(sweep_file, "budget.price_per_hour={cpu: 36}")
    assert code == 2
    assert "has no price for NVIDIA H200, on which its trials compute, only for cpu" in err


def test_what_others_did_while_branches_were_tried_is_told_also_later(call, sweep_file, fake_machine):
    fake_machine["doubts"] = "others used 1.0 of 2 processors"
    expected = "times of source_only, resnet18, batch_size 2 are not reliable: others used 1.0 of 2 processors"
    code, out, _ = call(sweep_file)
    assert (code, expected in out) == (0, True)
    assert expected in call(sweep_file, "--skip-canary")[1]


def test_a_branch_that_fails_ends_the_command_with_its_name_and_error(call, sweep_file, fake_machine):
    fake_machine["fcd"] = "OutOfMemoryError: no memory left"
    code, out, err = call(sweep_file)
    assert code == 2
    assert "fails: OutOfMemoryError" in out
    assert "1 of 4 branches fail: adversarial, fcd" in err
    assert err.strip().splitlines()[-1].endswith("OutOfMemoryError: no memory left")


def test_another_budget_is_estimated_without_training_again(call, sweep_file, fake_machine):
    code, _, err = call(sweep_file, "--skip-canary")
    assert code == 2
    assert "was not tried yet" in err
    call(sweep_file)
    fake_machine["resnet"] = "this must not be trained"
    code, out, _ = call(sweep_file, "--skip-canary", "--trials", "40")
    assert code == 0
    assert "trials: 40, 2 at a time" in out


def test_gpus_auto_without_a_gpu_is_estimated_again_without_training(call, sweep_file, fake_machine, make_spec):
    spec = branching(make_spec, resources={"cpus": 1, "gpus": "auto"})
    sweep_file.write_text(yaml.safe_dump(spec.canonical(), sort_keys=False))
    code, first, _ = call(sweep_file)
    assert code == 0
    fake_machine["resnet"] = "this must not be trained"
    code, second, err = call(sweep_file, "--skip-canary")
    assert (code, err) == (0, "")
    assert [line for line in second.splitlines() if line.startswith("worker time")] == [
        line for line in first.splitlines() if line.startswith("worker time")
    ]


def test_the_check_counts_no_more_trials_than_combinations(capsys, tmp_path, make_spec):
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump(make_spec(search=FOUR, budget={"trials": 100}).canonical(), sort_keys=False))
    with pytest.raises(SystemExit):  # the data sets are missing
        run_cli(cli.sweeps, ["check", str(path)])
    out = capsys.readouterr().out
    assert "trials: 4 (4 of the search, 0 references, 0 replicates)" in out
    assert "steps: 24 at most" in out


# Real canaries


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return generate_scenes(tmp_path_factory.mktemp("data") / "scenes", size=32, train=4, val=2, seed=1)


def real_task(scenes, tmp_path, **changes):
    domain = {"dataset": "scenes", "root": str(scenes)}
    base = {
        "data": {
            "source": domain | {"domain": "urban"},
            "target": domain | {"domain": "rural"},
            "height": 32,
            "width": 32,
            "cache": str(tmp_path / "cache"),
        },
        "model": {"name": "bisenet_v1", "backbone": "resnet18", "pretrained": "none"},
        "method": {"name": "source_only"},
        "schedule": {"warmup_steps": 20},
        "steps": 60,
        "report_every": 30,
        "batch_size": 2,
        "precision": "fp32",
    }
    spec = SweepSpec.model_validate(fakes.plain_spec(base=base | changes))
    return canary_of(spec, cases(spec)[0], gpus=0.0)


@pytest.mark.slow  # two processes import torch and train
def test_two_real_trainings_are_measured_at_once(scenes, tmp_path):
    result = measure(real_task(scenes, tmp_path), 2)
    assert result.error is None
    assert len(result.copies) == 2
    for costs in result.copies:
        assert costs.seconds_per_step > 0
        assert 0 < costs.seconds_per_report <= costs.seconds_at_end
        assert costs.seconds_to_start >= 0
        # Weights and momentum of a BiSeNet with ResNet-18, 4 bytes each; torch itself takes hundreds of megabytes.
        assert 50e6 < costs.disk_bytes < 200e6
        assert 100e6 < costs.memory_bytes < 4e9


def test_a_training_that_raises_is_told_in_one_line(scenes, tmp_path):
    task = real_task(scenes, tmp_path)
    broken = dict(task.config) | {"device": "cuda:7"}
    result = measure(dataclasses.replace(task, config=broken))
    assert result.copies == ()
    assert result.error.startswith("DeviceError: ")
    assert "\n" not in result.error


@pytest.mark.slow  # Ray starts a worker
def test_canaries_run_on_a_node_of_the_cluster(ray_cluster, make_spec):
    from sweeps.execution.cluster import idle_node

    with idle_node(make_spec()) as machines:
        assert [node["CPU"] for node in machines.nodes] == [2.0]
        assert machines.call(os.getpid) != os.getpid()
        result = machines.call(measure, CanaryTask(config={}, threads=1))
    assert result.copies == ()
    assert "ValidationError" in result.error


def test_a_sweep_that_no_node_can_run_is_refused_before_anything_is_tried(ray_cluster, make_spec):
    from sweeps.execution.cluster import idle_node

    with pytest.raises(DeviceError, match="8 GPUs"), idle_node(make_spec(resources={"cpus": 1, "gpus": 8})):
        pytest.fail("it was not refused")


# Processes that end badly; the measured program is replaced, the parent's side is real.


ANSWER = json.dumps(dataclasses.asdict(COSTS))


@pytest.fixture
def child(tmp_path, monkeypatch):
    def become(code):
        (tmp_path / "bad_canary.py").write_text(code)
        monkeypatch.setattr(canary, "_PROGRAM", "bad_canary")
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        return CanaryTask(config={}, threads=1, timeout_seconds=30)

    return become


def test_a_killed_process_is_told_by_its_signal(child):
    task = child("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    assert "ended by SIGKILL; the system does so when memory runs out" in measure(task).error


def test_a_process_that_exits_leaves_its_last_words(child):
    task = child("import sys\nsys.exit('libfoo is missing')\n")
    assert measure(task).error == "its process ended with exit code 1: libfoo is missing"


def test_a_hung_process_is_ended(child, tmp_path):
    task = child(
        "import os, pathlib, time\n"
        "pathlib.Path(__file__).with_name('pid').write_text(str(os.getpid()))\n"
        "time.sleep(600)\n"
    )
    assert measure(dataclasses.replace(task, timeout_seconds=1.0)).error == "it was not done after 1 s"
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("others", [0.0, 5.0])
def test_what_the_copies_use_is_theirs_and_the_rest_is_that_of_others(child, monkeypatch, others):
    task = child(f"import time\nwhile time.process_time() < 1: pass\nprint({ANSWER!r}, flush=True)\n")
    own = canary._seconds_of_all
    began, readings = own(), iter([0.0, others])

    def read(machine):
        busy = own() - began + next(readings)
        return idleness.Reading(at=busy, busy=busy, own=machine._own_seconds(), stolen=0, slowed={}, processes={})

    monkeypatch.setattr(idleness.Machine, "read", read)
    assert [line.partition(" of ")[0] for line in measure(task).doubts] == ([] if not others else ["others used 0.8"])


def test_one_copy_that_dies_while_timed_fails_them_all(child):
    task = child(
        "import os, pathlib, signal, sys\n"
        "sys.stdin.readline()\n"
        "print('{\"ready\": true}', flush=True)\n"
        "sys.stdin.readline()\n"
        "try:\n"
        "    pathlib.Path(__file__).with_name('first').touch(exist_ok=False)\n"
        "except FileExistsError:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        f"print({ANSWER!r}, flush=True)\n"
    )
    result = measure(task, 2)
    assert result.copies == ()
    assert result.error == "its process was ended by SIGTERM"


def test_copies_are_timed_only_when_all_are_ready(child, tmp_path):
    task = child(
        "import pathlib, sys\n"
        "order = pathlib.Path(__file__).with_name('order').open('a')\n"
        "sys.stdin.readline()\n"
        "print('ready', file=order, flush=True)\n"
        "print('{\"ready\": true}', flush=True)\n"
        "assert sys.stdin.readline() == 'go\\n'\n"
        "print('timed', file=order, flush=True)\n"
        f"print({ANSWER!r}, flush=True)\n"
    )
    found = dataclasses.replace(run_probe(task, 3), doubts=())  # others may be at work here
    assert found == ProbeResult(steps_per_second=6.0, memory_bytes=3 * 2**30)
    assert (tmp_path / "order").read_text().split() == ["ready"] * 3 + ["timed"] * 3
