"""What no candidate may show: a collapse on the target.

Criteria that read no target label are blind to one accident: adaptation that ruins the target while what they look at stays fine.
Guards from label-free figures reject such trials before any criterion ranks. They are there to catch collapse, not to rank, so
they are loose:

1. Source validation mean IoU below 0.8 of what source-only training reaches: adaptation broke what supervision gives for free.
   That is the best one that sees the source in the same way, in the same style and with the same share of target statistics, of
   the same network where there is one, otherwise of all: from urban to rural scenes style cost 37 points on the source and gained
   12 on the target, and no method is to be blamed for that. Others say nothing here, and there is no floor without; nor is there
   one for methods that do not fit the source as it comes (`Method.fits_source`).
2. One class covers more than 0.95 of the target's pixels.
3. Too many missing classes. `target/missing_classes` counts classes with more than 1 % of the source's pixels that get
   less than 0.1 % of the target's. A class may be rare in the target by nature, and the source-only network shows about
   how many are; a quarter of the classes more than it misses (at least one) is the limit. Without a source-only
   training nature cannot be told from collapse, and half of the classes is the limit.
4. An alarm by optimal transport (`segda.validators.transport`): the accuracy that predictions would have if the target's classes
   were as frequent as the source's. It is low by nature where they are not, and the source-only network shows how low: two
   thirds of that is the limit. Without one the limit is half of the source's pixels that the network itself has right: a network
   that knows little has little to lose.
"""

import json
from collections.abc import Iterable, Mapping

from sweeps.labels import method_name
from sweeps.metrics import (
    LARGEST_CLASS_SHARE,
    MISSING_CLASSES,
    SOURCE_ACCURACY,
    SOURCE_MIOU,
    TRANSPORT_ACCURACY,
    finite,
)
from sweeps.paths import value_at
from sweeps.trial import TrialKind, TrialRecord, TrialState

MIN_SHARE_OF_SOURCE_ONLY = 0.8
MAX_CLASS_SHARE = 0.95
EXTRA_MISSING_SHARE = 0.25
MISSING_SHARE_WITHOUT_BASELINE = 0.5
MIN_SHARE_OF_TRANSPORT = 2 / 3
MIN_SHARE_OF_ACCURACY = 0.5

_CLASS_PREFIX = "source/val/iou/"
_SOURCE_ONLY = "source_only"
_ANY = ""  # network; no JSON text is empty


def source_only_baseline(trials: Iterable[TrialRecord], *, like: TrialRecord | None = None) -> TrialRecord | None:
    """Return the best fully trained source-only network by source validation.

    Args:
        trials: records of one sweep; search trials and references count.
        like: prefer source-only networks of this trial's architecture.
    """
    return Guard(trials).baseline(like)


class Guard:
    """Tells which trials of a sweep look collapsed."""

    def __init__(self, trials: Iterable[TrialRecord]) -> None:
        """Find the best source-only training of each network.

        Args:
            trials: records of one sweep.
        """
        known = [
            trial
            for trial in trials
            if trial.state is TrialState.COMPLETE
            and trial.kind is not TrialKind.REPLICATE
            and method_name(trial) == _SOURCE_ONLY
            and finite(trial.metrics, SOURCE_MIOU) is not None
        ]
        self._best: dict[str, TrialRecord] = {}
        self._best_alike: dict[tuple[str, str], TrialRecord] = {}
        for trial in sorted(known, key=lambda trial: (trial.metrics[SOURCE_MIOU], -trial.number)):
            for network in (network_of(trial), _ANY):
                self._best[network] = self._best_alike[network, _seen(trial)] = trial

    def baseline(self, like: TrialRecord | None) -> TrialRecord | None:
        """Return the best source-only training of a trial's network, or of all; None if there is none."""
        best = self._best.get(_ANY)
        return best if like is None else self._best.get(network_of(like), best)

    def collapse(self, trial: TrialRecord) -> str | None:
        """Return why a fully trained trial looks collapsed, or None; see `collapse`."""
        return _below_source_only(trial, self._alike(trial)) or _target_collapse(trial.metrics, self.baseline(trial))

    def target_collapse(self, trial: TrialRecord) -> str | None:
        """Return why the predictions of a fully trained trial on the target look collapsed, or None."""
        return _target_collapse(trial.metrics, self.baseline(trial))

    def _alike(self, trial: TrialRecord) -> TrialRecord | None:
        """Return the source-only training that a trial must not be far below on the source, if there is one."""
        if not _fits_source(trial):
            return None
        seen = _seen(trial)
        return self._best_alike.get((network_of(trial), seen), self._best_alike.get((_ANY, seen)))


def network_of(trial: TrialRecord) -> str:
    """Return the network of a trial, as text."""
    return json.dumps(trial.config.get("model"), sort_keys=True)


def _seen(trial: TrialRecord) -> str:
    """Return how the network of a trial sees the source, as text."""
    return json.dumps([value_at(trial.config, path) for path in ("data.style", "target_batch_norm")], sort_keys=True)


def _fits_source(trial: TrialRecord) -> bool:
    from segda.methods import METHODS  # imports PyTorch, which who only looks at a sweep does without

    method = METHODS.get(method_name(trial))
    return method is None or method.fits_source(trial.config["method"])


def collapse(trial: TrialRecord, trials: Iterable[TrialRecord]) -> str | None:
    """Return why a trial looks collapsed, from label-free target figures and labelled source figures, or None.

    Args:
        trial: a fully trained trial.
        trials: all records of the sweep, for the source-only baseline; who asks about many trials makes a `Guard`.
    """
    return Guard(trials).collapse(trial)


def collapse_on_the_way(metrics: Mapping[str, float]) -> str | None:
    """Return why the predictions on the target look collapsed that one report of a training tells of, or None.

    Args:
        metrics: of the report.
    """
    return _target_collapse(metrics, None)


def _below_source_only(trial: TrialRecord, baseline: TrialRecord | None) -> str | None:
    source = finite(trial.metrics, SOURCE_MIOU)
    if baseline is None or source is None:
        return None
    limit = MIN_SHARE_OF_SOURCE_ONLY * baseline.metrics[SOURCE_MIOU]
    if source >= limit:
        return None
    return (
        f"{SOURCE_MIOU} {source:.1%} is below {limit:.1%}, {MIN_SHARE_OF_SOURCE_ONLY:g} of what source-only "
        f"trial {baseline.number} reaches, which sees the source in the same way"
    )


def _target_collapse(metrics: Mapping[str, float], baseline: TrialRecord | None) -> str | None:
    share = finite(metrics, LARGEST_CLASS_SHARE)
    if share is not None and share > MAX_CLASS_SHARE:
        return f"one class covers {share:.1%} of the target's pixels, more than {MAX_CLASS_SHARE:.0%}"
    return _too_many_missing(metrics, baseline) or _alarm(metrics, baseline)


def _too_many_missing(metrics: Mapping[str, float], baseline: TrialRecord | None) -> str | None:
    missing = finite(metrics, MISSING_CLASSES)
    num_classes = sum(name.startswith(_CLASS_PREFIX) for name in metrics)
    if missing is None or num_classes == 0:
        return None
    natural = finite(baseline.metrics, MISSING_CLASSES) if baseline is not None else None
    if natural is None:
        allowed, measure = MISSING_SHARE_WITHOUT_BASELINE * num_classes, "half of the classes"
    else:
        allowed = natural + max(1.0, EXTRA_MISSING_SHARE * num_classes)
        measure = f"{natural:.0f} missing in source-only trial {baseline.number if baseline else 0} plus a quarter"
    if missing > allowed:
        return f"{missing:.0f} of {num_classes} classes are missing in its target predictions; the limit is {measure}"
    return None


def _alarm(metrics: Mapping[str, float], baseline: TrialRecord | None) -> str | None:
    accuracy = finite(metrics, TRANSPORT_ACCURACY)
    natural = finite(baseline.metrics, TRANSPORT_ACCURACY) if baseline is not None else None
    if natural is not None:
        limit = MIN_SHARE_OF_TRANSPORT * natural
        measure = f"two thirds of what source-only trial {baseline.number if baseline else 0} has"
    else:
        limit = MIN_SHARE_OF_ACCURACY * (finite(metrics, SOURCE_ACCURACY) or 0.0)
        measure = "half of what is right on the source"
    if accuracy is None or accuracy >= limit:
        return None
    return (
        f"with the source's class shares at most {accuracy:.1%} of its target predictions could be right, below {limit:.1%}, "
        f"{measure}"
    )
