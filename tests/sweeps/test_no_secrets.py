"""A sweep whose addresses and commands hold passwords: it goes on with them, and shows them nowhere."""

import sqlite3

import pytest
from projected import complete, runs

from segda.errors import SegdaError
from sweeps.checks.changes import changes_between
from sweeps.checks.makers import stored_spec
from sweeps.commands.ending import run_hook
from sweeps.execution.remote_folder import RemoteFolder
from sweeps.failures import summary
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.reports.sweep_report import write_report
from sweeps.tracking import MlflowClient, Tracker, default_uri
from sweeps.tracking.reading import read_run

SECRETS = ("s3cr", "h/1d", "t0ken", "k3y")
TRACKING = "http://me:s3cr@h/1d#s3cr@127.0.0.1:9/x?token=t0ken"
CHANGES = {
    "tracking": {"uri": TRACKING},
    "storage": "s3://AK:k3y/h/1d@bucket/x",
    "on_end": "NOTIFY_TOKEN=t0ken false --password s3cr",
}


def assert_no_secret(text):
    assert [secret for secret in SECRETS if secret in text] == []


@pytest.fixture
def spec(make_spec, begun):
    return begun(make_spec(**CHANGES))


def test_reports_and_what_mlflow_is_sent_show_none(spec, ledger, mlflow_store, monkeypatch):
    complete(ledger, spec, 0, 0.5)
    for fetching in ("sweeps.reports.view.fetch", "sweeps.tracking.projection.fetch"):
        monkeypatch.setattr(fetching, lambda *arguments, **options: [])
    ledger.update_trial("demo", 0, error=summary(ValueError(f"no answer from {TRACKING} in time")))
    ledger.add_event("demo", "resumed", str(changes_between(stored_spec(ledger.sweep("demo")), spec)))
    write_report(ledger, mlflow_store, "demo")
    for suffix in (".html", ".md"):
        page = mlflow_store.report("demo", suffix=suffix).read_text()
        assert "s3://***@bucket/x" in page
        assert_no_secret(page.split("Plotly")[0] + page[-20_000:])
    tracker = Tracker(None, experiment=None, ledger=ledger, spec=spec, store=mlflow_store)
    tracker.connect()
    tracker.sync(final=True)
    for path in mlflow_store.mlartifacts.rglob("*.*"):
        if path.is_file() and path.suffix != ".html":
            assert_no_secret(path.read_text())
    with sqlite3.connect(mlflow_store.mlflow) as database:
        assert_no_secret("\n".join(database.iterdump()))
    assert runs(MlflowClient(default_uri(mlflow_store)), spec)[0].data.tags["sweep.error"].endswith("in time")


def test_a_sweep_is_resumed_with_the_addresses_that_it_began_with(spec, ledger):
    assert stored_spec(ledger.sweep("demo")).tracking.uri == TRACKING
    assert stored_spec(ledger.sweep("demo")).storage == CHANGES["storage"]


def test_changes_of_a_sweep_show_none(spec):
    other = SweepSpec.model_validate(spec.canonical() | {"tracking": {}, "storage": None, "on_end": None})
    for change in (*changes_between(spec, other), *changes_between(other, spec)):
        assert_no_secret(f"{change.path} {change.before} {change.after}")


@pytest.mark.parametrize(
    "uri",
    [
        TRACKING,
        "http://me:s3cr/h/1d@127.0.0.1:9",
        "postgresql://me:s3cr@h/1d@127.0.0.1:9/x",
        "postgresql://me:h/1d#s3cr@127.0.0.1:9/x",
        "postgresql+nodriver://me:s3cr@127.0.0.1:9/x",
        "postgresql://127.0.0.1:9/x?password=s3cr",
    ],
)
def test_errors_about_addresses_show_none(uri, spec, ledger, store):
    tracker = Tracker(uri, experiment=None, ledger=ledger, spec=spec, store=store)
    said = [tracker.where]
    for call in (tracker.connect, lambda: read_run("a" * 32, uri=uri)):
        with pytest.raises(SegdaError) as caught:
            call()
        said.append(str(caught.value))
    if not uri.startswith("http"):
        with pytest.raises(SegdaError) as caught:
            Ledger.open(uri)
        said.append(str(caught.value))
    assert_no_secret("\n".join(said))


def test_errors_about_storage_show_none():
    with pytest.raises(SegdaError) as caught:
        RemoteFolder("nothing://AK:k3y/s3cr@bucket/x")
    assert_no_secret(str(caught.value))
    assert_no_secret(str(RemoteFolder("memory://AK:k3y@bucket/x")))


def test_a_command_that_failed_shows_none(spec, tmp_path, capsys):
    run_hook(spec, state="failed", report=tmp_path)
    said = capsys.readouterr().err
    assert "on_end failed" in said
    assert_no_secret(said)
