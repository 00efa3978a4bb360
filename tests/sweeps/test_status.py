"""What people see of a sweep from another terminal or machine."""

import dataclasses
import io
import re
import time

import pytest
from records import trial
from rich.console import Console

from segda.cli_errors import run_cli
from sweeps import cli
from sweeps.cli.actions import status as command
from sweeps.failures import FailureClass
from sweeps.ledger.process import Process
from sweeps.ledger.records import SweepInfo, SweepRecord, SweepState
from sweeps.ledger.tables import SWEEP
from sweeps.reports.status import SweepStatus, listed, read_status
from sweeps.reports.status_table import bar, header_lines, overview, render, trial_table
from sweeps.reports.terminal import print_whole
from sweeps.trial import TrialKind, TrialState

NOW = 1_000_000.0


@pytest.fixture
def call(capsys, store):
    """Run `sweeps status` and return (exit code, output, errors)."""

    def invoke(*words):
        with pytest.raises(SystemExit) as ended:
            run_cli(cli.sweeps, ["status", *[str(word) for word in words], "--store", str(store.root)])
        shown = capsys.readouterr()
        return ended.value.code, shown.out, shown.err

    return invoke


@pytest.fixture
def drive(ledger):
    """Make a driver on another machine hold the lease of the sweep `demo`."""

    def hold(*, ago=3.0, state="running"):
        with ledger.writing() as connection:
            values = {"driver": "elsewhere:77:abc", "driver_seen": time.time() - ago, "state": state}
            connection.execute(SWEEP.update().values(**values))

    return hold


def text_of(renderable, width=200):
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(renderable)
    return console.export_text()


def at(ledger, *, now=NOW):
    return dataclasses.replace(read_status(ledger, "demo"), now=now)


def rows_of(status):
    """Return the table of trials as dictionaries, by its columns."""
    table = trial_table(status, status.trials, width=100)
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    return [
        dict(zip([str(column.header) for column in table.columns], row, strict=True))
        for row in zip(*cells, strict=True)
    ]


def test_a_running_trial_shows_progress_figure_place_and_ages(ledger, begun, make_spec):
    begun(make_spec())
    ledger.add_trial(trial(0, metrics={"source/val/miou": 0.25}, state=TrialState.QUEUED, step=0))
    attempt = ledger.start_attempt("demo", 0, worker="node7:123").attempt
    ledger.add_point("demo", 0, attempt=attempt, step=40, timestamp=NOW - 30, metrics={"source/val/miou": 0.5})
    ledger.update_trial("demo", 0, device="GPU 0", started=NOW - 125)
    (row,) = rows_of(at(ledger))
    assert row == {
        "trial": "0",
        "kind": "search",
        "state": "running",
        "": "████░░░░░░",
        "step": "40/100",
        "source/val/miou": "0.5000",
        "worker": "node7:123",
        "device": "GPU 0",
        "time": "2 min 05 s",
        "report": "30 s ago",
    }


def test_columns_about_what_went_wrong_are_there_only_if_something_did(ledger, begun, make_spec):
    begun(make_spec())
    ledger.add_trial(trial(0, seconds=65.0))
    assert {"attempts", "last failure", "reused"}.isdisjoint(rows_of(at(ledger))[0])
    ledger.add_trial(
        trial(1, attempt=3, failure=FailureClass.OUT_OF_MEMORY, state=TrialState.QUEUED, micro_batch=2, step=10)
    )
    ledger.add_trial(trial(2, reused="other/5"))
    clean, failed, reused = rows_of(at(ledger))
    assert clean["time"] == "1 min 05 s"
    assert (clean["attempts"], clean["last failure"], clean["reused"]) == ("", "", "")
    assert (failed["trial"], failed["attempts"], failed["last failure"]) == ("1†", "3", "out of memory")
    note = "† trained with 2 images at once instead of 4: batch normalization saw fewer images (trial 1)."
    assert note in text_of(render(at(ledger), width=100))
    assert reused["reused"] == "other/5"


def test_the_header_tells_counts_hours_and_the_best_so_far(ledger, begun, make_spec):
    begun(make_spec(budget={"trials": 5, "hours": 2}, seeds=[0, 1], references={"a": {"batch_size": 2}}))
    ledger.update_sweep("demo", seconds=1800.0)
    ledger.add_trial(trial(0, 0.5, seconds=1800.0))
    ledger.add_trial(trial(1, 0.6, seconds=900.0))
    ledger.add_trial(trial(2, 0.9, kind=TrialKind.REFERENCE, name="a"))
    ledger.add_trial(trial(3, 0.8, state=TrialState.PRUNED))
    text = "\n".join(header_lines(at(ledger)))
    assert "4 of 7 trials ended, 3 complete, 1 pruned" in text
    assert "0.50 h of 2 h used, 0.75 worker hours" in text
    assert "best so far: trial 1, source/val/miou 0.6" in text
    ledger.update_sweep("demo", state=SweepState.FINISHED)  # a method without a finalist has no repetitions
    assert "4 trials ended, 3 complete, 1 pruned" in "\n".join(header_lines(at(ledger)))


def test_a_finite_space_has_no_more_trials_than_combinations(ledger, begun, make_spec):
    begun(make_spec(search={"optimizer.lr": [0.01, 0.02]}, sampler={"name": "grid"}, budget={"trials": 9}))
    assert read_status(ledger, "demo").total == 2


def test_of_a_cost_the_smallest_is_the_best(ledger, begun, make_spec):
    begun(make_spec(objectives=[{"metric": "macs", "direction": "minimize"}]))
    for number, macs in enumerate((3e9, 1e9, 2e9)):
        ledger.add_trial(trial(number, profile={"macs": macs}))
    assert at(ledger).best.number == 1


def test_a_driver_elsewhere_is_alive_as_long_as_its_lease_is_renewed(ledger, begun, make_spec, drive):
    begun(make_spec())
    assert read_status(ledger, "demo").state.startswith("not started")
    drive(ago=3)
    living = read_status(ledger, "demo")
    assert living.state.startswith("running, driven by process 77 on elsewhere, last seen 3 s ago")
    assert not living.has_ended
    drive(ago=300)
    dead = read_status(ledger, "demo")
    assert "its driver is gone, last seen 5 min 00 s ago; go on with `sweeps resume demo`" in dead.state
    assert not dead.has_ended


def test_a_look_says_what_it_knows_of_a_driver_whose_clock_is_ahead(ledger, begun, make_spec, drive):
    begun(make_spec())
    drive(ago=-7200)
    state = read_status(ledger, "demo").state
    assert state.startswith("stopped, as far as clocks tell: its driver is gone, last seen ")
    assert "in the future by this clock; go on with `sweeps resume demo`" in state


@pytest.mark.parametrize(
    ("state", "expected"),
    [("finished", "finished"), ("interrupted", "interrupted; go on with"), ("out_of_budget", "out of budget; go on")],
)
def test_a_sweep_whose_driver_ended_on_purpose_has_ended(ledger, begun, make_spec, state, expected):
    begun(make_spec())
    ledger.update_sweep("demo", state=state)
    status = read_status(ledger, "demo")
    assert status.has_ended
    assert status.state.startswith(expected)


def test_a_driver_that_died_on_this_machine_is_noticed_at_once(ledger, begun, make_spec):
    begun(make_spec())
    with ledger.writing() as connection:
        process = str(dataclasses.replace(Process.this(), pid=2**22 + 1))
        holder = {"driver": process, "driver_seen": time.time(), "state": "running"}
        connection.execute(SWEEP.update().values(**holder))
    assert read_status(ledger, "demo").state.startswith("stopped")


def test_the_time_left_follows_from_the_time_per_step_and_what_runs(make_spec, begun, ledger, drive):
    begun(make_spec(budget={"trials": 4, "concurrency": 2}))
    ledger.add_trial(trial(0, step=100, seconds=200.0))
    ledger.add_trial(trial(1, step=50, seconds=100.0, state=TrialState.RUNNING))
    ledger.add_trial(trial(2, step=50, seconds=100.0, state=TrialState.RUNNING))
    assert read_status(ledger, "demo").seconds_left is None  # nobody works on it
    drive()
    # 2 s per step: 50 + 50 steps of the running ones and 100 of the one to come, two at a time.
    assert read_status(ledger, "demo").seconds_left == pytest.approx(200.0)


def test_the_time_left_is_at_most_what_the_budget_has(make_spec, begun, ledger, drive):
    begun(make_spec(budget={"trials": 400, "hours": 1}))
    ledger.add_trial(trial(0, step=100, seconds=1000.0))
    ledger.update_sweep("demo", seconds=3000.0)
    drive()
    assert read_status(ledger, "demo").seconds_left == pytest.approx(600.0)


def test_a_small_terminal_shows_open_trials_and_the_last_that_ended(make_spec):
    trials = [trial(number, finished=float(number)) for number in range(20)]
    trials[3] = trial(3, state=TrialState.RUNNING)
    record, shown = SweepRecord("demo", {}, SweepInfo(), NOW), listed(trials, rows=3)
    status = SweepStatus(record=record, spec=make_spec(), trials=trials, shown=shown, now=NOW)
    text = text_of(render(status, width=100))
    assert [line.split()[0] for line in text.splitlines() if " search " in line] == ["3", "18", "19"]
    assert "and 17 more that ended earlier" in text


def test_all_sweeps_are_listed_with_counts_and_state(ledger, begun, make_spec, drive):
    begun(make_spec())
    ledger.add_trial(trial(0))
    ledger.add_trial(trial(1, state=TrialState.RUNNING))
    drive()
    (line,) = [line for line in text_of(overview(ledger, width=200)).splitlines() if "demo" in line]
    assert line.replace("│", " ").replace("┃", " ").split()[:6] == ["demo", "1", "0", "0", "0", "1"]
    assert "running, driven by process 77" in line


@pytest.mark.parametrize(("done", "total", "expected"), [(0, 6, 0), (3, 6, 5), (6, 6, 10), (9, 6, 10), (5, 6, 8)])
def test_a_bar_is_full_only_at_the_end(done, total, expected):
    assert bar(done, total).count("█") == expected


def test_watching_without_a_terminal_prints_each_time_until_the_sweep_has_ended(
    call, ledger, begun, make_spec, drive, monkeypatch
):
    begun(make_spec())
    config = make_spec().train_config({"optimizer.lr": 0.01}, seed=0).model_dump(mode="json")
    ledger.add_trial(
        trial(0, config=config, params={"optimizer.lr": 0.01}, state=TrialState.QUEUED, step=0, metrics={})
    )
    drive()
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        if len(waited) == 2:
            ledger.update_trial("demo", 0, state=TrialState.COMPLETE)
            with ledger.writing() as connection:
                connection.execute(SWEEP.update().values(driver=None, driver_seen=None, state="finished"))

    monkeypatch.setattr(command.time, "sleep", sleep)
    code, out, _ = call("demo", "--watch", "7")
    assert code == 0
    assert waited == [7.0, 7.0]
    assert out.count("demo: running") == 2
    assert out.count("demo: finished") == 1


def test_watching_on_a_terminal_redraws_in_place(ledger, begun, make_spec):
    begun(make_spec())
    ledger.update_sweep("demo", state="finished")
    ledger.add_trial(trial(0))
    stream = io.StringIO()
    shown = Console(file=stream, force_terminal=True, width=160, height=20)
    command._watch(lambda: command._look(ledger, "demo", width=160, rows=command._rows(shown)), every=1.0, shown=shown)
    assert "demo: finished" in stream.getvalue()
    assert "\x1b[?25l" in stream.getvalue()  # the cursor is hidden while the table is redrawn


def test_ctrl_c_ends_watching_and_is_no_error(call, ledger, begun, make_spec, drive, monkeypatch):
    begun(make_spec())
    drive()

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(command.time, "sleep", interrupt)
    code, out, error = call("demo", "--watch")
    assert (code, error) == (0, "")
    assert "demo: running" in out


def test_a_name_after_watch_is_explained_in_one_line(call, begun, make_spec):
    begun(make_spec())
    code, _, error = call("--watch", "demo")
    assert code == 2
    assert "the sweep's name stands before --watch" in error


def test_what_a_sweep_waits_for_is_said_until_it_is_over(ledger, begun, make_spec):
    begun(make_spec())
    told = "nothing works now, last trial 1 on node1:7, data: no such folder; one trial is tried in 5 s"
    ledger.add_event("demo", "outage", told)
    assert told in header_lines(at(ledger))
    for kind in ("outage_over", "resumed"):
        ledger.add_event("demo", kind, "x")
        assert told not in header_lines(at(ledger))
        ledger.add_event("demo", "outage", told)
    ledger.add_event("demo", "stalled", "nothing has worked for 30 min 00 s")
    assert "nothing has worked for 30 min 00 s" in header_lines(at(ledger))


def test_trials_that_the_machines_failed_count_for_nothing(ledger, begun, make_spec):
    begun(make_spec(budget={"trials": 2, "concurrency": 1}))
    ledger.add_trial(trial(0))
    ledger.add_trial(trial(1, state=TrialState.FAILED, failure=FailureClass.DATA))
    ledger.add_trial(trial(2, state=TrialState.FAILED, failure=FailureClass.DIVERGED))
    assert header_lines(at(ledger))[1] == (
        "2 of 2 trials ended, 1 complete, 2 failed, 1 failed by the machines, which count for nothing"
    )


@pytest.fixture
def crowded(ledger, begun, make_spec):
    """A sweep with something to say in every column of the table, and with wide figures."""
    begun(make_spec(name="demo", budget={"trials": 2000, "concurrency": 2}))
    ledger.add_trial(
        trial(0, 0.123456, seconds=45296.0, step=99_999, device="NVIDIA H200, GPU 13", worker="gpu-node-17:1234567")
    )
    running = trial(1, 0.61, state=TrialState.QUEUED, attempt=11, step=12_000, failure=FailureClass.OUT_OF_MEMORY)
    ledger.add_trial(dataclasses.replace(running, config={**running.config, "steps": 120_000}))
    ledger.start_attempt("demo", 1, worker="gpu-node-17:1234568")
    ledger.update_trial("demo", 1, started=NOW - 45296.0)
    metrics = {"source/val/miou": 0.61}
    ledger.add_point("demo", 1, attempt=12, step=12_001, timestamp=NOW - 3723.0, metrics=metrics)
    ledger.add_trial(trial(2, reused="camvid_day_to_dusk/1234", kind=TrialKind.REFERENCE, name="upper_bound"))
    ledger.add_trial(trial(3, state=TrialState.INFEASIBLE))
    return at(ledger)


def printed(status, width):
    """Return what a terminal of a width shows of the table: title -> whole cells."""
    table = trial_table(status, status.trials, width=width)
    lines = text_of(table, width=width).splitlines()
    assert max(map(len, lines)) <= width
    columns = {str(column.header): [str(cell) for cell in column.cells] for column in table.columns}
    for title, cells in columns.items():
        for line, cell in zip(lines, (title, *cells), strict=True):
            assert cell in line, f"{title} of {line!r} was cut"
    return columns


@pytest.mark.parametrize(("width", "num_missing"), [(80, 8), (100, 8), (120, 6), (220, 1)])
def test_a_narrow_table_leaves_columns_out_in_order_and_cuts_nothing(crowded, width, num_missing):
    whole, narrow = printed(crowded, 1000), printed(crowded, width)
    assert len(whole) == 14
    assert all(narrow[title] == whole[title] for title in narrow)
    order = ["settings", "worker", "device", "kind", "", "report", "attempts", "reused"]
    assert set(whole) - set(narrow) == set(order[:num_missing])


def test_only_a_name_is_shortened_and_in_its_middle_when_nothing_else_helps(crowded):
    (title,) = [title for title in printed(crowded, 42) if "…" in title]
    assert title.startswith("sou")
    assert title.endswith("iou")
    assert list(printed(crowded, 42)) == ["trial", "state", "step", title]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_table_of_sweeps_cuts_no_figure_and_no_state(ledger, begun, make_spec, width):
    for name, state in (
        ("camvid_day_to_dusk_with_all_methods", "out_of_budget"),
        ("b", "interrupted"),
        ("c", "finished"),
    ):
        begun(make_spec(name=name))
        ledger.update_sweep(name, state=state, seconds=3600 * 12345.678)
    for number in range(12):
        ledger.add_trial(trial(number, sweep="b", state=TrialState.PRUNED if number < 11 else TrialState.COMPLETE))
    lines = text_of(overview(ledger, width=width), width=width).splitlines()
    titles = lines[0].split()
    assert {"sweep", "complete", "open", "state"} <= set(titles)
    row = next(line for line in lines if line.startswith("b "))
    cells = dict(
        zip([title for title in titles if title != "begun"], row.replace(_begun(row), "").split(), strict=True)
    )
    wide = {"sweep": "b", "complete": "1", "pruned": "11", "failed": "0", "infeasible": "0", "open": "0"}
    wide |= {"hours": "12345.68", "state": "interrupted"}
    assert cells == {title: wide[title] for title in cells}
    assert any(line.rstrip().endswith("out of budget") for line in lines)
    long = next(line for line in lines if line.startswith("camvid")).split()[0]
    assert "…" not in long or (long.startswith("camvid") and long.endswith("methods"))


def _begun(row):
    found = re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d", row)
    return found[0] if found else "\0"


def test_a_pipe_has_every_column_in_whole_and_no_colour(call, crowded):
    code, out, _ = call("demo")
    assert code == 0
    assert "\x1b" not in out
    for text in (
        "gpu-node-17:1234567",
        "NVIDIA H200, GPU 13",
        "camvid_day_to_dusk/1234",
        "reference: upper_bound",
        "settings",
    ):
        assert text in out
    assert "…" not in out


def test_without_colour_a_terminal_shows_the_same_words(crowded, monkeypatch):
    def shown(**options):
        file = io.StringIO()
        Console(file=file, force_terminal=True, width=120, **options).print(render(crowded, width=120))
        return file.getvalue()

    monkeypatch.setenv("NO_COLOR", "1")
    plain = shown()
    assert "\x1b[31m" not in plain  # red, of failures
    monkeypatch.delenv("NO_COLOR")
    strip = re.compile(r"\x1b\[[\d;]*m")
    assert strip.sub("", plain) == strip.sub("", shown())


def test_a_command_is_printed_in_one_piece_however_narrow_the_terminal_is(ledger, begun, make_spec):
    begun(make_spec())
    ledger.add_trial(trial(0))
    file = io.StringIO()
    narrow = Console(file=file, force_terminal=True, width=30)
    print_whole(narrow, render(at(ledger), width=30))
    assert "demo: not started; go on with `sweeps resume demo`\n" in file.getvalue()
