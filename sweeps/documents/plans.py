"""Documents about what a sweep is going to do: `sweeps check`, `sweeps plan` and `sweeps profile`."""

from collections.abc import Mapping, Sequence
from typing import Any

from segda.config import TrainConfig
from segda.documents import document
from sweeps.documents.figures import estimate_part
from sweeps.file.auto import chosen_sampler
from sweeps.file.spec import SweepSpec
from sweeps.ledger.records import Allotment, Device
from sweeps.metrics import has_doubts
from sweeps.planning.counts import planned_trials
from sweeps.planning.estimate import Estimate, Tried, verdicts
from sweeps.planning.profiles import Architecture, Profile, reachable
from sweeps.schedulers.telling import pruning_rule


def check_document(
    spec: SweepSpec, sample: TrainConfig, *, data_sets: Sequence[Mapping[str, Any]], notes: Sequence[str]
) -> dict[str, Any]:
    """Return what a sweep file would do.

    Args:
        spec: the sweep.
        sample: some training configuration of it.
        data_sets: where each lies, and whether it is there.
        notes: what a reader of the file should know.
    """
    trials = planned_trials(spec)
    content = {
        "sweep": spec.name,
        "question": spec.question,
        "fingerprint": spec.fingerprint(),
        "search": {row.path: {"values": row.range, "when": row.condition} for row in spec.space.describe()},
        "combinations": spec.space.num_combinations(),
        "networks": [architecture.model.label() for architecture in reachable(spec)],
        "planned": {**trials._asdict(), "total": trials.total},
        "steps_per_trial": sample.steps,
        "budget": dict(spec.budget),
        "resources": {"cpus": spec.resources.cpus, "gpus": spec.resources.gpus},
        "objectives": [{"metric": item.metric, "direction": item.direction} for item in spec.objectives],
        "constraints": [str(item) for item in spec.constraints],
        "sampler": chosen_sampler(spec, spec.space),
        "scheduler": spec.scheduler.name,
        "stops_early": pruning_rule(spec.build_scheduler(), spec.costs, objectives=spec.trained_objectives),
        "selection": spec.selection,
        "reads_target_labels": spec.selection == "oracle",
        "seeds": spec.listed_seeds,
        "notes": notes,
        "data_sets": data_sets,
    }
    return document("sweeps.check/1", content)


def plan_document(
    spec: SweepSpec,
    tried: Sequence[Tried],
    found: Estimate | None,
    *,
    allotment: Allotment,
    never_trained: Mapping[Architecture, str],
    path: str,
) -> dict[str, Any]:
    """Return what was tried of a sweep, and what it will take.

    Args:
        spec: the sweep.
        tried: its branches, and what became of each.
        found: the estimate; None if every branch fails.
        allotment: what its trials get.
        never_trained: networks that break a constraint -> why.
        path: where the plan is kept.
    """
    content = {
        "sweep": spec.name,
        "gpus_per_trial": allotment.gpus,
        "concurrency": allotment.concurrency,
        "branches": [
            {
                "label": item.case.label,
                "params": item.case.params,
                "is_reference": item.case.is_reference,
                "costs": item.costs,
                "error": item.error,
                "doubts": item.doubts,
            }
            for item in tried
        ],
        "never_trained": [{"network": str(network), "why": why} for network, why in never_trained.items()],
        "estimate": None if found is None else estimate_part(found),
        "verdicts": [] if found is None else verdicts(spec, found),
        "path": path,
    }
    return document("sweeps.plan/1", content)


def profile_document(
    spec: SweepSpec, profiles: Mapping[Architecture, Profile], *, device: Device, renewed: Sequence[int]
) -> dict[str, Any]:
    """Return what the networks of a sweep cost.

    Args:
        spec: the sweep.
        profiles: of each network that it can reach.
        device: where they were measured.
        renewed: trials that got new figures.
    """
    content = {
        "sweep": spec.name,
        "device": device,
        "deploy": None if spec.deploy is None else str(spec.deploy),
        "networks": [
            {
                "network": str(architecture),
                "cost": profile.metrics,
                "is_doubtful": has_doubts(profile.metrics),
                "doubts": profile.doubts,
                "never_trained": profile.obstacle(spec),
            }
            for architecture, profile in profiles.items()
        ],
        "unchecked": list(dict.fromkeys(line for profile in profiles.values() for line in profile.unchecked)),
        "renewed": renewed,
    }
    return document("sweeps.profile/1", content)
