"""The Ray cluster: how to reach it, what it has, and a node of it for oneself."""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# Ray and Tune read these when they are imported or started.
os.environ.update(
    {
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU sees none
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "TUNE_WARN_THRESHOLD_S": "60",
    }
)
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray

from segda.errors import ConfigError, DeviceError
from sweeps.execution.coordinator import Listener
from sweeps.ledger.database import Ledger
from sweeps.planning.machines import Machines
from sweeps.planning.profiles import Architecture, Profile, profile_all, reachable
from sweeps.spec import ResourcesConfig, SweepSpec


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to Ray, or start it on this machine; a connection of the caller's is used and left alone."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        where = f"the Ray cluster at {address}" if address else "Ray on this machine"
        raise ConfigError(
            f"cannot connect to {where}: {reason}; check --address, or leave it out to use this machine"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def request_of(resources: ResourcesConfig) -> dict[str, float]:
    """Return what a trial asks of one node, under Ray's names."""
    request = {"CPU": resources.cpus, "GPU": resources.num_gpus, **resources.custom}
    return {name: amount for name, amount in request.items() if amount}


def check_admission(resources: ResourcesConfig) -> None:
    """Refuse a sweep whose trials could never start: Ray would wait in silence."""
    if not any(_fits(node, resources) for node in _nodes()):
        custom = "".join(f" and {amount:g} {name}" for name, amount in resources.custom.items())
        raise DeviceError(
            f"a trial needs {resources.cpus:g} CPUs and {resources.num_gpus:g} GPUs{custom} on one node, the cluster has "
            f"{describe_cluster()}; change `resources` in the sweep file or add a node"
        )


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _fits(node: Mapping[str, float], resources: ResourcesConfig) -> bool:
    return all(node.get(name, 0.0) >= amount for name, amount in request_of(resources).items())


def describe_cluster() -> str:
    """Return the number of living nodes and what each has, for messages."""
    nodes = _nodes()
    listed = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
    return f"{len(nodes)} node{'' if len(nodes) == 1 else 's'} ({listed})" if nodes else "no nodes"


def profiles_of(spec: SweepSpec, ledger: Ledger, listener: Listener | None) -> dict[Architecture, Profile]:
    """Measure every architecture that the sweep can reach, in one process that has a whole node for itself."""
    # The process keeps all processors from others; it computes with as many threads as a trial, the size that the sweep file names.
    threads = max(1, int(spec.resources.cpus))
    profiles: dict[Architecture, Profile] = {}
    kind = "cuda" if spec.resources.num_gpus else "cpu"
    with idle_node(spec) as machines:
        for architecture, profile in profile_all(
            reachable(spec), kind=kind, threads=threads, ledger=ledger, sweep=spec.name, call=machines.call
        ):
            profiles[architecture] = profile
            if listener is not None:
                figures = ", ".join(f"{name} {value:.4g}" for name, value in profile.metrics.items())
                listener("note", None, f"{architecture}: {profile.error or figures}")
    return profiles


@contextlib.contextmanager
def idle_node(spec: SweepSpec, *, address: str | None = None) -> Iterator[Machines]:
    """Have a node of a cluster for oneself, to measure there what trials will cost.

    Args:
        spec: the sweep; says whether a GPU is wanted. With `gpus: auto` one is taken if there is one.
        address: Ray cluster, see `run_sweep`.

    Yields:
        The cluster's nodes; the first call takes all processors of one of them and the GPUs of a trial, the end of the block gives
        them back.

    Raises:
        ConfigError: the cluster cannot be reached.
        DeviceError: no node can ever run a trial.
    """
    with connected(address):
        nodes = _nodes()
        wanted = spec.resources
        if wanted.gpus == "auto" and not any(node.get("GPU", 0) for node in nodes):
            wanted = wanted.model_copy(update={"gpus": 0.0})
        check_admission(wanted)
        num_gpus = math.ceil(wanted.num_gpus)
        node = next(node for node in nodes if _fits(node, wanted))
        actors: list[Any] = []

        def call(function: Callable[..., Any], *arguments: Any) -> Any:
            if not actors:
                actors.append(
                    ray.remote(num_cpus=int(node["CPU"]), num_gpus=num_gpus, resources=wanted.custom)(_Alone).remote()
                )
            return ray.get(actors[0].run.remote(function, *arguments))

        try:
            yield Machines(nodes=tuple((node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes), call=call)
        finally:
            for actor in actors:
                ray.kill(actor)


class _Alone:
    """Runs functions in one process."""

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)
