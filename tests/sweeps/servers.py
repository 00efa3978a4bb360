"""Servers that tests and benchmarks start, hold, kill and start again."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class MlflowServer:
    """`mlflow server` on a SQLite file in a folder; a database that is there is used, one that is not is made."""

    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process = None

    def start(self, seconds=180):
        """Start it, and return when it answers."""
        options = {
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--workers": "1",
            "--backend-store-uri": f"sqlite:///{self.folder / 'mlflow.db'}",
            "--artifacts-destination": str(self.folder / "artifacts"),
        }
        # Without the processes for jobs, which nothing here needs.
        environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "mlflow.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *(word for option in options.items() for word in option)],
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + seconds
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.folder / "mlflow.log").read_text()[-2000:])
            time.sleep(0.1)

    def answers(self):
        try:
            urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
        except OSError:
            return False
        return True

    def hold(self):
        """Let it take connections and answer nothing."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self):
        os.killpg(self._process.pid, signal.SIGCONT)

    def kill(self):
        """SIGKILL it with its children; nothing happens if it does not run."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class PostgresServer:
    """A PostgreSQL server of its own in a folder; run by an ordinary user, since it refuses the administrator."""

    def __init__(self, folder, *, durable=True):
        """Make an empty database.

        Args:
            folder: an existing folder into which others can look (as the administrator: the user postgres).
            durable: whether what is committed survives a kill; it costs time.

        Raises:
            FileNotFoundError: PostgreSQL's programs are not installed.
        """
        programs = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
        self._search = os.pathsep.join([*programs, os.environ.get("PATH", "")])
        self._folder = folder / "postgres"
        self._durable = durable
        self._as_user = []
        self.port = free_port()
        self.url = f"postgresql+psycopg2://sweeps@127.0.0.1:{self.port}/postgres"
        initdb = self._program("initdb")
        self._folder.mkdir()
        if os.geteuid() == 0:
            folder.chmod(0o755)
            shutil.chown(self._folder, "postgres")
            self._as_user = ["runuser", "-u", "postgres", "--"]
        self._run(initdb, "-D", self._folder / "data", "-U", "sweeps", "-A", "trust", "--no-sync")

    def start(self):
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1"
        if not self._durable:
            options += " -c fsync=off"
        self._control("-l", self._folder / "log", "-o", options, "-w", "start")

    def kill(self):
        """End it as a crash would: nothing is written back, connections break."""
        self._control("-m", "immediate", "stop")

    def _control(self, *words):
        self._run(self._program("pg_ctl"), "-D", self._folder / "data", *words)

    def _program(self, name):
        found = shutil.which(name, path=self._search)
        if found is None:
            raise FileNotFoundError(f"PostgreSQL's {name} is not installed")
        return found

    def _run(self, *command):
        words = [*self._as_user, *(str(word) for word in command)]
        # The server keeps what it inherits open: pipes would never end.
        subprocess.run(words, check=True, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
