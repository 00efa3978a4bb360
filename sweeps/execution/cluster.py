"""The Ray cluster: how to reach it, what it has, and a node of it for oneself."""

import contextlib
import errno
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

# Ray and Tune read these when they are imported or started.
os.environ.update(
    {
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        # Whatever still asks Ray after the end of a connection must not start another one.
        "RAY_ENABLE_AUTO_CONNECT": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),
        # Tune lets one trial at a time wait for its worker, unless told otherwise: workers would start one after the other. How
        # many are open at once is the coordinator's to say.
        "TUNE_MAX_PENDING_TRIALS_PG": str(10**9),
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "TUNE_WARN_THRESHOLD_S": "60",
    }
)
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from segda.errors import ConfigError, DeviceError
from segda.guests import importable_folders, make_importable
from sweeps.checks.resources import check_price
from sweeps.execution.coordinator import Listener
from sweeps.execution.ray_folder import ensure_token, ray_folder
from sweeps.execution.ray_head import check_head
from sweeps.execution.ray_processes import RayLostError, RayWatch
from sweeps.file.spec import ResourcesConfig, SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.planning.machines import Machines, here, request_of
from sweeps.planning.packing import Gpu, describe_gpu
from sweeps.planning.patience import Patience
from sweeps.planning.profiles import Architecture, Profile, device_of, profile_all, reachable, renew_trials

# Whether a worker to which Ray gave no GPU sees none, or all of its node. Workers have it from whoever started their node, unless
# it comes with the connection.
_HIDE_GPUS = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"
_TOKEN = (
    "set RAY_AUTH_MODE=token and the cluster's token in RAY_AUTH_TOKEN, or the file that has it in RAY_AUTH_TOKEN_PATH"
)
_ROOM_BYTES = 10_000_000  # for Ray's logs and sockets
_POLL_SECONDS = 0.5  # between two looks whether to go on waiting
_SAY_WAITING_AFTER = 10.0  # seconds; a process on an idle node takes some to start


def _hide_gpus(hidden: bool) -> dict[str, dict[str, str]]:
    return {"env_vars": {_HIDE_GPUS: str(int(hidden))}}


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[RayWatch]:
    """Connect to Ray, or start it on this machine; a connection of the caller's is used and left alone.

    With a connection from here, trials without a GPU see none. The caller of `ray.init` sees to that with a `runtime_env`, or by
    what the nodes were started with: RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1.

    Yields:
        Tells whether Ray is there.

    Raises:
        ConfigError: there is no cluster at the address, or it wants another token.
        OSError: Ray's folder is on a disk that is full.
    """
    if ray.is_initialized():
        yield RayWatch()
        return
    with contextlib.ExitStack() as stack:
        if address is None:
            ensure_token()
            _init(None, folder=stack.enter_context(ray_folder()))
        else:
            check_head(address)
            _init(address)
        watch = RayWatch()
        try:
            yield watch
        finally:
            if watch.look() is None:
                ray.shutdown()
            else:
                watch.abandon()


def _init(address: str | None, *, folder: Path | None = None) -> None:
    try:
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env=_hide_gpus(True),
            _temp_dir=None if folder is None else str(folder),
        )
    except ray.exceptions.AuthenticationError as error:
        raise ConfigError(f"Ray has no token to show: {error.message}; {_TOKEN}") from error
    except Exception as error:  # of a start that failed Ray raises anything, down to a bare Exception
        if folder is not None:
            _check_room(folder, error)
        reason = " ".join(str(error).split())[:200]
        where = f"the Ray cluster at {address}" if address else "Ray on this machine"
        token = f". A cluster that wants a token also answers nobody else: {_TOKEN}" if address else ""
        raise ConfigError(
            f"cannot connect to {where}: {reason}; check --address, or leave it out to use this machine{token}"
        ) from error


def _check_room(folder: Path, error: Exception) -> None:
    """Raise what the system says of a full disk if Ray, which does not, found no room for its logs and sockets."""
    if shutil.disk_usage(folder).free < _ROOM_BYTES:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} for Ray", str(folder)) from error


def check_admission(resources: ResourcesConfig, *, gpus: float) -> None:
    """Refuse a sweep whose trials could never start: Ray would wait in silence."""
    if not any(_fits(node, request_of(resources, gpus=gpus)) for node in _nodes()):
        custom = "".join(f" and {amount:g} {name}" for name, amount in resources.custom.items())
        raise DeviceError(
            f"a trial needs {resources.cpus:g} CPUs and {gpus:g} GPUs{custom} on one node, the cluster has "
            f"{describe_cluster()}; change `resources` in the sweep file or add a node"
        )


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _fits(node: Mapping[str, float], request: Mapping[str, float]) -> bool:
    return all(node.get(name, 0.0) >= amount for name, amount in request.items())


def machines_now() -> Machines:
    """Return the living nodes; nothing can be measured there."""
    return Machines(nodes=tuple(_nodes()))


def describe_cluster() -> str:
    """Return the number of living nodes and what each has, for messages."""
    nodes = _nodes()
    listed = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
    return f"{len(nodes)} node{'' if len(nodes) == 1 else 's'} ({listed})" if nodes else "no nodes"


def _free() -> str:
    free = ray.available_resources()
    return f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs"


def _nothing(*_: object) -> None:
    """Say nothing, find nothing wrong."""


def profiles_of(
    spec: SweepSpec,
    ledger: Ledger,
    listener: Listener | None,
    *,
    gpus: float,
    is_patient: bool = True,
    check: Callable[[], None] = _nothing,
) -> dict[Architecture, Profile]:
    """Return the efficiency of every architecture that the sweep can reach.

    Those that the ledger does not know, or that were measured in company, are measured; trials with doubtful figures get the new
    ones.

    Args:
        spec: the sweep.
        ledger: remembers the figures.
        listener: hears the figures, and what is waited for.
        gpus: of a trial.
        is_patient: whether to wait for others to leave the machine alone.
        check: see `idle_node`.
    """
    profiles: dict[Architecture, Profile] = {}

    def say(line: str) -> None:
        if listener is not None:
            listener("note", None, line)

    patience = Patience.of(spec, say=say) if is_patient else Patience(0)
    with idle_node(spec, gpus=gpus, say=say, check=check) as machines:
        # The process keeps all processors from others, yet computes with as many threads as a trial.
        device = device_of(spec, machines.look, gpus=gpus)
        check_price(spec, device)
        ledger.update_info(spec.name, device=device)
        for architecture, profile in profile_all(
            reachable(spec), device=device, ledger=ledger, patience=patience, call=machines.call
        ):
            profiles[architecture] = profile
            figures = ", ".join(f"{name} {value:.4g}" for name, value in profile.metrics.items())
            obstacle = profile.obstacle(spec)
            say(f"{architecture}: {figures}" if obstacle is None else f"{architecture} is never trained: {obstacle}")
            if profile.doubts:
                doubts = f"latency of {architecture} is not reliable: {'; '.join(profile.doubts)}"
                ledger.add_event(spec.name, "note", doubts)
                say(doubts)
    renew_trials(spec, profiles, ledger=ledger)
    return profiles


@contextlib.contextmanager
def idle_node(
    spec: SweepSpec,
    *,
    gpus: float | None = None,
    address: str | None = None,
    say: Callable[[str], None] = _nothing,
    check: Callable[[], None] = _nothing,
) -> Iterator[Machines]:
    """Have a node of a cluster for oneself, to measure there what trials will cost.

    Args:
        spec: the sweep.
        gpus: of a trial; unset: what the sweep file says, and with `gpus: auto` one if there is one.
        address: Ray cluster, see `run_sweep`.
        say: is told what is waited for, and on which of several kinds of GPU is measured.
        check: is called twice a second while something is waited for; what it raises ends that.

    Yields:
        The cluster's nodes. `look` takes nothing of a node. The first `call` waits until all processors of it and the GPUs of a
        trial are free, and takes them; the end of the block gives them back.

    Raises:
        ConfigError: the cluster cannot be reached.
        DeviceError: no node can ever run a trial.
    """
    with connected(address) as watch:
        nodes = _nodes()
        if gpus is None:
            is_without = spec.resources.gpus == "auto" and not any(node.get("GPU", 0) for node in nodes)
            gpus = 0.0 if is_without else spec.resources.num_gpus
        check_admission(spec.resources, gpus=gpus)
        idle = _IdleNode(spec.resources, watch=watch, gpus=gpus, say=say, check=check)
        try:
            yield Machines(nodes=tuple(nodes), call=idle.call, look=idle.look)
        finally:
            if watch.lost is None:
                idle.release()


class _IdleNode:
    """The node on which a sweep is measured: of those that can run its trials, one whose GPUs have the least memory."""

    def __init__(
        self,
        resources: ResourcesConfig,
        *,
        watch: RayWatch,
        gpus: float,
        say: Callable[[str], None],
        check: Callable[[], None],
    ) -> None:
        self._resources = resources
        self._watch = watch
        self._gpus = gpus
        self._say = say
        self._check = check
        self._actor: Any = None

    def look(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that only looks; it waits for no processor and no GPU, and sees all GPUs of the node."""
        if not self._gpus and self._node["NodeID"] == ray.get_runtime_context().get_node_id():
            return function(*arguments)  # this process is there, and there is no GPU that it would occupy
        return self._result(_look(self._node, function, *arguments))

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function where nothing else computes."""
        if self._actor is None:
            self._begin()
        return self._result(self._actor.run.remote(function, *arguments))

    def release(self) -> None:
        """Give the node back."""
        if self._actor is not None:
            ray.kill(self._actor)

    @cached_property
    def _node(self) -> Mapping[str, Any]:
        fitting: list[Mapping[str, Any]] = [
            node
            for node in ray.nodes()
            if node["Alive"] and _fits(node["Resources"], request_of(self._resources, gpus=self._gpus))
        ]
        if not self._gpus or len(fitting) < 2:
            return fitting[0]
        # What fits there fits everywhere.
        looks = [_look(node, describe_gpu) for node in fitting]
        gpus: list[Gpu] = [self._result(look) for look in looks]
        least = min(gpus, key=lambda gpu: (gpu.memory_bytes, gpu.name))
        if len(set(gpus)) > 1:
            others = ", ".join(sorted({gpu.name for gpu in gpus if gpu != least}))
            self._say(f"measures on {least.name}, which has the least memory; the cluster has {others} too")
        return fitting[gpus.index(least)]

    def _begin(self) -> None:
        """Wait until the node is idle and take it."""
        num_cpus, num_gpus = int(self._node["Resources"]["CPU"]), math.ceil(self._gpus)
        alone = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, resources=self._resources.custom)(_Alone)
        options = alone.options(runtime_env=_hide_gpus(True), scheduling_strategy=_there(self._node))
        self._actor = options.remote(importable_folders())
        self._result(
            self._actor.run.remote(int),
            waiting=f"waiting for an idle node to measure on: all its {num_cpus} CPUs and {num_gpus} GPUs at once; the cluster has "
            f"{describe_cluster()}, of which {_free()} are free now",
        )

    def _result(self, reference: Any, *, waiting: str | None = None) -> Any:
        """Wait for what a call returns or raises; say so if that takes long."""
        began = time.monotonic()
        while not ray.wait([reference], timeout=_POLL_SECONDS)[0]:
            self._check()
            if self._watch.look() is not None:
                raise RayLostError(self._watch.lost)
            if waiting is not None and time.monotonic() - began > _SAY_WAITING_AFTER:
                self._say(waiting)
                waiting = None
        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            if self._watch.look() is not None:
                raise RayLostError(self._watch.lost) from error
            reason = " ".join(str(error).split())[:200]
            raise DeviceError(f"the process or node that measures is lost ({reason}); start again") from error


def _look(node: Mapping[str, Any], function: Callable[..., Any], *arguments: Any) -> Any:
    # One call per process: what it occupies of a GPU to look at it is free again at once.
    look = ray.remote(num_cpus=0, max_calls=1, max_retries=0)(here)
    return look.options(runtime_env=_hide_gpus(False), scheduling_strategy=_there(node)).remote(function, *arguments)


def _there(node: Mapping[str, Any]) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)


class _Alone:
    """Runs functions in one process.

    Arguments may be of classes that lie in one of the folders: they are unpacked after it was made.
    """

    def __init__(self, folders: list[str]) -> None:
        make_importable(folders)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)
