import subprocess

import pytest

from .conftest import REPOSITORY

SCRIPT = REPOSITORY / "launch" / "start-or-resume"


@pytest.fixture
def sweep_file(tmp_path):
    file = tmp_path / "my_sweep.yaml"
    file.write_text("name: from_the_file\n")
    return file


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *map(str, words)], capture_output=True, text=True, timeout=30, check=False)


def test_a_sweep_that_the_ledger_does_not_have_is_started(programs, calls, sweep_file):
    programs("sweeps", "[[ $1 != status ]] || exit 2")
    assert run(sweep_file, "--store", "/store", "--trials", "3").returncode == 0
    assert calls() == [
        "sweeps status from_the_file --store /store",
        f"sweeps run {sweep_file} --store /store --trials 3",
    ]


def test_a_sweep_that_the_ledger_has_goes_on_under_the_file_as_it_is_now(programs, calls, sweep_file):
    programs("sweeps", "exit 0")
    assert run(sweep_file, "--ledger=postgresql://db/ledger", "--address", "auto").returncode == 0
    assert calls() == [
        "sweeps status from_the_file --ledger=postgresql://db/ledger",
        f"sweeps resume from_the_file --file {sweep_file} --ledger=postgresql://db/ledger --address auto",
    ]


@pytest.mark.parametrize("name", [["--name", "second"], ["--name=second"]])
def test_a_name_on_the_command_line_is_the_one_that_is_asked_for(programs, calls, sweep_file, name):
    programs("sweeps", "[[ $1 != status ]] || exit 2")
    run(sweep_file, *name)
    assert calls() == ["sweeps status second", f"sweeps run {sweep_file} --name second"]
    programs("sweeps", "exit 0")
    run(sweep_file, *name)
    assert calls()[-1] == f"sweeps resume second --file {sweep_file}"


def test_changes_are_accepted_where_there_is_something_to_change(programs, calls, sweep_file):
    programs("sweeps", "[[ $1 != status ]] || exit 2")
    run(sweep_file, "--accept-changes", "--trials", "3")
    assert calls()[-1] == f"sweeps run {sweep_file} --trials 3"
    programs("sweeps", "exit 0")
    run(sweep_file, "--accept-changes", "--trials", "3")
    assert calls()[-1] == f"sweeps resume from_the_file --file {sweep_file} --accept-changes --trials 3"


def test_it_becomes_the_process_of_the_sweep_and_hands_on_its_exit_code(programs, sweep_file, tmp_path, monkeypatch):
    programs("sweeps", f"[[ $1 != status ]] || exit 2; echo $$ > {tmp_path}/driver; exit 75")
    monkeypatch.setenv("SWEEP_PID_FILE", str(tmp_path / "pid"))
    assert run(sweep_file).returncode == 75
    assert (tmp_path / "pid").read_text() == (tmp_path / "driver").read_text()


def test_without_a_usable_file_it_says_what_to_do(programs, calls, tmp_path):
    programs("sweeps", "exit 0")
    done = run()
    assert done.returncode == 2
    assert "usage: start-or-resume FILE" in done.stderr
    nameless = tmp_path / "nameless.yaml"
    nameless.write_text("question: which?\n")
    done = run(nameless)
    assert done.returncode == 2
    assert "must be a sweep file with a name" in done.stderr
    assert calls() == []
