"""Every command of the README runs, in its order, in an empty folder."""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import forked
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    lines = [line.split("  #")[0].split(" # ")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line]


# What takes minutes of the file of `make demo`, which CI runs as it is: long trainings, and waiting for an idle machine.
SHORT = {
    "steps: 150\n": "steps: 20\n",
    "report_every: 50\n": "report_every: 10\n",
    "idle_wait_minutes: 1}": "idle_wait_minutes: 0}",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder that looks like the repository's root after `make demo`, as far as the commands need it."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "examples").symlink_to(REPOSITORY / "examples")
    demo = (REPOSITORY / "sweeps" / "configs" / "demo.yaml").read_text()
    for said, shorter in SHORT.items():
        assert said in demo
        demo = demo.replace(said, shorter)
    (folder / "sweeps" / "configs").mkdir(parents=True)
    (folder / "sweeps" / "configs" / "demo.yaml").write_text(demo)
    return folder


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SEGDA_CACHE": str(folder / "cache"), "PYTHONPATH": str(REPOSITORY)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    words = [os.path.expandvars(word) for word in shlex.split(os.path.expandvars(command))]
    words[0] = words[0].removeprefix(".venv/bin/")
    return forked.run(words, folder=folder, environment=environment, timeout=900)


def test_make_targets_of_the_readme_exist_and_are_what_ci_runs():
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = [command.split()[1] for command in commands() if command.startswith("make ")]
    assert targets == ["demo", "test"]
    ci = (REPOSITORY / ".ci" / "run").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
        assert f"make {target}" in ci


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_other_command_of_the_readme_succeeds(folder, request):
    everything = [command for command in commands() if not command.startswith("make ")]
    # `make demo` makes the scenes before anything needs them.
    makes_scenes = next(command for command in everything if "datasets make scenes" in command)
    assert run(makes_scenes, folder).returncode == 0
    ran = 0
    for command in everything:
        if "sweeps ui" in command:
            continue  # a server; see below
        if "SEGDA_CAMVID_ROOT" in command and "SEGDA_CAMVID_ROOT" not in os.environ:
            continue  # checked against real data where they are
        done = run(command, folder)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        ran += 1
    assert ran >= 10
    assert (folder / "runs" / "first" / "report.html").is_file()
    assert (folder / "demo" / "one" / "checkpoint.pt").is_file()
    assert len(list((folder / "demo" / "predictions").glob("*.png"))) >= 16

    # The pages of the runs above, served by the README's own command.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = next(command for command in everything if "sweeps ui" in command)
    words = shlex.split(command.replace("demo --store demo/runs", "first --store runs"))
    words[0] = str(Path(sys.executable).parent / "sweeps")
    words += ["--port", str(port), "--no-browser"]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            assert answers(f"http://127.0.0.1:{port}/health", seconds=120) == 200
        finally:
            server.terminate()


def answers(url: str, *, seconds: float) -> int:
    """Wait until a server answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return int(response.status)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_python_of_the_readme_runs(folder):
    # After the test above the sweep takes the results of `first`; alone it trains them.
    if not (folder / "demo" / "scenes").exists():
        makes_scenes = next(command for command in commands() if "datasets make scenes" in command)
        assert run(makes_scenes, folder).returncode == 0
    checks = {
        "segda.": "assert classes.shape == (128, 128)",
        "sweeps.": "assert end.is_done and trained.picked.sum() == 1 and page.is_file()",
    }
    for block in blocks("python"):
        check = next(check for start, check in checks.items() if start in block)
        (folder / "block.py").write_text(f"{block}\n{check}\n")
        done = run(f"{sys.executable} block.py", folder)
        assert done.returncode == 0, done.stderr
