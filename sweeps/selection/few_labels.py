"""Choosing among finalists by the labels of a few target images: which images to label, what to pick, how sure that is.

The first images are drawn at random, the others are those of which the leaders say the most different things: where networks agree
a label cannot tell them apart. Over tables of made-up networks twenty such images lose about what forty random ones do, where a few
images have most of the errors (`benchmarks/few_labels.py`); where they have not, nothing was saved.

The price: images that were taken because they are disputed are harder than most, so a figure over them says nothing of the target
as a whole. Only the random part does, and even that only of a network that these labels have not chosen. What is to be expected of
the pick is told by leaving out each random image once: it is judged by the network that all other labels would choose.

Regret is the mean IoU of the best finalist minus that of the pick. It is estimated by the bootstrap over images, with the choice
made anew in each resample: labelled images stand for the target, resamples for the labels that could have come. With more images in
a resample than there are it tells what more labels would buy. All labelled images enter, disputed ones too, so that is an estimate
over images like these.

Nothing here reads or writes; images are rows of arrays, finalists columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from sweeps.selection.confusions import Shares, hits_and_unions, mean_iou

RANDOM_IMAGES = 5  # drawn at random before any is chosen
ROUND = 5  # images that wait for a label at a time: the next ones depend on what these say
LEADERS = 3  # whose disagreement chooses images
FURTHER = 10  # labels more, of which the gain is foretold
TOO_FEW = 10  # labels below which the bootstrap tells losses too small (`benchmarks/few_labels.py`)
RESAMPLES = 400
MIN_INTERVAL = 3  # images without which a mean has no interval worth telling
_LEVEL = 0.95

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A mean IoU and its two-sided 95 % interval.

    Attributes:
        miou: over all pixels of the images.
        low, high: None of fewer than three images.
        images: how many.
    """

    miou: float
    low: float | None
    high: float | None
    images: int


@dataclass(frozen=True)
class Standing:
    """What the labels so far say.

    Attributes:
        order: finalists, best first by mean IoU over all labelled images.
        miou: of each finalist over all labelled images, in the finalists' own order.
        on_random: of each finalist over the random part; None without any label there.
        expected: of whatever the labels choose, over the random part, each image judged by the choice of all others; None with
            fewer than two images there.
        certainty: share of the resamples in which the pick is the best.
        regret: to be expected of a choice by so many labels.
        regret_bound: the regret of the pick that 95 % of the resamples stay below.
        regret_with_more: to be expected with `FURTHER` labels more.
    """

    order: tuple[int, ...]
    miou: tuple[float, ...]
    on_random: tuple[Interval, ...] | None
    expected: Interval | None
    certainty: float
    regret: float
    regret_bound: float
    regret_with_more: float

    @property
    def pick(self) -> int:
        """The finalist to use."""
        return self.order[0]


def miou_of(confusion: Counts | Shares, unscored: frozenset[int] = frozenset()) -> Shares:
    """Return mean IoUs in [0, 1] over the scored classes that appear in label or prediction.

    Args:
        confusion: pixel counts [..., C, C], rows are labels.
        unscored: train ids that are left out of the mean.

    Returns:
        [...]; 0 where no class appears.

    Example:
        >>> miou_of(np.array([[3, 1], [0, 4]])).tolist()
        0.775
    """
    return mean_iou(*hits_and_unions(confusion, unscored))


def random_images(total: int, *, seed: int, excluded: Sequence[int] = ()) -> list[int]:
    """Return the images that are labelled first, in the order of their draws.

    Args:
        total: images that there are.
        seed: of the sweep.
        excluded: images that must not be asked for.
    """
    drawn = np.random.default_rng((seed, total)).permutation(total).tolist()
    without = set(excluded)
    return [image for image in drawn if image not in without][:RANDOM_IMAGES]


def most_disputed(disagreement: Shares, leaders: Sequence[int], *, left: Sequence[int], count: int) -> list[int]:
    """Return images of which the leaders say the most different things, the most disputed first.

    Args:
        disagreement: share of the pixels in which two finalists differ, [images, finalists, finalists].
        leaders: finalists that are still to be told apart.
        left: images to choose from.
        count: how many at most.
    """
    pairs = disagreement[np.ix_(left, leaders, leaders)].sum(axis=(1, 2))
    first = np.argsort(-pairs, kind="stable")[:count]
    return [left[place] for place in first.tolist()]


def standing(confusions: Counts, is_random: Sequence[bool], *, seed: int, unscored: frozenset[int]) -> Standing:
    """Return what labels say; equal labels say the same whenever they are asked.

    Args:
        confusions: pixel counts of each labelled image and finalist, [images, finalists, C, C], rows are labels; finalists best
            first by what is known without labels, which decides between equals.
        is_random: whether each image was drawn at random.
        seed: of the sweep.
        unscored: train ids that are left out of the mean.

    Raises:
        ValueError: there is no image or no finalist.
    """
    images, finalists = confusions.shape[:2]
    if images == 0 or finalists == 0:
        raise ValueError("labels of at least one image are needed, and one finalist")
    figures = miou_of(confusions.sum(axis=0), unscored)
    order = np.argsort(-figures, kind="stable")
    rng = np.random.default_rng((seed, images))
    now = _resampled(confusions, images, rng, unscored)
    more = _resampled(confusions, images + FURTHER, rng, unscored)
    pick = int(order[0])
    shortfall = now.max(axis=1) - now[:, pick]
    drawn = np.flatnonzero(np.asarray(is_random, dtype=bool))
    return Standing(
        order=tuple(order.tolist()),
        miou=tuple(figures.tolist()),
        on_random=tuple(interval(confusions[drawn, place], unscored) for place in range(finalists))
        if drawn.size
        else None,
        expected=interval(_left_out(confusions, drawn, unscored), unscored) if drawn.size and images > 1 else None,
        certainty=float((now.argmax(axis=1) == pick).mean()),
        regret=_regret(figures, now),
        regret_bound=float(np.quantile(shortfall, _LEVEL)),
        regret_with_more=_regret(figures, more),
    )


def interval(confusions: Counts, unscored: frozenset[int]) -> Interval:
    """Return the mean IoU over images, with a 95 % interval for images like these.

    By the jackknife with Student's quantile: the images are few, and the mean IoU is a ratio of sums, of which the bootstrap's
    percentiles are too narrow then.

    Args:
        confusions: pixel counts of each image, [images, C, C].
        unscored: train ids that are left out of the mean.
    """
    images = len(confusions)
    whole = confusions.sum(axis=0)
    figure = float(miou_of(whole, unscored))
    if images < MIN_INTERVAL:
        return Interval(figure, None, None, images)
    without = miou_of(whole - confusions, unscored)
    error = float(np.sqrt((images - 1) / images * ((without - without.mean()) ** 2).sum()))
    half = float(stdtrit(images - 1, (1 + _LEVEL) / 2)) * error
    return Interval(figure, max(figure - half, 0.0), min(figure + half, 1.0), images)


def _resampled(confusions: Counts, size: int, rng: np.random.Generator, unscored: frozenset[int]) -> Shares:
    """Return the mean IoU of each finalist over resamples of the images, [resamples, finalists]."""
    images = len(confusions)
    weights = rng.multinomial(size, np.full(images, 1 / images), size=RESAMPLES)
    # As floating-point numbers, which hold such counts exactly and are multiplied many times faster than whole ones.
    return miou_of(np.tensordot(weights.astype(np.float64), confusions.astype(np.float64), axes=1), unscored)


def _regret(figures: Shares, resampled: Shares) -> float:
    """Return what choices by resamples lose on the average, were the figures of all labels the truth."""
    return float((figures.max() - figures[resampled.argmax(axis=1)]).mean())


def _left_out(confusions: Counts, drawn: NDArray[np.int64], unscored: frozenset[int]) -> Counts:
    """Return the pixel counts of each random image by the finalist that the labels of all other images choose, [random, C, C]."""
    others = confusions.sum(axis=0) - confusions[drawn]
    chosen = miou_of(others, unscored).argmax(axis=1)
    found: Counts = confusions[drawn, chosen]
    return found
