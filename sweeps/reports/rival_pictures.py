"""The picked network and its rivals on the same images of the target: pictures that are made once and kept beside the report.

The images are those where the networks disagree most, of a few evenly spaced ones; to find them takes no label. They are of the
target's training split, whose labels nobody opens. Only a sweep that chooses by target labels (`selection: oracle`) shows any: its
images are then of the labelled split that it chose by.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from segda.config import TrainConfig
from segda.config_problems import validated
from segda.datasets import DATASETS
from segda.datasets.base import resolve_root
from segda.datasets.cache import DecodedSplit
from segda.errors import SegdaError
from segda.files import write_json
from segda.loading import with_roots
from segda.masking import reason
from segda.side_by_side import SeenImage, seen_by, worst_first
from segda.splits import open_split
from segda.trained import make_ready
from sweeps.execution.digests import file_digest
from sweeps.execution.remote import CHECKPOINT
from sweeps.labels import method_label, model_label
from sweeps.reports.formats import PERCENT
from sweeps.reports.marks import mark
from sweeps.reports.table import Column, Table, table_of
from sweeps.reports.tiles import legend_uri, map_uri, photo_uri, share_uri
from sweeps.reports.trial_details import data_roots
from sweeps.reports.view import SweepView
from sweeps.store import Store
from sweeps.suggestions import suggest
from sweeps.trial import TrialRecord

logger = logging.getLogger(__name__)

FILE = "pictures.json"  # in the sweep's folder
MOST_RIVALS = 3
MOST_IMAGES = 6
LOOKED_AT = 32  # evenly spaced images among which the worst are found
_VERSION = 1  # raise when pictures are made in another way


@dataclass(frozen=True)
class Tile:
    """One picture.

    Attributes:
        caption: what it shows.
        uri: the picture as a data URI.
    """

    caption: str
    uri: str


@dataclass(frozen=True)
class PicturedImage:
    """One target image with what networks say of it.

    Attributes:
        name: of the sample.
        disagreement: mean share of the networks that are not of the majority, in [0, 1).
        confidences: mean probability of each network's predicted class, in [0, 1].
        tiles: image, label where it may be shown, disagreement.
        networks: of each network its prediction and its confidence.
    """

    name: str
    disagreement: float
    confidences: tuple[float, ...]
    tiles: tuple[Tile, ...]
    networks: tuple[tuple[Tile, Tile], ...]


@dataclass(frozen=True)
class RivalPictures:
    """The pictures, or why there are none.

    Attributes:
        images: worst first.
        legend: the classes in their colors, as a data URI; empty without images.
        split: which images were looked at.
        notes: what is missing and why, one sentence each.
    """

    images: tuple[PicturedImage, ...] = ()
    legend: str = ""
    split: str = ""
    notes: tuple[str, ...] = ()

    @property
    def table(self) -> Table:
        """Their figures: a row per image."""
        captions = [prediction.caption for prediction, _ in self.images[0].networks] if self.images else []
        return table_of(
            self.images,
            [
                (Column("image", "image"), lambda image: image.name),
                (Column("disagreement", "disagreement", PERCENT, "%"), lambda image: image.disagreement),
                *(
                    (
                        Column(f"confidence_{place}", f"{caption}: confidence", PERCENT, "%"),
                        lambda image, place=place: image.confidences[place],
                    )
                    for place, caption in enumerate(captions)
                ),
            ],
        )


def rival_pictures(view: SweepView, store: Store, *, draws: bool) -> RivalPictures:
    """Return the pictures of a sweep; those that lie in its folder are taken if they are of the same networks.

    Args:
        view: the sweep.
        store: where its files are.
        draws: whether to make pictures that are not there, which runs each network over a few images.
    """
    if view.picked is None:
        return RivalPictures(notes=("No pictures: there is no pick yet.",))
    if view.is_driven:
        return RivalPictures(notes=("No pictures yet: they are made when the sweep has ended.",))
    networks, notes = _networks(view, store)
    if not networks:
        return RivalPictures(notes=notes)
    path = store.sweep(view.record.name) / FILE
    try:
        identity = _identity(view, networks)
        kept = _kept(path, identity)
        if kept is None:
            if not draws:
                again = suggest("report", view.record.name)
                return RivalPictures(notes=(*notes, f"No pictures: the sweep ended early; {again} makes them."))
            kept = _drawn(view, networks)
            _keep(path, identity, kept)
    # A report that lacks pictures says why, and has all the rest.
    except (SegdaError, OSError, RuntimeError, ValueError) as error:
        return RivalPictures(notes=(*notes, f"No pictures: {reason(error)}."))
    return RivalPictures(kept.images, kept.legend, kept.split, notes)


def rivals_of(view: SweepView) -> list[TrialRecord]:
    """Return the picked trial and those that rank next, by the sweep's own criterion."""
    by_number = {trial.number: trial for trial in view.trials}
    ranked = [by_number[number] for number in view.selection.ranked]
    others = [trial for trial in ranked if trial is not view.picked]
    return [trial for trial in (view.picked, *others[:MOST_RIVALS]) if trial is not None]


def _networks(view: SweepView, store: Store) -> tuple[list[tuple[TrialRecord, Path]], tuple[str, ...]]:
    """Return the trials that have a checkpoint here, and a note about those that have none."""
    found = [(trial, store.trial(trial) / CHECKPOINT) for trial in rivals_of(view)]
    there = [(trial, path) for trial, path in found if path.is_file()]
    missing = [str(trial.number) for trial, path in found if not path.is_file()]
    if not there:
        return [], (f"No pictures: the checkpoints of trials {', '.join(missing)} are not in {store.root}.",)
    if found[0] not in there:
        return [], (f"No pictures: the checkpoint of the picked trial {missing[0]} is not in {store.root}.",)
    return there, (
        f"Left out: trials {', '.join(missing)}, whose checkpoints are not in {store.root}.",
    ) if missing else ()


def _identity(view: SweepView, networks: Sequence[tuple[TrialRecord, Path]]) -> dict[str, Any]:
    """Return what decides how the pictures look, as plain data."""
    data = view.results.get(networks[0][0].number, {}).get("data_fingerprint")
    weights = [[trial.number, file_digest(path)] for trial, path in networks]
    return {"version": _VERSION, "networks": weights, "data": data, "labels": _shows_labels(view)}


def _shows_labels(view: SweepView) -> bool:
    return view.spec.selection == "oracle"


def _kept(path: Path, identity: dict[str, Any]) -> RivalPictures | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["identity"] != identity:
            return None
        images = tuple(
            PicturedImage(
                name=image["name"],
                disagreement=image["disagreement"],
                confidences=tuple(image["confidences"]),
                tiles=tuple(Tile(**tile) for tile in image["tiles"]),
                networks=tuple(
                    (Tile(**prediction), Tile(**confidence)) for prediction, confidence in image["networks"]
                ),
            )
            for image in content["images"]
        )
        return RivalPictures(images, content["legend"], content["split"])
    except (OSError, ValueError, LookupError, TypeError):  # none yet, or not whole
        return None


def _keep(path: Path, identity: dict[str, Any], pictures: RivalPictures) -> None:
    images = [asdict(image) for image in pictures.images]
    try:
        write_json(path, {"identity": identity, "split": pictures.split, "legend": pictures.legend, "images": images})
    except OSError as error:  # a store that is only read
        logger.warning("the pictures are made anew with the next report: %s", error)


def _drawn(view: SweepView, networks: Sequence[tuple[TrialRecord, Path]]) -> RivalPictures:
    picked = networks[0][0]
    config = with_roots(
        validated(TrainConfig, picked.config, where=f"trial {picked.number}"), data_roots(picked.config)
    )
    split, where = _images(config, with_labels=_shows_labels(view))
    device = "auto" if view.spec.resources.num_gpus else "cpu"
    opened = [partial(make_ready, path, None, device=device, precision=config.precision) for _, path in networks]
    dataset = DATASETS[config.data.target.dataset]
    worst = worst_first(seen_by(opened, split))[:MOST_IMAGES]
    trials = [trial for trial, _ in networks]
    return RivalPictures(
        images=tuple(_pictured(seen, trials, picked=picked, palette=dataset.palette) for seen in worst),
        legend=legend_uri(dataset.palette, dataset.classes),
        split=f"{len(split)} evenly spaced images of {where}",
    )


def _images(config: TrainConfig, *, with_labels: bool) -> tuple[DecodedSplit, str]:
    """Decode a few evenly spaced images of the target, and tell of which split; labels are opened only if they are asked for."""
    target = config.data.target
    dataset = DATASETS[target.dataset]
    name = dataset.report_split if with_labels else "train"
    samples = dataset.samples(resolve_root(target.dataset, target.root), domain=target.domain, split=name)
    places = np.unique(np.linspace(0, len(samples) - 1, LOOKED_AT).round().astype(int))
    chosen = [samples[place].name for place in places]
    split = open_split(config, target, name, with_labels=with_labels, samples=chosen)
    return split, f"{target.dataset} / {target.domain} {name}"


def _pictured(
    seen: SeenImage, trials: Sequence[TrialRecord], *, picked: TrialRecord, palette: Sequence[tuple[int, int, int]]
) -> PicturedImage:
    tiles = [Tile("image", photo_uri(seen.image))]
    if seen.label is not None:
        tiles.append(Tile("label (oracle)", map_uri(seen.label, palette)))
    if len(trials) > 1:
        tiles.append(Tile(f"disagreement, mean {100 * seen.mean_disagreement:.1f} %", share_uri(seen.disagreement)))
    networks = []
    for place, trial in enumerate(trials):
        name = f"{'picked: ' if trial is picked else ''}trial {trial.number}{mark(trial)}"
        what = f"{name}, {method_label(trial)}, {model_label(trial)}"
        sure = f"trial {trial.number}: confidence, mean {100 * seen.mean_confidences[place]:.1f} %"
        prediction = Tile(what, map_uri(seen.predictions[place], palette))
        networks.append((prediction, Tile(sure, share_uri(seen.confidences[place].astype(np.float32) / 255))))
    return PicturedImage(seen.name, seen.mean_disagreement, seen.mean_confidences, tuple(tiles), tuple(networks))
