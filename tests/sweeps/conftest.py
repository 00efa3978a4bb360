import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import sqlalchemy as sa

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # fakes.py; see also `ray_cluster`

# Ray, MLflow and what they use warn about their own code.
OTHERS_WARNINGS = (r"ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning",)


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            for warning in OTHERS_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(autouse=True)
def _usual_place():
    """Forget which store an earlier test named."""
    from sweeps.suggestions import remember

    remember()


@pytest.fixture(scope="session")
def ray_cluster():
    """One Ray of two processors for all tests; workers find fakes.py."""
    from sweeps.execution import cluster  # sets Ray's environment first

    ray = cluster.ray
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}},
    )
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def postgresql_server():
    """URL of a PostgreSQL server that runs for the tests; skips where the programs are not installed."""
    import servers

    # Outside of pytest's folder, which is closed to others: as the administrator, the server must be run by another user.
    with tempfile.TemporaryDirectory(prefix="postgresql-", ignore_cleanup_errors=True) as folder:
        try:
            server = servers.PostgresServer(Path(folder), durable=False)
        except FileNotFoundError as error:
            pytest.skip(str(error))
        server.start()
        yield server.url
        server.kill()


@pytest.fixture
def postgresql(postgresql_server):
    """URL of an empty PostgreSQL database."""
    engine = sa.create_engine(postgresql_server)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()
    return postgresql_server


@pytest.fixture
def has_camvid(tmp_path, monkeypatch):
    """Let the folder of CamVid be there, empty."""
    monkeypatch.setenv("SEGDA_CAMVID_ROOT", str(tmp_path))


@pytest.fixture
def make_spec():
    def make(**changes):
        import fakes

        from sweeps.checks.sweep import check_spec
        from sweeps.file.spec import SweepSpec

        spec = SweepSpec.model_validate(fakes.plain_spec(**changes))
        check_spec(spec)
        return spec

    return make


@pytest.fixture
def store(tmp_path):
    from sweeps.store import Store

    return Store.at(tmp_path / "runs")


@pytest.fixture
def ledger(store):
    from sweeps.ledger.database import Ledger

    with Ledger.open(store.ledger) as opened:
        yield opened


@pytest.fixture
def begun(ledger):
    """Add a sweep to the ledger."""

    def begin(spec):
        ledger.create_sweep(spec.name, spec=spec.canonical())
        return spec

    return begin


@pytest.fixture
def bucket(tmp_path):
    """An empty folder to keep checkpoints in as at a storage address."""
    (tmp_path / "bucket").mkdir()
    return tmp_path / "bucket"


@pytest.fixture
def call(capsys):
    """Run the program and return (exit code, output, errors)."""
    from segda.cli_errors import run_cli
    from sweeps import cli

    def invoke(*words):
        with pytest.raises(SystemExit) as ended:
            run_cli(cli.sweeps, [str(word) for word in words])
        shown = capsys.readouterr()
        return ended.value.code, shown.out, shown.err

    return invoke


@pytest.fixture
def no_profiling(monkeypatch):
    """Let the runner take figures from `fakes.profile`."""
    import fakes

    from sweeps.execution import cluster

    def profile_all(architectures, **_):
        return ((architecture, fakes.profile(architecture)) for architecture in architectures)

    monkeypatch.setattr(cluster, "profile_all", profile_all)


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory):
    """An empty MLflow database, made once because that takes seconds."""
    from sweeps.tracking import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").get_experiment_by_name("none")
    return path


@pytest.fixture
def mlflow_store(store, mlflow_template):
    """A store whose MLflow database exists already."""
    store.root.mkdir(parents=True, exist_ok=True)
    shutil.copy(mlflow_template, store.mlflow)
    return store


@pytest.fixture
def executed(store):
    """Count how often each step of each trial was trained: (number, step) -> times."""

    def count(name="demo"):
        import fakes

        lines = (store.sweep(name) / fakes.EXECUTED).read_text().splitlines()
        return Counter((int(line[:4]), int(line.rpartition(" ")[2])) for line in lines)

    return count


@pytest.fixture
def task(tmp_path, make_spec):
    """Make what a worker is given."""
    import torch

    from sweeps.execution.task import Task

    def make(train="fakes:quadratic", **changes):
        config = make_spec().train_config({"optimizer.lr": 0.01}, seed=0).model_dump(mode="json")
        options = {"number": 0, "attempt": 1, "acknowledged": 0, "threads": torch.get_num_threads(), "config": config}
        folder = tmp_path / "runs" / "demo" / "trials" / "0000-key"
        return Task(**options | {"folder": str(folder), "train": train} | changes)

    return make


@pytest.fixture
def trains(monkeypatch):
    """Make a function importable as a training function."""

    def name(function):
        module = ModuleType("trainables_of_a_test")
        module.train = function
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return f"{module.__name__}:train"

    return name
