"""Efficiency measured once per architecture and device."""

import fakes
import pytest
import torch

from sweeps.planning.profiles import (
    Architecture,
    Device,
    Profile,
    describe_device,
    measure,
    profile_all,
    profile_key,
    reachable,
    sample_config,
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


def test_the_key_changes_with_everything_that_changes_the_figures(architecture):
    from dataclasses import replace

    base = profile_key(architecture, CPU)
    assert profile_key(replace(architecture), CPU) == base
    changes = {"num_classes": 3, "height": 64, "width": 64, "precision": "bf16"}
    changes["model"] = architecture.model.model_copy(update={"backbone": "resnet101"})
    keys = {profile_key(replace(architecture, **{field: value}), CPU) for field, value in changes.items()}
    keys |= {profile_key(architecture, replace(CPU, threads=2)), profile_key(architecture, replace(CPU, name="other"))}
    assert len(keys | {base}) == len(changes) + 3


def test_a_gpus_figures_do_not_depend_on_the_processors_threads(architecture):
    one, two = (profile_key(architecture, Device("cuda", "GPU", threads)) for threads in (1, 2))
    assert one == two


@pytest.fixture
def sweep(ledger):
    ledger.create_sweep("some", spec={}, info={"environment": {}})
    return "some"


def test_figures_are_measured_once_and_remembered(architecture, ledger, sweep):
    called = []

    def call(function, *arguments):
        called.append(function)
        return CPU if function is describe_device else {"macs": 5.0}

    for _ in range(2):
        found = dict(profile_all([architecture], kind="cpu", threads=1, ledger=ledger, sweep=sweep, call=call))
        assert found == {architecture: Profile(metrics={"macs": 5.0})}
    assert called.count(measure) == 1
    assert ledger.sweep(sweep).info == {
        "environment": {},
        "device": {"kind": CPU.kind, "name": CPU.name, "threads": CPU.threads},
    }


def test_a_network_that_cannot_be_built_is_an_obstacle_not_a_crash(architecture, ledger, sweep, make_spec):
    def call(function, *arguments):
        return CPU if function is describe_device else "it cannot be built"

    found = dict(profile_all([architecture], kind="cpu", threads=1, ledger=ledger, sweep=sweep, call=call))
    assert found[architecture].obstacle(make_spec()) == "it cannot be built"


def test_an_obstacle_names_the_constraint_and_the_figure(make_spec, architecture):
    profile = fakes.profile(architecture)
    assert profile.obstacle(make_spec()) is None
    assert profile.obstacle(make_spec(constraints=["fps >= 30"])) is None
    assert profile.obstacle(make_spec(constraints=["fps >= 200"])) == "fps >= 200 is broken: 100"


@pytest.mark.slow  # two hundred forward passes
def test_a_real_network_is_measured_at_the_size_of_its_images(architecture):
    figures = measure(architecture, describe_device("cpu", torch.get_num_threads()))
    assert figures["num_parameters"] > 1e6
    assert 1e6 < figures["macs"] < 1e9  # ResNet-18 on 32x32
    assert figures["fps"] == pytest.approx(1000 / figures["latency_ms"], rel=0.5)
