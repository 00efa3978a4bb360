"""What further seeds say of the finalists, and what decided among them."""

from collections.abc import Iterable
from dataclasses import replace

from sweeps.metrics import CRITERIA, finite
from sweeps.reports.columns import NUMBER, SOURCE, TARGET, interval_of, source, target
from sweeps.reports.formats import LISTED, PERCENT, TRIAL, WHOLE, YES
from sweeps.reports.seed_formats import SPREAD, figure_format, figure_interval, figure_spread
from sweeps.reports.table import Column, Table, table_of
from sweeps.selection.seed_budget import Standing
from sweeps.selection.seeds import Paired, SeedGroup

_MEAN, _INTERVAL, _CHOSE = "mean ± std", "95 % interval", "search seed: optimistic"
SEEDS_NOTE = (
    "Means, intervals (Student's) and n are of the further seeds alone. The search's seed stands apart: finalists were chosen by "
    "their metrics with it, so those are high by luck too, and a configuration is worth what its further seeds say. Those that "
    "promoted a finalist flatter it a little too."
)
FINALISTS_NOTE = (
    "What decided against each other finalist: differences with the same seed, without the search's own, by which the finalists "
    "were chosen. An advantage holds if it is there with each of two to four seeds; from five on, also if the interval lies above "
    "zero. A finalist replaces a better ranked one only by an advantage that holds; otherwise the rank of the search decides."
)
STANDING_NOTE = (
    "What the further runs let one believe: the mean over seeds that is expected of each finalist, drawn towards that of all since "
    "the best of several equals looks better than it is, and the probability that its mean is the largest. Each run went to a "
    "finalist that may be the best and is hard to tell from another one (top-two Thompson sampling)."
)


def seeds_table(groups: Iterable[SeedGroup], *, criterion: str) -> Table:
    """Return what the further seeds of each finalist say.

    Args:
        groups: finalists.
        criterion: by which the sweep chose; it has columns of its own if it is a validator.
    """
    metric = CRITERIA[criterion]
    own = [
        (Column("criterion", criterion, figure_spread(criterion), note=_MEAN), lambda group: group.figure),
        (Column("criterion_interval", _INTERVAL, figure_interval(criterion)), lambda group: group.figure),
        (
            Column("criterion_chose", criterion, figure_format(criterion), note=_CHOSE),
            lambda group: finite(group.trial.metrics, metric),
        ),
    ]
    return table_of(
        groups,
        [
            (NUMBER, lambda group: group.trial.number),
            (Column("n", "n", WHOLE), lambda group: group.source.n),
            (Column("seeds", "further seeds", LISTED), lambda group: group.seeds),
            (replace(SOURCE, format=SPREAD, note=_MEAN), lambda group: group.source),
            (interval_of("source_miou"), lambda group: group.source),
            (replace(SOURCE, key="source_chose", note=_CHOSE), lambda group: source(group.trial)),
            *(own if criterion not in ("source_validation", "oracle") else []),
            (replace(TARGET, format=SPREAD, note=_MEAN), lambda group: group.target),
            (interval_of("target_miou", is_oracle=True), lambda group: group.target),
            (replace(TARGET, key="target_chose", note="search seed"), lambda group: target(group.trial)),
        ],
        notes=[SEEDS_NOTE],
        empty="No trial was trained with a second seed: no metric here has an interval.",
    )


def standing_table(standing: Standing | None, *, criterion: str) -> Table:
    """Return which finalist is the best, as far as the runs of a budget tell.

    Args:
        standing: what they say; None: there is no such budget, or no run.
        criterion: by which the sweep chose.
    """
    rows = [] if standing is None else range(len(standing.finalists))

    def of(index: int) -> Standing:
        assert standing is not None
        return standing

    return table_of(
        rows,
        [
            (NUMBER, lambda index: of(index).finalists[index]),
            (Column("n", "runs", WHOLE, note="with further seeds"), lambda index: of(index).known.counts[index]),
            (
                Column("mean", "expected", figure_format(criterion), note=f"{criterion}, mean over seeds"),
                lambda index: of(index).known.means[index],
            ),
            (Column("best", "is the best", PERCENT, "%"), lambda index: of(index).known.best[index]),
        ],
        notes=[STANDING_NOTE],
    )


def finalists_table(pairs: Iterable[Paired], *, criterion: str) -> Table:
    """Return what decided among the finalists.

    Args:
        pairs: their comparisons.
        criterion: by which they were compared.
    """
    return table_of(
        pairs,
        [
            (Column("trial", "finalist", TRIAL), lambda pair: pair.number),
            (Column("other", "against", TRIAL), lambda pair: pair.other),
            (Column("n", "n", WHOLE), lambda pair: len(pair.seeds)),
            (Column("seeds", "further common seeds", LISTED), lambda pair: pair.seeds),
            (
                Column("difference", "ahead by", figure_format(criterion), note=f"{criterion}, mean"),
                lambda pair: pair.difference.mean if pair.difference else None,
            ),
            (Column("interval", _INTERVAL, figure_interval(criterion)), lambda pair: pair.difference),
            (Column("holds", "the advantage holds", YES), lambda pair: pair.holds),
        ],
        notes=[FINALISTS_NOTE],
    )
