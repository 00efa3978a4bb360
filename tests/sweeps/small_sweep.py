"""A finished sweep of real trainings, small enough to be made within seconds, one trial after the other in this process."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import fakes

from segda.datasets.scenes import generate_scenes
from segda.guests import make_importable
from sweeps.checks.sweep import check_spec
from sweeps.execution.coordinator import Coordinator, Wait
from sweeps.execution.task import Task
from sweeps.execution.worker import Message, run_task
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import SweepInfo
from sweeps.planning.machines import stated
from sweeps.planning.profiles import Profile, reachable
from sweeps.store import Store

SIDE = 64
NETWORKS = Path(__file__).parents[2] / "examples" / "own"  # has one that is exported within a second or two


def tasks(spec: SweepSpec, ledger: Ledger, store: Store) -> Iterator[tuple[Task, Callable[[Message], bool]]]:
    """Yield what there is to train, one task after the other, and what takes its messages and says whether it is to stop."""
    coordinator = Coordinator(
        spec,
        allotment=stated(spec),
        ledger=ledger,
        store=store,
        profiles={architecture: Profile({"macs": 1e9}) for architecture in reachable(spec)},
        fingerprint=fakes.fingerprint,
    )
    while (task := coordinator.next_task()) is not Wait.DONE:
        assert task is not Wait.NOT_NOW
        yield task, partial(coordinator.on_message, task.number, task.attempt)


def finished_sweep(folder: Path, **changes) -> Store:
    """Make scenes, train three trials (or what is changed), and return the store."""
    make_importable([NETWORKS])
    scenes = generate_scenes(folder / "scenes", size=SIDE, train=8, val=2, seed=1)
    domain = {"dataset": "scenes", "root": str(scenes)}
    plain = {
        "name": "demo",
        "base": {
            "data": {
                "source": domain | {"domain": "urban"},
                "target": domain | {"domain": "rural"},
                "height": SIDE,
                "width": SIDE,
                "cache": str(folder / "cache"),
            },
            "model": {"name": "small_unet:SmallUNet", "width": 8},
            "method": {"name": "source_only"},
            "optimizer": {"name": "adam"},
            "validators": ["soft_iou"],
            "steps": 40,
            "report_every": 40,
            "batch_size": 4,
            "precision": "fp32",
            "device": "cpu",
        },
        "search": {"optimizer.lr": [0.003, 0.01, 0.03]},
        "sampler": {"name": "grid"},
        "selection": "source_validation",
        "budget": {"trials": 3, "concurrency": 1},
        "resources": {"cpus": 1, "gpus": 0, "idle_wait_minutes": 0},
    }
    spec = SweepSpec.model_validate(plain | changes)
    check_spec(spec)
    store = Store.at(folder / "runs")
    with Ledger.open(store.ledger) as ledger:
        ledger.create_sweep(spec.name, spec=spec.canonical(), info=SweepInfo(folders=(str(NETWORKS),)))
        for task, send in tasks(spec, ledger, store):
            run_task(task, send)
    return store
