"""Documents of `sweeps report`: the figures of the report of a sweep, and of the comparison of several.

What is made from target labels, or by whom it would have picked, stands under `oracle` and nowhere else.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from segda.documents import document, utc
from sweeps.documents.figures import account_part, interval_part, numbers
from sweeps.documents.parts import driver_part, number_of, shows_oracle, trial_part, without_oracle
from sweeps.documents.selection import selection_part
from sweeps.metrics import SOURCE_MIOU, TARGET_MIOU
from sweeps.reports.comparison import differences, obstacles, sweeps_table, worked_seconds
from sweeps.reports.criteria import CriterionRow
from sweeps.reports.failure_tables import failure_classes_table
from sweeps.reports.network_tables import architectures, gaps_table
from sweeps.reports.plots import COSTS
from sweeps.reports.standing_tables import StandingRow
from sweeps.reports.status import DriverStatus
from sweeps.reports.tables import methods_table
from sweeps.reports.text import mark_lines, warning_lines
from sweeps.reports.view import SweepView
from sweeps.selection.analysis import pareto_front
from sweeps.trial import TrialState

_ORACLE = "oracle"


def report_document(view: SweepView, *, now: float, oracle: bool = False) -> dict[str, Any]:
    """Return the figures of a sweep's report.

    Args:
        view: the sweep.
        now: seconds since 1970.
        oracle: whether figures that are made from target labels are shown although the sweep does not choose by them.
    """
    spec, shows, methods = view.spec, shows_oracle(view.spec.selection, asked=oracle), methods_table(view.trials)
    content = {
        "time": utc(now),
        "has_oracle": shows,
        "sweep": spec.name,
        "question": spec.question,
        **driver_part(DriverStatus(record=view.record, now=now)),
        "counts": {state: sum(trial.state is state for trial in view.trials) for state in TrialState},
        "objectives": [{"metric": item.metric, "direction": item.direction} for item in spec.objectives],
        "constraints": [str(item) for item in spec.constraints],
        "source": view.source_split,
        "target": view.target_split,
        "device": view.device,
        "pick": selection_part(view.selection),
        "warnings": [*warning_lines(view, oracle=shows), *mark_lines(view)],
        "criteria": [_criterion(row) for row in view.criteria if row.criterion != _ORACLE],
        "source_only": number_of(view.source_only),
        "baseline": number_of(view.baseline),
        "seeds": [
            {
                "trial": group.trial.number,
                "seeds": group.seeds,
                "source_miou": interval_part(group.source),
                "criterion": None if view.selection.used == _ORACLE else interval_part(group.figure),
            }
            for group in view.seed_groups
        ],
        "methods": methods.records(
            *("method", "trials", "complete", "pruned", "infeasible", "failed", "steps", "best", "source_miou")
        ),
        "fronts": [_front(view, SOURCE_MIOU, cost) for cost in COSTS],
        "importance": view.importance,
        "networks": [
            {
                "network": item.model,
                "height": item.size[0],
                "width": item.size[1],
                "trials": item.trials,
                "cost": item.profile,
            }
            for item in architectures(view.trials)
        ],
        "failures": failure_classes_table(view.trials, view.events).records(
            "failure", "attempts", "trials", "retried", "given_up"
        ),
        "used": None if view.spent is None else account_part(view.spent),
        "deployed": view.deployed if shows else without_oracle(view.deployed),
        "by_labels": None
        if view.labelled is None
        else {name: view.labelled[name] for name in ("trial", "unlabelled", "finalists", "images")},
        "trials": [trial_part(trial, oracle=shows) for trial in view.trials],
    }
    if shows:
        content[_ORACLE] = _oracle(view)
    return document("sweeps.report/1", content)


def comparison_document(views: Sequence[SweepView], *, now: float, oracle: bool = False) -> dict[str, Any]:
    """Return several sweeps side by side.

    Args:
        views: the sweeps.
        now: seconds since 1970.
        oracle: see `report_document`; of each sweep by itself.
    """
    listed = []
    for view, row in zip(views, sweeps_table(views).records(), strict=True):
        shows, group = shows_oracle(view.spec.selection, asked=oracle), view.picked_seeds
        entry = {
            "name": row["name"],
            "has_oracle": shows,
            "state": row["state"],
            "pick": selection_part(view.selection),
            "method": row["method"],
            "source_miou": row["source_miou"],
            "source_miou_over_seeds": interval_part(group.source if group else None),
            "complete": row["complete"],
            "total": row["total"],
            "worker_seconds": worked_seconds(view),
            "seconds": view.record.seconds,
            "steps": sum(trial.step for trial in view.trials if trial.reused is None),
        }
        if shows:
            entry[_ORACLE] = {
                "target_miou": row["target_miou"],
                "target_miou_over_seeds": interval_part(group.target if group else None),
                "regret": view.criterion.regret,
            }
        listed.append(entry)
    found = [{"path": path, "kind": kind, "values": values} for kind, path, values in differences(views)]
    content = {"time": utc(now), "sweeps": listed, "differences": found, "obstacles": obstacles(views)}
    return document("sweeps.comparison/1", content)


def _criterion(row: CriterionRow) -> dict[str, Any]:
    return {
        "criterion": row.criterion,
        "used": row.used,
        "trial": number_of(row.picked),
        "value": row.figure,
        "source_miou": row.source_miou,
        "corrected": _worth(row),
    }


def _worth(row: CriterionRow) -> dict[str, Any] | None:
    return None if row.worth is None else asdict(row.worth)


def _front(view: SweepView, metric: str, cost: str) -> dict[str, Any]:
    return {"metric": metric, "cost": cost, "trials": numbers(pareto_front(view.trials, metric=metric, cost=cost))}


def _oracle(view: SweepView) -> dict[str, Any]:
    gaps = gaps_table(view.networks, source_only=view.source_only, upper_bound=view.upper_bound)
    return {
        "criteria": [
            {
                "criterion": row.criterion,
                "trial": number_of(row.picked),
                "target_miou": row.target_miou,
                "corrected": _worth(row) if row.criterion == _ORACLE else None,
                "regret": row.regret,
                "rank_correlation": row.told and row.told.value,
                "rank_correlation_interval": row.told and row.told.interval,
                "candidates": row.correlation.n if row.correlation else 0,
                "candidates_needed": row.needed,
            }
            for row in view.criteria
        ],
        "seeds": [
            {"trial": group.trial.number, "seeds": group.seeds, "target_miou": interval_part(group.target)}
            for group in view.seed_groups
        ],
        "methods": methods_table(view.trials).records("method", "target_miou", "best_target_miou"),
        "standings": [_standing(row) for row in view.standings],
        "gaps": [
            {**row, "trial": view.networks[row["network"]].number} for row in gaps.records("network", "gap", "closed")
        ],
        "upper_bound": number_of(view.upper_bound),
        "fronts": [_front(view, TARGET_MIOU, cost) for cost in COSTS],
    }


def _standing(row: StandingRow) -> dict[str, Any]:
    return {
        "label": row.label,
        "trial": row.trial.number,
        "seeds": row.seeds,
        "target_miou": interval_part(row.target),
        "search_seed": row.search_seed,
        "gain": interval_part(row.gain),
        "closed": row.closed,
        "well": row.well,
        "under": row.under,
        "best_checkpoint": row.best_checkpoint,
        "best_of_search": row.best_of_search,
    }
