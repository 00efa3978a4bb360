"""Which decoded images a run reads, and what each is for."""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from segda.config import DataConfig, DomainConfig, FewShotConfig, TrainConfig
from segda.datasets import DATASETS
from segda.datasets.base import resolve_root
from segda.datasets.cache import DecodedSplit, decoded_split
from segda.datasets.external_labels import ExternalMaps, open_external_labels
from segda.errors import ConfigError, DatasetNotFoundError
from segda.files import expanded
from segda.methods import METHODS
from segda.types import IGNORE_INDEX


class Splits(NamedTuple):
    """The decoded images of a run, by what they are for."""

    labeled: DecodedSplit  # supervised training images: the source's, or the target's for an upper bound
    target: DecodedSplit  # target training images, decoded without labels
    source_val: DecodedSplit
    source_test: DecodedSplit | None
    oracle: DecodedSplit | None  # the target's labelled split; read for reports only
    few_shot: DecodedSplit | None  # the few target training images whose labels a few-shot method may use
    source: DecodedSplit  # the source's training images, in whose labels classes are counted; `labeled`, but for upper bounds
    external: ExternalMaps | None = None  # what something else says of the target training images


def open_split(
    config: TrainConfig,
    domain: DomainConfig,
    name: str,
    *,
    with_labels: bool,
    samples: Sequence[str] | None = None,
    progress: bool = False,
) -> DecodedSplit:
    """Decode (or find in the cache) one split at the size of a run's images.

    Args:
        config: the run.
        domain: its source or target.
        name: split of the domain.
        with_labels: whether to decode labels; otherwise no label file is opened.
        samples: names of the samples to decode, of which alone files are opened; None: all.
        progress: whether to draw a progress bar while decoding.

    Raises:
        DatasetNotFoundError: if the root, split or list is missing.
        CorruptSampleError: if a sample cannot be used.
    """
    return _decoded(config.data, domain, name, with_labels=with_labels, samples=samples, progress=progress)


def open_target(data: DataConfig, *, size: tuple[int, int] | None = None, progress: bool = False) -> DecodedSplit:
    """Decode (or find in the cache) the target's training images, without opening a label.

    Args:
        data: says which they are.
        size: height and width to decode to; None: those of `data`.
        progress: whether to draw a progress bar while decoding.

    Raises:
        DatasetNotFoundError: if the root, split or list is missing.
        CorruptSampleError: if a sample cannot be used.
    """
    return _decoded(data, data.target, "train", with_labels=False, size=size, progress=progress)


def _decoded(
    data: DataConfig,
    domain: DomainConfig,
    name: str,
    *,
    with_labels: bool,
    samples: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    progress: bool = False,
) -> DecodedSplit:
    height, width = size or (data.height, data.width)
    return decoded_split(
        DATASETS[domain.dataset],
        resolve_root(domain.dataset, domain.root),
        domain=domain.domain,
        split=name,
        height=height,
        width=width,
        with_labels=with_labels,
        names=samples,
        cache=data.cache,
        progress=progress,
    )


def open_splits(config: TrainConfig, *, progress: bool = False) -> Splits:
    """Decode (or find in the cache) the images that a run reads.

    Args:
        config: the run.
        progress: whether to draw a progress bar while decoding.

    Returns:
        The decoded splits.

    Raises:
        DatasetNotFoundError: if a root, split or list is missing.
        CorruptSampleError: if a sample cannot be used.
        ConfigError: if the source domain has no validation split, or the target none that can be scored; if labels that are
            learned from or validated on are void alone.
    """

    def split(domain: DomainConfig, name: str, *, labels: bool) -> DecodedSplit:
        return open_split(config, domain, name, with_labels=labels, progress=progress)

    def labelled(domain: DomainConfig, name: str) -> DecodedSplit:
        return _with_a_label(split(domain, name, labels=True), f"split {name} of {domain.domain} in {domain.dataset}")

    source, target = config.data.source, config.data.target
    source_splits = DATASETS[source.dataset].splits(source.domain)
    source_report = DATASETS[source.dataset].report_split
    if "val" not in source_splits:
        raise ConfigError(
            f"source domain {source.domain} of {source.dataset} has no validation split (it has {', '.join(source_splits)}); "
            "choose a source domain with one"
        )
    target_report = DATASETS[target.dataset].report_split
    if config.oracle != "never" and target_report not in DATASETS[target.dataset].splits(target.domain):
        raise ConfigError(f"target domain {target.domain} of {target.dataset} has no labelled split; set oracle: never")
    has_test = source_report != "val" and source_report in source_splits
    target_train = split(target, "train", labels=False)
    source_train = labelled(source, "train")
    on_source = METHODS[config.method.name].supervision == "source"
    return Splits(
        labeled=source_train if on_source else labelled(target, "train"),
        target=target_train,
        source_val=labelled(source, "val"),
        source_test=split(source, source_report, labels=True) if has_test else None,
        oracle=split(target, target_report, labels=True) if config.oracle != "never" else None,
        few_shot=_few_shot(config, progress=progress),
        source=source_train,
        external=_external(config, target_train),
    )


def _external(config: TrainConfig, target: DecodedSplit) -> ExternalMaps | None:
    """Open the external labels of a run, if it has some, and compare them with the images that it reads."""
    chosen, data = config.data.external_labels, config.data
    if chosen is None:
        return None
    if chosen.folder is None:
        raise DatasetNotFoundError(
            f"where are the external labels with the digest {chosen.digest[:16]}? say it in data.external_labels.folder"
        )
    labels = open_external_labels(expanded(chosen.folder), digest=chosen.digest)
    job = labels.record.job
    for what, has, wanted in (
        ("size (height x width)", "{}x{}".format(*job.size), f"{data.height}x{data.width}"),
        ("classes", ", ".join(job.classes), ", ".join(DATASETS[data.target.dataset].classes)),
        ("images (fingerprint)", job.images[:16], target.fingerprint[:16]),
    ):
        if has != wanted:
            raise ConfigError(
                f"external labels in {labels.folder} have other {what} than the target training images of this run: {has}, not "
                f"{wanted}; label these with `segda teach`"
            )
    METHODS[config.method.name].check_external_labels(config.method, has_confidences=labels.has_confidences)
    return labels


def _few_shot(config: TrainConfig, *, progress: bool) -> DecodedSplit | None:
    """Open the few labelled target images of a run, if it has some; no other label of the target's training images is read."""
    few, target = config.data.few_shot, config.data.target
    if few is None:
        return None
    names = few_shot_names(few, target)
    opened = open_split(config, target, "train", with_labels=True, samples=names, progress=progress)
    return _with_a_label(opened, f"few-shot images of {target.domain} in {target.dataset}")


def _with_a_label(split: DecodedSplit, where: str) -> DecodedSplit:
    """Refuse labels of which nothing can be learned; the first image nearly always answers."""
    if split.labels is None or any(np.any(label != IGNORE_INDEX) for label in split.labels):
        return split
    raise ConfigError(
        f"{where}: the labels of all {len(split)} images are void, expected classes; `segda datasets verify` tells which ids the "
        "files hold"
    )


def few_shot_names(few: FewShotConfig, target: DomainConfig) -> tuple[str, ...]:
    """Return the target training images whose labels a few-shot method may use: as many as wanted in all, or of each scene.

    Args:
        few: says which, or how they are drawn.
        target: whose images they are.

    Raises:
        DatasetNotFoundError: if the root, split or list is missing.
        ConfigError: there are fewer than wanted, or scenes are not known.
    """
    if few.names:
        return few.names
    dataset = DATASETS[target.dataset]
    found = dataset.samples(resolve_root(target.dataset, target.root), domain=target.domain, split="train")
    names = [sample.name for sample in found]
    if few.per == "image":
        where = f"the training split of {target.domain} in {target.dataset}"
        return _drawn_of(names, few.images, rng=np.random.default_rng(few.seed), where=where)
    scenes: dict[str, list[str]] = {}
    for name in names:
        scene = dataset.scene(name)
        if scene is None:
            raise ConfigError(
                f"few_shot asks for images per scene, and {target.dataset} does not say which scene {name} is of; "
                "use per: image, or give names"
            )
        scenes.setdefault(scene, []).append(name)
    # Each scene has draws of its own, so that another one more or less changes nothing for it.
    drawn = [
        _drawn_of(
            members,
            few.images,
            rng=np.random.default_rng((few.seed, *scene.encode())),
            where=f"scene {scene} in the training split of {target.domain} in {target.dataset}",
        )
        for scene, members in scenes.items()
    ]
    return tuple(name for part in drawn for name in part)


def _drawn_of(names: Sequence[str], number: int, *, rng: np.random.Generator, where: str) -> tuple[str, ...]:
    if number > len(names):
        raise ConfigError(f"few_shot asks for {number} images, {where} has {len(names)}; ask for fewer")
    # The first ones of an order: who asks for more gets these and others, so that numbers of images can be compared.
    return tuple(names[index] for index in sorted(rng.permutation(len(names))[:number]))


def what_is_read(config: TrainConfig) -> str:
    """Return what decides which images and labels a run reads: as long as files stay, equal ones have equal data fingerprints.

    The block `data` alone does not: methods that are supervised on the target read its labels, and a run may score no target.

    Args:
        config: the run.
    """
    parts = [config.data.model_dump(mode="json"), METHODS[config.method.name].supervision, config.oracle == "never"]
    return json.dumps(parts, sort_keys=True)


def data_fingerprint(config: TrainConfig, *, progress: bool = False) -> str:
    """Return a hash of the contents of every split that a run reads; decodes what is not in the cache yet.

    Args:
        config: the run.
        progress: whether to draw a progress bar while decoding.

    Returns:
        16 hexadecimal digits; the same wherever the data lie.
    """
    return splits_fingerprint(open_splits(config, progress=progress))


def splits_fingerprint(splits: Splits) -> str:
    """Return a hash of the contents of opened splits, 16 hexadecimal digits."""
    text = json.dumps([split.fingerprint if split is not None else None for split in splits])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
