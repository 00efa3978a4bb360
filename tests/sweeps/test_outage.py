"""A real MLflow server that hangs, dies and comes back while a ledger grows; `benchmarks/mlflow_outage.py` does so to a sweep."""

import shutil
import threading
import time
from dataclasses import replace

import pytest
from servers import MlflowServer

from sweeps.tracking import MlflowClient, Tracker, compare
from sweeps.trial import TrialKind, TrialRecord, TrialState

LAST = 1_000_000


@pytest.fixture
def server(tmp_path, mlflow_template):
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    made = MlflowServer(tmp_path)
    made.start()
    yield made
    made.kill()


@pytest.fixture
def spec(make_spec, begun, server):
    spec = make_spec(tracking={"uri": server.uri})
    return begun(spec.model_copy(update={"base": spec.base | {"steps": LAST}}))


class Growing(threading.Thread):
    """Two trials that report every 50 ms, as a driver writes them down."""

    def __init__(self, ledger, spec):
        super().__init__()
        self.ledger, self.spec = ledger, spec
        self.step = 0
        self.ending = threading.Event()
        for number in range(2):
            self.add(number)

    def add(self, number):
        config = self.spec.train_config({"optimizer.lr": 0.01}, seed=number)
        record = TrialRecord(
            "demo", number, f"key{number}", TrialKind.SEARCH, {}, config.model_dump(mode="json"), number
        )
        self.ledger.add_trial(replace(record, profile={"macs": 1.0}))
        self.ledger.start_attempt("demo", number, worker="host:1")

    def run(self):
        while not self.ending.wait(0.05):
            self.step += 1
            for number in range(2):
                figures = {"source/val/miou": self.step / LAST, "train/loss_seg": 1 / self.step}
                self.ledger.add_point("demo", number, attempt=1, step=self.step, timestamp=time.time(), metrics=figures)

    def finish(self):
        self.ending.set()
        self.join()
        for number in range(2):
            self.ledger.update_trial("demo", number, state=TrialState.COMPLETE, finished=time.time())


@pytest.mark.slow  # starts a server twice
def test_what_was_reported_while_the_server_hung_and_was_dead_arrives_once_and_in_order(server, ledger, spec, store):
    tracker = Tracker(server.uri, experiment=None, ledger=ledger, spec=spec, store=store)
    tracker.start()
    growing = Growing(ledger, spec)
    growing.start()
    time.sleep(2)
    server.hold()
    time.sleep(2)
    server.go_on()
    time.sleep(2)
    server.kill()
    killed = growing.step
    # A trial that begins while nobody listens: its run can only be made afterwards.
    growing.add(2)
    deadline = time.monotonic() + 60
    while tracker.last_error is None or growing.step == killed:
        assert time.monotonic() < deadline, "nobody noticed that the server is dead"
        time.sleep(0.1)
    server.start()
    growing.finish()
    ledger.update_trial("demo", 2, state=TrialState.FAILED, error="no report", finished=time.time())
    assert tracker.stop(), tracker.last_error
    checks = compare(spec, ledger=ledger, store=store, is_driven=False)
    assert [problem for check in checks for problem in check.problems] == []
    client = MlflowClient(server.uri)
    for number in range(2):
        history = client.get_metric_history(ledger.trial("demo", number).run_id, "source/val/miou")
        assert [point.step for point in history] == list(range(1, growing.step + 1))
    assert client.get_run(ledger.sweep("demo").parent_run_id).info.status == "FINISHED"
