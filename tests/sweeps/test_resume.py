"""How a sweep begins, goes on under a changed file, and ends, as far as that is decided before and after Ray runs it."""

import errno
import re
import sqlite3

import fakes
import pytest
import sqlalchemy as sa
import yaml

from segda.errors import ConfigError
from sweeps.commands import driving
from sweeps.commands.cut_short import DiskFailedError, LedgerGoneError
from sweeps.commands.driving import drive
from sweeps.commands.ending import run_hook
from sweeps.ledger import lease
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import Lease
from sweeps.trial import TrialKind, TrialRecord, TrialState

CHOICES = {"optimizer.lr": [0.01, 0.02, 0.03, 0.04]}


@pytest.fixture
def run_as(monkeypatch, has_camvid):
    """Let `drive` train nothing and end in a given way; return the sweeps that it was to run."""
    from sweeps import tracking
    from sweeps.execution import runner

    class NoTracker:
        where = "nowhere"
        last_error = None

        def __init__(self, *_, **__):
            pass

        def start(self, *, required):
            pass

        def stop(self):
            return True

    monkeypatch.setattr(tracking, "Tracker", NoTracker)

    def install(*, refused=None, error=None, state="finished", reason=None, **options):
        driven = []

        def run_sweep(spec, *, ledger, admitted, **_):
            if refused is not None:
                raise refused
            admitted()
            driven.append(spec)
            if error is not None:
                raise error
            ledger.update_sweep(spec.name, state=state)
            return runner.SweepOutcome(spec.name, (), **{"is_done": reason is None, "reason": reason} | options)

        monkeypatch.setattr(runner, "run_sweep", run_sweep)
        return driven

    return install


@pytest.fixture
def write(tmp_path):
    """Write a sweep file and return its path."""

    def dump(**changes):
        path = tmp_path / "changed.yaml"
        path.write_text(yaml.safe_dump(fakes.plain_spec(**changes)))
        return path

    return dump


@pytest.fixture
def trained(begun, make_spec, ledger):
    """Add a sweep that has trained one trial."""

    def add(**changes):
        spec = begun(make_spec(**changes))
        ledger.add_trial(record())
        return spec

    return add


def record(**changes):
    fields = {
        "sweep": "demo",
        "number": 0,
        "key": "key",
        "kind": TrialKind.SEARCH,
        "params": {"optimizer.lr": 0.03},
        "config": {"steps": 6, "method": {"name": "source_only"}},
        "seed": 0,
        "state": TrialState.COMPLETE,
        "metrics": {"source/val/miou": 0.5},
    }
    return TrialRecord(**(fields | changes))


def base(**changes):
    return fakes.plain_spec()["base"] | changes


def kept(ledger):
    """Return what a refused command must leave as it is."""
    return ledger.sweep("demo").spec, ledger.events("demo")


def is_one_line(error):
    return error.startswith("Error: ") and error.count("\n") == 1


def test_resume_names_the_nearest_sweep(call, begun, make_spec, store):
    begun(make_spec())
    code, _, error = call("resume", "deno", "--store", store.root)
    assert code == 2
    assert "did you mean 'demo'?" in error


# What may change


def test_resume_under_other_rules_wants_to_be_told_so(call, trained, store, write):
    trained()
    path = write(sampler={"name": "tpe"}, budget={"trials": 9, "concurrency": 2})
    code, out, error = call("resume", "demo", "--file", path, "--store", store.root)
    assert code == 2
    assert "sampler.name" in out
    assert "budget.trials" in out
    assert "sampler.name changes which trials are proposed" in error
    assert "--accept-changes" in error


def test_accepted_changes_are_in_the_ledger_as_soon_as_the_sweep_goes_on(call, trained, store, ledger, write, run_as):
    trained()
    driven = run_as()
    path = write(sampler={"name": "tpe"})
    assert call("resume", "demo", "--file", path, "--accept-changes", "--store", store.root)[0] == 0
    assert [spec.sampler.name for spec in driven] == ["tpe"]
    assert ledger.sweep("demo").spec["sampler"]["name"] == "tpe"
    (event,) = ledger.events("demo")
    assert event.kind == "resumed"
    assert "sampler.name: random -> tpe" in event.message


def test_resume_under_another_training_is_refused_with_the_way_out(call, trained, store, write):
    trained()
    path = write(base=base(steps=60))
    code, _, error = call("resume", "demo", "--file", path, "--accept-changes", "--store", store.root)
    assert code == 2
    assert "base.steps changes what trials compute" in error
    assert "warm_start: [demo]" in error


@pytest.mark.parametrize(
    ("search", "path"),
    [
        ({"optimizer.lr": {"low": 1e-3, "high": 1e-2, "log": True}}, "optimizer.lr"),
        ({"optimizer.lr": [0.01, 0.03], "optimizer.momentum": [0.8, 0.9]}, "optimizer.momentum"),
        ({"optimizer.momentum": [0.8, 0.9]}, "optimizer."),
    ],
)
def test_a_space_that_leaves_trials_outside_is_refused_and_kept_nowhere(
    call, trained, store, ledger, write, run_as, search, path
):
    trained()
    driven, before = run_as(), kept(ledger)
    words = ("--file", write(search=search), "--accept-changes", "--store", store.root)
    code, _, error = call("resume", "demo", *words)
    assert code == 2
    assert is_one_line(error)
    assert f"search.{path}" in error
    assert "no longer fits trial 0" in error
    assert "warm_start: [demo]" in error
    assert driven == []
    assert kept(ledger) == before
    assert call("resume", "demo", "--store", store.root)[0] == 0  # it goes on as it began


def test_a_wider_space_is_a_change_of_rules(call, trained, store, ledger, write, run_as):
    trained()
    run_as()
    wide = {"optimizer.lr": {"low": 1e-4, "high": 1.0, "log": True}}
    words = ("resume", "demo", "--file", write(search=wide), "--store", store.root)
    assert "search.optimizer.lr.high, search.optimizer.lr.low changes which" in call(*words)[2]
    assert call(*words, "--accept-changes")[0] == 0
    assert ledger.sweep("demo").spec["search"]["optimizer.lr"]["high"] == 1.0


def test_a_driver_elsewhere_keeps_its_rules(call, trained, store, ledger, write, run_as):
    trained()
    driven = run_as()
    path = write(selection="oracle", scheduler={"name": "asha", "min_steps": 2})
    with Lease(ledger, "demo").held(lambda: 0.0):
        before = kept(ledger)
        words = ("--file", path, "--accept-changes", "--store", store.root)
        code, _, error = call("resume", "demo", *words)
        assert code == 2
        assert "is being run by process" in error
        assert kept(ledger) == before
    assert driven == []


def test_whatever_refuses_a_sweep_that_goes_on_leaves_its_file_as_it_was(call, trained, store, ledger, write, run_as):
    trained()
    before = kept(ledger)
    run_as(refused=ConfigError("no architecture meets the constraints"))
    words = ("--file", write(constraints=["macs <= 1"]), "--accept-changes", "--store", store.root)
    assert call("resume", "demo", *words)[0] == 2
    assert kept(ledger) == before


def test_a_trained_reference_cannot_change_but_another_one_is_trained(call, trained, store, ledger, write, run_as):
    upper = {"method.name": "target_only", "optimizer.lr": 0.025}
    trained(references={"upper": upper})
    run_as()
    path = write(references={"upper": upper | {"optimizer.lr": 0.05}})
    code, _, error = call("resume", "demo", "--file", path, "--accept-changes", "--store", store.root)
    assert code == 2
    assert "references.upper.optimizer.lr changes a reference that this sweep has trained" in error
    assert "another name" in error
    path = write(references={"upper": upper, "upper_2": upper | {"optimizer.lr": 0.05}})
    code, out, _ = call("resume", "demo", "--file", path, "--store", store.root)
    assert code == 0
    assert "takes effect" in out


# The sampler


def test_more_trials_keep_the_sampler_that_auto_took_at_the_beginning(call, store, ledger, write, run_as):
    driven = run_as()
    path = write(sampler={"name": "auto", "startup_trials": 4}, budget={"trials": 4})
    assert call("run", path, "--store", store.root)[0] == 0
    ledger.add_trial(record())
    assert call("resume", "demo", "--trials", "5", "--store", store.root)[0] == 0
    path = write(sampler={"name": "auto", "startup_trials": 4}, budget={"trials": 100})
    assert call("resume", "demo", "--file", path, "--store", store.root)[0] == 0
    assert [(spec.sampler.name, spec.budget.trials) for spec in driven] == [("qmc", 4), ("qmc", 5), ("qmc", 100)]
    assert ledger.sweep("demo").spec["sampler"]["name"] == "qmc"


def test_a_ledger_in_which_the_sampler_is_still_auto_means_the_one_of_its_budget(call, trained, store, run_as):
    trained(sampler={"name": "auto"}, budget={"trials": 10})
    driven = run_as()
    assert call("resume", "demo", "--trials", "11", "--store", store.root)[0] == 0
    assert [spec.sampler.name for spec in driven] == ["qmc"]


def test_a_warm_start_that_grid_cannot_use_is_told(call, store, begun, make_spec, write, run_as):
    begun(make_spec(name="earlier"))
    driven = run_as()
    path = write(search=CHOICES, sampler={"name": "auto", "warm_start": ["earlier"]}, budget={"trials": 4})
    code, out, _ = call("run", path, "--store", store.root)
    assert code == 0
    assert "note: warm_start has no effect" in out
    assert [spec.sampler.name for spec in driven] == ["grid"]


def test_a_space_that_the_kept_sampler_cannot_search_is_one_line(call, trained, store, write):
    trained(search=CHOICES, sampler={"name": "grid"})
    path = write(search={"optimizer.lr": {"low": 0.01, "high": 0.04}}, sampler={"name": "auto"})
    code, _, error = call("resume", "demo", "--file", path, "--accept-changes", "--store", store.root)
    assert code == 2
    assert is_one_line(error)
    assert "with sampler grid, which `sampler: {name: auto}` means here: search.optimizer.lr: has no end" in error


# A sweep that never trained anything


def test_a_first_start_that_failed_does_not_hold_its_name(call, store, ledger, write, run_as):
    run_as(refused=ConfigError("the cluster cannot be reached"))
    path = write()
    assert call("run", path, "--store", store.root)[0] == 2
    run_as()
    assert call("run", path, "--store", store.root)[0] == 0
    path = write(base=base(steps=60))
    assert call("run", path, "--store", store.root)[0] == 0
    assert ledger.sweep("demo").spec["base"]["steps"] == 60
    path = write(base=base(steps=70), sampler={"name": "tpe"})
    assert call("resume", "demo", "--file", path, "--store", store.root)[0] == 0
    assert ledger.sweep("demo").spec["base"]["steps"] == 70


def test_a_first_start_that_is_still_measuring_holds_its_name(call, begun, make_spec, store, ledger, write, run_as):
    begun(make_spec())
    driven = run_as()
    with Lease(ledger, "demo").held(lambda: 0.0):
        before = ledger.sweep("demo").info
        code, _, error = call("run", write(base=base(steps=60)), "--store", store.root)
        assert code == 2
        assert "is being run by process" in error
        assert ledger.sweep("demo").info == before
    assert driven == []


# What cannot be read


@pytest.mark.parametrize("name", ["My Sweep", "demo.2"])
def test_a_name_that_no_sweep_may_have_is_one_line(call, store, write, name):
    code, _, error = call("run", write(), "--store", store.root, "--name", name)
    assert code == 2
    assert is_one_line(error)
    assert f"name: must match ^[a-z0-9_][a-z0-9_-]*$, got '{name}'" in error


@pytest.mark.parametrize("command", ["resume", "report", "sync", "audit"])
def test_a_sweep_that_another_version_wrote_is_one_line(call, store, ledger, make_spec, command):
    ledger.create_sweep("demo", spec=make_spec().canonical() | {"flavor": 1})
    code, _, error = call(command, "demo", "--store", store.root)
    assert code == 2
    assert is_one_line(error)
    assert "sweep demo in the ledger, which another version of this program may have written: flavor" in error


# The end


@pytest.mark.parametrize(
    ("budget", "option", "amount"),
    [("hours", "--hours", "H"), ("gpu_hours", "--gpu-hours", "H"), ("cost", "--cost", "C")],
)
def test_a_spent_budget_is_named_with_the_option_that_raises_it(
    call, trained, store, ledger, run_as, budget, option, amount
):
    trained(resources={"gpus": 1}, budget={"trials": 3, "concurrency": 2, "price_per_hour": {"H200": 3.0}})
    run_as(state="out_of_budget", reason=f"budget.{budget} is spent")
    _, _, error = call("resume", "demo", "--store", store.root)
    again = f"sweeps resume demo {option} {amount} --store {store.root}"
    assert f"budget.{budget} is spent before all trials were run; go on with `{again}`" in error
    run_as()
    assert call("resume", "demo", option, "8", "--store", store.root)[0] == 0
    assert ledger.sweep("demo").spec["budget"][budget] == 8.0


@pytest.fixture
def told(tmp_path):
    """Sweep file entry that notes what the hook hears, and the file with it."""
    file = tmp_path / "told"
    return f'echo "$SWEEP_NAME $SWEEP_STATE $SWEEP_REPORT" >> {file}', file


def test_the_hook_hears_of_the_end(trained, ledger, store, run_as, told):
    command, file = told
    spec = trained(on_end=command)
    run_as()
    assert drive(spec, ledger=ledger, store=store).is_done
    assert file.read_text() == f"demo finished {store.report('demo')}\n"


def test_the_hook_hears_of_an_error_which_is_raised_all_the_same(trained, ledger, store, run_as, told):
    command, file = told
    spec = trained(on_end=f"{command}; exit 3")
    run_as(error=RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        drive(spec, ledger=ledger, store=store)
    assert file.read_text().startswith("demo failed ")


def test_the_hook_hears_of_ctrl_c(trained, ledger, store, run_as, told):
    command, file = told
    spec = trained(on_end=command)
    ledger.update_sweep("demo", state="finished")  # by an earlier driver
    run_as(error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        drive(spec, ledger=ledger, store=store)
    assert file.read_text().startswith("demo interrupted ")


def test_the_hook_hears_that_a_sweep_goes_on_elsewhere(trained, ledger, store, run_as, told, monkeypatch):
    command, file = told
    spec = trained(on_end=command)
    ledger.update_sweep("demo", state="running")
    monkeypatch.setattr(lease.Lease, "check_free", lambda self: None)  # it was free when this driver began
    run_as(error=ConfigError("another process has taken over"))
    with Lease(ledger, "demo").held(lambda: 0.0), pytest.raises(ConfigError, match="taken over"):
        drive(spec, ledger=ledger, store=store)
    assert file.read_text().startswith("demo running ")


def test_the_hook_hears_when_the_ledger_is_gone(trained, ledger, store, run_as, told, monkeypatch):
    command, file = told
    spec = trained(on_end=command)
    gone = sa.exc.OperationalError("SELECT", {}, Exception("the server closed the connection"))

    def vanish(self, name):
        raise gone

    def admitted_then_gone(self, name, /, **changes):
        monkeypatch.setattr(Ledger, "sweep", vanish)
        raise gone

    run_as()
    monkeypatch.setattr(Ledger, "update_sweep", admitted_then_gone)
    with pytest.raises(
        LedgerGoneError, match=r"closed the connection.*when it is back, go on with `sweeps resume demo`"
    ):
        drive(spec, ledger=ledger, store=store)
    assert file.read_text().startswith("demo unknown ")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/store/demo/.executor"), "a disk failed .*No space left"),
        (
            sa.exc.OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full")),
            r"a disk failed \(.*database or disk is full\)",
        ),
        # As Tune raises what the ledger raised.
        (
            RuntimeError(
                "Traceback (most recent call last):\n File x\nOperationalError: database or disk is full\n[SQL]"
            ),
            r"a disk failed \(OperationalError: database or disk is full\)",
        ),
    ],
    ids=["executor", "ledger", "through Tune"],
)
def test_a_driver_whose_disk_is_full_ends_with_one_line_to_be_resumed(call, trained, store, run_as, error, said):
    trained()
    run_as(error=error)
    code, _, told = call("resume", "demo", "--store", store.root)
    assert code == 75
    assert told.count("\n") == 1
    assert re.search(
        said + r".*; see that it has room and can be written, and go on with `sweeps resume demo --store", told
    )


def test_a_report_that_finds_no_room_does_not_hide_why_the_sweep_ended(trained, ledger, store, run_as, monkeypatch):
    spec = trained()
    run_as(state="stalled", reason="nothing has worked for 30 min 00 s", is_done=False, is_stalled=True)

    def write(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "/store/demo/report.html")

    monkeypatch.setattr(driving, "write_report", write)
    with pytest.raises(
        DiskFailedError, match=r"^nothing has worked .*; besides, a disk failed .*report.html.*`sweeps resume"
    ):
        drive(spec, ledger=ledger, store=store)


def test_a_sweep_that_stalled_says_what_to_do_and_is_to_be_resumed(call, trained, store, run_as):
    trained()
    reason = "nothing has worked for 30 min 00 s, last trial 3 on n:1, disk: full; free space"
    run_as(state="stalled", reason=reason, is_done=False, is_stalled=True)
    code, _, told = call("resume", "demo", "--store", store.root)
    assert code == 75
    assert told.splitlines()[-1] == f"{reason}; go on with `sweeps resume demo --store {store.root}`"


def test_a_result_that_falls_short_is_the_last_line_and_exit_code_3(call, trained, store, run_as):
    trained()
    run_as(shortfall="5 of 8 trained trials failed, most often by diverged, last trial 7: NaN")
    code, _, told = call("resume", "demo", "--store", store.root)
    assert code == 3
    assert told.splitlines()[-1] == "5 of 8 trained trials failed, most often by diverged, last trial 7: NaN"


def test_a_hook_that_fails_ends_nothing(make_spec, tmp_path, capsys):
    run_hook(make_spec(on_end="exit 3"), state="finished", report=tmp_path / "report.html")
    assert "on_end failed with exit code 3" in capsys.readouterr().err
