"""What each criterion picks, what that loses on the target, and how well it orders the candidates."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sweeps.labels import method_label
from sweeps.metrics import CRITERIA, SOURCE_MIOU, TARGET_MIOU, finite
from sweeps.reports.columns import NUMBER, SOURCE, TARGET
from sweeps.reports.formats import BETWEEN, HUNDREDTHS, PERCENT, PERCENTS, WHOLE, YES
from sweeps.reports.seed_formats import SCORE
from sweeps.reports.table import PICKED, Column, Table, table_of
from sweeps.selection.analysis import RankCorrelation, rank_correlation
from sweeps.selection.choice import Selection
from sweeps.selection.winners_curse import Corrected
from sweeps.trial import TrialRecord


@dataclass(frozen=True)
class CriterionRow:
    """What a criterion chose, what that cost, and how well it orders the candidates.

    Attributes:
        criterion: name of the criterion.
        used: the one that chose, where it was refused.
        picked: its choice.
        figure: the criterion's own figure of the choice.
        source_miou: source validation mean IoU of the choice.
        target_miou: target mean IoU of the choice (oracle).
        regret: target mean IoU of the candidate that has most of it, of all that could have been picked, minus that of the choice,
            both with the search's seed (oracle); None where either is missing, and of a choice that could not have been picked.
        correlation: rank correlation of its figure with target mean IoU over the candidates that qualify (oracle); None where there
            are fewer than three.
        worth: the figure with the choice taken into account; None where it was not made from confusions of images.
    """

    criterion: str
    used: str
    picked: TrialRecord | None
    figure: float | None
    source_miou: float | None
    target_miou: float | None
    regret: float | None
    correlation: RankCorrelation | None
    worth: Corrected | None = None

    @property
    def told(self) -> RankCorrelation | None:
        """The rank correlation where there are enough candidates to say anything."""
        return self.correlation if self.correlation and self.correlation.is_enough else None

    @property
    def needed(self) -> int | None:
        """How many candidates would tell the rank correlation from none; None where these do."""
        return None if self.correlation is None or self.correlation.is_told_from_none else self.correlation.needed


def criterion_rows(
    trials: Sequence[TrialRecord],
    choices: Mapping[str, Selection],
    worth: Mapping[str, Corrected | None] | None = None,
) -> list[CriterionRow]:
    """Return what each criterion's choice loses against the best that could have been picked in its place.

    Those are the candidates that keep the sweep's constraints and that no guard rejects. The oracle knows no guard: it may pick
    another one, and then has no regret. Nor need it pick the best of them, since further seeds may promote another finalist.

    Args:
        trials: records of one sweep.
        choices: criterion -> its choice, that of source validation among them, which every candidate has a figure for.
        worth: criterion -> what its best candidate is worth, where that is known.
    """
    could_be = frozenset(choices["source_validation"].ranked)
    figures = [finite(trial.metrics, TARGET_MIOU) for trial in trials if trial.number in could_be]
    best = max((figure for figure in figures if figure is not None), default=None)
    rows = []
    for criterion, selection in choices.items():
        picked, metric, ranked = selection.picked, CRITERIA[selection.used], frozenset(selection.ranked)
        target = finite(picked.metrics, TARGET_MIOU) if picked else None
        could = picked is not None and picked.number in could_be
        eligible = [trial for trial in trials if trial.number in ranked]
        rows.append(
            CriterionRow(
                criterion=criterion,
                used=selection.used,
                picked=picked,
                figure=finite(picked.metrics, metric) if picked else None,
                source_miou=finite(picked.metrics, SOURCE_MIOU) if picked else None,
                target_miou=target,
                regret=best - target if best is not None and could and target is not None else None,
                correlation=None
                if criterion == "oracle"
                else rank_correlation(eligible, metric=metric, against=TARGET_MIOU),
                worth=(worth or {}).get(criterion),
            )
        )
    return rows


def criteria_table(rows: Iterable[CriterionRow], *, own: str) -> Table:
    """Return what each criterion picks.

    Args:
        rows: of `criterion_rows`.
        own: the sweep's criterion.
    """

    def name(row: CriterionRow) -> str:
        refused = f": refused, {row.used} instead" if row.used != row.criterion else ""
        return f"{row.criterion}{' (this sweep)' if row.criterion == own else ''}{refused}"

    return table_of(
        rows,
        [
            (Column("criterion", "criterion"), name),
            (Column("is_oracle", "reads target labels", YES), lambda row: row.criterion == "oracle"),
            (NUMBER, lambda row: row.picked.number if row.picked else None),
            (Column("method", "method"), lambda row: method_label(row.picked) if row.picked else None),
            (
                Column("value", "its value", SCORE),
                lambda row: None if row.figure is None else (row.used, row.figure),
            ),
            (Column("worth", "corrected", PERCENT, "%"), lambda row: row.worth and row.worth.value),
            (
                Column("worth_interval", "95 % of draws", PERCENTS, "%"),
                lambda row: row.worth and (row.worth.low, row.worth.high),
            ),
            (SOURCE, lambda row: row.source_miou),
            (TARGET, lambda row: row.target_miou),
            (Column("regret", "regret", PERCENT, note="points", is_oracle=True), lambda row: row.regret),
            (
                Column("rank_correlation", "rank correlation", HUNDREDTHS, is_oracle=True),
                lambda row: row.told and row.told.value,
            ),
            (
                Column("interval", "95 % interval", BETWEEN, is_oracle=True),
                lambda row: row.told and row.told.interval,
            ),
            (Column("candidates", "candidates", WHOLE), lambda row: row.correlation and row.correlation.n),
            (Column("needed", "needed", WHOLE, is_oracle=True), lambda row: row.needed),
        ],
        style=lambda row: PICKED if row.criterion == own else "",
    )
