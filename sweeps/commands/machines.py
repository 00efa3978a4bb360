"""The machines that a command measures on."""

import contextlib
from collections.abc import Callable, Iterator

import click

from sweeps.file.spec import SweepSpec
from sweeps.planning.machines import Machines, this_machine


@contextlib.contextmanager
def machines_at(address: str | None, spec: SweepSpec, *, say: Callable[[str], None] = click.echo) -> Iterator[Machines]:
    """Have this machine, or an idle node of a cluster.

    Args:
        address: Ray cluster; None: this machine, without Ray.
        spec: the sweep whose trials it must be able to run.
        say: is told what is waited for.

    Raises:
        ConfigError: the cluster cannot be reached.
        DeviceError: none of its nodes can ever run a trial.
    """
    if address is None:
        yield this_machine()
        return
    from sweeps.execution.cluster import idle_node  # Ray takes seconds to import

    with idle_node(spec, address=address, say=say) as machines:
        yield machines
