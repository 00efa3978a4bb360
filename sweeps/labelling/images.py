"""What finalists say of target images: where they differ, what most of them say, and the pictures that people correct.

The images are those of the target's training split, which every trial has seen without labels. No label is opened here.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segda.config import TrainConfig
from segda.config_problems import validated
from segda.datasets import DATASETS
from segda.datasets.base import Sample, SegmentationDataset, resolve_root
from segda.errors import ConfigError
from segda.files import replacing, sha256_of
from segda.loading import with_roots
from segda.pictures import color_table
from segda.prediction import predict_batch
from segda.progress import notices
from segda.splits import few_shot_names, open_split
from segda.trained import TrainedNetwork, make_ready
from segda.types import Pixels
from sweeps.execution.remote import CHECKPOINT, files_of
from sweeps.file.spec import SweepSpec
from sweeps.selection.confusions import Shares
from sweeps.store import Store
from sweeps.trial import TrialRecord

MOST_LOOKED_AT = 512  # images among which the most disputed are found, evenly spaced


@dataclass(frozen=True)
class TargetImages:
    """The target's training images.

    Attributes:
        dataset: how its files are read.
        samples: name -> image, in the data set's order; without those whose labels some finalist has learned from.
        domain: which domain of the data set.
        size: height and width at which predictions and labels are compared: the largest that a finalist was trained at.
        config: of the first finalist, with the folders of this machine's data.
    """

    dataset: SegmentationDataset
    samples: Mapping[str, Sample]
    domain: str
    size: tuple[int, int]
    config: TrainConfig


def target_images(trials: Sequence[TrialRecord], data_roots: Mapping[str, Path | str]) -> TargetImages:
    """Find the target's training images.

    Args:
        trials: the finalists.
        data_roots: name of a data set -> its folder.

    Raises:
        SegdaError: the data are not here.
    """
    configs = [
        with_roots(validated(TrainConfig, trial.config, where=f"trial {trial.number}"), data_roots) for trial in trials
    ]
    target = configs[0].data.target
    dataset = DATASETS[target.dataset]
    learned = {
        name
        for config in configs
        if config.data.few_shot is not None
        for name in few_shot_names(config.data.few_shot, config.data.target)
    }
    found = dataset.samples(resolve_root(target.dataset, target.root), domain=target.domain, split="train")
    return TargetImages(
        dataset=dataset,
        samples={sample.name: sample for sample in found if sample.name not in learned},
        domain=target.domain,
        size=max((config.data.height, config.data.width) for config in configs),
        config=configs[0],
    )


def looked_at(names: Sequence[str], drawn: Sequence[str]) -> list[str]:
    """Return the images that finalists are run over: evenly spaced ones, and those that were drawn; in the data set's order.

    Args:
        names: of all images.
        drawn: those that are wanted in any case.
    """
    places = np.unique(np.linspace(0, len(names) - 1, MOST_LOOKED_AT).round().astype(int))
    wanted = {names[place] for place in places} | set(drawn)
    return [name for name in names if name in wanted]


@contextmanager
def networks_of(
    trials: Sequence[TrialRecord],
    checkpoints: Sequence[str],
    *,
    spec: SweepSpec,
    store: Store,
) -> Iterator[list[TrainedNetwork]]:
    """Open the networks of finalists, all of them at a time.

    Args:
        trials: the finalists.
        checkpoints: SHA-256 that each file must have.
        spec: the sweep.
        store: where its files are.

    Raises:
        ConfigError: a checkpoint is not the one that labels were compared with.
        SegdaError: one is missing, damaged or cannot be brought here.
    """
    device = "auto" if spec.resources.num_gpus else "cpu"
    with ExitStack() as stack:
        networks = []
        for trial, expected in zip(trials, checkpoints, strict=True):
            path = stack.enter_context(files_of(trial, store=store, storage=spec.storage)) / CHECKPOINT
            if digest_at(path) != expected:
                raise ConfigError(
                    f"{path} is missing or not the network that was compared; bring it back, or move {store.labels(spec.name)} "
                    "away and begin again with its answers in --labels-from"
                )
            networks.append(make_ready(path, None, device=device, precision="auto"))
        yield networks


def digest_at(path: Path) -> str | None:
    """Return the SHA-256 of a checkpoint; None where there is none."""
    return sha256_of(path) if path.is_file() else None


def look(
    networks: Sequence[TrainedNetwork], images: TargetImages, names: Sequence[str]
) -> Iterator[tuple[str, Pixels]]:
    """Yield what networks predict for images, each with its name: uint8 [networks, H, W].

    Args:
        networks: the finalists.
        images: the target's.
        names: which of them.

    Raises:
        SegdaError: an image cannot be read, or does not fit on a device.
    """
    config = images.config
    height, width = images.size
    config = config.model_copy(update={"data": config.data.model_copy(update={"height": height, "width": width})})
    watched = notices().is_terminal
    split = open_split(config, config.data.target, "train", with_labels=False, samples=names, progress=watched)
    for index, name in enumerate(split.names):
        yield name, np.stack([_predicted(network, split.images[index : index + 1]) for network in networks])


def _predicted(network: TrainedNetwork, image: Pixels) -> Pixels:
    size = (network.config.data.height, network.config.data.width)
    found: Pixels = predict_batch(network.segmenter, image, size=size, device=network.device, dtype=network.dtype)[0]
    return found


def disagreement_of(maps: Pixels) -> Shares:
    """Return the share of pixels in which each two networks differ, float64 [networks, networks].

    Example:
        >>> disagreement_of(np.array([[[0, 1]], [[0, 1]], [[0, 2]]], dtype=np.uint8)).tolist()
        [[0.0, 0.0, 0.5], [0.0, 0.0, 0.5], [0.5, 0.5, 0.0]]
    """
    return np.array([[float((one != other).mean()) for other in maps] for one in maps])


def majority_of(maps: Pixels, num_classes: int) -> Pixels:
    """Return the class that most networks see at each pixel, uint8 [H, W]; of equals the smallest train id."""
    votes: NDArray[np.int64] = np.stack([(maps == train_id).sum(axis=0) for train_id in range(num_classes)])
    found: Pixels = votes.argmax(axis=0).astype(np.uint8)
    return found


def write_draft(path: Path, label: Pixels, *, size: tuple[int, int], dataset: SegmentationDataset) -> None:
    """Write a label to be corrected: an indexed PNG of train ids in the data set's colors.

    Args:
        path: the file.
        label: train ids, uint8 [H, W].
        size: height and width of the image.
        dataset: has the colors.
    """
    enlarged = cv2.resize(label, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    picture = Image.fromarray(enlarged)
    picture.putpalette(color_table(dataset.palette).tobytes())
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")


def pool_identity(checkpoints: Sequence[str], names: Sequence[str], size: tuple[int, int]) -> str:
    """Return what decides how finalists differ on images."""
    return hashlib.sha256("\n".join([*checkpoints, *names, f"{size[0]}x{size[1]}"]).encode()).hexdigest()


Say = Callable[[str], None]
