"""What processes on a standing Ray cluster see whose GPUs are declared only: `python fake_gpus.py`, prints JSON.

Every node claims two GPUs and says in FAKE_GIB how much memory they have.
"""

import dataclasses
import json
import os
import sys
import threading
import time
from types import SimpleNamespace

import fakes

from sweeps.execution import capacity, cluster
from sweeps.file.spec import SweepSpec
from sweeps.ledger.records import Allotment
from sweeps.planning.packing import Gpu

os.environ["CUDA_VISIBLE_DEVICES"] = "0,1"
import ray
from ray.cluster_utils import Cluster


def visible():
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def fake_gpu():
    return Gpu(f"GPU of {os.environ['FAKE_GIB']} GiB", int(os.environ["FAKE_GIB"]))


def gib():
    return os.environ["FAKE_GIB"]


class Occupant:
    def ready(self):
        return True


def spec(**resources):
    return SweepSpec.model_validate(fakes.plain_spec(resources=resources, budget={"trials": 9}))


def node(started, num_gib, **changes):
    paths = os.pathsep.join(path for path in sys.path if path)
    variables = {"FAKE_GIB": str(num_gib), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    options = {"num_cpus": 2, "num_gpus": 2, "object_store_memory": 80 << 20, "env_vars": variables}
    return started.add_node(**options | changes)


def main():
    answers = {}
    started = Cluster()
    node(started, 80)
    try:
        with cluster.connected(started.address):
            answers["hidden"] = ray.get(ray.remote(num_cpus=1)(visible).remote())
            answers["given"] = ray.get(ray.remote(num_cpus=1, num_gpus=1)(visible).remote())
            occupants = [ray.remote(num_cpus=1, num_gpus=1)(Occupant).remote() for _ in range(2)]
            ray.get([occupant.ready.remote() for occupant in occupants])
            said = []
            cluster._SAY_WAITING_AFTER = 1.0
            # The others leave once it was said that they are waited for.
            release = threading.Thread(
                target=lambda: (wait_for(said), [ray.kill(occupant) for occupant in occupants]), daemon=True
            )
            release.start()
            with cluster.idle_node(spec(cpus=1, gpus=1), say=said.append) as machines:
                answers["looked"] = machines.look(visible)
                answers["said_after_looking"] = list(said)
                answers["called"] = machines.call(visible)
            answers["said"] = list(said)
            release.join()

            asked, allotment = spec(cpus=1, gpus="auto"), Allotment(gpus=0.5, concurrency=2)
            notes, info = [], {}
            ledger = SimpleNamespace(update_info=lambda name, **changes: info.update(changes))
            coordinator = SimpleNamespace(
                spec=asked, allotment=allotment, concurrency=2, note=notes.append, ledger=ledger
            )
            capacity._POLL_SECONDS = 0.0
            elastic = capacity.Capacity(coordinator)
            elastic.poll()
            answers["capacity_before"] = coordinator.concurrency
            node(started, 24, num_cpus=8)
            started.wait_for_nodes()
            elastic.poll()
            answers |= {
                "capacity_after": coordinator.concurrency,
                "capacity_notes": notes,
                "info": {name: dataclasses.asdict(value) for name, value in info.items()},
            }
            number = spec(cpus=1, gpus=0.5)
            fixed = SimpleNamespace(spec=number, allotment=allotment, concurrency=2, note=notes.append, ledger=ledger)
            capacity.Capacity(fixed).poll()
            answers["capacity_of_a_number"] = fixed.concurrency
            said_idle = []
            for gpus in (1, 0):
                few = SimpleNamespace(
                    spec=spec(cpus=1, gpus=gpus),
                    allotment=Allotment(gpus=float(gpus), concurrency=3),
                    concurrency=3,
                    note=said_idle.append,
                )
                capacity.say_idle_gpus(few)
            answers["idle_gpus"] = said_idle

            cluster.describe_gpu, cluster._SAY_WAITING_AFTER, said = fake_gpu, 600.0, []
            with cluster.idle_node(asked, say=said.append) as machines:
                answers |= {"chosen": machines.call(gib), "said_of_choice": said}
    finally:
        started.shutdown()
    sys.stdout.write(json.dumps(answers))


def wait_for(lines):
    while not lines:
        time.sleep(0.05)


if __name__ == "__main__":
    main()
