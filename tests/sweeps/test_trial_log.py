"""The log of a trial: what is in it, what can never harm the trial, and how it is followed."""

import errno
import logging
import os
import sys

import pytest
from records import trial

from segda.files import write_text
from sweeps.execution import trial_log
from sweeps.execution.digests import digests_of
from sweeps.execution.reuse import _copy
from sweeps.execution.trial_log import FULL_LOG, LOG, TrialLog, overheard
from sweeps.execution.worker import run_task
from sweeps.ledger.records import SweepState
from sweeps.reports import trial_logs
from sweeps.reports.trial_logs import followed, read_log
from sweeps.trial import TrialState

SECRET = "postgresql://me:s3cr@db/x"


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "runs" / "demo" / "trials" / "0000-key"
    place.mkdir(parents=True)
    (place / "attempt").write_text("1\n")
    return place


@pytest.fixture
def task(folder, task):
    """The attempt that the folder belongs to."""
    return task


def run(task):
    sent = []
    run_task(task, sent.append)
    return sent


def said(folder):
    """Return the entries of a log without their times; of one in several lines, all of them."""
    return [line[21:] if line[4:5] == "-" else line for line in (folder / LOG).read_text().splitlines()]


def test_attempts_and_reports_are_in_it_and_no_figure_of_target_labels(task, folder):
    run(task())
    begins, *reports, end = said(folder)
    assert begins.startswith("attempt 1: begins on ")
    assert begins.endswith("cpu, 1 thread; 0 of 6 steps are known")
    assert [line.partition(": ")[2].partition(":")[0] for line in reports] == [
        f"step {step} of 6" for step in range(1, 7)
    ]
    assert "source/val/miou 0.9" in reports[-1]
    assert "/iou/" not in reports[-1]
    assert "oracle" not in (folder / LOG).read_text()
    assert end == "attempt 1: trained to its end"


def test_what_is_logged_and_printed_is_in_it_and_goes_where_it_went(task, folder, trains, capfd):
    def train(config, report, *, folder, acknowledged):
        logging.getLogger("segda.training").info("continues")
        logging.getLogger("of_a_guest").info("not wanted")
        logging.getLogger("of_a_guest").warning("careful with %s", SECRET)
        sys.stdout.write("to be read\n")
        sys.stderr.write("10 %\r20 %\r30 %")
        sys.stderr.writelines([" done\n", "\n"])
        sys.stderr.write("without an end")
        report(1, {"source/val/miou": 0.5}, folder / "checkpoint.pt")

    root, before = logging.getLogger(), (sys.stdout, sys.stderr, logging.getLogger("segda").level)
    handlers = list(root.handlers)
    run(task(trains(train)))
    lines = said(folder)
    for expected in (
        "attempt 1: INFO segda.training: continues",
        "attempt 1: WARNING of_a_guest: careful with postgresql://***@db/x",
        "attempt 1: stdout: to be read",
        "attempt 1: stderr: 30 % done",
        "attempt 1: stderr: without an end",
    ):
        assert expected in lines
    assert "not wanted" not in "".join(lines)
    assert (sys.stdout, sys.stderr, logging.getLogger("segda").level) == before
    assert root.handlers == handlers
    shown = capfd.readouterr()
    assert shown.out == "to be read\n"
    assert "10 %\r20 %\r30 % done\n\nwithout an end" in shown.err


def test_a_failure_is_in_it_with_its_traceback_and_without_passwords(task, folder, trains):
    def train(config, report, *, folder, acknowledged):
        raise RuntimeError(f"no answer from {SECRET}")

    sent = run(task(trains(train)))
    assert sent[-1]["event"] == "failed"
    text = (folder / LOG).read_text()
    assert "\n    Traceback (most recent call last):\n" in text
    assert "RuntimeError: no answer from postgresql://***@db/x" in text
    assert "s3cr" not in text


def test_a_full_disk_costs_lines_and_no_trial(task, folder, monkeypatch):
    write, lost = os.write, []

    def is_full(file, data):
        if b"step 3 of 6" in data:
            lost.append(data)
            raise OSError(errno.ENOSPC, "no space left on device")
        return write(file, data[:20] if b"step 5 of 6" in data else data)

    monkeypatch.setattr(trial_log.os, "write", is_full)
    assert [message["event"] for message in run(task())][-1] == "finished"
    assert len(lost) == 1
    lines = (folder / LOG).read_text().splitlines()
    assert len(lines) == 8 - 1
    assert lines[-3] == lines[-3][:20]  # cut off, and the next one begins a line of its own
    assert "step 6 of 6" in lines[-2]


@pytest.mark.parametrize("kind", ["folder in its place", "no folder"])
def test_a_log_that_cannot_be_opened_costs_no_trial(folder, kind):
    place = folder / "nothing" if kind == "no folder" else folder
    if place is folder:
        (folder / LOG).mkdir()
    with TrialLog(place, attempt=1) as log:
        log.say("nobody reads this")


def test_a_log_is_bounded_and_the_older_file_is_replaced(folder, monkeypatch):
    monkeypatch.setattr(trial_log, "MOST_BYTES", 1000)
    with TrialLog(folder, attempt=1) as log:
        for number in range(100):
            log.say(f"entry {number}")
    sizes = [(folder / name).stat().st_size for name in (FULL_LOG, LOG)]
    assert 900 < sizes[0] <= 1000
    assert sizes[1] <= 1000
    kept = (folder / FULL_LOG).read_text().splitlines() + (folder / LOG).read_text().splitlines()
    assert [int(line.split()[-1]) for line in kept] == list(range(100 - len(kept), 100))


def test_of_an_endless_entry_the_end_is_kept(folder):
    with TrialLog(folder, attempt=1) as log:
        log.say("x" * 10**6 + " the end")
    text = (folder / LOG).read_text()
    assert text.endswith("x the end\n")
    assert len(text) < 20_000


def test_a_worker_that_was_replaced_puts_no_log_of_its_successor_aside(folder, monkeypatch):
    monkeypatch.setattr(trial_log, "MOST_BYTES", 200)
    with TrialLog(folder, attempt=1) as old, TrialLog(folder, attempt=2) as new:
        old.say("first")
        (folder / "attempt").write_text("2\n")
        new.say("x" * 100)
        old.say("y" * 200)
        old.say("z")
    assert not (folder / FULL_LOG).exists()
    assert [line.split()[2] for line in said(folder)] == ["first", "x" * 100]


def test_an_attempt_writes_on_where_the_one_before_was_cut_off(folder):
    (folder / LOG).write_text("cut o")
    with TrialLog(folder, attempt=2) as log:
        log.say("goes on")
    assert said(folder) == ["cut o", "attempt 2: goes on"]


def test_streams_can_be_used_after_the_block_and_before_by_others(folder):
    with TrialLog(folder, attempt=1) as log:
        before = sys.stderr
        with overheard(log):
            mine = sys.stderr
            assert mine.isatty() == before.isatty()
            assert mine.encoding == before.encoding
            sys.stderr = before  # somebody else's redirection ends in the block
        assert sys.stderr is before
    mine.write("afterwards\n")  # a handler that was made in the block still has it
    mine.flush()


# What is no result


def test_no_digest_is_kept_of_a_log_and_nobody_takes_it_over(task, folder, tmp_path):
    files = next(message for message in run(task()) if message["event"] == "files")
    assert (folder / LOG).stat().st_size
    with (folder / LOG).open("a") as file:
        file.write("later\n")
    (folder / FULL_LOG).write_text("earlier\n")
    assert digests_of(folder) == files["digests"]
    _copy(folder, tmp_path / "copy")
    assert not [path for path in (tmp_path / "copy").iterdir() if path.name in (LOG, FULL_LOG)]


# Reading and following


@pytest.fixture
def running(ledger, store, begun, make_spec):
    """A trial that runs, and its folder."""
    begun(make_spec())
    record = trial(0, state=TrialState.RUNNING, attempt=1, worker="node:1", key="key")
    ledger.add_trial(record)
    ledger.update_sweep("demo", state=SweepState.RUNNING)
    place = store.trial(record)
    place.mkdir(parents=True)
    write_text(place / "attempt", "1\n")
    return record, place


def follow(ledger, store, meanwhile):
    """Follow trial 0; `meanwhile` is what happens in each pause. Return what was shown, and what was noted."""
    steps, notes = iter(meanwhile), []

    def pause(_seconds):
        next(steps)()

    return "".join(followed(ledger, store, "demo", 0, note=notes.append, pause=pause)), notes


def test_a_log_is_followed_through_files_and_attempts_until_the_trial_ends(running, ledger, store, monkeypatch):
    monkeypatch.setattr(trial_log, "MOST_BYTES", 150)
    monkeypatch.setattr(trial_logs, "_ANCHOR", 60)
    _, place = running

    def say(text, attempt=1):
        with TrialLog(place, attempt=attempt) as log:
            log.say(text)

    def fail():
        say("failed")
        ledger.update_trial("demo", 0, state=TrialState.QUEUED)

    def again():
        ledger.start_attempt("demo", 0, worker="node:2")
        (place / "attempt").write_text("2\n")
        say("begins again", attempt=2)

    def finish():
        say("is done", attempt=2)
        ledger.update_trial("demo", 0, state=TrialState.COMPLETE)

    said = [f"entry {number}" for number in range(8)]
    shown, notes = follow(ledger, store, [*(lambda text=text: say(text) for text in said), fail, again, finish])
    assert [line.partition(": ")[2] for line in shown.splitlines()] == [*said, "failed", "begins again", "is done"]
    assert (place / FULL_LOG).exists()
    (note,) = notes
    assert note.startswith(f"trial 0 of 'demo' has no log in {place} yet, and runs on node:1")


def test_following_ends_with_a_sweep_that_was_stopped(running, ledger, store):
    _, place = running

    def stop():
        ledger.update_trial("demo", 0, state=TrialState.QUEUED)
        ledger.update_sweep("demo", state=SweepState.INTERRUPTED)

    (place / LOG).write_text("2026-12-01T00:00:00Z attempt 1: begins\n")
    shown, notes = follow(ledger, store, [stop])
    assert shown.endswith("begins\n")
    assert notes == ["the sweep has ended before the trial did; `sweeps resume demo` goes on with it"]


def test_a_log_at_the_storage_address_is_read_where_the_trial_ran_elsewhere(
    running, ledger, store, tmp_path, make_spec
):
    record, place = running
    address = f"file://{tmp_path}/bucket"
    remote = tmp_path / "bucket" / "demo" / "trials" / place.name
    remote.mkdir(parents=True)
    (remote / "0002-log.1.txt").write_text("old\n")
    (remote / "0002-log.txt").write_text("new\nhalf a li")
    (place / LOG).write_text("of attempt 1\n")
    record = trial(0, state=TrialState.RUNNING, attempt=2, key="key")
    found = read_log(record, store=store, storage=address)
    assert found.text == "old\nnew\n"
    assert found.origin.startswith(address)
    (place / "attempt").write_text("2\n")
    assert read_log(record, store=store, storage=address).text == "of attempt 1\n"


def test_logs_shows_the_last_lines_and_says_why_there_are_none(running, call, store, ledger):
    _, place = running
    code, out, err = call("logs", "demo", "0", "--store", store.root)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "has no log in" in err
    (place / LOG).write_text("a\nb\nc\n")
    assert call("logs", "demo", "0", "--store", store.root)[1] == "a\nb\nc\n"
    assert call("logs", "demo", "0", "--store", store.root, "--lines", "2")[1] == "b\nc\n"
    ledger.update_trial("demo", 0, state=TrialState.COMPLETE)
    assert call("logs", "demo", "0", "--store", store.root, "-f", "--lines", "1")[1] == "c\n"
    for number, changes, why in (
        (1, {"reused": "other/3", "attempt": 0}, f"see `sweeps logs other 3 --store {store.root}`"),
        (2, {"state": TrialState.INFEASIBLE, "error": "macs <= 1", "attempt": 0}, "never trained (macs <= 1)"),
        (3, {"state": TrialState.QUEUED, "attempt": 0}, "no worker has begun with it"),
    ):
        ledger.add_trial(trial(number, **changes))
        code, _, err = call("logs", "demo", number, "--store", store.root)
        assert (code, why in err) == (2, True)
