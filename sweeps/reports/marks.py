"""Marks of trials that were not trained or measured as the others.

† in micro-batches, ‡ with the labels of some target images, § in half precision with very few images at once. ¶ is about the
network: its latency was not measured alone. ‖ is about the method: it is a reconstruction of what its paper may be.

The mark stands beside the trial's number in every table that it enters, and one line of the page says what it means. What is
known of a method only PyTorch can tell, which is slow to import; who only looks at a sweep does without ‖ (`of_methods`).
"""

from collections.abc import Iterable

from sweeps.labels import listed, method_name
from sweeps.metrics import has_doubts
from sweeps.paths import value_at
from sweeps.suggestions import suggest
from sweeps.trial import TrialRecord

FEWER_IMAGES = "†"
FEW_SHOT = "‡"
ROUNDED = "§"
IN_COMPANY = "¶"
RECONSTRUCTED = "‖"
SIGNS = (FEWER_IMAGES, FEW_SHOT, ROUNDED, IN_COMPANY, RECONSTRUCTED)  # as they stand beside each other


def mark(trial: TrialRecord, *, of_methods: bool = True) -> str:
    """Return what stands beside a trial's number; empty for most trials.

    Args:
        trial: its record.
        of_methods: whether to look its method up.
    """
    signs = {
        FEWER_IMAGES: trial.micro_batch is not None,
        FEW_SHOT: target_labels(trial) != "",
        ROUNDED: _is_rounded(trial),
        IN_COMPANY: has_doubts(trial.profile),
        RECONSTRUCTED: of_methods and is_reconstruction(trial),
    }
    return "".join(sign for sign in SIGNS if signs[sign])


def _is_rounded(trial: TrialRecord) -> bool:
    """Tell whether a trial asked for half precision where `auto` would not choose it."""
    if value_at(trial.config, "precision") not in ("bf16", "fp16"):
        return False
    from segda.batch_norm import MIN_IMAGES_AT_ONCE  # imports PyTorch

    return int(trial.config["batch_size"]) < MIN_IMAGES_AT_ONCE


def is_reconstruction(trial: TrialRecord) -> bool:
    """Tell whether a trial's method, or what it is put on, is a reconstruction."""
    return _reconstructed(trial) is not None


def _reconstructed(trial: TrialRecord) -> str | None:
    from segda.methods import METHODS  # imports PyTorch

    for name in (method_name(trial), value_at(trial.config, "method.host.name")):
        method = None if name is None else METHODS.get(name)
        if method is not None and method.reconstruction:
            return str(name)
    return None


def meanings(trials: Iterable[TrialRecord], *, processes: int, of_methods: bool = True) -> dict[int, dict[str, str]]:
    """Return number of trial -> its marks and what they mean; empty for most trials.

    Args:
        trials: records of one sweep.
        processes: see `explained`.
        of_methods: see `explained`.
    """
    return {trial.number: explained(trial, processes=processes, of_methods=of_methods) for trial in trials}


def target_labels(trial: TrialRecord) -> str:
    """Return which target images a few-shot method had the labels of, e.g. `5 target images`; empty for the others."""
    few = value_at(trial.config, "data.few_shot")
    if not few:
        return ""
    number = len(few["names"]) if few.get("names") else int(few.get("images", 1))
    images = f"{number} target image{'' if number == 1 else 's'}"
    return f"{images} of each scene" if few.get("per") == "scene" else images


def explained(trial: TrialRecord, *, processes: int, of_methods: bool = True) -> dict[str, str]:
    """Return mark -> what it means for a trial.

    Args:
        trial: its record.
        processes: processes that shared each of its batches; batch normalization sees the images of all of them.
        of_methods: whether to look its method up.

    Example:
        >>> from sweeps.trial import TrialKind
        >>> config = {"batch_size": 16, "precision": "bf16", "data": {"few_shot": {"images": 5}}}
        >>> trial = TrialRecord("demo", 0, "key", TrialKind.SEARCH, {}, config, 0, micro_batch=4)
        >>> for mark, text in explained(trial, processes=1).items():
        ...     print(mark, text)
        † trained with 4 images at once instead of 16: batch normalization saw fewer images
        ‡ trained with the labels of 5 target images
    """
    found = {}
    if trial.micro_batch is not None:
        at_once = trial.micro_batch * processes
        found[FEWER_IMAGES] = (
            f"trained with {at_once} images at once instead of {trial.config['batch_size']}: batch normalization saw fewer images"
        )
    labels = target_labels(trial)
    if labels:
        found[FEW_SHOT] = f"trained with the labels of {labels}"
    if _is_rounded(trial):
        found[ROUNDED] = (
            f"trained in {trial.config['precision']} with {trial.config['batch_size']} images at once: batch normalization of "
            "pooled maps amplifies the rounding, gradients deviate"
        )
    if has_doubts(trial.profile):
        found[IN_COMPANY] = (
            "latency and fps are not reliable: others computed on the device, or it was slower most of the time than in its "
            f"fastest tenth; no constraint and no front is decided by them, and {suggest('profile', trial.sweep)} "
            "measures them again"
        )
    reconstructed = _reconstructed(trial) if of_methods else None
    if reconstructed is not None:
        found[RECONSTRUCTED] = (
            f"{reconstructed} is a reconstruction: neither code nor full text of its paper could be had, so this says little "
            "about the paper"
        )
    return found


def footnotes(trials: Iterable[TrialRecord], *, processes: int, of_methods: bool = True) -> list[str]:
    """Return what the marks of some trials mean, one line for each meaning; none if no trial is marked.

    Args:
        trials: records of one sweep.
        processes: see `explained`.
        of_methods: see `explained`.
    """
    meant: dict[tuple[str, str], list[int]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        for sign, text in explained(trial, processes=processes, of_methods=of_methods).items():
            meant.setdefault((sign, text), []).append(trial.number)
    return [
        f"{sign} {text} (trial{'s' if len(numbers) > 1 else ''} {listed(numbers)})."
        for (sign, text), numbers in sorted(meant.items())
    ]
