"""What trials predicted for the target, from their files: the candidates of a sweep are compared by it."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from segda.image_confusions import ImageConfusions, read_image_confusions
from segda.target_prediction import TARGET_PREDICTION, TargetPrediction, read_target_prediction
from sweeps.execution.remote import fetch
from sweeps.selection.pool import with_pool_figures
from sweeps.selection.winners_curse import MOST_CANDIDATES, Corrected, corrected
from sweeps.store import Store
from sweeps.trial import TrialRecord, TrialState

log = logging.getLogger(__name__)


def compared(trials: Sequence[TrialRecord], *, store: Store, storage: str | None) -> list[TrialRecord]:
    """Return the trials of a sweep with their pool figures among their metrics (`sweeps.selection.pool`).

    A trial whose prediction is missing or damaged is compared with nobody, and votes for nobody.

    Args:
        trials: records of one sweep.
        store: where their folders are.
        storage: the sweep's storage address, if files that are not here are to be brought from there.

    Raises:
        StorageError: the address did not answer.
    """
    if storage is not None:
        for trial in trials:
            if trial.state is TrialState.COMPLETE:
                fetch(trial, store=store, storage=storage)

    def read(trial: TrialRecord) -> TargetPrediction | None:
        try:
            return read_target_prediction(store.trial(trial) / TARGET_PREDICTION)
        except FileNotFoundError:
            return None
        except ValueError as error:
            log.warning("trial %d is compared with no other one: %s", trial.number, error)
            return None

    return with_pool_figures(trials, read)


def corrected_best(ranked: Sequence[int], folders: Mapping[int, Path], name: str, *, seed: int) -> Corrected | None:
    """Return what the best of a sweep's candidates is worth on images that did not choose it.

    Args:
        ranked: numbers of candidates, best first by the mean IoU on these images; the first ones are compared.
        folders: number -> folder of a trial's files.
        name: of the file with the confusion of each image; candidates without one, or of other images, are left out.
        seed: of the draws.

    Returns:
        None if there are too few candidates or images.
    """
    found: list[ImageConfusions] = []
    for number in ranked[:MOST_CANDIDATES]:
        try:
            found.append(read_image_confusions(folders[number] / name))
        except (FileNotFoundError, KeyError):
            continue
        except ValueError as error:
            log.warning("trial %d has no say in what the best is worth: %s", number, error)
    if not found:
        return None
    common = Counter(one.images for one in found).most_common(1)[0][0]
    same = [one for one in found if one.images == common]
    return corrected([one.counts for one in same], unscored=same[0].unscored, seed=seed)
