"""What the candidates of a sweep say of each other: agreement with the majority of all, EnsV by votes.

Hu et al., "Towards Reliable Model Selection for Unsupervised Domain Adaptation: An Empirical Study and A Certified Baseline"
(NeurIPS 2024): all candidates together label the target, and the one that agrees most with these labels is chosen. Here each has
one vote per pixel, where the paper averages probabilities, so that a weak network that is too sure of itself has no more say than
the others. Entropy losses and self-training make such networks, and every score of a single one is misled by them.

Agreement is a mean IoU, as quality is: over pools of eight synthetic networks (7 and 11 classes, common errors of two strengths,
with and without a bias to frequent classes) its rank correlation with the true mean IoU was 0.90 to 1.00, that of accuracy 0.87 to
0.98, and always the lower one. The more errors are common, the more a good but typical network gains on the best one. Where the
vote is tied the smallest train id has it; to leave such pixels out lost up to 0.03.

Those who vote are fully trained candidates that no guard rejects (`sweeps.selection.guards`) and whose predictions are of the same
pixels: of the same images, size and classes. Repetitions of finalists with further seeds do not vote, or a finalist would have as
many votes as seeds and the choice of finalists would move while they are repeated; but each is compared with the same majority,
so that finalists can be compared over their seeds. The figures follow from all candidates: they are computed whenever somebody
asks, and stand in no ledger.

Nor do networks vote that learn even the source far worse than another one: none of their trainings reaches 0.8 of the best source
validation of all. Eight networks from random weights outvoted three from ImageNet and elected one of their own, 11.9 points below
the best. It is a network's best training that counts, since a single one may have given its source validation for the target's
style, and then has more to say, not less.

A majority of collapsed networks would elect one of them. So the vote is refused where half of the fully trained candidates have
collapsed on the target, where the majority itself puts one class everywhere, and where fewer than three vote.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from segda.target_prediction import TargetPrediction
from segda.types import Pixels
from sweeps.metrics import ENSV, LARGEST_VOTE_SHARE, MIN_VOTERS, SOURCE_MIOU, finite
from sweeps.selection.analysis import is_candidate
from sweeps.selection.guards import MAX_CLASS_SHARE, Guard, network_of
from sweeps.trial import TrialRecord, TrialState

MAX_COLLAPSED_SHARE = 0.5
MIN_SHARE_OF_BEST_NETWORK = 0.8

Read = Callable[[TrialRecord], TargetPrediction | None]


def with_pool_figures(trials: Sequence[TrialRecord], read: Read) -> list[TrialRecord]:
    """Return the trials of a sweep with their agreement with the majority among their metrics, where they can be compared.

    Args:
        trials: records of one sweep.
        read: returns what a trial predicted for the target, or None if that is not to be had; called twice for each trial, so that
            one prediction at a time is in memory.
    """
    guard = Guard(trials)
    pixels = {}
    for trial in trials:
        if trial.state is TrialState.COMPLETE and (prediction := read(trial)) is not None:
            pixels[trial.number] = prediction.pixels
    voters = [trial for trial in _voters(trials, guard) if trial.number in pixels]
    if not voters:
        return list(trials)
    # What most are of: a sweep may have been resumed with other images.
    common = Counter(pixels[trial.number] for trial in voters).most_common(1)[0][0]
    majority = _majority([trial for trial in voters if pixels[trial.number] == common], read)
    if majority is None:
        return list(trials)
    labels, num_classes = majority
    largest = float(np.bincount(labels, minlength=num_classes).max() / len(labels))
    found = []
    for trial in trials:
        prediction = read(trial) if pixels.get(trial.number) == common else None
        if prediction is not None:
            figures = {
                ENSV: agreement(prediction.classes, labels, num_classes=num_classes),
                LARGEST_VOTE_SHARE: largest,
            }
            trial = replace(trial, metrics={**trial.metrics, **figures})
        found.append(trial)
    return found


def voteless(trials: Iterable[TrialRecord]) -> dict[int, str]:
    """Return the candidates that no guard rejects and that have no vote: number -> why.

    Args:
        trials: records of one sweep.
    """
    trials = list(trials)
    return _voteless(_sound(trials, Guard(trials)))


def _sound(trials: Iterable[TrialRecord], guard: Guard) -> list[TrialRecord]:
    return [trial for trial in trials if is_candidate(trial) and guard.collapse(trial) is None]


def _voteless(sound: Sequence[TrialRecord]) -> dict[int, str]:
    best: dict[str, float] = {}
    for trial in sound:
        source = finite(trial.metrics, SOURCE_MIOU)
        best[network_of(trial)] = max(best.get(network_of(trial), 0.0), source or 0.0)
    limit = MIN_SHARE_OF_BEST_NETWORK * max(best.values(), default=0.0)
    return {
        trial.number: f"no training of its network has more {SOURCE_MIOU} than {found:.1%}, which is below {limit:.1%}, "
        f"{MIN_SHARE_OF_BEST_NETWORK:g} of what the best network reaches"
        for trial in sound
        if (found := best[network_of(trial)]) < limit
    }


def _voters(trials: Iterable[TrialRecord], guard: Guard) -> list[TrialRecord]:
    sound = _sound(trials, guard)
    without = _voteless(sound)
    return [trial for trial in sound if trial.number not in without]


def _majority(voters: Iterable[TrialRecord], read: Read) -> tuple[Pixels, int] | None:
    """Return the class of each pixel that most voters see there, uint8 [K], and the number of classes."""
    votes: NDArray[np.int32] | None = None
    for trial in voters:
        prediction = read(trial)
        if prediction is None:
            continue
        if votes is None:
            votes = np.zeros((len(prediction.classes), prediction.num_classes), dtype=np.int32)
        votes[np.arange(len(votes)), prediction.classes] += 1
    return None if votes is None else (votes.argmax(axis=1).astype(np.uint8), votes.shape[1])


def agreement(prediction: Pixels, majority: Pixels, *, num_classes: int) -> float:
    """Return the mean IoU in [0, 1] of a prediction with the majority, over the classes that either has.

    Args:
        prediction: train ids, uint8 [K].
        majority: train ids, uint8 [K].
        num_classes: C.
    """
    pairs = num_classes * majority.astype(np.int64) + prediction
    confusion = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    hits = confusion.diagonal()
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    return float((hits[union > 0] / union[union > 0]).mean())


def pool_fault(trials: Iterable[TrialRecord]) -> str | None:
    """Return why the candidates' agreement must not choose among them, or None.

    Args:
        trials: records of one sweep, with their pool figures.
    """
    trials = list(trials)
    guard = Guard(trials)
    candidates = [trial for trial in trials if is_candidate(trial)]
    collapsed = [trial for trial in candidates if guard.target_collapse(trial) is not None]
    if candidates and len(collapsed) >= MAX_COLLAPSED_SHARE * len(candidates):
        return (
            f"{len(collapsed)} of {len(candidates)} fully trained candidates have collapsed on the target, and where half have, "
            "others may have in part and would elect their like"
        )
    voters = [trial for trial in _voters(trials, guard) if finite(trial.metrics, ENSV) is not None]
    if len(voters) < MIN_VOTERS:
        return (
            f"a vote needs {MIN_VOTERS} candidates that can be compared by what they predict for the target and are of networks "
            f"that learn the source about as well as the best, got {len(voters)}"
        )
    share = finite(voters[0].metrics, LARGEST_VOTE_SHARE)
    if share is not None and share > MAX_CLASS_SHARE:
        return f"the majority of {len(voters)} candidates puts one class on {share:.1%} of the target's pixels"
    return None
