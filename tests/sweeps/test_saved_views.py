"""MLflow's page of a sweep: short names beside the full ones, the star, the saved views, the page that opens them, `sweeps ui`."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from projected import add, compared, complete, repaired, runs, synced
from records import trial

from segda.discriminators import DISCRIMINATORS
from segda.errors import ConfigError
from segda.methods import METHODS
from segda.models import MODELS
from segda.models.trunks import BACKBONES
from segda.transforms.styles import STYLES
from sweeps.commands import serving
from sweeps.commands.serving import pages, served
from sweeps.file.fields import VARIANTS, known_paths
from sweeps.tracking import MlflowClient, Tracker, aliases, app, default_uri
from sweeps.tracking.aliases import METHOD, NETWORK, PARAMS, SOURCE, STYLE, TARGET, alias_metrics, alias_params
from sweeps.tracking.reading import unflatten
from sweeps.tracking.saved_views import LONGEST_TAG, view_keys, view_path, view_state
from sweeps.tracking.trial_run import PICKED_COLOR, params_of
from sweeps.tracking.view_keys import ASSISTANT, COLOR, NOTE, PAGE, PAGE_VERSION, TAG, WORKFLOW
from sweeps.trial import TrialKind, TrialState

REPOSITORY = Path(__file__).parents[2]
BUILD = Path(mlflow.__file__).parent / "server" / "js" / "build"
USUAL = ("source/val/miou", "oracle/target/miou", "latency_ms", "macs")


@pytest.fixture
def spec(make_spec, begun):
    return begun(make_spec(selection="source_validation"))


@pytest.fixture
def client(mlflow_store):
    return MlflowClient(default_uri(mlflow_store))


@pytest.fixture
def tracker(spec, ledger, mlflow_store):
    return Tracker(None, experiment=None, ledger=ledger, spec=spec, store=mlflow_store)


def configured(**changes):
    one = trial(0, method="adversarial", discriminator="dwd")
    plain = {**one.config, "optimizer": {"lr": 0.0031847}, **changes}
    return replace(one, config=plain, profile={"macs": 294_282_690.0, "latency_ms": 5.6512, "latency_reliable": 1.0})


def test_every_trial_has_the_same_short_parameters_without_exponents():
    method = {"name": "adversarial", "discriminator": "dwd", "lambda_adv": 5.81e-5, "lambda_aux": 3.0}
    assert alias_params(configured(method=method)) == {
        "Method": "adv dwd",
        "Network": "bis1 rn18",
        "Style": "none",
        "LR": "0.0032",
        "Lambda": "0.000058",
    }
    plain = alias_params(configured(method={"name": "source_only"}, data={"style": {"name": "channel_statistics"}}))
    assert (plain["Method"], plain["Style"], plain["Lambda"]) == ("source", "channels", "0")
    assert alias_params(configured(method={"name": "min_entropy", "lambda_ent": 0.01}))["Lambda"] == "0.01"
    assert plain.keys() == PARAMS


def test_no_two_parts_of_ours_have_the_same_short_name():
    methods = [configured(method={"name": name}) for name in METHODS]
    methods += [configured(method={"name": "adversarial", "discriminator": name}) for name in DISCRIMINATORS]
    networks = [configured(model={"name": name}) for name in MODELS]
    networks += [configured(model={"name": "bisenet_v1", "backbone": name}) for name in BACKBONES]
    networks += [configured(model={"name": "segformer", "variant": name}) for name in ("b1", "b2", "b3")]
    styles = [configured(data={"style": {"name": name}}) for name in STYLES]
    for name, ours in ((METHOD, methods), (NETWORK, networks), (STYLE, styles)):
        said = [alias_params(record)[name] for record in ours]
        assert [text for text in said if said.count(text) > 1] == []
        assert max(map(len, said)) <= 10


def test_no_two_paths_that_can_be_searched_have_the_same_short_name():
    paths = known_paths({part: catalog.usable() for part, catalog in VARIANTS.items()})
    said = [aliases.alias_of_path(path) for path in set(paths) if aliases.has_own_alias(path)]
    assert len(said) > 50
    assert [name for name in said if said.count(name) > 1] == []
    assert all(aliases.is_alias_param(name) for name in said)


def test_what_else_is_searched_has_a_rounded_name_where_a_trial_has_it():
    params = {"method.warm_up": 0.123456, "data.augmentation": "nadir", "optimizer.lr": 0.01, "batch_size": 4}
    own = alias_params(replace(configured(), params=params))
    assert {name: own[name] for name in own.keys() - PARAMS} == {
        "method warm up": "0.12",
        "data augmentation": "nadir",
    }


def test_figures_are_rounded_and_all_of_step_0_and_quality_is_told_of_full_trainings_alone():
    ended = replace(configured(), metrics={"source/val/miou": 0.123456, "oracle/target/miou": 0.5}, finished=7.0)
    found = {metric.key: metric for metric in alias_metrics(ended, USUAL)}
    assert {name: metric.value for name, metric in found.items()} == {
        "Source mIoU": 0.1235,
        "Target mIoU oracle": 0.5,
        "latency ms": 5.65,
        "macs G": 0.294,
    }
    assert {metric.step for metric in found.values()} == {0}
    assert found[SOURCE].timestamp == 7000
    running = alias_metrics(replace(ended, state=TrialState.RUNNING), USUAL)
    assert {metric.key for metric in running} == {"latency ms", "macs G"}
    doubtful = replace(ended, profile={"macs": 1e9, "latency_ms": 9.0, "latency_reliable": 0.0})
    assert "latency ms" not in {metric.key for metric in alias_metrics(doubtful, USUAL)}
    assert TARGET not in {metric.key for metric in alias_metrics(replace(ended, metrics={}), USUAL)}


def test_the_sweeps_own_objective_has_a_short_name(make_spec):
    spec = make_spec(
        objectives=[{"metric": "target/validator/soft_iou", "direction": "maximize"}],
        constraints=["num_parameters <= 1e9"],
    )
    record = replace(configured(), metrics={"target/validator/soft_iou": -12.34567}, finished=7.0)
    record = replace(record, profile={"num_parameters": 1_234_567.0})
    found = {metric.key: metric.value for metric in alias_metrics(record, aliases.compared_metrics(spec))}
    assert found == {"validator soft iou": -12.35, "params M": 1.23}


def test_a_configuration_is_read_back_without_short_names(ledger, spec):
    record = add(ledger, spec, 0)
    params = params_of(record)
    assert params.keys() >= PARAMS
    assert not unflatten(params | {"method warm up": "0.12"}).keys() & {*PARAMS, "method warm up"}


def test_names_figures_and_star_are_in_mlflow_once_and_the_audit_knows_them(tracker, client, ledger, spec):
    complete(ledger, spec, 0, 0.25)
    complete(ledger, spec, 1, 0.5)
    synced(tracker, final=True)
    found = runs(client, spec)
    assert [found[number].info.run_name for number in (0, 1)] == ["000 source_only", "★ 001 source_only"]
    assert [found[number].data.tags.get(COLOR) for number in (0, 1)] == [None, PICKED_COLOR]
    assert [found[number].data.metrics[TARGET] for number in (0, 1)] == [0.125, 0.25]
    assert found[0].data.tags["State"] == "complete"
    assert compared(tracker) == []
    client.log_metric(found[0].info.run_id, SOURCE, 0.99, step=0)
    client.set_tag(found[0].info.run_id, "mlflow.runName", "★ 000 source_only")
    told = compared(tracker)
    assert any(f"trial 0, {SOURCE}" in line for line in told)
    assert any("trial 0: other tags" in line for line in told)
    repaired(tracker)
    assert compared(tracker) == []
    assert runs(client, spec)[0].data.metrics[SOURCE] == 0.25
    before = ledger.trial("demo", 0).run_id
    repaired(tracker)
    assert ledger.trial("demo", 0).run_id == before


def test_a_store_of_a_version_without_short_names_gets_them_by_sync(tracker, client, ledger, spec, monkeypatch):
    complete(ledger, spec, 0, 0.25)
    with monkeypatch.context() as before:
        before.setattr("sweeps.tracking.trial_run.alias_params", lambda record: {})
        before.setattr("sweeps.tracking.projection.alias_metrics", lambda record, metrics: [])
        synced(tracker, final=True)
    run_id = ledger.trial("demo", 0).run_id
    assert not runs(client, spec)[0].data.params.keys() & PARAMS
    told = compared(tracker)
    assert any("parameters differ: LR, Lambda" in line and "`sweeps sync demo`" in line for line in told)
    assert any(f"trial 0, {SOURCE}: missing at step 0; `sweeps sync demo`" in line for line in told)
    repaired(Tracker(None, experiment=None, ledger=ledger, spec=spec, store=tracker._store))
    assert compared(tracker) == []
    assert ledger.trial("demo", 0).run_id == run_id


def test_short_names_of_an_objective_that_the_sweep_had_before_are_no_fault(
    tracker, client, ledger, spec, make_spec, mlflow_store
):
    complete(ledger, spec, 0, 0.25)
    synced(tracker, final=True)
    changed = make_spec(objectives=[{"metric": "fps", "direction": "maximize"}])
    other = Tracker(None, experiment=None, ledger=ledger, spec=changed, store=mlflow_store)
    run_id = ledger.trial("demo", 0).run_id
    ledger.update_trial("demo", 0, profile={"macs": 1e9, "fps": 3.0})
    repaired(other)
    assert runs(client, spec)[0].data.metrics["images per s"] == 3.0
    repaired(tracker)
    assert compared(tracker) == []
    assert ledger.trial("demo", 0).run_id == run_id


def test_the_star_moves_to_another_pick(tracker, client, ledger, spec):
    complete(ledger, spec, 0, 0.25)
    synced(tracker, final=True)
    assert runs(client, spec)[0].info.run_name == "★ 000 source_only"
    complete(ledger, spec, 1, 0.5)
    add(ledger, spec, 2)
    tracker.sync()
    client.set_tag(ledger.trial("demo", 2).run_id, COLOR, "#123456")  # by somebody who looks at it
    repaired(tracker)
    found = runs(client, spec)
    assert [found[number].info.run_name for number in (0, 1)] == ["000 source_only", "★ 001 source_only"]
    assert [found[number].data.tags.get(COLOR) for number in (0, 1, 2)] == [None, PICKED_COLOR, "#123456"]
    assert compared(tracker) == []


def test_views_and_their_links_are_there_and_what_people_wrote_stays(tracker, client, ledger, spec, mlflow_store):
    complete(ledger, spec, 0, 0.25)
    synced(tracker, final=True)
    record, trials = ledger.sweep(spec.name), ledger.trials(spec.name)
    experiment = client.get_experiment_by_name(spec.name)
    table, groups = view_keys(record)
    view = json.loads(experiment.tags[f"{TAG}{table}"])
    assert (view["name"], json.loads(experiment.tags[f"{TAG}{groups}"])["name"]) == ("Trials", "By method")
    assert json.loads(view["state"]) == view_state(record, spec, trials)
    assert "groupBy" in json.loads(experiment.tags[f"{TAG}{groups}"])["state"]
    assert f"viewStateShareKey={table}&compareRunsMode=CHART" in experiment.tags[NOTE]
    client.set_experiment_tag(experiment.experiment_id, NOTE, f"Before\n{experiment.tags[NOTE]}\nours since June")
    repaired(tracker)
    lines = client.get_experiment(experiment.experiment_id).tags[NOTE].splitlines()
    assert [len(lines), lines[0], lines[-1]] == [3, "Before", "ours since June"]


def test_two_sweeps_of_an_experiment_have_views_and_links_of_their_own(
    tracker, client, ledger, spec, make_spec, begun, mlflow_store
):
    complete(ledger, spec, 0, 0.25)
    synced(tracker, final=True)
    other = begun(make_spec(name="other", tracking={"experiment": "demo"}))
    complete(ledger, other, 0, 0.5)
    follower = synced(Tracker(None, experiment="demo", ledger=ledger, spec=other, store=mlflow_store), final=True)
    repaired(tracker)  # whoever writes last takes nothing from the other one
    assert compared(tracker) == compared(follower) == []
    tags = client.get_experiment_by_name("demo").tags
    views = {name: json.loads(value)["name"] for name, value in tags.items() if name.startswith(TAG)}
    assert sorted(views.values()) == ["By method", "By method: other", "Trials", "Trials: other"]
    for name in ("demo", "other"):
        record = ledger.sweep(name)
        (filtered,) = {
            json.loads(json.loads(tags[f"{TAG}{key}"])["state"])["searchFilter"] for key in view_keys(record)
        }
        assert filtered == f"tags.`sweep.role` = 'trial' and tags.`sweep.id` = '{name}@{record.created:.6f}'"
    assert [line.partition(":")[0] for line in tags[NOTE].splitlines() if line] == ["[**other", "[**demo"]
    in_place = {page.sweep: "viewStateShareKey" not in page.path for page in pages(ledger, mlflow_store)}
    assert in_place == {"other": True, "demo": False}


def test_a_view_shows_what_is_searched_and_nothing_that_is_the_same_everywhere(ledger, make_spec, begun):
    spec = begun(make_spec(search={"optimizer.lr": {"low": 0.001, "high": 0.1, "log": True}}))
    state = view_state(ledger.sweep(spec.name), spec)
    shown = [column for column in state["selectedColumns"] if column.startswith("params.")]
    assert shown == ["params.`Method`", "params.`Network`", "params.`LR`", "params.`Lambda`"]
    parallel, scatter = state["compareRunCharts"][:2]
    # Every trial has the same network, so cost is the same too.
    assert (parallel["selectedParams"], parallel["selectedMetrics"]) == (["LR"], ["Source mIoU"])
    assert scatter["xaxis"] == {"key": "LR", "type": "PARAM"}
    assert state["columnWidths"].keys() == set(state["columnOrder"])
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`Source mIoU`", False)


def test_a_view_goes_by_the_sweeps_objective_and_by_what_every_trial_has(ledger, make_spec, begun):
    spec = begun(
        make_spec(
            search={
                "method.name": ["source_only", "adversarial"],
                "method.lambda_adv": {"low": 1e-4, "high": 1e-2, "log": True, "when": {"method.name": "adversarial"}},
                "method.dropout": {"choices": [0.0, 0.5], "when": {"method.name": "adversarial"}},
                "optimizer.weight_decay": {"low": 1e-5, "high": 1e-3, "log": True},
                "batch_size": [4],
            },
            objectives=[
                {"metric": "macs", "direction": "minimize"},
                {"metric": "source/val/pixel_accuracy", "direction": "maximize"},
            ],
        )
    )
    usual = {"optimizer.weight_decay": 1e-4}
    trials = [
        replace(configured(), number=0, params=usual | {"method.name": "adversarial", "method.dropout": 0.0}),
        replace(configured(method={"name": "source_only"}), number=1, params=usual | {"method.name": "source_only"}),
        replace(configured(optimizer={"lr": 1.0}), number=2, params={}, kind=TrialKind.REFERENCE),
    ]
    trials = [replace(record, metrics={"source/val/miou": 0.5}) for record in trials]
    state = view_state(ledger.sweep(spec.name), spec, trials, by=METHOD)
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`macs G`", True)
    assert [column for column in state["selectedColumns"] if not column.startswith("tags")] == [
        *(f"params.`{name}`" for name in ("Method", "Network", "LR", "Lambda")),
        *("params.`method dropout`", "params.`optimizer weight decay`"),
        *("metrics.`Source pixel accuracy`", "metrics.`Source mIoU`", "metrics.`macs G`", "metrics.`latency ms`"),
    ]
    parallel, *cards = state["compareRunCharts"]
    # What only some have is a column and no axis; the rate differs in the reference alone, which is not drawn.
    assert parallel["selectedParams"] == ["Method", "Lambda", "optimizer weight decay"]
    assert parallel["selectedMetrics"][-1] == "Source pixel accuracy"
    assert "Target" not in json.dumps(cards)
    assert state["groupBy"]["groupByKeys"] == [{"mode": "param", "groupByData": "Method"}]


def test_views_of_a_large_search_are_within_mlflows_limit(ledger, make_spec, begun):
    spec = begun(make_spec(name="n" * 60, search={"optimizer.lr": {"low": 0.001, "high": 0.1}}))
    trials = [configured(model={"name": f"network{number}"}) for number in range(100)]
    state = view_state(ledger.sweep(spec.name), spec, trials, by=METHOD)
    assert len(json.dumps({"name": "n" * 300, "state": json.dumps(state)})) < LONGEST_TAG


def scripts():
    return "".join(path.read_text(encoding="utf-8") for path in (BUILD / "static" / "js").rglob("*.js"))


def test_the_installed_mlflow_still_knows_the_keys_that_views_and_page_rely_on(ledger, spec):
    text = scripts()
    state = view_state(ledger.sweep(spec.name), spec, by="Method")
    keys = {*state, *state["compareRunSections"][0], *state["groupBy"], *PAGE}
    for card in state["compareRunCharts"]:
        keys |= {*card, card["type"]}
    keys |= {"groupByData", WORKFLOW, ASSISTANT, TAG, "viewStateShareKey", "compareRunsMode", COLOR, NOTE}
    keys |= {"runDateAndNestInfo", "machine_learning"}
    assert sorted(key for key in keys if key not in text) == []
    main = next(BUILD.glob("static/js/main.*.js")).read_text(encoding="utf-8")
    assert f'"{PAGE_VERSION}"' in main
    for key in (WORKFLOW, ASSISTANT):
        assert f'key:"{key}",version:1,' in main
    assert app.knows_keys(BUILD)


@pytest.mark.filterwarnings("ignore:starlette.middleware.wsgi is deprecated")  # MLflow imports it
def test_a_page_of_another_mlflow_stays_its_own(tmp_path, monkeypatch, caplog):
    scripts = tmp_path / "static" / "js"
    scripts.mkdir(parents=True)
    (scripts / "main.1.js").write_text("console.log(1)")
    assert not app.knows_keys(tmp_path)
    monkeypatch.setattr(app, "knows_keys", lambda build: False)
    made = app.create_app()
    assert "another page than sweeps knows" in caplog.text
    assert type(made.router.routes[0]).__name__ != "Route"
    monkeypatch.undo()
    assert app.create_app().router.routes[0].path == "/"


def test_the_page_needs_nothing_that_a_training_needs():
    heavy = ["torch", "ray", "optuna", "pydantic_core", "sqlalchemy"]
    told = "import sys, sweeps.tracking.app; print([name for name in sys.argv[1:] if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    words = [sys.executable, "-c", told, *heavy]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def script():
    made = app.page((BUILD / "index.html").read_text())
    return made.partition("<head><script>")[2].partition("</script>")[0]


def test_the_page_is_mlflows_own_behind_a_script():
    original = (BUILD / "index.html").read_text()
    made = app.page(original)
    assert made.count("<script") == original.count("<script") + 1
    assert made.index("<head><script>") < made.index("static/js/main")
    assert made.replace(f"<script>{script()}</script>", "", 1) == original


STAGE = """
const kept = new Map(Object.entries(JSON.parse(process.argv[1])));
const views = JSON.parse(process.argv[2]), answers = [];
globalThis.localStorage = {
  getItem: (key) => (kept.has(key) ? kept.get(key) : null),
  setItem: (key, value) => kept.set(key, String(value)),
  removeItem: (key) => kept.delete(key),
};
globalThis.location = { href: "http://here/#/" };
globalThis.addEventListener = () => {};
globalThis.history = { pushState() { answers.push("moved"); }, replaceState() {} };
globalThis.XMLHttpRequest = class {
  open(method, address) { this.id = address.split("=")[1]; }
  send() {
    this.status = this.id in views ? 200 : 500;
    this.responseText = JSON.stringify({ experiment: { tags: views[this.id] } });
  }
};
"""


def shown(kept, views):
    """Return what a browser keeps after its page went to every experiment."""
    visits = "".join(f"history.pushState(null, '', '/#/experiments/{number}/runs');" for number in [*views, "9"])
    told = "console.log(JSON.stringify({kept: Object.fromEntries(kept), answers}));"
    words = ["node", "-e", f"{STAGE}{script()}{visits}{told}", json.dumps(kept), json.dumps(views)]
    told = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert len(told["answers"]) == len(views) + 1  # also where the server does not answer
    return told["kept"]


def tag(key, created, state):
    return {"key": f"{TAG}{key}", "value": json.dumps({"name": "Trials", "createdAt": created, "state": state})}


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js to run the page's script")
def test_the_page_opens_the_latest_sweep_once_and_keeps_what_people_change():
    place = 'MLflowLocalStorage-1.1-ExperimentPage-["1"]-ReactComponentState'
    first = {"1": [tag("trials-a", 1, "A"), tag("groups-a", 3, "G"), {"key": "other", "value": "no JSON"}], "2": []}
    kept = shown({f"{WORKFLOW}_v1": '"genai"'}, first)
    assert (kept[place], kept[f"{WORKFLOW}_v1"], kept[f"{ASSISTANT}_v1"]) == ("A", '"machine_learning"', "true")
    changed = kept | {place: "mine", f"{WORKFLOW}_v1": '"genai"'}
    assert shown(changed, first) == changed
    # Another sweep there, or another store at the same address, is shown again.
    assert shown(changed, {"1": [*first["1"], tag("trials-b", 2, "B")]})[place] == "B"
    assert shown(changed, {"1": [tag("trials-c", 0, "C")]})[place] == "C"
    assert place not in shown(changed, {"1": []})


def test_pages_are_of_sweeps_that_mlflow_has(tracker, ledger, mlflow_store, spec, begun, make_spec):
    with pytest.raises(ConfigError, match="MLflow does not have sweep 'demo'; `sweeps sync demo"):
        pages(ledger, mlflow_store, name="demo")
    complete(ledger, spec, 0, 0.25)
    synced(tracker, final=True)
    begun(make_spec(name="later"))
    begun(make_spec(name="elsewhere", tracking={"uri": "http://127.0.0.1:9"}))
    (found,) = pages(ledger, mlflow_store)
    assert (found.sweep, found.is_at_server) == ("demo", False)
    assert found.link("http://here/") == "http://here/#/experiments/1/runs"


def test_a_sweep_at_a_server_is_opened_there(call, store, ledger, spec, monkeypatch):
    place = "#/experiments/7/runs?viewStateShareKey=x"
    monkeypatch.setattr(
        "sweeps.cli.actions.ui.pages",
        lambda ledger, store, name: [serving.SweepPage("demo", "http://me:secret@server", place)],
    )
    code, out, _ = call("ui", "demo", "--store", store.root, "--no-browser")
    assert (code, out) == (0, f"The runs of demo are at a server: http://***@server/{place}\n")


def test_a_store_that_mlflow_does_not_have_and_an_unknown_sweep_are_one_line(call, store, ledger, spec):
    code, _, err = call("ui", "demo", "--store", store.root, "--no-browser")
    assert (code, err.count("\n")) == (2, 1)
    assert "there is no MLflow database" in err
    code, _, err = call("ui", "nothing", "--store", store.root, "--no-browser")
    assert (code, err.count("\n"), "nothing" in err) == (2, 1, True)


def test_a_taken_port_is_told_and_the_usual_one_is_passed_over(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is taken"), served("sqlite://", port=port):
            pass
        monkeypatch.setattr(serving, "USUAL_PORT", port)
        assert serving._free_port() > port


def test_a_server_that_ends_at_once_says_why(monkeypatch):
    monkeypatch.setattr(serving, "sys", type("Python", (), {"executable": "/bin/false"}))
    with pytest.raises(ConfigError, match="ended at once: it does not say why"), served("sqlite://"):
        pass


def test_status_and_report_name_the_command(call, ledger, spec, mlflow_store):
    complete(ledger, spec, 0, 0.25)
    command = f"sweeps ui demo --store {mlflow_store.root}"
    _, out, _ = call("status", "demo", "--store", mlflow_store.root)
    assert f"`{command}`" in " ".join(out.split())
    call("report", "demo", "--store", mlflow_store.root)
    for suffix in (".html", ".md"):
        assert command in mlflow_store.report("demo", suffix=suffix).read_text(encoding="utf-8")


BROWSER = next((name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), None)


@pytest.fixture
def entry_point(tmp_path, monkeypatch):
    """Let processes find this package with the entry points of pyproject.toml, wherever it is installed from."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    folder = tmp_path / "installed" / "segda_here-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: segda-here\nVersion: 1.0\n")
    (point,) = project["entry-points"]["mlflow.app"].items()
    (folder / "entry_points.txt").write_text(f"[mlflow.app]\n{point[0]} = {point[1]}\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), str(folder.parent)]))


def answers(address, seconds=120):
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def page_texts(address, folder):
    """Return what a browser shows that has never been there."""
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=30000"]
    words += ["--window-size=1600,900", f"--user-data-dir={folder}", "--dump-dom", address]
    return subprocess.run(words, capture_output=True, text=True, timeout=200, check=False).stdout


TEXTS = ("★ 001 source_only", "000 source_only", "Source mIoU", "Target mIoU oracle", "State", "complete", "all trials")


@pytest.mark.slow  # MLflow's server starts, and a browser
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium to read the page (Debian: apt install chromium)")
def test_sweeps_ui_shows_every_trial_without_a_click_and_ends_with_its_server(
    tracker, ledger, mlflow_store, spec, tmp_path, entry_point
):
    complete(ledger, spec, 0, 0.25)
    complete(ledger, spec, 1, 0.5)
    synced(tracker, final=True)
    # As in a terminal: who runs tests in the background lets their children ignore Ctrl-C.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{heard}; from sweeps.main import main; main()"
    words = [sys.executable, "-c", program, "ui", "--store", str(mlflow_store.root)]
    with subprocess.Popen([*words, "--no-browser"], stdout=subprocess.PIPE, text=True) as command:
        try:
            link = command.stdout.readline().removeprefix("demo: ").strip()
            assert link.endswith("/#/experiments/1/runs")
            seen = page_texts(link, tmp_path / "browser")
            assert [text for text in TEXTS if text not in seen] == []
            assert "shared view" not in seen
            command.send_signal(signal.SIGINT)
            assert command.wait(120) == 0
        finally:
            command.terminate()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(link, timeout=5)


@pytest.mark.slow  # MLflow's server starts, and a browser
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium to read the page (Debian: apt install chromium)")
def test_mlflows_own_page_shows_trials_by_the_link_alone(tracker, ledger, mlflow_store, spec, tmp_path, monkeypatch):
    complete(ledger, spec, 0, 0.25)
    complete(ledger, spec, 1, 0.5)
    synced(tracker, final=True)
    monkeypatch.setattr(serving, "has_page", lambda: False)
    with served(default_uri(mlflow_store)) as server:
        assert "sweeps.shown" not in answers(server.address)
        own = page_texts(f"{server.address}/#/experiments/1/runs", tmp_path / "own")
        assert "Target mIoU oracle" not in own
        (page,) = pages(ledger, mlflow_store)
        assert page.path == view_path("1", view_keys(ledger.sweep("demo"))[0])
        seen = page_texts(page.link(server.address), tmp_path / "link")
        assert [text for text in TEXTS if text not in seen] == []
        assert "shared view" in seen


@pytest.mark.slow  # MLflow's server starts
def test_mlflow_ui_takes_the_name_of_the_page(tmp_path, mlflow_template, entry_point):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "mlflow", "ui", "--app-name", "sweeps", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{mlflow_template}"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True)
    try:
        page = answers(f"http://127.0.0.1:{port}/")
        assert page == app.page((BUILD / "index.html").read_text(encoding="utf-8"))
        foreign = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Host": "elsewhere.example"})
        with pytest.raises(OSError, match="403"):
            urllib.request.urlopen(foreign, timeout=5)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)
