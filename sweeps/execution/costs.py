"""How much the time of a trial counts when the next one is proposed: from the ledger alone, so that a resume changes nothing."""

from collections.abc import Iterable, Mapping

from segda.errors import ConfigError
from sweeps.file.fields import NETWORK_PREFIXES
from sweeps.file.prices import prices_of
from sweeps.file.space import SearchSpace
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import Allotment
from sweeps.planning.coverage import cases
from sweeps.planning.estimate import trial_seconds
from sweeps.planning.plan import saved_costs
from sweeps.planning.profiles import Architecture, Profile, infeasible
from sweeps.search.costs import CostModel, Observed, Weighing, exponent_of, trained_costs
from sweeps.store import Store
from sweeps.trial import TrialRecord


class Costs:
    """What trials of a sweep cost, as far as its proposals heed it."""

    def __init__(
        self,
        spec: SweepSpec,
        space: SearchSpace,
        *,
        allotment: Allotment,
        ledger: Ledger,
        store: Store,
        profiles: Mapping[Architecture, Profile],
        has_begun: bool,
    ) -> None:
        """Take what was planned from the ledger; before the first trial it is noted there.

        Args:
            spec: the sweep.
            space: its search space.
            allotment: what its trials get.
            ledger: where it is kept.
            store: where its plan lies.
            profiles: efficiency of every architecture that it can reach.
            has_begun: whether it has trials.
        """
        self._spec = spec
        self._space = space
        self._allotment = allotment
        self._expected: list[Observed] = []
        self._planned: list[Observed] = []
        if spec.sampler.cost_aware:
            self._expected = _by_macs(spec, space, profiles)
            noted = ledger.sweep(spec.name).info.planned_seconds
            if not noted and not has_begun:
                found = _planned(spec, store, profiles, gpus=allotment.gpus)
                noted = tuple((dict(item.params), item.amount) for item in found)
                ledger.update_info(spec.name, planned_seconds=noted)
            if not spec.sampler.reproducible:
                self._planned = [Observed(params, amount) for params, amount in noted]

    def weighing(self, records: Iterable[TrialRecord], *, proposed: int) -> Weighing | None:
        """Return how much time counts in the next proposal; None if the sweep file does not ask for it.

        With `sampler.reproducible` no clock has a say: costs are those that are expected of networks and batches, and of the
        budget only trials count.

        Args:
            records: all trials of the sweep.
            proposed: how many have a place of the budget.
        """
        if not self._spec.sampler.cost_aware:
            return None
        used, known = proposed / self._spec.budget.trials, []
        if not self._spec.sampler.reproducible:
            ended = [record for record in records if record.state.is_finished]
            used, known = max(used, self._used(ended)), trained_costs(ended)
        costs = CostModel(self._space, expected=self._expected, planned=self._planned, trained=known)
        return Weighing(costs, exponent_of(used))

    def _used(self, ended: Iterable[TrialRecord]) -> float:
        """Return the share of the budget's hours or money that trials have used, of what is used most.

        Of the wall-clock hours it is the share of the workers' time that fits into them: clocks of drivers are no rows.
        """
        budget, given = self._spec.budget, self._allotment
        prices = prices_of(self._spec, gpus=given.gpus)
        hours, cost = 0.0, 0.0
        for record in ended:
            hours += record.seconds / 3600
            cost += 0.0 if prices is None else prices.paid(record.seconds, record.device)
        shares = (
            (hours, budget.hours and budget.hours * given.concurrency),
            (hours * given.gpus, budget.gpu_hours),
            (cost, budget.cost),
        )
        return max((spent / limit for spent, limit in shares if limit), default=0.0)


def _planned(spec: SweepSpec, store: Store, profiles: Mapping[Architecture, Profile], *, gpus: float) -> list[Observed]:
    """Return the seconds that `sweeps plan` measured of this sweep; none without such a plan."""
    try:
        tried = saved_costs(store, spec, cases(spec, infeasible=infeasible(spec, profiles).keys()), gpus=gpus)
    except ConfigError:
        return []
    config = spec.train_config(tried[0].case.params, seed=spec.first_seed)
    return [
        Observed(item.case.params, trial_seconds(item.costs, config, config.steps))
        for item in tried
        if item.costs is not None and not item.case.is_reference
    ]


def _by_macs(spec: SweepSpec, space: SearchSpace, profiles: Mapping[Architecture, Profile]) -> list[Observed]:
    """Return the multiply-accumulates of each network times the images of a batch: seconds are taken to be in proportion."""
    found = []
    for params in space.covering(*NETWORK_PREFIXES):
        config = spec.train_config(params, seed=spec.first_seed)
        macs = profiles[Architecture.of(config, spec.deploy)].metrics.get("macs", 0.0)
        if macs:
            found.append(Observed(params, macs * config.batch_size))
    return found
