"""The pick in words: what it is worth on the target, where it lies, the commands that use it, and what to try next."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segda.datasets import DATASETS
from segda.errors import SegdaError
from sweeps.execution.remote import CHECKPOINT
from sweeps.labels import format_value
from sweeps.metrics import CRITERIA, TARGET_MIOU, finite
from sweeps.paths import value_at
from sweeps.reports.formats import percent
from sweeps.reports.seed_formats import interval
from sweeps.reports.standing_tables import closed_share
from sweeps.reports.text import edge
from sweeps.reports.trial_details import data_roots
from sweeps.reports.view import SweepView
from sweeps.selection.pool import voteless
from sweeps.selection.reasons import shown_figure
from sweeps.suggestions import remembered
from sweeps.trial import TrialRecord

# A training whose figure still rises by as much at its last report would be better for more steps.
_STILL_RISING = 0.02


@dataclass(frozen=True)
class PickGuide:
    """What to do with the picked network.

    Attributes:
        worth: what it is worth on the target; None where nobody labelled that.
        corrected: what the figure that chose it is worth with the choice taken into account; None where that is not known.
        passed_over: which better trials a rule has kept from being picked, and which rule, in sentences.
        checkpoint: the file with its weights; None where no such file is at hand.
        commands: what a command is for -> the command, to be copied. Paths are absolute.
        next_steps: what to try next, by what the sweep shows.
    """

    worth: str | None
    corrected: str | None
    passed_over: tuple[str, ...]
    checkpoint: Path | None
    commands: dict[str, str]
    next_steps: tuple[str, ...]


def pick_guide(view: SweepView) -> PickGuide | None:
    """Return what to do with the pick of a sweep; None without one.

    Args:
        view: the sweep.
    """
    trial = view.picked
    if trial is None:
        return None
    folder = view.folders.get(trial.number)
    checkpoint = folder / CHECKPOINT if folder is not None and (folder / CHECKPOINT).is_file() else None
    commands = {} if checkpoint is None else _commands(view, trial, checkpoint)
    next_steps = tuple(_next_steps(view, trial))
    return PickGuide(worth_line(view), corrected_line(view), tuple(passed_over(view)), checkpoint, commands, next_steps)


def worth_line(view: SweepView) -> str | None:
    """Return what the picked network gained over none, and how much of the way to the upper bound that is.

    Figures are over further seeds where pick and baseline have them, else of the seed of the search, which chose the pick.

    Args:
        view: the sweep.

    Returns:
        None without a pick, or where nobody labelled the target.
    """
    value = _target(view.picked)
    if view.picked is None or value is None:
        return None
    row = next((row for row in view.standings if row.trial is view.picked and row.gain is not None), None)
    if row is not None and row.target is not None and row.gain is not None:
        how = f"{row.gain.n} further seeds"
        value, share = row.target.mean, row.closed
        gained: float | None = row.gain.mean
        between = f" ({interval(row.gain)})" if row.gain.low is not None else ""
    else:
        how, between = "one seed, which chose it", ""
        start = _target(view.baseline) if view.baseline is not view.picked else None
        gained = None if start is None else value - start
        share = closed_share(value, low=start, high=_target(view.upper_bound))
    parts = [f"{percent(value)} % mIoU on the target"]
    if gained is not None and view.baseline is not None:
        parts.append(f"{100 * gained:+.1f} points{between} against {_name(view.baseline)}")
    if share is not None and view.upper_bound is not None:
        parts.append(f"{share:.0%} of the way to {_name(view.upper_bound)}, which had target labels")
    read = "" if view.spec.selection == "oracle" else "; target labels tell this and chose nothing"
    return f"{', '.join(parts)} ({how}{read})"


def corrected_line(view: SweepView) -> str | None:
    """Return what the figure by which the sweep chose is worth on images that did not choose.

    Args:
        view: the sweep.

    Returns:
        None where the sweep's criterion is no mean IoU over labelled images, or too few of them are known.
    """
    found = view.criterion.worth
    if found is None or view.criterion.used != view.criterion.criterion:
        return None
    return (
        f"The best of {found.candidates} candidates by {found.images} images has {percent(found.naive)} % "
        f"{CRITERIA[view.criterion.used]} on them, which flatters it: on images that did not choose it is worth "
        f"{percent(found.value)} % (95 % of the draws from {percent(found.low)} to {percent(found.high)})."
    )


def passed_over(view: SweepView) -> Iterator[str]:
    """Yield which better trials a rule has kept from being picked, and which rule: one sentence each, the best first.

    Better is more target mean IoU than the pick has, or, where nobody labelled the target, more of what the sweep chose by; both
    with the search's seed.

    Args:
        view: the sweep.
    """
    picked = view.picked
    if picked is None:
        return
    metric = TARGET_MIOU if _target(picked) is not None else CRITERIA[view.selection.used]
    own = picked.metrics[metric]
    ruled_out = {number: f"could not be picked: {why}" for number, why in view.selection.rejected}
    if view.selection.used == "ensv":
        ruled_out |= {number: f"had no vote: {why}" for number, why in voteless(view.trials).items()}
    found = [
        (value, trial)
        for trial in view.trials
        if trial.number in ruled_out and (value := finite(trial.metrics, metric)) is not None and value > own
    ]
    for value, trial in sorted(found, key=lambda item: -item[0]):
        figures = f"{metric} {shown_figure(metric, value)}, the pick {shown_figure(metric, own)}"
        yield f"Trial {trial.number} is better ({figures}) and {ruled_out[trial.number]}."


def _target(trial: TrialRecord | None) -> float | None:
    return None if trial is None else finite(trial.metrics, TARGET_MIOU)


def _name(trial: TrialRecord) -> str:
    return trial.name or f"trial {trial.number}"


def _commands(view: SweepView, trial: TrialRecord, checkpoint: Path) -> dict[str, str]:
    roots = [word for name, root in data_roots(trial.config).items() for word in ("--data-root", f"{name}={root}")]
    name = view.record.name
    place = replace(remembered(), store=checkpoint.parents[3])  # named in any case: a report is read from anywhere
    image = _target_image(trial)
    found = {
        "predict": ["segda", "predict", checkpoint, image or "photo.jpg", "classes.png", "--overlay"],
        "export": ["segda", "export", checkpoint, f"{name}.onnx", *roots],
    }
    return {
        **{what: shlex.join(map(str, words)) for what, words in found.items()},
        "ship": place.command("deploy", name, *roots),
    }


def _target_image(trial: TrialRecord) -> Path | None:
    """Return an image of the labelled target split; None where its files are not here."""
    side: dict[str, Any] = value_at(trial.config, "data.target") or {}
    dataset = DATASETS.get(str(side.get("dataset")))
    if dataset is None or not side.get("root"):
        return None
    try:
        samples = dataset.samples(Path(side["root"]), domain=str(side["domain"]), split=dataset.report_split)
    except (SegdaError, OSError):
        return None
    return samples[0].image if samples else None


def _next_steps(view: SweepView, trial: TrialRecord) -> Iterator[str]:
    if view.picked_seeds is None:
        yield "further training seeds (seeds and finalists in the sweep file): one seed chose it, and says nothing of luck"
    for path, value in trial.params.items():
        end = edge(view.spec, path, value)
        if end is not None:
            yield f"a wider range of {path}: {format_value(value)} lies at the {end} of it"
    curve = view.curves.get(trial.number, ())
    if len(curve) > 1 and curve[-1][1] - curve[-2][1] > _STILL_RISING:
        gain = 100 * (curve[-1][1] - curve[-2][1])
        yield f"more steps: between its last two reports source validation still rose by {gain:.1f} points"
    choices = [row.picked for row in view.criteria if row.criterion != "oracle"]
    others = sorted({other.number for other in choices if other is not None and other is not trial})
    if others:
        yield f"a look at what other criteria pick: trial {', '.join(map(str, others))}"
    if (trial.device or "").startswith("cpu"):
        yield "a GPU, with larger images, more steps and more trials"
