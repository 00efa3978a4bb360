"""What a sweep names that does not belong to this library: noted when a driver begins, compared when another one goes on."""

from collections.abc import Iterator, Mapping

from segda.config import TrainConfig
from segda.environment import describe_guests
from segda.errors import ConfigError
from segda.guests import importable_folders
from sweeps.execution.coordinator import Listener
from sweeps.file.space import Categorical
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger


def guests_of(spec: SweepSpec) -> dict[str, str | None]:
    """Return what is known of everything that trials of a sweep can name and that is not ours, see `describe_guests`.

    Args:
        spec: the sweep.

    Raises:
        ConfigError: some of it is known to this process only.
    """
    found: dict[str, str | None] = {}
    for config in _configs(spec):
        found |= describe_guests(config)
    for key, value in found.items():
        if key.endswith("/module") and value == "__main__":
            raise ConfigError(
                f"{key.split('/')[1]} of sweep {spec.name!r} is defined in a notebook or in the program itself, where no "
                "worker can import it; put it into a file beside the notebook, and name that"
            )
    return found


def note_guests(
    spec: SweepSpec, guests: Mapping[str, str | None], *, ledger: Ledger, listener: Listener | None
) -> None:
    """Write down what the sweep names from outside and where that was found; say so if it has changed since there were trials.

    Args:
        spec: the sweep; its row must be in the ledger.
        guests: what `guests_of` says of it.
        ledger: where to note it, under `guests` and `folders` of the sweep's info.
        listener: is told of a change, as the ledger's events are.
    """
    before = dict(ledger.sweep(spec.name).info.guests)
    if ledger.trials(spec.name):
        for name, now in guests.items():
            if before.get(name, now) == now:
                continue
            message = f"{name} was {before[name]}, is {now}: trials from before and from now on may not be comparable"
            ledger.add_event(spec.name, "guest_changed", message)
            if listener is not None:
                listener("note", None, message)
    ledger.update_info(spec.name, guests=before | dict(guests), folders=tuple(importable_folders()))


def _configs(spec: SweepSpec) -> Iterator[TrainConfig]:
    """Yield configurations that name everything which trials and references can name."""
    space = spec.space
    for branch in space.branches():
        first = space.first(branch)
        yield spec.train_config(first, seed=spec.first_seed)
        for item in space.parameters:
            if isinstance(item.distribution, Categorical) and item.path in first and item.path not in branch:
                for value in item.distribution.choices[1:]:
                    yield spec.train_config(first | {item.path: value}, seed=spec.first_seed)
    for params in spec.references.values():
        yield spec.train_config(params, seed=spec.first_seed)
