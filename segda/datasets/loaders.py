"""Batches from decoded splits: for training an endless, repeatable stream of draws; for scoring the split in order.

Training draws are stateless. The n-th draw of a stream is fixed by (seed, n): which sample it is by the permutation of its
epoch or by a class that it contains (`segda.datasets.sampling`), how it is augmented by its own random seed. So a run that goes
on at step s draws what it would have drawn, and the number of loader processes changes nothing.
"""

import multiprocessing
import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segda.datasets.cache import DecodedSplit
from segda.datasets.sampling import ATTEMPTS, RareClasses
from segda.errors import ConfigError
from segda.sockets import choose_socket_folder
from segda.transforms import Augmentation, build_recipe
from segda.transforms.styles import Style
from segda.types import IGNORE_INDEX, IMAGE_MEAN, IMAGE_STD, Pixels

UNCLAIMED = 254  # in labels that tell padding, which is void, from pixels of an image without a label
_PREFETCHED_BATCHES = 4


class RawBatch(NamedTuple):
    """A batch as it lies in memory before it goes to the device.

    Attributes:
        image: RGB, uint8 [B, 3, H, W] in channels_last memory.
        label: train ids, uint8 [B, H, W], 255 is void; None if the split was decoded without labels.
        weight: of each label pixel in 255ths, uint8 [B, H, W]; None if the split has none.
    """

    image: Tensor
    label: Tensor | None
    weight: Tensor | None = None


class Styling(NamedTuple):
    """What gives the images of a stream the look of others.

    Attributes:
        style: how.
        partners: where the look comes from, of the same size; labels are not looked at.
    """

    style: Style
    partners: DecodedSplit


def training_batches(
    split: DecodedSplit,
    *,
    recipe: str,
    size: tuple[int, int],
    batch_size: int,
    seed: int,
    start_step: int = 0,
    steps: int,
    workers: int = 0,
    rank: int = 0,
    ranks: int = 1,
    pinned: bool = False,
    marks_padding: bool = False,
    drawn: Sequence[int] | None = None,
    rare: RareClasses | None = None,
    styling: Styling | None = None,
) -> Generator[RawBatch, None, None]:
    """Yield augmented batches; every epoch is a new permutation, and a batch may reach over the end of an epoch.

    Args:
        split: decoded images; may be smaller than a batch, whose samples then repeat.
        recipe: name of an augmentation recipe.
        size: height and width in pixels of a batch.
        batch_size: images per batch.
        seed: of the draws. Streams that shall be independent need different seeds.
        start_step: batches of the stream to leave out.
        steps: number of batches to yield, beginning with batch `start_step`.
        workers: processes that augment; 0: a background thread.
        rank: which part of each batch to yield, from 0.
        ranks: equal parts that each batch is cut into. Readers of all parts together see what one reader of whole batches sees.
        pinned: whether a GPU will fetch the batches: they lie in page-locked memory then. That takes CUDA.
        marks_padding: whether labels, which a split without any has too then, tell what recipes pad: void is padding alone, and
            pixels of an image without a label are `UNCLAIMED`.
        drawn: numbers of the samples to draw, ascending, as if the split had no others; None: all.
        rare: draws the samples, which then repeat within an epoch; None: every sample comes once in an epoch.
        styling: gives whole images the look of others, each that of a random one, before the recipe; None: they keep their own.

    Returns:
        A generator. Closing it, or reading it to its end, ends thread and processes.

    Raises:
        ConfigError: a split is empty, images and partners differ in size, or a number is out of range.
    """
    samples = np.arange(len(split.names)) if drawn is None else np.asarray(drawn, dtype=np.int64)
    if not len(samples) or (styling is not None and not styling.partners.names):
        raise ConfigError("no batches can be drawn from an empty split; choose another split or data set")
    if batch_size < 1 or start_step < 0 or steps < 0 or workers < 0 or seed < 0:
        raise ConfigError(
            "batches need batch_size >= 1 and start_step, steps, workers, seed >= 0; got "
            f"batch_size {batch_size}, start_step {start_step}, steps {steps}, workers {workers}, seed {seed}"
        )
    if not 0 <= rank < ranks or batch_size % ranks:
        raise ConfigError(
            f"a batch of {batch_size} cannot be cut into {ranks} equal parts of which to read number {rank}; "
            "parts are counted from 0 and their number divides batch_size"
        )
    if styling is not None and styling.partners.images.shape[1:] != split.images.shape[1:]:
        raise ConfigError(
            f"images of {split.images.shape[1]}x{split.images.shape[2]} (height x width) cannot take the look of images of "
            f"{styling.partners.images.shape[1]}x{styling.partners.images.shape[2]}; decode both to one size"
        )
    height, width = size
    draws = _Draws(
        split,
        build_recipe(recipe, height=height, width=width),
        samples=samples,
        seed=seed,
        marks_padding=marks_padding,
        rare=None if rare is None else rare.among(samples),
        styling=styling,
    )
    batches = _BatchNumbers(batch_size, range(start_step, start_step + steps), rank, ranks)
    if workers:
        return _from_workers(draws, batches, workers, pinned=pinned)
    return _from_thread(draws, batches, pinned=pinned)


def evaluation_batches(split: DecodedSplit, *, batch_size: int) -> Iterator[RawBatch]:
    """Yield the whole split in its order without augmentation; the last batch may be smaller.

    Args:
        split: decoded images.
        batch_size: images per batch.

    Raises:
        ConfigError: batch_size is not positive.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    for start in range(0, len(split.names), batch_size):
        # The map is read-only and torch tensors are not, hence the copy.
        image = np.array(split.images[start : start + batch_size])
        label = None if split.labels is None else torch.from_numpy(np.array(split.labels[start : start + batch_size]))
        yield RawBatch(torch.from_numpy(image).permute(0, 3, 1, 2), label)


def normalize(image: Tensor) -> Tensor:
    """Subtract ImageNet's mean and divide by its standard deviation, on the tensor's device.

    Args:
        image: RGB 0..255, uint8 or float [B, 3, H, W].

    Returns:
        float32 [B, 3, H, W] in the memory format of the input.
    """
    scale, offset = _scale_and_offset(image.device)
    return torch.addcmul(offset, image.float(), scale)


def denormalize(image: Tensor) -> Tensor:
    """Undo `normalize`, on the tensor's device.

    Args:
        image: normalized, float [B, 3, H, W].

    Returns:
        RGB 0..255, float32 [B, 3, H, W] in the memory format of the input.
    """
    scale, offset = _scale_and_offset(image.device)
    return (image.float() - offset) / scale


@lru_cache(maxsize=32)
def _scale_and_offset(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return 1 / std and -mean / std, float32 [1, 3, 1, 1]."""
    # Kept per device: making them anew would wait for a copy from the host in every step.
    with torch.inference_mode(mode=False):
        mean = torch.tensor(IMAGE_MEAN, dtype=torch.float64).reshape(1, 3, 1, 1)
        std = torch.tensor(IMAGE_STD, dtype=torch.float64).reshape(1, 3, 1, 1)
        return (1 / std).to(device, torch.float32), (-mean / std).to(device, torch.float32)


class _Drawn(NamedTuple):
    """Samples on their way into a batch: image uint8 [B, H, W, 3], label uint8 [B, H, W], or [B, H, W, 2] with weights."""

    image: Tensor
    label: Tensor | None


class _Draws(Dataset[tuple[Pixels, Pixels | None]]):
    """The stream of draws, by number."""

    def __init__(
        self,
        split: DecodedSplit,
        augmentation: Augmentation,
        *,
        samples: npt.NDArray[np.int64],
        seed: int,
        marks_padding: bool,
        rare: RareClasses | None,
        styling: Styling | None,
    ) -> None:
        self._split = split
        self._marks_padding = marks_padding
        self._augmentation = augmentation
        self._samples = samples  # numbers of those that are drawn
        self._styling = styling
        self._seed = seed
        self._rare = rare
        self._epoch = -1
        self._permutation: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def __getitem__(self, draw: int) -> tuple[Pixels, Pixels | None]:
        if self._rare is not None:
            return self._with_rare_class(draw, self._rare)
        epoch, position = divmod(draw, len(self._samples))
        if epoch != self._epoch:
            rng = np.random.default_rng((self._seed, epoch))
            self._epoch, self._permutation = epoch, rng.permutation(self._samples)
        index = int(self._permutation[position])
        # The third number keeps the seeds of augmentation, rare classes and style apart from each other and from the permutations'.
        own_seed = int(np.random.SeedSequence((self._seed, draw, 1)).generate_state(1)[0])
        return self._augmented(self._image(index, draw), index, seed=own_seed)

    def _with_rare_class(self, draw: int, rare: RareClasses) -> tuple[Pixels, Pixels]:
        """Return an image for a class, augmented anew until enough of the class is left; the best of some attempts otherwise."""
        index, train_id = rare.draw(np.random.default_rng((self._seed, draw, 2)))
        enough, most, best = rare.enough(index, train_id), -1, None
        whole = self._image(index, draw)
        for attempt in range(ATTEMPTS):
            own_seed = int(np.random.SeedSequence((self._seed, draw, 1, attempt)).generate_state(1)[0])
            image, label = self._augmented(whole, index, seed=own_seed)
            assert label is not None
            pixels = int(np.count_nonzero(label == train_id))
            if pixels > most:
                most, best = pixels, (image, label)
            if pixels >= enough:
                break
        assert best is not None
        return best

    def _augmented(self, image: Pixels, index: int, *, seed: int) -> tuple[Pixels, Pixels | None]:
        return self._augmentation(image, self._label(index), seed=seed)

    def _image(self, index: int, draw: int) -> Pixels:
        """Return an image, uint8 [H, W, 3], in the look of a random partner if it is drawn to get one."""
        # Views of the memory map: of an image that keeps its look, only the pixels that the recipe keeps are ever read.
        image = np.asarray(self._split.images[index])
        if self._styling is None:
            return image
        style, partners = self._styling
        rng = np.random.default_rng((self._seed, draw, 3))
        if rng.random() >= style.config.probability:
            return image
        partner = np.asarray(partners.images[rng.integers(len(partners))])
        return style(image, partner, rng=rng)

    def _label(self, index: int) -> Pixels | None:
        """Return a label, uint8 [H, W]; with its weights as a second channel, to be augmented alike, where there are some."""
        labels, weights = self._split.labels, self._split.weights
        if labels is None:
            return np.full(self._split.images.shape[1:3], UNCLAIMED, dtype=np.uint8) if self._marks_padding else None
        label = np.asarray(labels[index])
        if self._marks_padding:
            label = np.where(label == IGNORE_INDEX, np.uint8(UNCLAIMED), label)
        return label if weights is None else np.stack([label, weights[index]], axis=2)


@dataclass(frozen=True)
class _BatchNumbers:
    """The draw numbers of each batch, or of one of its equal parts."""

    batch_size: int
    steps: range
    rank: int
    ranks: int

    def __iter__(self) -> Iterator[list[int]]:
        part = self.batch_size // self.ranks
        for step in self.steps:
            first = step * self.batch_size + self.rank * part
            yield list(range(first, first + part))

    def __len__(self) -> int:
        return len(self.steps)


def _stack(items: Sequence[Pixels], *, pinned: bool) -> Tensor:
    """Copy samples into one new tensor, in page-locked memory if a GPU will fetch it."""
    stacked = torch.empty((len(items), *items[0].shape), dtype=torch.uint8, pin_memory=pinned)
    np.stack(items, out=stacked.numpy())
    return stacked


def _collate(items: Sequence[tuple[Pixels, Pixels | None]], *, pinned: bool = False) -> _Drawn:
    labels = [label for _, label in items if label is not None]
    return _Drawn(
        _stack([image for image, _ in items], pinned=pinned), _stack(labels, pinned=pinned) if labels else None
    )


def _finish(drawn: _Drawn) -> RawBatch:
    # Channels last is what the stacked images already are: only the strides change places.
    image, label = drawn.image.permute(0, 3, 1, 2), drawn.label
    return RawBatch(image, label) if label is None or label.ndim == 3 else RawBatch(image, *label.unbind(3))


def _from_thread(draws: _Draws, batches: _BatchNumbers, *, pinned: bool) -> Generator[RawBatch, None, None]:
    """Augment in one background thread, a few batches ahead."""
    ready: queue.Queue[_Drawn | BaseException] = queue.Queue(_PREFETCHED_BATCHES)
    closed = threading.Event()

    def put(item: _Drawn | BaseException) -> None:
        while not closed.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            # The cores belong to the network; one sample is too small to be shared out.
            cv2.setNumThreads(0)
            for numbers in batches:
                if closed.is_set():
                    return
                put(_collate([draws[number] for number in numbers], pinned=pinned))
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=produce, name="segda-batches", daemon=True)
    thread.start()
    try:
        for _ in range(len(batches)):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield _finish(item)
    finally:
        closed.set()
        thread.join()


def _from_workers(
    draws: _Draws, batches: _BatchNumbers, workers: int, *, pinned: bool
) -> Generator[RawBatch, None, None]:
    """Augment in processes, which live as long as the generator."""
    if not len(batches):
        return
    # Forking a process that runs threads (CUDA, Ray, MLflow) can deadlock the child, hence a server that forks for it. It
    # imports the libraries once for all workers.
    choose_socket_folder()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    loader = DataLoader(
        draws,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pinned,
        worker_init_fn=_start_worker,
        prefetch_factor=2,
        multiprocessing_context=context,
        # A generator of its own, or the loader would draw from the global one that also initializes networks.
        generator=torch.Generator(),
    )
    # One iterator over the whole stream: the processes persist without `persistent_workers`.
    for drawn in loader:
        yield _finish(drawn)


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)
