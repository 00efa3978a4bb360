# ruff: noqa: E501 - a table of messages reads best with one case per line
"""A user's own method in a sweep: in its file, in its workers, and in its records."""

import importlib
import json
import sys
import textwrap

import fakes
import pytest
from records import trial

from segda.config import TrainConfig
from segda.environment import describe_environment, describe_guests
from segda.errors import ConfigError
from segda.schema_keys import keys_of
from sweeps.audit.reproduce import environment_differences
from sweeps.checks.makers import load_spec, stored_spec
from sweeps.execution.guests import guests_of
from sweeps.execution.runner import run_sweep
from sweeps.execution.task import Task
from sweeps.execution.worker import run_task
from sweeps.file.schema import sweep_schema
from sweeps.file.spec import SweepSpec
from sweeps.ledger.records import Device
from sweeps.planning.profiles import Architecture, profile_key
from sweeps.selection.choice import criteria_of, select
from sweeps.tracking import MlflowClient
from sweeps.tracking.limits import Refusals
from sweeps.tracking.reading import RecordedRun
from sweeps.tracking.trial_run import send_files
from sweeps.trial import TrialState

SHY = """
    from typing import Annotated

    from pydantic import Field

    from segda.methods import MethodConfig
    from segda.methods.source_only import SourceOnly
    from segda.methods.target_only import TargetOnly
    from segda.tunable import Range

    class ShyConfig(MethodConfig):
        lambda_shy: Annotated[float, Range(0.1, 0.9)] = Field(0.5, ge=0, description="weight of nothing")

    class Shy(SourceOnly):
        Config = ShyConfig

    class Bold(TargetOnly):
        Config = ShyConfig

    def surest(evidence):
        return evidence.target.max(dim=-1).values.mean()
"""

NETWORK = """
    from segda.models.bisenet_v1 import BiSeNetV1, BiSeNetV1Config

    class ShyConfig(BiSeNetV1Config):
        name: str = "shy"

    class Shy(BiSeNetV1):
        Config = ShyConfig
"""

SWEEP = """\
name: shy
base:
  data:
    source: {dataset: camvid, domain: day}
    target: {dataset: camvid, domain: dusk}
    height: 96
    width: 128
  method: {lambda_adv: 1e-4}
  steps: 900
  report_every: 100
search:
  method.name: [source_only, "shy:Shy", adversarial]
  method.lambda_shy: {when: {method.name: "shy:Shy"}}
  optimizer.lr: {low: 5e-3, high: 5e-2, log: true}
budget: {trials: 12}
references:
  bold: {method.name: "shy:Bold", method.lambda_shy: 0.3}
"""


@pytest.fixture
def load(guest_folder, tmp_path):
    (guest_folder / "shy.py").write_text(textwrap.dedent(SHY))

    def load(*changes):
        text = SWEEP
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        return load_spec(path)

    return load


def test_a_guest_is_searched_at_its_own_ranges_where_it_is_chosen(load):
    spec = load()
    item = spec.search["method.lambda_shy"]
    assert (item.low, item.high, item.when) == (0.1, 0.9, {"method.name": ("shy:Shy",)})
    params = {"method.name": "shy:Shy", "method.lambda_shy": 0.2, "optimizer.lr": 0.01}
    assert spec.train_config(params, seed=0).method.model_dump() == {"name": "shy:Shy", "lambda_shy": 0.2}
    assert spec.train_config({"method.name": "adversarial"}, seed=0).method.lambda_adv == 1e-4
    assert type(spec).model_validate(spec.canonical()) == spec


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"shy:Shy", adv', '"shy:Sly", adv', "12: search.method.name[1]: method 'shy:Sly': module shy ("),
        ('"shy:Shy", adv', '"sly:Shy", adv', "12: search.method.name[1]: method 'sly:Shy': there is no module 'sly'; put sly.py into"),
        ('"shy:Shy", adv', '"shy:Bold", adv', "12: search.method.name[1]: shy:Bold is trained on target labels and never picked"),
        ("method.lambda_shy: {when", "method.lambda_shi: {when", "13: search.method.lambda_shi: a training configuration has no such field (did you mean 'method.lambda_shy'?)"),
        ('{when: {method.name: "shy:Shy"}}', "{low: -1, high: 1, when: {method.name: 'shy:Shy'}}", "13: search.method.lambda_shy: must be at least 0, got -1"),
        ('{when: {method.name: "shy:Shy"}}', "default", "13: search.method.lambda_shy: method adversarial has no such field; add `when: {method.name: shy:Shy}`"),
        ("shy:Bold", "shy:Bald", "17: references.bold.method.name: method 'shy:Bald': module shy ("),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_guest_is_told_with_file_and_line(load, tmp_path, old, new, message):
    with pytest.raises(ConfigError) as error:
        load(old, new)
    assert str(error.value).startswith(f"{tmp_path / 'sweep.yaml'}:{message}")


def test_an_installed_method_is_part_of_the_default_range_and_of_the_schema_and_a_broken_one_is_not(
    load, guest_folder, install, caplog
):
    (guest_folder / "wreck.py").write_text("raise RuntimeError('water')\n")
    install("shyness", "[segda.methods]\nshy = shy:Shy\nbold = shy:Bold\nwreck = wreck:Wreck\n")
    spec = load(
        'method.name: [source_only, "shy:Shy", adversarial]',
        "method.name: default",
        'when: {method.name: "shy:Shy"}',
        "when: {method.name: shy}",
    )
    assert spec.search["method.name"].choices[-1] == "shy"
    assert "bold" not in spec.search["method.name"].choices  # trained on target labels
    assert "search.method.lambda_shy" in keys_of(sweep_schema())
    assert "importing wreck failed with RuntimeError: water" in caplog.text


@pytest.fixture
def run(ledger, store, begun):
    """Run or continue a sweep whose only method is a guest of the module `name`; return what was told meanwhile."""

    def run(name, **changes):
        base = fakes.plain_spec()["base"] | {"method": {"name": f"{name}:Shy"}}
        spec = SweepSpec.model_validate(fakes.plain_spec(base=base, **changes))
        if not ledger.sweeps():
            begun(spec)
        told = []
        run_sweep(
            spec,
            ledger=ledger,
            store=store,
            train="fakes:quadratic",
            fingerprint=fakes.fingerprint,
            listener=lambda kind, record, text: told.append(text),
        )
        return told

    return run


@pytest.mark.usefixtures("ray_cluster", "no_profiling")
def test_workers_import_guests_from_where_the_driver_found_them_and_a_change_is_told_and_counted(
    run, guest_folder, ledger
):
    file = guest_folder / "shy_in_workers.py"
    file.write_text(textwrap.dedent(SHY))
    run("shy_in_workers")
    trials = ledger.trials("demo")
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    info = ledger.sweep("demo").info
    assert info.folders == (str(guest_folder),)
    assert info.guests["guest/shy_in_workers:Shy/module"] == "shy_in_workers"

    file.write_text(file.read_text() + "\n# changed\n")
    importlib.reload(sys.modules["shy_in_workers"])
    told = run("shy_in_workers", budget={"trials": 4, "concurrency": 1})
    assert any("guest/shy_in_workers:Shy/sha256 was" in text for text in told)
    assert [event.kind for event in ledger.events("demo")].count("guest_changed") == 1
    keys = {trial.key for trial in ledger.trials("demo")}
    assert len(keys) == 4
    assert not any("sha256 was" in text for text in run("shy_in_workers", budget={"trials": 4, "concurrency": 1}))


def test_whoever_reads_the_ledger_finds_the_guests_of_a_sweep_where_its_driver_did(
    begun, ledger, guest_folder, tmp_path
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    file = guest_folder / "shy_in_ledger.py"
    file.write_text(textwrap.dedent(SHY))
    base = fakes.plain_spec()["base"] | {"method": {"name": "shy_in_ledger:Shy"}}
    begun(SweepSpec.model_validate(fakes.plain_spec(base=base)))
    del sys.modules["shy_in_ledger"]
    file.rename(elsewhere / file.name)
    importlib.invalidate_caches()
    with pytest.raises(
        ConfigError, match=r"sweep demo in the ledger.*base.method.name: .*there is no module 'shy_in_ledger'"
    ):
        stored_spec(ledger.sweep("demo"))
    ledger.update_info("demo", folders=(str(elsewhere),))
    assert stored_spec(ledger.sweep("demo")).base["method"] == {"name": "shy_in_ledger:Shy"}
    del sys.modules["shy_in_ledger"]


def test_a_node_that_lacks_a_guest_is_no_fault_of_the_configuration(make_spec, tmp_path):
    config = make_spec().train_config({"optimizer.lr": 0.01}, seed=0).model_dump(mode="json")

    def end_of(name):
        plain = config | {"method": {"name": name}}
        sent = []
        run_task(Task(0, 1, 0, str(tmp_path / "trial"), plain, 1, train="fakes:quadratic"), sent.append)
        return sent[-1]["event"], sent[-1]["failure"], sent[-1]["error"]

    event, failure, error = end_of("nowhere_to_be_found:Shy")
    assert (event, failure) == ("failed", "data")
    assert error.startswith("GuestError: method 'nowhere_to_be_found:Shy': there is no module 'nowhere_to_be_found'")
    # The driver's machine has a package installed that this one lacks.
    assert end_of("shy_of_a_package")[1] == "data"


@pytest.fixture
def config(guest_folder):
    """A training configuration with a guest."""
    (guest_folder / "shy_recorded.py").write_text(textwrap.dedent(SHY))
    plain = fakes.plain_spec()["base"] | {"method": {"name": "shy_recorded:Shy"}, "device": "cpu"}
    return TrainConfig.model_validate(plain)


def test_the_run_of_a_trial_in_mlflow_says_which_guests_it_was_trained_with(config, mlflow_store, tmp_path):
    described = describe_guests(config)
    (tmp_path / "environment.json").write_text(json.dumps(described))
    client = MlflowClient(f"sqlite:///{mlflow_store.mlflow}")
    run_id = client.create_run("0").info.run_id
    known = ["environment.json"]
    assert "environment.json" in send_files(client, run_id, trial(0), folder=tmp_path, known=known, refusals=Refusals())
    tags = {key: value for key, value in client.get_run(run_id).data.tags.items() if key.startswith("guest/")}
    assert tags == {key: value for key, value in described.items() if value is not None}
    assert tags["guest/shy_recorded:Shy/module"] == "shy_recorded"


def test_who_reproduces_a_run_is_told_that_a_guest_has_changed(config):
    described = describe_environment() | describe_guests(config)
    name = "guest/shy_recorded:Shy/sha256"

    def differences(environment):
        run = RecordedRun("r", "n", config, environment, {1: {}}, None, None, None, None, 1)
        return environment_differences(run, config)

    assert differences(described) == []
    assert differences(described | {name: "another"}) == [(name, "another", described[name])]


def test_figures_of_a_network_are_measured_again_when_its_file_has_changed(guest_folder):
    file = guest_folder / "shy_network.py"
    file.write_text(textwrap.dedent(NETWORK))
    base = fakes.plain_spec()["base"] | {"model": {"name": "shy_network:Shy"}}
    device = Device("cpu", "one", 1)

    def key():
        return profile_key(Architecture.of(TrainConfig.model_validate(base)), device)

    before = key()
    file.write_text(file.read_text() + "\n# changed\n")
    importlib.reload(sys.modules["shy_network"])
    assert key() != before


def test_a_validator_of_ones_own_chooses_if_trials_compute_it(load, tmp_path):
    with pytest.raises(
        ConfigError, match=r"selection: trials do not compute shy:surest; add it: base.validators: \[entropy, im, bnm,"
    ):
        load("budget:", "selection: shy:surest\nbudget:")
    with pytest.raises(
        ConfigError, match=r"selection: validator 'shy:surely': module shy .* has no 'surely' \(did you mean 'surest'"
    ):
        load("budget:", "selection: shy:surely\nbudget:")
    with pytest.raises(
        ConfigError, match=r"search\.validators: cannot be searched: trials are compared by the same scores"
    ):
        load("optimizer.lr:", "validators:")
    validators = "  validators: [entropy, 'shy:surest']\n  steps"
    spec = load("budget:", "selection: shy:surest\nbudget:", "  steps", validators)
    assert criteria_of(spec) == ["source_validation", "entropy", "shy:surest", "ensv", "oracle"]
    metric = "target/validator/shy:surest"
    trials = [trial(number, metrics={metric: figure}) for number, figure in enumerate((0.7, 0.9, 0.8))]
    assert select(trials, spec).picked is trials[1]
    assert "guest/shy:surest/sha256" in guests_of(spec)


def test_what_only_the_program_itself_knows_is_refused_before_anything_starts(load, monkeypatch):
    load()
    monkeypatch.setattr(sys.modules["__main__"], "Shy", sys.modules["shy"].Shy, raising=False)
    monkeypatch.setattr(sys.modules["shy"].Shy, "__module__", "__main__")
    spec = load(
        '"shy:Shy", adversarial',
        '"__main__:Shy", adversarial',
        'when: {method.name: "shy:Shy"}',
        "when: {method.name: __main__:Shy}",
    )
    with pytest.raises(
        ConfigError, match="__main__:Shy of sweep 'shy' is defined in a notebook or in the program itself"
    ):
        guests_of(spec)
