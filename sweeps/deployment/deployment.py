"""A finished sweep's artefacts on this device, and the one to ship."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from segda.config import TrainConfig
from segda.deployment.artefact import load_artefact
from segda.deployment.shipped import Argmax
from segda.device import resolve_device
from segda.environment import device_name
from segda.errors import ConfigError
from segda.files import locked, remove_unfinished, write_json
from sweeps.deployment.artefacts import Artefact, Source, Workshop, running_versions
from sweeps.deployment.candidates import candidates_of
from sweeps.deployment.card import Circumstances, facts_of, model_card
from sweeps.deployment.choice import Entry, entry_of, winner_of
from sweeps.deployment.pictures import draw_front
from sweeps.deployment.recipes import recipes, runtime_of
from sweeps.deployment.values import Value, values_of
from sweeps.deployment.winner import write_winner
from sweeps.execution.remote import CHECKPOINT, files_of
from sweeps.file.parts import Constraint
from sweeps.file.spec import SweepSpec
from sweeps.ledger.records import Device
from sweeps.metrics import CRITERIA, is_validator
from sweeps.planning.patience import Patience
from sweeps.reports.deployed import LOCK
from sweeps.reports.formats import count
from sweeps.selection.choice import Selection
from sweeps.store import Store
from sweeps.trial import TrialRecord

PICTURE, TABLE = "front.png", "artefacts.json"


@dataclass(frozen=True)
class Deployment:
    """What was made of a sweep.

    Attributes:
        entries: all artefacts, by candidate and recipe, and those that could not be made.
        winner: the one to ship; None: none keeps the budgets.
        path: its file in the folder that is to be taken away; None without a winner.
        circumstances: what all share.
        folder: where everything is.
    """

    entries: Sequence[Entry]
    winner: Entry | None
    path: Path | None
    circumstances: Circumstances
    folder: Path

    @property
    def picture(self) -> Path:
        """The PNG of what artefacts are worth and cost."""
        return self.folder / PICTURE


@dataclass(frozen=True)
class Request:
    """What is asked of a deployment.

    Attributes:
        budgets: what the winner must keep; at least one.
        ratios: shares of channels to take out, for further artefacts of each candidate.
        candidates: how many of the best trials; None: the finalists of the sweep, three with one seed.
        device: `cpu` or `cuda`; None: what the sweep's trials computed on.
        threads: of the processor; None: those of a trial.
        data_roots: name of a data set -> its folder.
        again: whether to measure again what was measured in company.
    """

    budgets: Sequence[Constraint]
    ratios: Sequence[float]
    candidates: int | None
    device: str | None
    threads: int | None
    data_roots: Mapping[str, Path | str]
    again: bool


def deploy_sweep(
    spec: SweepSpec,
    trials: Sequence[TrialRecord],
    selection: Selection,
    *,
    store: Store,
    request: Request,
    say: Callable[[str], None],
) -> Deployment:
    """Make, compare, measure and judge the artefacts of a sweep, one after the other, and write the best within budgets.

    Args:
        spec: the sweep.
        trials: its records, with their pool figures.
        selection: its choice, of some trial.
        store: where its files are and the folder of the deployment goes.
        request: what is asked for.
        say: is told what goes on, one line each.

    Raises:
        ConfigError: another process deploys the same sweep, or its `deploy.runtime` leaves no file.
        SegdaError: a checkpoint, the data or the device cannot be used.
    """
    runtime = runtime_of(spec.deploy)
    argmax: Argmax = "full" if spec.deploy is None else spec.deploy.argmax
    place = resolve_device(request.device or ("cuda" if spec.resources.num_gpus else "cpu"))
    device = Device(kind=place.type, name=device_name(place), threads=request.threads or spec.resources.threads)
    criterion = selection.used
    metric = CRITERIA[criterion]
    candidates = candidates_of(trials, spec, selection, count=request.candidates)
    folder = store.deployment(spec.name)
    with _alone(folder, spec.name), _threads(device.threads):
        workshop = Workshop(
            folder,
            device=device,
            runtime=runtime,
            argmax=argmax,
            validators=[criterion] if is_validator(metric) else [],
            needs_oracle=criterion == "oracle",
            data_roots=request.data_roots,
            patience=Patience(spec.resources.idle_wait_minutes, say=say),
            again=request.again,
            say=say,
        )
        wanted = list(recipes(spec.deploy, device=device.kind, ratios=request.ratios))
        say(
            f"{count(len(candidates), 'candidate')}, {count(len(wanted), 'artefact')} of each, on {device.name}, "
            f"{count(device.threads, 'thread')}, {runtime}"
        )
        artefacts: list[Artefact] = []
        configs: dict[int, TrainConfig] = {}
        for candidate in candidates:
            with files_of(candidate.trial, store=store, storage=spec.storage) as files:
                source = Source.at(files / CHECKPOINT, data_roots=request.data_roots)
                configs[candidate.trial.number] = source.config
                artefacts += [workshop.artefact(candidate, recipe, source) for recipe in wanted]
        entries = _entries(artefacts, trials, criterion=criterion, store=store, budgets=request.budgets)
        winner = winner_of(entries)
        circumstances = Circumstances(spec, selection, tuple(request.budgets), device, runtime, running_versions())
        draw_front(
            entries,
            folder / PICTURE,
            winner=winner,
            budgets=request.budgets,
            criterion=f"{criterion} ({metric})",
            title=f"{spec.name}: artefacts on {circumstances.where}",
        )
        write_json(folder / TABLE, [_row(entry, entry is winner) for entry in entries])
        path = None
        if winner is not None:
            record = load_artefact(winner.artefact.path).record
            config = configs[winner.artefact.candidate.trial.number]
            path = write_winner(
                folder,
                network=winner.artefact.path,
                card=model_card(winner, entries, circumstances, record=record, config=config),
                facts=facts_of(winner, circumstances),
            )
    return Deployment(entries, winner, path, circumstances, folder)


def _entries(
    artefacts: Sequence[Artefact],
    trials: Sequence[TrialRecord],
    *,
    criterion: str,
    store: Store,
    budgets: Sequence[Constraint],
) -> list[Entry]:
    made = [artefact for artefact in artefacts if artefact.refused is None]
    values = dict(zip(map(id, made), values_of(made, trials, criterion=criterion, store=store), strict=True))
    nothing = Value(value=None, figure=None, is_of_network=False, collapse=None)
    return [entry_of(artefact, values.get(id(artefact), nothing), budgets) for artefact in artefacts]


def _row(entry: Entry, is_winner: bool) -> dict[str, object]:
    """Return an artefact as plain data, for programs."""
    artefact, latency = entry.artefact, entry.artefact.latency
    return {
        "trial": artefact.candidate.trial.number,
        "recipe": str(artefact.recipe),
        "file": artefact.path.name or None,
        "sha256": artefact.sha256 or None,
        "value": entry.value.value,
        "figure": entry.value.figure,
        "figures": artefact.figures(),
        "latency": None if latency is None else asdict(latency),
        "oracle/target/miou": artefact.oracle_miou,
        "obstacle": entry.obstacle,
        "is_winner": is_winner,
    }


@contextmanager
def _alone(folder: Path, sweep: str) -> Iterator[None]:
    """Keep others away: who measured beside another deployment would measure that."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / LOCK):
            remove_unfinished(folder)
            yield
    except BlockingIOError:
        raise ConfigError(f"another process deploys {sweep!r} now; wait until it has ended") from None


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
