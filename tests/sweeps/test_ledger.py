import json
import math
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from segda.errors import ConfigError
from sweeps.failures import FailureClass
from sweeps.ledger import plain, proofs
from sweeps.ledger import tables as ledger_tables
from sweeps.ledger.database import LeaseLostError, Ledger
from sweeps.ledger.records import Allotment, Device, SweepInfo, SweepState
from sweeps.trial import TrialKind, TrialRecord, TrialState


def record(number=0, **changes):
    return replace(
        TrialRecord(
            sweep="demo",
            number=number,
            key=f"key{number}",
            kind=TrialKind.SEARCH,
            params={"method.name": "adversarial", "optimizer.lr": 0.1, "x.count": 3, "x.flag": True, "x.none": None},
            config={"data": {"sizes": [1, 2.5]}},
            seed=7,
            created=12.5,
        ),
        **changes,
    )


@pytest.fixture
def sqlite_ledger(tmp_path):
    with Ledger.open(tmp_path / "runs" / "ledger.db") as opened:
        opened.create_sweep("demo", spec={"name": "demo"}, info=SweepInfo(file="abc"))
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request, tmp_path):
    is_sqlite = request.param == "sqlite"
    place = tmp_path / "runs" / "ledger.db" if is_sqlite else request.getfixturevalue("postgresql")
    with Ledger.open(place) as opened:
        opened.create_sweep("demo", spec={"name": "demo"}, info=SweepInfo(file="abc"))
        yield opened


def point(ledger, step, *, attempt, number=0, **metrics):
    return ledger.add_point(
        "demo", number, attempt=attempt, step=step, timestamp=float(step), metrics=metrics or {"miou": step / 10}
    )


def test_a_trial_comes_back_as_it_was_added(ledger):
    full = record(
        kind=TrialKind.REPLICATE,
        state=TrialState.FAILED,
        attempt=2,
        parent=0,
        name="upper_bound",
        metrics={"source/val/miou": 0.25},
        step=10,
        profile={"macs": 1e9},
        failure=FailureClass.OUT_OF_MEMORY,
        error="too large",
        run_id="run",
        started=13.0,
        finished=14.0,
        worker="host:1",
    )
    ledger.add_trial(full)
    back = ledger.trial("demo", 0)
    assert back == full
    assert type(back.params["x.count"]) is int
    assert back.params["x.flag"] is True
    assert isinstance(back.state, TrialState)
    assert isinstance(back.failure, FailureClass)


def test_values_that_json_lacks_survive(ledger):
    ledger.add_trial(record())
    attempt = ledger.start_attempt("demo", 0, worker="host:1").attempt
    point(ledger, 1, attempt=attempt, a=math.nan, b=math.inf, c=-math.inf, d=0.5)
    for metrics in (ledger.points("demo", 0)[0].metrics, ledger.trial("demo", 0).metrics):
        assert math.isnan(metrics["a"])
        assert (metrics["b"], metrics["c"], metrics["d"]) == (math.inf, -math.inf, 0.5)


def test_the_stored_text_is_json_that_any_database_takes(sqlite_ledger, tmp_path):
    sqlite_ledger.add_trial(record(metrics={"a": math.nan}))
    stored = sqlite3.connect(tmp_path / "runs" / "ledger.db")
    text = stored.execute("SELECT metrics FROM trial").fetchone()[0]
    stored.close()
    assert "NaN" not in text


@given(st.floats())
def test_every_float_survives_exactly(value):
    kind = ledger_tables.TRIAL.c.metrics.type
    back = plain.read(json.dumps(kind.process_bind_param({"a": [value]}, None)))["a"][0]
    assert back == value or (math.isnan(back) and math.isnan(value))


def test_trials_are_ordered_by_number(ledger):
    for number in (2, 0, 1):
        ledger.add_trial(record(number))
    assert [item.number for item in ledger.trials("demo")] == [0, 1, 2]


def test_a_glance_has_one_metric_and_no_settings(ledger):
    ledger.add_trial(record(0, metrics={"source/val/miou": math.nan, "b": 2.0}, profile={"macs": 3.0}))
    ledger.add_trial(record(1, state=TrialState.PRUNED, metrics={"source/val/miou": 0.5, "b": 2.0}, step=7))
    first, second = ledger.glances("demo", metric="source/val/miou")
    assert math.isnan(first.metrics["source/val/miou"])
    assert second == replace(
        ledger.trial("demo", 1), params={}, config={}, metrics={"source/val/miou": 0.5}, profile={}
    )
    assert ledger.glances("demo", metric="macs")[0].profile == {"macs": 3.0}
    assert ledger.counts() == {"demo": {TrialState.QUEUED: 1, TrialState.PRUNED: 1}}
    assert [item.number for item in ledger.trials("demo", [1])] == [1]


def test_reports_are_read_by_metric_by_step_and_by_what_befell_their_trials(ledger):
    for number in (0, 1):
        ledger.add_trial(record(number))
        attempt = ledger.start_attempt("demo", number, worker="here:1").attempt
        for step in (1, 2, 3):
            point(
                ledger, step, attempt=attempt, number=number, **({"miou": step / 10} if number == 0 else {"other": 1.0})
            )
    ledger.add_event("demo", "lost", "gone", number=0)
    assert ledger.curves("demo", ["miou", "other"]) == {
        "miou": {0: [(1, 0.1), (2, 0.2), (3, 0.3)]},
        "other": {1: [(1, 1.0), (2, 1.0), (3, 1.0)]},
    }
    assert ledger.report_times("demo", "lost") == {0: [1.0, 2.0, 3.0]}
    assert ledger.last_reports("demo", [1, 2]) == {1: 3.0}
    assert [(item.number, item.step) for item in ledger.points("demo", steps=[2])] == [(0, 2), (1, 2)]


def test_a_number_is_given_once(ledger):
    ledger.add_trial(record())
    with pytest.raises(ConfigError, match=r"trial 0 of sweep 'demo' exists already; only one"):
        ledger.add_trial(record(created=5.0))


def test_adding_a_trial_again_after_a_lost_answer_changes_nothing(ledger):
    ledger.add_trial(record(created=5.0))
    ledger.update_trial("demo", 0, step=3)
    ledger.add_trial(record(created=5.0))
    assert [item.step for item in ledger.trials("demo")] == [3]


def test_a_taken_sweep_name_is_refused_with_two_ways_out(ledger):
    with pytest.raises(
        ConfigError, match=r"'demo' exists already; continue it with `sweeps resume demo` or .* another name"
    ):
        ledger.create_sweep("demo", spec={})


def test_an_unknown_sweep_is_told_with_the_nearest_name(ledger):
    with pytest.raises(ConfigError, match=r"no sweep 'deno' in the ledger \(did you mean 'demo'\?\); there are: demo"):
        ledger.sweep("deno")
    with pytest.raises(ConfigError, match=r"no sweep 'deno'"):
        ledger.add_trial(record(sweep="deno"))
    with pytest.raises(ConfigError, match=r"no sweep 'deno'"):
        ledger.add_event("deno", "note", "x")
    assert ledger.trials("deno") == []


def test_an_unknown_trial_is_told_with_those_there_are(ledger):
    with pytest.raises(ConfigError, match=r"no trial 3 in sweep 'demo'; it has none yet"):
        ledger.trial("demo", 3)
    ledger.add_trial(record(1))
    for call in (
        lambda: ledger.trial("demo", 3),
        lambda: ledger.update_trial("demo", 3, step=1),
        lambda: ledger.start_attempt("demo", 3, worker="w"),
        lambda: point(ledger, 1, attempt=1, number=3),
    ):
        with pytest.raises(ConfigError, match=r"no trial 3 in sweep 'demo'; it has 0 to 1"):
            call()


def test_a_sweep_comes_back_and_can_be_changed(ledger):
    ledger.update_sweep("demo", parent_run_id="p", state=SweepState.OUT_OF_BUDGET, seconds=3.0)
    sweep = ledger.sweep("demo")
    assert (sweep.name, sweep.spec, sweep.seconds) == ("demo", {"name": "demo"}, 3.0)
    assert (sweep.parent_run_id, sweep.state) == ("p", SweepState.OUT_OF_BUDGET)
    assert sweep.created > 0
    assert ledger.sweeps() == [sweep]


def test_what_is_known_of_a_sweep_comes_back_as_it_was(ledger):
    assert ledger.sweep("demo").info == SweepInfo(file="abc")
    info = SweepInfo(
        environment={"python": "3", "packages": {"torch": "2"}},
        file="abc",
        folders=("/somewhere",),
        guests={"loss/mine": "1", "loss/other": None},
        device=Device(kind="cpu", name="some processor", threads=2),
        allotment=Allotment(gpus=0.25, concurrency=8),
        warm_start={"earlier": (0, 3)},
        data_fingerprint="0123",
    )
    ledger.create_sweep("other", spec={}, info=info)
    assert ledger.sweep("other").info == info
    ledger.update_info("demo", warm_start=info.warm_start)
    ledger.update_info("demo", device=info.device)
    assert ledger.sweep("demo").info == SweepInfo(file="abc", warm_start=info.warm_start, device=info.device)
    with pytest.raises(TypeError, match=r"'devise' of a sweep's info cannot be changed \(did you mean 'device'\?\)"):
        ledger.update_info("demo", devise=None)


@pytest.mark.parametrize("field", ["params", "key", "number", "seed", "stat"])
def test_what_identifies_a_trial_cannot_be_changed(ledger, field):
    ledger.add_trial(record())
    with pytest.raises(TypeError, match=rf"'{field}' of a trial cannot be changed"):
        ledger.update_trial("demo", 0, **{field: 1})


def test_a_sweep_has_no_other_fields_to_change(ledger):
    with pytest.raises(TypeError, match=r"'name' of a sweep cannot be changed"):
        ledger.update_sweep("demo", **{"name": "other"})


def test_an_attempt_makes_the_one_before_it_stale(ledger):
    ledger.add_trial(record())
    first = ledger.start_attempt("demo", 0, worker="a:1").attempt
    assert point(ledger, 1, attempt=first)
    second = ledger.start_attempt("demo", 0, worker="b:2").attempt
    assert (first, second) == (1, 2)
    assert not point(ledger, 2, attempt=first)
    assert point(ledger, 2, attempt=second)
    trial = ledger.trial("demo", 0)
    assert (trial.state, trial.attempt, trial.worker, trial.step) == (TrialState.RUNNING, 2, "b:2", 2)


def test_a_message_of_a_stale_attempt_changes_no_trial(ledger):
    ledger.add_trial(record())
    first = ledger.start_attempt("demo", 0, worker="a:1").attempt
    ledger.start_attempt("demo", 0, worker="b:2")
    with pytest.raises(LeaseLostError, match="another process has taken over sweep 'demo'"):
        ledger.update_trial("demo", 0, attempt=first, state=TrialState.FAILED)
    assert ledger.trial("demo", 0).state is TrialState.RUNNING
    ledger.update_trial("demo", 0, attempt=2, state=TrialState.FAILED)
    assert ledger.trial("demo", 0).state is TrialState.FAILED


@pytest.mark.parametrize(
    "write",
    [
        lambda ledger: ledger.update_sweep("demo", state=SweepState.RUNNING),
        lambda ledger: ledger.update_info("demo", file="xyz"),
        lambda ledger: ledger.add_trial(record(1)),
        lambda ledger: ledger.update_trial("demo", 0, state=TrialState.FAILED),
        lambda ledger: ledger.start_attempt("demo", 0, worker="a:1"),
        lambda ledger: point(ledger, 1, attempt=0),
        lambda ledger: ledger.add_event("demo", "note", "x"),
    ],
    ids=["sweep", "info", "new trial", "trial", "attempt", "point", "event"],
)
def test_what_a_replaced_driver_writes_is_refused_and_what_others_write_is_not(ledger, write):
    ledger.add_trial(record())
    with ledger.writing() as connection:
        connection.execute(ledger_tables.SWEEP.update().values(driver="the new one"))
    before = ledger.sweep("demo"), ledger.trials("demo"), ledger.points("demo"), ledger.events("demo")
    ledger.holders["demo"] = "the former one"
    with pytest.raises(LeaseLostError):
        write(ledger)
    assert (ledger.sweep("demo"), ledger.trials("demo"), ledger.points("demo"), ledger.events("demo")) == before
    ledger.holders["demo"] = "the new one"
    write(ledger)
    assert (ledger.sweep("demo"), ledger.trials("demo"), ledger.points("demo"), ledger.events("demo")) != before


def test_a_trial_keeps_the_time_of_its_first_start(ledger):
    ledger.add_trial(record())
    ledger.start_attempt("demo", 0, worker="a:1")
    started = ledger.trial("demo", 0).started
    ledger.start_attempt("demo", 0, worker="a:1")
    assert ledger.trial("demo", 0).started == started


def test_a_finished_trial_is_not_started(ledger):
    ledger.add_trial(record(state=TrialState.PRUNED))
    with pytest.raises(ConfigError, match=r"trial 0 of sweep 'demo' is pruned"):
        ledger.start_attempt("demo", 0, worker="a:1")


def test_a_step_is_acknowledged_once(ledger):
    ledger.add_trial(record())
    attempt = ledger.start_attempt("demo", 0, worker="a:1").attempt
    assert point(ledger, 5, attempt=attempt, miou=0.5)
    assert not point(ledger, 5, attempt=attempt, miou=0.9)
    assert [item.metrics for item in ledger.points("demo", 0)] == [{"miou": 0.5}]
    assert ledger.trial("demo", 0).metrics == {"miou": 0.5}


def test_a_trial_shows_the_newest_value_of_each_metric(ledger):
    ledger.add_trial(record())
    attempt = ledger.start_attempt("demo", 0, worker="a:1").attempt
    point(ledger, 5, attempt=attempt, a=1.0, b=1.0)
    point(ledger, 10, attempt=attempt, a=2.0)
    point(ledger, 7, attempt=attempt, a=9.0, c=9.0)
    trial = ledger.trial("demo", 0)
    assert trial.step == 10
    assert trial.metrics == {"a": 2.0, "b": 1.0, "c": 9.0}
    assert [item.step for item in ledger.points("demo", 0)] == [5, 7, 10]


def test_a_cursor_sees_every_point_once_in_order_of_arrival(ledger):
    for number in (0, 1):
        ledger.add_trial(record(number))
        ledger.start_attempt("demo", number, worker="a:1")
    for step in (3, 1, 2):
        point(ledger, step, attempt=1, number=step % 2)
    seen, cursor = [], 0
    while found := ledger.points_after("demo", cursor, limit=2):
        seen += [(item.number, item.step) for item in found]
        cursor = found[-1].id
    assert seen == [(1, 3), (1, 1), (0, 2)]
    assert [(item.number, item.step) for item in ledger.points("demo")] == [(0, 2), (1, 1), (1, 3)]
    assert [item.step for item in ledger.points("demo", 1)] == [1, 3]


def test_sweeps_do_not_see_each_others_trials(ledger):
    ledger.create_sweep("other", spec={})
    ledger.add_trial(record())
    ledger.add_trial(record(sweep="other", seed=9))
    ledger.start_attempt("other", 0, worker="a:1")
    ledger.add_point("other", 0, attempt=1, step=1, timestamp=1.0, metrics={})
    ledger.add_event("other", "note", "x")
    assert ledger.trial("demo", 0).state is TrialState.QUEUED
    assert ledger.trial("demo", 0).seed == 7
    assert ledger.points("demo") == []
    assert ledger.events("demo") == []


def test_events_keep_their_order_and_trial(ledger):
    ledger.add_event("demo", "resumed", "first", timestamp=2.0)
    ledger.add_event("demo", "lost", "second", number=4, timestamp=1.0, failure=FailureClass.HANG)
    found = [(item.kind, item.message, item.number, item.timestamp, item.failure) for item in ledger.events("demo")]
    assert found == [("resumed", "first", None, 2.0, None), ("lost", "second", 4, 1.0, FailureClass.HANG)]


def test_the_newest_profile_of_an_architecture_counts(ledger):
    assert ledger.profile("a") is None
    ledger.put_profile("a", {"fps": 1})
    ledger.put_profile("a", {"fps": 2.5})
    assert ledger.profile("a") == {"fps": 2.5}


def test_the_newest_packing_counts_and_is_no_profile(ledger):
    assert ledger.packing("a") is None
    ledger.put_packing("a", 2)
    ledger.put_packing("a", 3)
    assert ledger.packing("a") == 3
    assert ledger.profile("a") is None


def at_once(work, count=4):
    """Call a function from several threads at once and return what it raised."""
    ready = threading.Barrier(count)
    failures = []

    def run(index):
        ready.wait()
        try:
            work(index)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_many_programs_open_an_empty_database_at_once(postgresql):
    assert at_once(lambda _: Ledger.open(postgresql).close()) == []
    with Ledger.open(postgresql) as opened:
        assert opened.sweeps() == []


def test_two_sweeps_that_measure_the_same_architecture_at_once_both_go_on(ledger):
    for key in "abcde":
        assert at_once(lambda fps, key=key: ledger.put_profile(key, {"fps": fps})) == []
        assert ledger.profile(key)["fps"] in range(4)


def test_a_name_that_several_want_at_once_is_given_once(ledger):
    for name in "abcde":
        failures = at_once(lambda _, name=name: ledger.create_sweep(name, spec={}))
        assert [type(failure) for failure in failures] == [ConfigError] * 3


def test_threads_write_beside_each_other_without_loss(ledger):
    failures = []

    def work(number):
        try:
            ledger.add_trial(record(number))
            attempt = ledger.start_attempt("demo", number, worker=f"host:{number}").attempt
            for step in range(1, 26):
                assert point(ledger, step, attempt=attempt, number=number)
                ledger.add_event("demo", "note", f"{number} {step}", number=number)
                assert ledger.trial("demo", number).step == step
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [item.step for item in ledger.trials("demo")] == [25] * 4
    ids = [item.id for item in ledger.points_after("demo", 0, limit=1000)]
    assert len(set(ids)) == 100
    assert len(ledger.events("demo")) == 100


def test_one_of_many_threads_gets_each_attempt(ledger):
    ledger.add_trial(record())
    got = []

    def work():
        got.extend(ledger.start_attempt("demo", 0, worker="w").attempt for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(1, 41))


WRITER = """
import sys
from pathlib import Path
from sweeps.ledger.database import Ledger
from sweeps.trial import TrialKind, TrialRecord

ledger = Ledger.open(Path(sys.argv[1]))
ledger.create_sweep("demo", spec={})
number = 0
while True:
    ledger.add_trial(TrialRecord("demo", number, "k", TrialKind.SEARCH, {}, {}, 0))
    attempt = ledger.start_attempt("demo", number, worker="w").attempt
    for step in (1, 2, 3):
        ledger.add_point("demo", number, attempt=attempt, step=step, timestamp=0.0, metrics={"miou": float(step)})
        print(number, step, flush=True)
    number += 1
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill a process outright")
def test_what_a_killed_writer_acknowledged_is_all_there(tmp_path):
    path = tmp_path / "ledger.db"
    command = [sys.executable, "-c", WRITER, str(path)]
    repository = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=repository) as writer:
        said = [writer.stdout.readline() for _ in range(50)]
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.readlines()
    acknowledged = [tuple(map(int, line.split())) for line in said if line.endswith("\n")]
    assert len(acknowledged) >= 50
    with Ledger.open(path) as ledger:
        stored = [(item.number, item.step) for item in ledger.points_after("demo", 0, limit=100_000)]
        assert stored[: len(acknowledged)] == acknowledged
        # At most what was written but not said when the writer died.
        assert len(stored) <= len(acknowledged) + 1
        for trial in ledger.trials("demo"):
            assert trial.step == max([step for number, step in stored if number == trial.number], default=0)
            assert trial.metrics.get("miou", 0.0) == trial.step
        number = len(ledger.trials("demo"))
        ledger.add_trial(record(number))
        assert ledger.start_attempt("demo", number, worker="w").attempt == 1


def test_a_new_file_that_another_process_is_setting_up_is_waited_for(tmp_path):
    path = tmp_path / "ledger.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    end = threading.Timer(0.5, lambda: other.execute("ROLLBACK"))
    end.start()
    Ledger.open(path).close()
    end.join()
    other.close()


def test_two_ledgers_on_one_file_wait_for_each_other(tmp_path):
    path = tmp_path / "ledger.db"
    failures = []

    def work(name):
        try:
            with Ledger.open(path) as opened:
                opened.create_sweep(name, spec={})
                for step in range(20):
                    opened.add_event(name, "note", str(step))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"s{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with Ledger.open(path) as opened:
        assert [len(opened.events(f"s{index}")) for index in range(4)] == [20] * 4


def test_the_database_is_set_to_survive_a_crash(sqlite_ledger):
    with sqlite_ledger._reader.connect() as connection:
        pragmas = {
            name: connection.execute(sa.text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}


def test_a_missing_ledger_is_not_made_for_a_reader(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no ledger at .*ledger\.db; start a sweep"):
        Ledger.open(tmp_path / "ledger.db", create=False)
    assert not (tmp_path / "ledger.db").exists()


def test_a_ledger_of_another_version_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "ledger.db"
    Ledger.open(path).close()
    stored = sqlite3.connect(path)
    stored.execute("UPDATE ledger_schema SET version = 99")
    stored.commit()
    stored.close()
    with pytest.raises(
        ConfigError, match=rf"version 99, this program reads version {ledger_tables.SCHEMA_VERSION}; use the version"
    ):
        Ledger.open(path)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "ledger.db"
    path.write_bytes(b"hello " * 1000)
    with pytest.raises(ConfigError, match=r"cannot open the ledger .*: file is not a database; name another"):
        Ledger.open(path)


def test_a_database_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "other.db"
    stored = sqlite3.connect(path)
    stored.execute("CREATE TABLE trial (id INTEGER)")
    stored.commit()
    stored.close()
    with pytest.raises(ConfigError, match=r"is no ledger, but has tables of the same names \(trial\)"):
        Ledger.open(path)


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"cannot open the ledger"):
        Ledger.open(tmp_path / "file" / "ledger.db")


def test_a_wrong_address_is_told_in_one_line_without_its_password():
    with pytest.raises(ConfigError, match=r"cannot open the ledger") as error:
        Ledger.open("nodatabase://user:secret@host/x")
    assert "secret" not in str(error.value)


def test_the_tables_suit_postgresql():
    for table in ledger_tables.TABLES.sorted_tables:
        text = str(CreateTable(table).compile(dialect=postgresql.dialect()))
        assert "JSON" in text or table.name in ("ledger_schema", "event", "packing")


def proven(ledger):
    """Whether every row of sweep `demo` agrees with its digest."""
    with ledger.reading() as connection:
        pairs = [
            (proofs.read_proofs(connection, kind, name), proofs.current_digests(connection, kind, name))
            for kind, name in (("sweep", "demo"), ("trial", "demo"), ("profile", "key"))
        ]
        chains = proofs.current_chains(connection, "demo")
    digests = [{number: proof.digest for number, proof in found.items()} for found, _ in pairs]
    kept = {number: proof.points for number, proof in pairs[1][0].items()}
    return digests == [found for _, found in pairs] and kept == {number: chains.get(number, "") for number in kept}


def test_digests_follow_every_way_to_change_a_row(ledger):
    ledger.add_trial(record(0), data="0123", code="c0de")
    ledger.start_attempt("demo", 0, worker="host:1")
    point(ledger, 1, attempt=1, miou=0.5, loss=math.nan)
    point(ledger, 2, attempt=1, miou=1.0, best=math.inf)
    ledger.put_files("demo", 0, {"result.json": "c0ffee"}, attempt=1)
    ledger.update_trial("demo", 0, state=TrialState.COMPLETE, finished=4e9, profile={"macs": 5}, run_id="run")
    reused = record(1, state=TrialState.COMPLETE, reused="demo/0", params={"x.small": 1e-7})
    ledger.add_trial(reused, points=ledger.points("demo", 0))
    ledger.update_sweep("demo", spec={"name": "demo", "seed": 3}, state=SweepState.RUNNING, seconds=3.0)
    ledger.update_info("demo", device=Device(kind="cpu", name="some", threads=2))
    ledger.put_profile("key", {"macs": 1.0})
    ledger.put_profile("key", {"macs": 2})
    assert proven(ledger)
    first, second = ledger.proofs("demo").values()
    assert (first.data, first.code, first.files) == ("0123", "c0de", {"result.json": "c0ffee"})
    assert second.files == first.files
    assert second.points == first.points
    with ledger.writing() as connection:
        connection.execute(sa.update(ledger_tables.TRIAL).values(seed=8))
    assert not proven(ledger)


def test_a_ledger_of_an_earlier_version_gets_digests_from_then_on(sqlite_ledger, tmp_path):
    sqlite_ledger.add_trial(record(0))
    sqlite_ledger.start_attempt("demo", 0, worker="host:1")
    point(sqlite_ledger, 1, attempt=1)
    with sqlite_ledger.writing() as connection:
        ledger_tables.PROOF.drop(connection)
    with Ledger.to_read(tmp_path / "runs" / "ledger.db") as reader:
        assert reader.proofs("demo") == {}
    with Ledger.open(tmp_path / "runs" / "ledger.db") as opened:
        point(opened, 2, attempt=1)
        opened.update_sweep("demo", state=SweepState.RUNNING)
        assert proven(opened)


def test_a_new_ledger_and_its_folder_are_their_owners_alone(store):
    with Ledger.open(store.ledger) as ledger:
        ledger.create_sweep("demo", spec={})
        modes = {path.name: path.stat().st_mode & 0o777 for path in store.root.iterdir()}
    assert modes == dict.fromkeys(["ledger.db", "ledger.db-wal", "ledger.db-shm"], 0o600)
    assert store.root.stat().st_mode & 0o777 == 0o700
