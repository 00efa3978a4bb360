"""Efficiency measured once per architecture and device."""

import re
from typing import get_args

import fakes
import pytest
import records
import torch

from segda.deployment import RUNTIMES
from segda.errors import ConfigError, ExportError
from sweeps.file.parts import DeployConfig
from sweeps.ledger.records import Device
from sweeps.planning.patience import Patience
from sweeps.planning.profiles import (
    Architecture,
    Profile,
    describe_device,
    device_of,
    infeasible,
    look,
    measure,
    profile_all,
    profile_key,
    reachable,
    renew_trials,
    sample_config,
)

DEPLOYMENTS = (
    {"runtime": "onnxruntime", "precision": "int8"},
    {"runtime": "onnxruntime"},
    {"runtime": "eager"},
    {"runtime": "eager", "argmax": "quarter"},
)
CPU = Device(kind="cpu", name="some processor", threads=1)


@pytest.fixture
def architecture(make_spec):
    return Architecture.of(sample_config(make_spec()))


def test_every_reachable_architecture_is_listed_once(make_spec):
    search = {
        "model.backbone": ["resnet18", "resnet101"],
        "optimizer.lr": {"low": 1e-3, "high": 1e-1, "log": True},
    }
    references = {"same": {"optimizer.lr": 0.01, "model.backbone": "resnet18"}}
    found = reachable(make_spec(search=search, references=references))
    assert [(item.model.backbone, item.height, item.num_classes) for item in found] == [
        ("resnet18", 32, 11),
        ("resnet101", 32, 11),
    ]


def test_a_network_under_a_condition_counts_only_where_it_exists(make_spec):
    spec = make_spec(
        search={
            "optimizer.name": ["sgd", "adam"],
            "model.backbone": {"choices": ["resnet34", "resnet50"], "when": {"optimizer.name": "adam"}},
        },
        references={"large": {"model.backbone": "resnet101"}},
    )
    assert [item.model.backbone for item in reachable(spec)] == ["resnet18", "resnet34", "resnet50", "resnet101"]
    assert spec.space.num_combinations() == 3


def test_without_searched_networks_there_is_the_one_of_base_without_places(make_spec):
    (found,) = reachable(make_spec())
    assert found.model.backbone == "resnet18"
    assert not {"weights_file", "pretrained"} & found.model.architecture().keys()


def test_the_key_changes_with_everything_that_changes_the_figures(architecture):
    from dataclasses import replace

    base = profile_key(architecture, CPU)
    assert profile_key(replace(architecture), CPU) == base
    changes = {"num_classes": 3, "height": 64, "width": 64, "precision": "bf16"}
    changes["model"] = architecture.model.model_copy(update={"backbone": "resnet101"})
    keys = {profile_key(replace(architecture, **{field: value}), CPU) for field, value in changes.items()}
    keys |= {profile_key(architecture, replace(CPU, threads=2)), profile_key(architecture, replace(CPU, name="other"))}
    assert len(keys | {base}) == len(changes) + 3


def test_what_runs_the_network_is_part_of_what_is_measured(make_spec):
    plain = make_spec()
    specs = [make_spec(deploy=deploy) for deploy in DEPLOYMENTS]
    (as_trained,) = reachable(plain)
    found = [reachable(spec)[0] for spec in specs]
    assert len({profile_key(item, CPU) for item in (as_trained, *found)}) == 1 + len(DEPLOYMENTS)
    # Figures that the ledger has from before there was a choice are still found.
    assert not {"runtime", "argmax"} & as_trained.identity().keys()
    assert len({spec.fingerprint() for spec in (plain, *specs)}) == 1 + len(DEPLOYMENTS)
    assert "deploy" in plain.canonical()
    trained_in_half = Architecture.of(sample_config(plain).model_copy(update={"precision": "bf16"}), specs[0].deploy)
    assert trained_in_half == found[0]


def test_a_runtime_is_timed_and_one_that_cannot_take_the_network_is_an_obstacle(make_spec, monkeypatch):
    (item,) = reachable(make_spec(deploy={"runtime": "onnxruntime", "precision": "int8"}))
    profile = measure(item, describe_device("cpu", 1))
    assert profile.error is None
    assert profile.metrics["latency_ms"] > 0
    assert "peak_memory_bytes" not in profile.metrics

    def refused(*_, **__):
        raise ExportError("too strange")

    monkeypatch.setattr("segda.efficiency.profile.build_runtime", refused)
    error = measure(item, describe_device("cpu", 1)).error
    assert re.search("resnet18.* at 32x32 cannot be run by onnxruntime: too strange", error)


def test_the_runtimes_of_a_sweep_file_are_those_that_there_are():
    named = DeployConfig.model_fields["runtime"].annotation
    assert set(get_args(named)) == set(RUNTIMES)


def test_a_gpus_figures_do_not_depend_on_the_processors_threads(architecture):
    one, two = (profile_key(architecture, Device("cuda", "GPU", threads)) for threads in (1, 2))
    assert one == two


def test_figures_are_measured_once_and_remembered(architecture, ledger):
    called = []

    def call(function, *arguments):
        called.append(function)
        return Profile({"macs": 5.0})

    for _ in range(2):
        found = dict(profile_all([architecture], device=CPU, ledger=ledger, patience=Patience(0), call=call))
        assert found == {architecture: Profile(metrics={"macs": 5.0})}
    assert called == [measure]


def test_architectures_are_measured_with_the_threads_of_a_trial(make_spec):
    asked = []

    def look(function, *arguments):
        asked.append((function, *arguments))
        return CPU

    assert device_of(make_spec(resources={"cpus": 3, "gpus": 0}), look, gpus=0.0) == CPU
    assert device_of(make_spec(resources={"cpus": 0.5, "gpus": "auto"}), look, gpus=0.5) == CPU
    assert asked == [(describe_device, "cpu", 3), (describe_device, "cuda", 1)]


def test_a_network_that_cannot_be_built_is_an_obstacle_not_a_crash(architecture, ledger, make_spec):
    def call(function, *arguments):
        return Profile({}, error="it cannot be built")

    found = dict(profile_all([architecture], device=CPU, ledger=ledger, patience=Patience(1), call=call))
    assert found[architecture].obstacle(make_spec()) == "it cannot be built"


def test_an_obstacle_names_the_constraint_and_the_figure(make_spec, architecture):
    profile = fakes.profile(architecture)
    assert profile.obstacle(make_spec()) is None
    assert profile.obstacle(make_spec(constraints=["fps >= 30"])) is None
    assert profile.obstacle(make_spec(constraints=["fps >= 200"])) == "fps >= 200 is broken: 100"


@pytest.mark.parametrize("figures", [{"macs": 1e9}, {"macs": 1e9, "fps": float("nan")}])
def test_a_metric_that_was_not_measured_is_no_permission_and_is_named(make_spec, architecture, figures):
    spec = make_spec(constraints=["macs <= 2e9", "fps >= 30"])
    assert Profile(figures).obstacle(spec) == "fps >= 30 cannot be checked: fps was not measured"


def test_what_is_never_trained_is_told_and_a_sweep_without_anything_else_is_refused(make_spec):
    spec = make_spec(constraints=["fps >= 30"], search={"model.backbone": ["resnet18", "resnet50", "resnet101"]})
    small, middle, large = reachable(spec)
    profiles = {small: Profile({"fps": 60.0}), middle: Profile({"fps": 12.0}), large: Profile({})}
    assert infeasible(spec, profiles) == {
        middle: "fps >= 30 is broken: 12",
        large: "fps >= 30 cannot be checked: fps was not measured",
    }
    del profiles[small]
    with pytest.raises(ConfigError, match=r"no architecture .* meets its constraints .*is broken: 12; .*not measured"):
        infeasible(spec, profiles)
    assert infeasible(spec, {}) == {}


@pytest.mark.slow  # two hundred forward passes
def test_a_real_network_is_measured_at_the_size_of_its_images(architecture):
    figures = measure(architecture, describe_device("cpu", torch.get_num_threads())).metrics
    assert figures["num_parameters"] > 1e6
    assert 1e6 < figures["macs"] < 1e9  # ResNet-18 on 32x32
    assert figures["fps"] == pytest.approx(1000 / figures["latency_ms"], rel=0.5)


DOUBTFUL = {"macs": 5.0, "latency_ms": 75.2, "latency_spread": 0.4, "fps": 13.3, "latency_reliable": 0.0}
ALONE = {"macs": 5.0, "latency_ms": 11.1, "latency_spread": 0.02, "fps": 90.1, "latency_reliable": 1.0}


class Clock:
    """Time passes when somebody sleeps."""

    def __init__(self):
        self.now = 0.0

    def sleep(self, seconds):
        self.now += seconds

    def patience(self, minutes, said):
        return Patience(minutes, say=said.append, sleep=self.sleep, clock=lambda: self.now)


class MachineOfOthers:
    """Somebody else computes there for a while."""

    def __init__(self, clock, *, busy_seconds):
        self.clock, self.busy_seconds, self.calls = clock, busy_seconds, []

    def __call__(self, function, *arguments):
        self.calls.append(function)
        doubts = ("others used 1.0 of 2 processors",) if self.clock.now < self.busy_seconds else ()
        if function is look:
            return doubts
        return Profile(DOUBTFUL, doubts=doubts) if doubts else Profile(ALONE)


def test_a_machine_that_others_use_is_waited_for_and_it_is_said(architecture, ledger):
    clock, said = Clock(), []
    call = MachineOfOthers(clock, busy_seconds=7)
    patience = clock.patience(1, said)
    found = dict(profile_all([architecture], device=CPU, ledger=ledger, patience=patience, call=call))
    assert found == {architecture: Profile(ALONE)}
    assert call.calls == [measure, look, look, look, look, measure]
    assert said == [f"waits up to 60 s for an idle machine to measure {architecture}: others used 1.0 of 2 processors"]
    assert patience.left == 60 - 8
    assert ledger.profile(profile_key(architecture, CPU)) == ALONE


def test_waiting_ends_and_what_was_measured_in_company_is_measured_again_next_time(architecture, ledger):
    clock = Clock()
    other = Architecture(architecture.model, architecture.num_classes, 64, 64, architecture.precision)
    call = MachineOfOthers(clock, busy_seconds=1000)
    found = dict(
        profile_all([architecture, other], device=CPU, ledger=ledger, patience=clock.patience(1, []), call=call)
    )
    assert clock.now == 60  # both together
    assert [profile.metrics for profile in found.values()] == [DOUBTFUL, DOUBTFUL]
    assert found[architecture].doubts == ("others used 1.0 of 2 processors",)
    clock.now = 2000
    again = dict(profile_all([architecture], device=CPU, ledger=ledger, patience=Patience(0), call=call))
    assert again == {architecture: Profile(ALONE)}


def test_reliable_figures_are_measured_again_only_when_somebody_wants_it(architecture, ledger):
    ledger.put_profile(profile_key(architecture, CPU), ALONE)
    newer = ALONE | {"latency_ms": 10.0}
    options = {"device": CPU, "ledger": ledger, "patience": Patience(0), "call": lambda *_: Profile(newer)}
    assert dict(profile_all([architecture], **options)) == {architecture: Profile(ALONE)}
    assert dict(profile_all([architecture], **options, again=True)) == {architecture: Profile(newer)}
    assert dict(profile_all([architecture], **options)) == {architecture: Profile(newer)}


def test_what_was_measured_in_company_bans_nothing(make_spec):
    spec = make_spec(constraints=["macs <= 2e9", "latency_ms <= 20"])
    assert Profile(DOUBTFUL).obstacle(spec) is None
    assert Profile(DOUBTFUL | {"latency_reliable": 1.0}).obstacle(spec) == "latency_ms <= 20 is broken: 75.2"
    assert Profile(DOUBTFUL | {"macs": 3e9}).obstacle(spec) == "macs <= 2e+09 is broken: 3e+09"


def test_trials_with_doubtful_latency_get_the_figures_that_were_measured_alone(make_spec, begun, ledger):
    spec = begun(make_spec())
    (architecture,) = reachable(spec)
    for number, profile in enumerate((DOUBTFUL | {"macs": 4.0}, ALONE | {"latency_ms": 12.0})):
        params = {"optimizer.lr": 0.01 * (number + 1)}
        ledger.add_trial(records.trial(number, params=params, profile=profile))
    assert renew_trials(spec, {architecture: Profile(DOUBTFUL)}, ledger=ledger) == []
    assert renew_trials(spec, {architecture: Profile(ALONE)}, ledger=ledger) == [0]
    assert [dict(trial.profile) for trial in ledger.trials("demo")] == [
        ALONE | {"macs": 4.0},
        ALONE | {"latency_ms": 12.0},
    ]
