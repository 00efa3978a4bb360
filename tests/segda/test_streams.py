"""What a program says is best effort: each case is a process, because standard streams are a process's own."""

import os
import subprocess
import sys

import pytest

# Says much, does its work, says more, lets a child speak, and ends with a code of its own.
WORK = """
import pathlib, subprocess, sys
from segda.streams import is_read, make_best_effort
make_best_effort()
for _ in range(2000):  # more than a pipe holds
    print("\\u2501 m\\u00e9thode " + "x" * 100, flush=True)
    print("\\u2501", file=sys.stderr, flush=True)
work = open(sys.argv[1], "w")
assert work.fileno() > 2
work.write(f"done {is_read(sys.stdout)}")
assert subprocess.run("echo child", shell=True).returncode == int(sys.argv[2])
print("last")
sys.exit(75)
"""


def run(place, *, shell="", child=0, **variables):
    """Run the work with its streams as a shell makes them; returns (exit code, what it wrote of its work, output)."""
    words = [sys.executable, "-c", WORK, str(place), str(child)]
    done = subprocess.run(
        ["bash", "-c", f'"$@" {shell}; exit ${{PIPESTATUS[0]}}', "bash", *words],
        env=os.environ | variables,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, place.read_text(), done.stdout


@pytest.mark.parametrize(
    ("shell", "child", "read"),
    [
        ("> /dev/full 2>&1", 1, True),
        ("2>&1 | head -1", 0, False),
        (">&- 2>&-", 0, True),
        ("<&- >&- 2>&-", 0, True),
    ],
)
def test_a_stream_that_cannot_be_written_ends_nothing_and_changes_no_exit_code(tmp_path, shell, child, read):
    code, work, _ = run(tmp_path / "work", shell=shell, child=child)
    assert (code, work) == (75, f"done {read}")


def test_a_terminal_that_is_gone_ends_nothing(tmp_path):
    ours, theirs = os.openpty()
    words = [sys.executable, "-c", WORK, str(tmp_path / "work"), "0"]
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        os.close(ours)
        assert process.wait(60) == 75
    assert (tmp_path / "work").read_text() == "done False"


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "? m?thode"), ("latin-1", "? m\xe9thode")])
def test_what_the_stream_cannot_show_is_replaced(tmp_path, encoding, shown):
    code, _, output = run(tmp_path / "work", PYTHONIOENCODING=encoding)
    assert code == 75
    assert output.decode("latin-1").startswith(shown)
    assert output.endswith(b"child\nlast\n")
