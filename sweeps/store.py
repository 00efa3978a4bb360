"""Where a sweep keeps its files."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from segda.errors import ConfigError
from sweeps.trial import TrialRecord


@dataclass(frozen=True)
class Store:
    """The folder of all sweeps of a project.

    Every node must see it under the same path, because workers write their checkpoints into it.

    Attributes:
        root: the folder, absolute.
    """

    root: Path

    @classmethod
    def at(cls, root: Path | str) -> "Store":
        """Return the store of a folder, made absolute; nothing is created.

        Args:
            root: the folder, absolute or relative to the current one.
        """
        return cls(Path(root).expanduser().resolve())

    @property
    def ledger(self) -> Path:
        """SQLite file of the ledger, unless a database is named."""
        return self.root / "ledger.db"

    @property
    def mlflow(self) -> Path:
        """SQLite file of MLflow, unless a tracking server is named."""
        return self.root / "mlflow.db"

    @property
    def mlartifacts(self) -> Path:
        """Folder of MLflow's artifacts when MLflow is the file above."""
        return self.root / "mlartifacts"

    def sweep(self, name: str) -> Path:
        """Return the folder of a sweep."""
        return self.root / name

    def trial(self, record: TrialRecord) -> Path:
        """Return the folder of a trial; its name holds the number, to sort by, and the key, to recognize.

        Example:
            >>> from sweeps.trial import TrialKind
            >>> record = TrialRecord("demo", 7, "c0ffee", TrialKind.SEARCH, params={}, config={}, seed=0)
            >>> Store(Path("runs")).trial(record).as_posix()
            'runs/demo/trials/0007-c0ffee'
        """
        return self.sweep(record.sweep) / "trials" / f"{record.number:04d}-{record.key}"

    def report(self, name: str, *, suffix: str = ".html") -> Path:
        """Return the path of a sweep's report.

        Args:
            name: the sweep.
            suffix: `.html` or `.md`.
        """
        return self.sweep(name) / f"report{suffix}"

    def executor(self, name: str) -> Path:
        """Return the folder that Ray Tune may fill while a sweep runs; nothing in it is ever read again."""
        return self.sweep(name) / ".executor"

    @contextlib.contextmanager
    def driving(self, name: str) -> Iterator[None]:
        """Be the only process that drives a sweep while the block runs; the system lets go when the process dies.

        Args:
            name: the sweep.

        Raises:
            ConfigError: another process drives it.
        """
        with self._lock(name) as (file, is_ours):
            if not is_ours:
                file.seek(0)
                raise ConfigError(
                    f"sweep {name!r} is being run by process {file.read().strip() or 'unknown'}; wait for it or stop it first"
                )
            file.truncate(0)
            file.write(f"{os.getpid()} on {os.uname().nodename}\n")
            file.flush()
            yield

    def is_driven(self, name: str) -> bool:
        """Return whether a process drives the sweep now."""
        if not self.sweep(name).is_dir():
            return False
        with self._lock(name) as (_, is_ours):
            return not is_ours

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[tuple[IO[str], bool]]:
        self.sweep(name).mkdir(parents=True, exist_ok=True)
        with (self.sweep(name) / ".driver").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield file, False
            else:
                yield file, True
