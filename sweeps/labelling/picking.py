"""One call of `sweeps pick`: labels that have come are counted, the pick and its doubts follow, and the next images are named.

Everything it needs lies in the folder of labels; the ledger hears of each label that is spent. The search never does: no trial has
a figure of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segda.errors import ConfigError
from segda.files import sha256_of, write_json
from segda.resizing import resize_label
from sweeps.execution.remote import CHECKPOINT, files_of
from sweeps.file.spec import SweepSpec
from sweeps.labelling.answers import given_file, is_own, read_answer, read_own
from sweeps.labelling.finalists import leaders, unlabelled_pick
from sweeps.labelling.folder import DISPUTED, RANDOM, AskedImage, Finalist, LabelFolder, State, confusions_of
from sweeps.labelling.images import (
    Say,
    TargetImages,
    digest_at,
    disagreement_of,
    look,
    looked_at,
    majority_of,
    networks_of,
    pool_identity,
    target_images,
    write_draft,
)
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import LABEL_SPENT
from sweeps.metrics import CRITERIA
from sweeps.reports.labelled import FACTS
from sweeps.selection.confusions import Shares
from sweeps.selection.few_labels import (
    LEADERS,
    RANDOM_IMAGES,
    ROUND,
    Counts,
    Standing,
    most_disputed,
    random_images,
    standing,
)
from sweeps.store import Store
from sweeps.suggestions import suggest
from sweeps.trial import TrialRecord


@dataclass(frozen=True, eq=False)
class Picking:
    """What is known after a call.

    Attributes:
        sweep: its name.
        state: what was asked.
        counted: names of the images whose labels were counted, in the order in which they were asked for.
        standing: what these say; None before the first label.
        unlabelled: trial that the sweep picks without labels; None: none.
        folder: where images, answers and drafts are.
        available: images of the target that could be asked for.
    """

    sweep: str
    state: State
    counted: tuple[str, ...]
    standing: Standing | None
    unlabelled: int | None
    folder: LabelFolder
    available: int

    @property
    def pick(self) -> Finalist | None:
        """The finalist that the labels choose; None before the first label."""
        return None if self.standing is None else self.state.finalists[self.standing.pick]

    @property
    def waiting(self) -> tuple[AskedImage, ...]:
        """Images whose labels have not come."""
        return tuple(image for image in self.state.images if image.name not in self.counted)


def pick_by_labels(
    spec: SweepSpec,
    trials: Sequence[TrialRecord],
    *,
    ledger: Ledger,
    store: Store,
    labels: int | None,
    given: Path | None,
    data_roots: Mapping[str, Path | str],
    usual: int,
    say: Say,
) -> Picking:
    """Take labels, choose by them, and ask for more; whoever calls has the sweep for himself.

    Args:
        spec: the sweep.
        trials: its records, with their pool figures.
        ledger: where it is.
        store: where its files are and the folder of labels goes.
        labels: how many there shall be in all; None: as many as were asked for last.
        given: folder of labels that the user gives, absolute; None: only answers count.
        data_roots: name of a data set -> its folder.
        usual: how many, if nobody has said.
        say: is told what takes time or is worth knowing, one line each.

    Raises:
        ConfigError: there is nothing to choose among, fewer labels are wanted than were asked for, or a label is none.
        SegdaError: networks or data cannot be used.
    """
    folder = LabelFolder(store.labels(spec.name))
    state = folder.state()
    if state is None:
        state = _begun(trials, spec, store, labels=labels or usual, say=say)
    elif labels is not None:
        if labels < len(state.images):
            raise ConfigError(
                f"{len(state.images)} images have been asked for already; give --labels {len(state.images)} or more"
            )
        state = replace(state, labels=labels)
    compared = _compared(state, trials)
    images = target_images(compared, data_roots)
    state = replace(
        state,
        target=(images.dataset.name, images.domain, "train"),
        classes=images.dataset.classes,
        unscored=tuple(sorted(images.config.data.unscored)),
        size=images.size,
    )
    while True:
        counted = _counted(folder, state, images, given=given)
        said = _said(counted, state, spec)
        more = _more(folder, state, images, counted, said, compared, spec=spec, store=store, say=say)
        state = state.asking(more)
        folder.keep_state(state)
        if not more or given is None:
            break  # labels that are given may be there for the next images, too
    folder.tell(state, sweep=spec.name, command=suggest("pick", spec.name).strip("`"))
    own = unlabelled_pick(trials, spec)
    found = Picking(
        sweep=spec.name,
        state=state,
        counted=tuple(counted),
        standing=said,
        unlabelled=None if own is None else own.number,
        folder=folder,
        available=len(images.samples),
    )
    if said is not None:
        _spend(found, {name: label for name, (label, _) in counted.items()}, ledger)
    return found


def _begun(trials: Sequence[TrialRecord], spec: SweepSpec, store: Store, *, labels: int, say: Say) -> State:
    """Choose the finalists; those without a checkpoint cannot be asked."""
    chosen, ranking = leaders(trials, spec)
    if ranking.used != ranking.criterion:
        say(f"finalists are ranked by {ranking.used}: {ranking.reason}")
    finalists = []
    for trial in chosen:
        with files_of(trial, store=store, storage=spec.storage) as files:
            digest = digest_at(files / CHECKPOINT)
        if digest is None:
            say(f"trial {trial.number} is left out: its checkpoint is not in {store.root}")
        else:
            figure = trial.metrics[CRITERIA[ranking.used]]
            finalists.append(Finalist(trial.number, trial.key, digest, figure))
    if len(finalists) < 2:
        raise ConfigError(
            f"labels choose among two networks or more; {store.root} has the checkpoints of {len(finalists)}"
        )
    return State(labels, ranking.used, tuple(finalists), target=("", "", ""), classes=(), unscored=(), size=(0, 0))


def _compared(state: State, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials of the finalists."""
    known = {(trial.number, trial.key): trial for trial in trials}
    missing = [item.trial for item in state.finalists if (item.trial, item.key) not in known]
    if missing:
        raise ConfigError(f"labels were compared with trial {missing[0]}, which the ledger does not know; restore it")
    return [known[item.trial, item.key] for item in state.finalists]


# Labels


def _counted(
    folder: LabelFolder, state: State, images: TargetImages, *, given: Path | None
) -> dict[str, tuple[str, Counts]]:
    """Count labels that have come or changed, and return what was counted of all: name -> SHA-256 of the label, pixel counts."""
    folder.check_answers(state)
    found = {}
    for image in state.images:
        known = folder.counted(image.name)
        answer = folder.answer(image.name)
        sample = images.samples.get(image.name)
        path = answer if answer.is_file() else None
        if given is not None and sample is not None:
            path = given_file(given, sample) or path
        if path is not None and (known is None or known[0] != sha256_of(path)):
            is_own_file = path != answer and given is not None and sample is not None and is_own(given, sample)
            known = _count(folder, state, image, path, images, is_own=is_own_file)
        if known is not None:
            found[image.name] = known
    return found


def _count(
    folder: LabelFolder, state: State, image: AskedImage, path: Path, images: TargetImages, *, is_own: bool
) -> tuple[str, Counts]:
    digest = sha256_of(path)
    label = read_own(path, image, images.dataset) if is_own else read_answer(path, image, images.dataset)
    maps = folder.predictions(image.name)
    if maps is None:
        raise ConfigError(
            f"what finalists predict for {image.name} is not in {folder.path} any more; move that folder away and begin again with "
            "its answers in --labels-from"
        )
    counts = confusions_of(resize_label(label, state.size), maps, len(state.classes))
    folder.keep_counted(image.name, counts, label=digest)
    return digest, counts


def _said(counted: Mapping[str, tuple[str, Counts]], state: State, spec: SweepSpec) -> Standing | None:
    if not counted:
        return None
    parts = {image.name: image.part for image in state.images}
    return standing(
        np.stack([confusions for _, confusions in counted.values()]),
        [parts[name] == RANDOM for name in counted],
        seed=spec.seed,
        unscored=frozenset(state.unscored),
    )


def _spend(found: Picking, labels: Mapping[str, str], ledger: Ledger) -> None:
    """Note which labels have chosen, in the ledger and for the report."""
    assert found.standing is not None
    assert found.pick is not None
    known = {event.message for event in ledger.events(found.sweep) if event.kind == LABEL_SPENT}
    among = ", ".join(str(item.trial) for item in found.state.finalists)
    for name, digest in labels.items():
        message = f"the label of target image {name} (SHA-256 {digest[:16]}...) chooses among trials {among}"
        if message not in known:
            ledger.add_event(found.sweep, LABEL_SPENT, message)
    write_json(
        found.folder.path / FACTS,
        {
            "trial": found.pick.trial,
            "unlabelled": found.unlabelled,
            "finalists": [item.trial for item in found.state.finalists],
            "images": list(labels),
            "certainty": found.standing.certainty,
            "regret_bound": found.standing.regret_bound,
        },
    )


# Images


def _more(
    folder: LabelFolder,
    state: State,
    images: TargetImages,
    counted: Mapping[str, object],
    said: Standing | None,
    trials: Sequence[TrialRecord],
    *,
    spec: SweepSpec,
    store: Store,
    say: Say,
) -> list[AskedImage]:
    """Choose the next images, so that a round of them waits, and keep what belongs to them."""
    names = list(images.samples)
    drawn = [names[place] for place in random_images(len(names), seed=spec.seed)]
    is_new = not state.images
    count = min(ROUND - len(state.images) + len(counted), state.labels - len(state.images))
    if (not is_new and said is None) or count <= 0:
        return []
    checkpoints = [item.checkpoint for item in state.finalists]
    if is_new:
        chosen, part = drawn[: min(RANDOM_IMAGES, state.labels)], RANDOM
    else:
        assert said is not None
        pool = looked_at(names, drawn)
        identity = pool_identity(checkpoints, pool, state.size)
        known = folder.disagreement(of=identity)
        if known is None:
            say(f"{len(trials)} networks look at {len(pool)} images, once")
            with networks_of(trials, checkpoints, spec=spec, store=store) as networks:
                seen = [(name, disagreement_of(maps)) for name, maps in look(networks, images, pool)]
            known = [name for name, _ in seen], np.stack([shares for _, shares in seen])
            folder.keep_disagreement(*known, of=identity)
        chosen, part = _disputed(known, state, said, count=count), DISPUTED
    if not chosen:
        return []
    asked = []
    with networks_of(trials, checkpoints, spec=spec, store=store) as networks:
        for name, maps in look(networks, images, [name for name in names if name in set(chosen)]):
            path = images.samples[name].image
            height, width = images.dataset.decode_image(path).shape[:2]
            asked.append(AskedImage(name, str(path), part, height, width))
            folder.keep_predictions(name, maps)
            majority = majority_of(maps, len(state.classes))
            write_draft(folder.draft(name), majority, size=(height, width), dataset=images.dataset)
    return sorted(asked, key=lambda image: chosen.index(image.name))


def _disputed(known: tuple[list[str], Shares], state: State, said: Standing, *, count: int) -> list[str]:
    names, shares = known
    asked = {image.name for image in state.images}
    left = [place for place, name in enumerate(names) if name not in asked]
    found = most_disputed(shares, said.order[:LEADERS], left=left, count=count)
    return [names[place] for place in found]
