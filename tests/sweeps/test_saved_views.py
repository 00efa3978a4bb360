"""MLflow's page of a sweep: short names beside the full ones, the star, the saved views, the page that opens them, `sweeps ui`."""

import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from projected import add, compared, complete, repaired, runs, synced
from records import trial

from segda.errors import ConfigError
from sweeps.tracking import MlflowClient, Tracker, default_uri
from sweeps.tracking.aliases import METRICS, PARAMS, SOURCE, TARGET, alias_metrics, alias_params
from sweeps.tracking.app import ASSISTANT, VIEW, WORKFLOW, page
from sweeps.tracking.reading import unflatten
from sweeps.tracking.saved_views import LONGEST_TAG, NOTE, OPENED, TAG, view_keys, view_state
from sweeps.tracking.trial_run import COLOR, params_of
from sweeps.tracking.ui import pages, served
from sweeps.trial import TrialState

BUILD = Path(mlflow.__file__).parent / "server" / "js" / "build"


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
        "Network": "bise1 rn18",
        "Style": "none",
        "LR": "0.0032",
        "Lambda": "0.000058",
    }
    plain = alias_params(configured(method={"name": "source_only"}, data={"style": {"name": "channel_statistics"}}))
    assert (plain["Method"], plain["Style"], plain["Lambda"]) == ("source", "channels", "0")
    assert alias_params(configured(method={"name": "min_entropy", "lambda_ent": 0.01}))["Lambda"] == "0.01"
    assert plain.keys() == PARAMS


def test_figures_are_rounded_and_all_of_step_0_and_quality_is_told_of_full_trainings_alone():
    ended = replace(configured(), metrics={"source/val/miou": 0.123456, "oracle/target/miou": 0.5}, finished=7.0)
    found = {metric.key: metric for metric in alias_metrics(ended)}
    assert {name: metric.value for name, metric in found.items()} == {
        "Source mIoU": 0.1235,
        "Target mIoU oracle": 0.5,
        "latency ms": 5.65,
        "macs G": 0.294,
    }
    assert found.keys() == METRICS
    assert {metric.step for metric in found.values()} == {0}
    assert found[SOURCE].timestamp == 7000
    running = alias_metrics(replace(ended, state=TrialState.RUNNING))
    assert {metric.key for metric in running} == {"latency ms", "macs G"}
    doubtful = replace(ended, profile={"macs": 1e9, "latency_ms": 9.0, "latency_reliable": 0.0})
    assert "latency ms" not in {metric.key for metric in alias_metrics(doubtful)}


def test_a_configuration_is_read_back_without_short_names(ledger, spec):
    record = add(ledger, spec, 0)
    params = params_of(record)
    assert params.keys() >= PARAMS
    assert not unflatten(params).keys() & PARAMS


def test_names_figures_and_star_are_in_mlflow_once_and_the_audit_knows_them(tracker, client, ledger, spec):
    complete(ledger, spec, 0, 0.25)
    complete(ledger, spec, 1, 0.5)
    synced(tracker, final=True)
    found = runs(client, spec)
    assert [found[number].info.run_name for number in (0, 1)] == ["000 source_only", "★ 001 source_only"]
    assert [COLOR in found[number].data.tags for number in (0, 1)] == [False, True]
    assert [found[number].data.metrics[TARGET] for number in (0, 1)] == [0.125, 0.25]
    assert found[0].data.tags["State"] == "complete"
    assert compared(tracker) == []
    client.log_metric(found[0].info.run_id, SOURCE, 0.99, step=0)
    client.set_tag(found[0].info.run_id, "mlflow.runName", "★ 000 source_only")
    told = compared(tracker)
    assert any(f"trial 0, {SOURCE}" in line for line in told)
    assert any("trial 0: other tags" in line for line in told)


def test_the_star_moves_to_another_pick(tracker, client, ledger, spec):
    complete(ledger, spec, 0, 0.25)
    synced(tracker, final=True)
    assert runs(client, spec)[0].info.run_name == "★ 000 source_only"
    complete(ledger, spec, 1, 0.5)
    repaired(tracker)
    found = runs(client, spec)
    assert [found[number].info.run_name for number in (0, 1)] == ["000 source_only", "★ 001 source_only"]
    assert compared(tracker) == []


def test_views_and_their_links_are_there_and_what_people_wrote_stays(tracker, client, ledger, spec):
    complete(ledger, spec, 0, 0.25)
    synced(tracker, final=True)
    experiment = client.get_experiment_by_name(spec.name)
    key, by_method = view_keys(ledger.sweep(spec.name))
    view = json.loads(experiment.tags[f"{TAG}{key}"])
    assert view["name"] == "demo: trials"
    assert json.loads(view["state"]) == view_state(ledger.sweep(spec.name), spec)
    assert "groupBy" in json.loads(experiment.tags[f"{TAG}{by_method}"])["state"]
    assert experiment.tags[OPENED] == experiment.tags[f"{TAG}{key}"]
    assert f"viewStateShareKey={key}&compareRunsMode=CHART" in experiment.tags[NOTE]
    client.set_experiment_tag(experiment.experiment_id, NOTE, f"{experiment.tags[NOTE]}\nours since June")
    repaired(tracker)
    lines = client.get_experiment(experiment.experiment_id).tags[NOTE].splitlines()
    assert [len(lines), lines[-1]] == [2, "ours since June"]


def test_a_view_shows_what_is_searched_and_nothing_that_is_the_same_everywhere(ledger, make_spec, begun):
    spec = begun(make_spec(search={"optimizer.lr": {"low": 0.001, "high": 0.1, "log": True}}))
    state = view_state(ledger.sweep(spec.name), spec)
    assert [column for column in state["selectedColumns"] if column.startswith("params.")] == ["params.`LR`"]
    parallel = state["compareRunCharts"][0]
    assert (parallel["type"], parallel["selectedParams"]) == ("PARALLEL", ["LR"])
    assert state["columnWidths"].keys() == set(state["columnOrder"])
    assert ledger.sweep(spec.name).name in state["searchFilter"]
    assert len(json.dumps({"state": json.dumps(state)})) < LONGEST_TAG


def scripts():
    return "".join(path.read_text(encoding="utf-8") for path in (BUILD / "static" / "js").rglob("*.js"))


def test_the_installed_mlflow_still_knows_the_keys_that_views_and_page_rely_on(ledger, spec):
    text = scripts()
    state = view_state(ledger.sweep(spec.name), spec, by="Method")
    keys = {*state, *state["compareRunCharts"][0], *state["compareRunSections"][0], *state["groupBy"], *VIEW}
    keys |= {"groupByData", WORKFLOW, ASSISTANT, TAG.rstrip("."), "viewStateShareKey", "compareRunsMode", COLOR, NOTE}
    assert sorted(key for key in keys if key not in text) == []


def test_the_page_is_mlflows_own_behind_a_script(ledger):
    original = (BUILD / "index.html").read_text()
    made = page(original)
    assert made.count("<script") == original.count("<script") + 1
    assert made.index("<head><script>") < made.index("static/js/main")
    script = made.partition("<head><script>")[2].partition("</script>")[0]
    assert made.replace(f"<script>{script}</script>", "", 1) == original
    if shutil.which("node"):
        checked = subprocess.run(["node", "--check", "-"], input=script, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr


def test_pages_are_of_sweeps_that_mlflow_has_and_open_in_place_unless_another_sweep_wrote_last(
    tracker, client, ledger, mlflow_store, spec, make_spec, begun
):
    assert pages(ledger, mlflow_store) == []
    complete(ledger, spec, 0, 0.25)
    synced(tracker, final=True)
    (found,) = pages(ledger, mlflow_store)
    assert (found.sweep, found.path) == ("demo", "#/experiments/1/runs")
    other = begun(make_spec(name="other", tracking={"experiment": "demo"}))
    synced(Tracker(None, experiment="demo", ledger=ledger, spec=other, store=mlflow_store), final=True)
    assert [(page.sweep, "viewStateShareKey" in page.path) for page in pages(ledger, mlflow_store)] == [
        ("other", False),
        ("demo", True),
    ]


def test_a_taken_port_and_a_sweep_that_mlflow_does_not_have_are_told(call, store, ledger, spec):
    code, _, err = call("ui", "demo", "--store", store.root, "--no-browser")
    assert (code, err.count("\n")) == (2, 1)
    assert "MLflow does not have sweep 'demo' yet; `sweeps sync NAME --store" in err
    code, _, err = call("ui", "nothing", "--store", store.root, "--no-browser")
    assert (code, "nothing" in err) == (2, True)
    with (
        urllib_server() as port,
        pytest.raises(ConfigError, match=f"port {port} is taken"),
        served("sqlite://", port=port),
    ):
        pass


class urllib_server:
    """A port that is taken."""

    def __enter__(self):
        import socket

        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen()
        return self.socket.getsockname()[1]

    def __exit__(self, *_):
        self.socket.close()


BROWSER = next((name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), None)


@pytest.mark.slow  # MLflow's server starts, and a browser
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium to read the page (Debian: apt install chromium)")
def test_a_person_sees_every_trial_at_once_and_without_the_page_does_not(
    tracker, client, ledger, mlflow_store, spec, tmp_path
):
    complete(ledger, spec, 0, 0.25)
    complete(ledger, spec, 1, 0.5)
    synced(tracker, final=True)

    def seen(address, path):
        profile = tmp_path / f"browser{len(list(tmp_path.glob('browser*')))}"
        words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=30000"]
        words += ["--window-size=1500,900", f"--user-data-dir={profile}", "--dump-dom", f"{address}/{path}"]
        return subprocess.run(words, capture_output=True, text=True, timeout=200, check=False).stdout

    texts = ("★ 001 source_only", "000 source_only", "Source mIoU", "Target mIoU oracle", "All trials")
    with served(default_uri(mlflow_store), port=None) as address:
        # As from the home page: the place of the experiment, and no click.
        shown = seen(address, "#/experiments/1/runs")
        assert [text for text in texts if text not in shown] == []
        assert "shared view" not in shown
        with urllib.request.urlopen(f"{address}/", timeout=10) as answer:
            assert "localStorage" in answer.read().decode()
    own = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", address.rpartition(":")[2]]
    server = subprocess.Popen(
        [*own, "--workers", "1", "--backend-store-uri", default_uri(mlflow_store)], start_new_session=True
    )
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        assert "Target mIoU oracle" not in seen(address, "#/experiments/1/runs")
        shared = seen(address, pages_path(ledger, spec))
        assert [text for text in texts if text not in shown] == []
        assert "shared view" in shared
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)


def pages_path(ledger, spec):
    from sweeps.tracking.saved_views import view_path

    return view_path("1", view_keys(ledger.sweep(spec.name))[0])
