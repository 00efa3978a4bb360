"""Commands in processes of their own that have nothing to import: forks of one process that has imported everything.

A command of `segda` or `sweeps` imports for seconds before it does what a test is about. Here one process per session imports, and
makes a child for each command. The child takes over environment, folder, words and streams of the command, and then runs the same
file as the shell would: a console script, a script or a module. It ends by an exit code as any program does.

`programs()` has the same as programs, for commands that start commands and for Ray, which starts workers.

Commands that start Ray are real programs, here too: a fork may be refused by the Ray that it has started. So are those in tests of
what happens while a program starts, of signals and kills, and of servers.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from segda import catalog

REPOSITORY = Path(__file__).resolve().parents[1]
# What takes long to import. ONNX Runtime starts a thread that a child would wait for at its end, so each child imports it anew.
MODULES = (
    "cv2",
    "albumentations",
    "pandas",
    "plotly.graph_objects",
    "mlflow",
    "optuna.importance",
    "ray.tune",
    "scipy.stats",
    "sklearn.ensemble",
    "torch.export",
    "segda",
    "segda.cli",
    "segda.training",
    "segda.evaluation",
    "segda.prediction",
    "segda.exporting",
    "sweeps",
    "sweeps.cli",
    "sweeps.cli.actions.run",
    "sweeps.cli.actions.report",
    "sweeps.cli.actions.deploy",
    "sweeps.cli.actions.audit",
    "sweeps.cli.actions.check",
    "sweeps.cli.actions.pick",
    "sweeps.cli.actions.sync",
)


WITH_RAY = ("plan", "profile", "reproduce", "resume", "run")  # verbs of `sweeps`

# A program that has a command run by the process that has imported everything, with this program's streams.
PROGRAM = """#!{python} -IS
import json, os, signal, socket, sys

words = [{program!r}, *sys.argv[1:]]
if {name!r} == "python" or ({name!r} == "sweeps" and words[1] in {with_ray!r}):
    os.execv(words[0], words)
line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
line.connect({address!r})
asked = {{"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}}
socket.send_fds(line, [json.dumps(asked).encode()], [0, 1, 2])
pid = int(line.recv(100))
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, _: os.kill(pid, number))
code = int(line.recv(100))
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


def run(
    words: Sequence[str | Path], *, folder: Path, environment: Mapping[str, str] | None = None, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return its exit code, output and errors.

    Args:
        words: the command; its first word is a console script of this installation, or Python.
        folder: where it runs.
        environment: all of its environment; None: that of this process.
        timeout: seconds, after which the command and what it started in its group are killed.

    Raises:
        subprocess.TimeoutExpired: it took longer.
    """
    listed, surroundings = [str(word) for word in words], dict(environment or os.environ)
    if _may_start_ray(listed):
        return subprocess.run(
            listed, cwd=folder, env=surroundings, capture_output=True, text=True, timeout=timeout, check=False
        )
    return _server().run(listed, folder, surroundings, timeout)


def _may_start_ray(words: Sequence[str]) -> bool:
    program, *rest = words
    if "--help" in rest or rest[:2] == ["-m", "segda"]:
        return False
    return program == sys.executable or (Path(program).name == "sweeps" and rest[0] in WITH_RAY)


def checked(words: Sequence[str | Path], *, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a command that succeeds and return its output."""
    done = run(words, folder=folder, environment=environment)
    assert done.returncode == 0, f"{shlex.join(map(str, words))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def programs() -> Path:
    """Return a folder with `segda`, `sweeps` and `python` that take the place of those of this installation."""
    return _server().programs


class Server:
    """The process that has imported everything, seen from outside."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="forked-"))
        self._address = str(self._folder / "socket")
        self.programs = self._folder / "bin"
        self.programs.mkdir()
        for name in ("segda", "sweeps", "python"):
            program = self.programs / name
            # Links of this installation's folder are not followed: that is what makes it one.
            real = sys.executable if name == "python" else str(Path(sys.executable).parent / name)
            program.write_text(
                PROGRAM.format(python=sys.executable, address=self._address, program=real, name=name, with_ray=WITH_RAY)
            )
            program.chmod(0o700)
        paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *paths])}
        command = [sys.executable, str(Path(__file__).resolve())]
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(self._address)
            listener.listen(100)
            self._process = subprocess.Popen(
                [*command, str(listener.fileno())],
                env=environment,
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,  # its end is that of this process
            )

    def run(
        self, words: list[str], folder: Path, environment: dict[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        with (
            # Files, not pipes: what a command leaves running may keep them open.
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            Path(os.devnull).open("rb") as nothing,
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line,
        ):
            line.connect(self._address)
            asked = {"words": words, "folder": str(folder), "environment": environment}
            socket.send_fds(line, [json.dumps(asked).encode()], [nothing.fileno(), out.fileno(), err.fileno()])
            pid = _answer(line)
            line.settimeout(timeout)
            try:
                code = _answer(line)
            except BaseException as error:  # pytest's own timeout and Ctrl-C too
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                if isinstance(error, TimeoutError):
                    raise subprocess.TimeoutExpired(words, timeout) from None
                raise
            said = []
            for file in (out, err):
                file.seek(0)
                said.append(file.read().decode())
        return subprocess.CompletedProcess(words, code, *said)

    def end(self) -> None:
        self._process.communicate(timeout=30)
        shutil.rmtree(self._folder)


def _answer(line: socket.socket) -> int:
    answer = line.recv(100)
    assert answer, "the process that starts commands has ended; what it said is above"
    return int(answer)


_servers: list[Server] = []


def _server() -> Server:
    if not _servers:
        _servers.append(Server())
        atexit.register(_servers[0].end)
    return _servers[0]


def serve(listener: socket.socket) -> list[str]:
    """Make a child for every command; only children return, with the command's words."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is pytest's
    del sys.path[0]  # the tests' folder
    before = dict(os.environ)
    for name in MODULES:
        importlib.import_module(name)
    by_imports = {name: value for name, value in os.environ.items() if before.get(name) != value}
    gc.collect()
    gc.freeze()  # a child that looks for garbage would copy all of it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for commands
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:
            os._exit(0)
        line, _ = listener.accept()
        with line:
            if os.fork() == 0:
                listener.close()
                return _command(line, by_imports)


def _command(line: socket.socket, by_imports: Mapping[str, str]) -> list[str]:
    """Make the process of one command; it alone returns, and this one tells how it has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    given, files, _, _ = socket.recv_fds(line, 1 << 20, 3)
    asked = json.loads(given)
    pid = os.fork()
    if pid == 0:
        line.close()
        _become(asked["folder"], by_imports | asked["environment"], files)
        return list(asked["words"])
    for file in files:
        os.close(file)
    with contextlib.suppress(OSError):  # whoever has asked is gone
        line.send(str(pid).encode())
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):
        line.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(folder: str, environment: Mapping[str, str], streams: Sequence[int]) -> None:
    """Let this process be as one that was started in this folder with this environment and these streams."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in enumerate(streams):
        os.dup2(file, number)
        os.close(file)
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[0:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path and path not in known]
    catalog.all_entry_points.cache_clear()
    if "OMP_NUM_THREADS" in environment:
        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    np.random.seed(None)  # noqa: NPY002 - a new process draws numbers of its own


def start(words: Sequence[str]) -> None:
    """Run a command's file in this process as Python does in a new one."""
    program, *rest = words
    if program == sys.executable:
        program, *rest = (word for word in rest if word != "-u")
        if program == "-m":
            sys.path.insert(0, str(Path.cwd()))
            sys.argv = rest  # the name becomes the module's file
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
            return
    else:
        found = shutil.which(program)
        if found is None:
            raise FileNotFoundError(f"{program}: not in {os.environ['PATH']}")
        program = found
    sys.path.insert(0, str(Path(program).resolve().parent))
    sys.argv = [program, *rest]
    runpy.run_path(program, run_name="__main__")


def end(words: Sequence[str]) -> NoReturn:
    """Run a command and end this process as Python does, but without taking apart what was imported, which takes a second."""
    code: object = None
    try:
        start(words)
    except SystemExit as ended:
        code = ended.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    if code is not None and not isinstance(code, int):
        sys.stderr.write(f"{code}\n")
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    end(serve(socket.socket(fileno=int(sys.argv[1]))))
