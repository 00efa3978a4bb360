"""Where a sweep keeps its files."""

from dataclasses import dataclass
from pathlib import Path

from segda.files import expanded
from sweeps.trial import TrialRecord

LEDGER, MLFLOW, ARTIFACTS = "ledger.db", "mlflow.db", "mlartifacts"
FILES = frozenset({LEDGER, MLFLOW, ARTIFACTS})  # what lies beside the folders of the sweeps


@dataclass(frozen=True)
class Store:
    """The folder of all sweeps of a project.

    Workers write their checkpoints into it, so every node sees it under the same path; or each node has a folder of its own under
    that path, and the sweep names a storage address that all of them reach (see `sweeps.execution.remote`).

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
        return cls(expanded(root).resolve())

    @property
    def ledger(self) -> Path:
        """SQLite file of the ledger, unless a database is named."""
        return self.root / LEDGER

    @property
    def mlflow(self) -> Path:
        """SQLite file of MLflow, unless a tracking server is named."""
        return self.root / MLFLOW

    @property
    def mlartifacts(self) -> Path:
        """Folder of MLflow's artifacts when MLflow is a database that is written to directly, and no server."""
        return self.root / ARTIFACTS

    def sweep(self, name: str) -> Path:
        """Return the folder of a sweep."""
        return self.root / name

    def trial(self, record: TrialRecord) -> Path:
        """Return the folder of a trial; its name holds the number, to sort by, and the key, to recognize.

        Its last three parts are also the trial's place under a storage address.

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

    def deployment(self, name: str) -> Path:
        """Return the folder of what `sweeps deploy` makes of a sweep; `winner` in it is what to take away."""
        return self.sweep(name) / "deploy"

    def labels(self, name: str) -> Path:
        """Return the folder of `sweeps pick`: images to label, and what their labels say."""
        return self.sweep(name) / "labels"

    def executor(self, name: str) -> Path:
        """Return the folder that Ray Tune may fill while a sweep runs; nothing in it is ever read again."""
        return self.sweep(name) / ".executor"
