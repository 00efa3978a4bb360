"""The report of a sweep that runs: when it is renewed, what it says about itself, and that it ends nothing."""

import contextlib
import itertools
import logging
import threading
import time
from types import SimpleNamespace

import pytest
from browser import needs_browser, seen
from records import trial

from sweeps.commands import live_report
from sweeps.commands.driving import drive
from sweeps.commands.live_report import LiveReport
from sweeps.execution import runner
from sweeps.ledger.lease import Lease
from sweeps.reports import plots, sweep_report
from sweeps.reports.renewal import RENEW_SECONDS
from sweeps.reports.sweep_report import write_report
from sweeps.trial import TrialState


@pytest.fixture(autouse=True)
def short_script(monkeypatch):
    monkeypatch.setattr(plots, "plotly_script", lambda: "/* plotly.js v0 */")


@pytest.fixture
def driven(ledger, begun, make_spec):
    """A sweep with a trial, whose driver is this process until it is closed."""
    begun(make_spec(search={"method.name": ["adversarial", "source_only"]}))
    ledger.add_trial(trial(0))
    ledger.add_event("demo", "note", "so")
    ledger.update_sweep("demo", state="running")
    with contextlib.ExitStack() as driver:
        driver.enter_context(Lease(ledger, "demo").held(lambda: 0.0))
        yield driver


@pytest.fixture
def written(monkeypatch):
    """The live reports that were written, and the moment of each; the files are written, too."""
    times, write = [], live_report.write_view

    def noted(*words):
        paths = write(*words)
        times.append(time.monotonic())
        return paths

    monkeypatch.setattr(live_report, "write_view", noted)
    return times


def until(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_report_is_there_from_the_first_trial_on(driven, ledger, store, written):
    with LiveReport(ledger, store, "demo") as live:
        hear = live.hearing(None)
        hear("note", None, "measuring")
        time.sleep(0.2)
        assert not store.report("demo").exists()
        hear("started", trial(0), "")
        until(lambda: written)
    page = store.report("demo").read_text(encoding="utf-8")
    assert f'<noscript><meta http-equiv="refresh" content="{RENEW_SECONDS}"></noscript>' in page
    assert f'data-seconds="{RENEW_SECONDS}"' in page
    assert "The sweep runs: its driver renews this page" in page
    assert "The sweep runs" in store.report("demo", suffix=".md").read_text(encoding="utf-8")


def test_the_last_report_is_read_once(driven, ledger, store):
    write_report(ledger, store, "demo")
    assert not store.report("demo", suffix=".proof.json").exists()
    driven.close()
    ledger.update_sweep("demo", state="finished")
    page = write_report(ledger, store, "demo").html.read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' not in page
    assert "data-seconds" not in page.split("<script>")[1].split("</head>")[1]
    assert "The sweep is over for now (finished); this page stays as it is." in page
    assert store.report("demo", suffix=".proof.json").exists()


def test_a_copy_elsewhere_and_the_page_of_a_dead_driver_stay_as_they_are(driven, ledger, store, tmp_path):
    copy = write_report(ledger, store, "demo", folder=tmp_path / "copy").html.read_text(encoding="utf-8")
    assert "The sweep runs, and this copy stays as it is." in copy
    assert 'http-equiv="refresh"' not in copy
    driven.close()
    page = write_report(ledger, store, "demo").html.read_text(encoding="utf-8")
    assert "No driver works on the sweep, and none said how it ended" in page
    assert 'http-equiv="refresh"' not in page


def test_reports_keep_their_distance_however_much_happens(driven, ledger, store, written):
    with LiveReport(ledger, store, "demo", seconds=0.5) as live:
        hear = live.hearing(None)
        while len(written) < 3:
            hear("point", trial(0), "")
            time.sleep(0.005)
    assert min(second - first for first, second in itertools.pairwise(written)) >= 0.5


def test_nothing_is_written_while_nothing_happens(driven, ledger, store, written):
    with LiveReport(ledger, store, "demo", seconds=0.0) as live:
        live.hearing(None)("point", trial(0), "")
        until(lambda: written)
        time.sleep(0.5)
        assert len(written) == 1


def test_other_listeners_hear_the_same(ledger, store):
    heard = []
    hear = LiveReport(ledger, store, "demo").hearing(lambda *event: heard.append(event))
    events = [("note", None, "so"), ("failed", trial(3, state=TrialState.FAILED), "NaN")]
    for event in events:
        hear(*event)
    assert heard == events


def test_a_report_that_cannot_be_written_is_tried_again_and_ends_nothing(driven, ledger, store, monkeypatch):
    tries, write = [], live_report.write_view

    def fails_first(*words):
        tries.append(words)
        if len(tries) == 1:
            raise OSError("No space left on device")
        return write(*words)

    monkeypatch.setattr(live_report, "write_view", fails_first)
    with LiveReport(ledger, store, "demo", seconds=0.0) as live:
        hear = live.hearing(None)
        hear("point", trial(0), "")
        until(lambda: len(tries) == 1)
        hear("point", trial(0), "")
        until(lambda: store.report("demo").exists())


def test_a_report_that_took_too_long_does_not_replace_the_last_one(driven, ledger, store, monkeypatch):
    reading, load = threading.Event(), live_report.load_view
    live = LiveReport(ledger, store, "demo")

    def slow(*words):
        reading.set()
        assert live._ended.wait(60)
        return load(*words)

    monkeypatch.setattr(live_report, "load_view", slow)
    with live:
        live.hearing(None)("point", trial(0), "")
        assert reading.wait(60)
    assert not live._thread.is_alive()
    assert not store.report("demo").exists()


def test_what_a_report_lacks_is_told_by_the_last_one_alone(driven, ledger, store, written, caplog):
    folder = store.trial(trial(0))
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{")
    with caplog.at_level(logging.WARNING), LiveReport(ledger, store, "demo") as live:
        live.hearing(None)("point", trial(0), "")
        until(lambda: written)
        assert caplog.records == []
    write_report(ledger, store, "demo")
    assert any("result.json cannot be read" in record.getMessage() for record in caplog.records)


def test_a_driver_renews_the_report_of_its_sweep_and_writes_the_last_one(
    ledger, store, begun, make_spec, monkeypatch, has_camvid, written
):
    from sweeps import tracking

    class NoTracker:
        where, last_error = "nowhere", None

        def __init__(self, *_, **__):
            pass

        def start(self, *, required):
            pass

        def stop(self):
            return True

    def run_sweep(spec, *, ledger, listener, admitted, **_):
        with Lease(ledger, spec.name).held(lambda: 0.0):
            admitted()
            ledger.update_sweep(spec.name, state="running")
            ledger.add_trial(trial(0))
            listener("complete", trial(0), "")
            until(lambda: written)
            seen.append(store.report("demo").read_text(encoding="utf-8"))
            ledger.update_sweep(spec.name, state="finished")
        return runner.SweepOutcome(spec.name, ())

    seen = []
    monkeypatch.setattr(tracking, "Tracker", NoTracker)
    monkeypatch.setattr(runner, "run_sweep", run_sweep)
    end = drive(begun(make_spec()), ledger=ledger, store=store, progress=False)
    assert ["The sweep runs" in page for page in seen] == [True]
    assert "over for now (finished)" in end.report.read_text(encoding="utf-8")


READER = """
  const heads = document.querySelector("#trials ~ .scroll table");
  const state = () => ({
    words: document.querySelector(".pager input").value,
    trials: [...heads.tBodies[0].rows].map((row) => parseInt(row.cells[0].textContent)),
    open: [...document.querySelectorAll("details")].map((details) => details.open),
    read: performance.getEntriesByType("navigation")[0].type,
  });
  if (!history.state) {
    document.querySelector(".pager input").value = "complete";
    document.querySelector(".pager input").dispatchEvent(new Event("input"));
    heads.tHead.rows[0].cells[0].querySelector("button").click();
    heads.tHead.rows[0].cells[0].querySelector("button").click();
    document.querySelectorAll("details")[1].open = true;
    readAgain();
  }
  return state();
"""


@needs_browser
def test_a_page_that_is_read_again_is_as_its_reader_left_it(driven, ledger, store, tmp_path):
    for number in (1, 2):
        ledger.add_trial(trial(number, 0.6 + number / 10, state=(TrialState.PRUNED, TrialState.COMPLETE)[number - 1]))
    page = write_report(ledger, store, "demo").html
    found = seen(page, READER, folder=tmp_path)
    assert found == {"words": "complete", "trials": [2, 0], "open": [False, True], "read": "reload"}


@needs_browser
def test_a_page_waits_while_its_reader_types(driven, ledger, store, tmp_path):
    page = write_report(ledger, store, "demo").html
    steps = READER.replace("readAgain();", "document.querySelector('.pager input').focus(); readAgain();")
    assert seen(page, steps, folder=tmp_path)["read"] == "navigate"


@needs_browser
@pytest.mark.parametrize(
    ("minutes", "said"), [(2, "The sweep runs: its driver"), (60, "for 60 minutes: its driver has died")]
)
def test_a_page_that_nobody_renews_says_so(driven, ledger, store, tmp_path, monkeypatch, minutes, said):
    now = time.time()
    monkeypatch.setattr(sweep_report, "time", SimpleNamespace(time=lambda: now - 60 * minutes))
    page = write_report(ledger, store, "demo").html
    assert said in seen(page, "return document.getElementById('renewal').textContent;", folder=tmp_path)
