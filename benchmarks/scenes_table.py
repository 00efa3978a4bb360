"""A small real task on procedural scenes, every combination of which is trained once: what benchmarks of searches replay."""

import json
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segda.config import TrainConfig
from segda.datasets.scenes import generate_scenes
from segda.files import write_json
from segda.training import train
from sweeps.execution.coordinator import Coordinator
from sweeps.file.space import identity
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.planning.machines import stated
from sweeps.planning.profiles import Architecture, Profile
from sweeps.store import Store


def scenes_base(root: Path, *, steps: int, **changes: Any) -> dict[str, Any]:
    """Return a training of rural scenes to urban ones at 64 x 64 pixels, as plain data.

    Args:
        root: where the scenes lie.
        steps: of a full training.
        **changes: what else it says, or says otherwise.
    """
    return {
        "data": {
            "source": {"dataset": "scenes", "domain": "rural", "root": str(root)},
            "target": {"dataset": "scenes", "domain": "urban", "root": str(root)},
            "height": 64,
            "width": 64,
            "cache": str(root / "cache"),
        },
        "steps": steps,
        "report_every": 20,
        "batch_size": 4,
        "device": "cpu",
        **changes,
    }


def train_table(
    path: Path, spec_at: Callable[[Path], SweepSpec], *, steps: int, metrics: Collection[str]
) -> list[dict[str, Any]]:
    """Train what the table does not have yet; it is written after each training, so an interrupted run goes on.

    Args:
        path: file of the table.
        spec_at: returns the task as a sweep, for scenes in a folder.
        steps: of a full training.
        metrics: that are kept of each report.

    Returns:
        A training each: `params`, `points` (step, metrics) and `seconds`.
    """
    table: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"steps": steps, "curves": []}
    if table["steps"] != steps:
        raise SystemExit(f"{path} holds trainings of {table['steps']} steps, not {steps}; name another file")
    done = {identity(curve["params"]) for curve in table["curves"]}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "scenes"
        spec = spec_at(root)
        missing = [params for params in spec.space.combinations() if identity(params) not in done]
        if missing:
            generate_scenes(root, size=64, train=40, val=16, seed=0)
        for index, params in enumerate(missing):
            began = time.perf_counter()
            points: list[tuple[int, Mapping[str, float]]] = []

            def report(
                step: int,
                reported: Mapping[str, float],
                checkpoint: Path,
                points: list[tuple[int, Mapping[str, float]]] = points,
            ) -> None:
                points.append((step, {name: reported[name] for name in metrics if name in reported}))

            train(spec.train_config(params, seed=0), report, folder=Path(folder) / f"trial{index}")
            seconds = time.perf_counter() - began
            table["curves"].append({"params": params, "points": points, "seconds": seconds})
            write_json(path, table)
            reached = ", ".join(f"{name} {value:.4f}" for name, value in points[-1][1].items())
            print(f"{index + 1} of {len(missing)}: {params} {reached}, {seconds:.1f} s", flush=True)
    curves: list[dict[str, Any]] = table["curves"]
    return curves


@contextmanager
def coordinator_over(
    spec: SweepSpec, curves: Collection[Mapping[str, Any]], *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Coordinator]:
    """Begin a sweep over a table, with a coordinator of its own and a ledger that is gone afterwards.

    Args:
        spec: the sweep.
        curves: the table, with the MACs of each network.
        clock: seconds from any beginning.
    """
    profiles = {
        Architecture.of(spec.train_config(curve["params"], seed=0), spec.deploy): Profile(
            {"macs": float(curve["macs"])}
        )
        for curve in curves
    }
    with tempfile.TemporaryDirectory() as folder, Ledger.open(Path(folder) / "ledger.db") as ledger:
        ledger.create_sweep(spec.name, spec=spec.canonical())
        yield Coordinator(
            spec,
            allotment=stated(spec),
            ledger=ledger,
            store=Store.at(Path(folder)),
            profiles=profiles,
            fingerprint=_no_fingerprint,
            clock=clock,
        )


def _no_fingerprint(config: TrainConfig) -> str:
    return "table"
