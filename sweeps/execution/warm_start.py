"""What a sweep takes over from the earlier sweeps that its file names: read from the ledger, and settled at its first start."""

from collections.abc import Callable, Mapping

from segda.config import TrainConfig
from segda.errors import ConfigError
from sweeps.file.space import SearchSpace
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.planning.profiles import sample_config
from sweeps.search.warm_start import Earlier, WarmStart, is_learnable, warm_start


def warm_start_of(
    spec: SweepSpec,
    space: SearchSpace,
    *,
    ledger: Ledger,
    efficiency: Callable[[TrainConfig], Mapping[str, float]],
    fingerprint: Callable[[TrainConfig], str],
    note: Callable[[str], None],
) -> WarmStart:
    """Return what a sweep takes over, the same at every start.

    An earlier sweep may go on meanwhile: which of its trials count is noted in this sweep's info when it first starts, and told.

    Args:
        spec: the sweep, which the ledger has.
        space: its search space.
        ledger: where all sweeps are.
        efficiency: returns the figures of a configuration's architecture on this sweep's device.
        fingerprint: hash of the data that a configuration reads; noted for later sweeps.
        note: is told one line per earlier sweep.

    Raises:
        ConfigError: there is no such earlier sweep, or it was steered by target labels and this one must not be.
    """
    info = ledger.sweep(spec.name).info
    data = info.data_fingerprint or fingerprint(sample_config(spec))
    if info.data_fingerprint is None:
        ledger.update_info(spec.name, data_fingerprint=data)
    known = dict(info.warm_start)
    is_settled = all(name in known for name in spec.sampler.warm_start)
    earlier = []
    for name in spec.sampler.warm_start:
        sweep = ledger.sweep(name)
        if sweep.spec.get("selection") == "oracle" and spec.selection != "oracle":
            raise ConfigError(
                f"sampler.warm_start names {name!r}, which target labels steered (selection: oracle), and sweep {spec.name!r} "
                "goes without them; leave it out, or set selection: oracle here too"
            )
        trials = [record for record in ledger.trials(name) if is_learnable(record)]
        numbers = known.setdefault(name, tuple(record.number for record in trials))
        counting = tuple(record for record in trials if record.number in numbers)
        earlier.append(Earlier(name, counting, has_other_data=sweep.info.data_fingerprint not in (None, data)))
    found = warm_start(spec, space, earlier, efficiency=efficiency)
    if not is_settled:
        for line in found.notes:
            note(line)
        ledger.update_info(spec.name, warm_start=known)
    return found
