"""Which rule for labels at another size is right, which trains better, and what does it cost?

    python benchmarks/label_resizing.py CAMVID [--steps 200] [--seeds 0 1]

Three rules take turns: `area` (segda's: the class that covers most of a pixel), `center` (the label's pixel nearest to the center)
and `corner` (OpenCV's `INTER_NEAREST`, the upper left one; segda's until it was found to shift labels). Measured are the labels
themselves, against the areas and, enlarged again as predictions are, against the files, which is what a network reaches that has
learned them perfectly; milliseconds beside decoding an image with its label; and short trainings, BiSeNet on the trunk whose
weights come with the installation, CamVid by day at 120 x 160 with flips, scored at 360 x 480 on labels that nobody resized, so
that no rule judges itself.

Found, as mean IoU (Pole):

|                                       | area         | center       | corner       |
| ------------------------------------- | ------------ | ------------ | ------------ |
| 120 x 160 against areas               | 1            | 0.976 (0.88) | 0.885 (0.53) |
| enlarged from 120 x 160               | 0.917 (0.64) | 0.916 (0.63) | 0.875 (0.51) |
| enlarged from 180 x 240               | 0.940 (0.76) | 0.928 (0.71) | 0.928 (0.71) |
| trained for 200 steps, seed 0         | 0.346 (0.05) | 0.335 (0.05) | 0.354 (0.05) |
| trained for 200 steps, seed 1         | 0.345 (0.00) | 0.345 (0.00) | 0.346 (0.00) |

So labels by area lose least, most of all at even factors, where no pixel is in the center. Trainings of 200 steps are far from
where labels bound them (0.9) and do not tell the rules apart: they differ as much from seed to seed. The cost is 1.2 ms an image,
once for each size, beside 4 ms for reading image and label.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import torch
from torch.nn import functional

from segda.config import TrainConfig
from segda.datasets import DATASETS
from segda.loading import load_config
from segda.metrics import ConfusionMatrix, SegmentationMetrics
from segda.prediction import predict_image
from segda.resizing import resize_image, resize_label
from segda.trained import make_ready
from segda.training import train
from segda.types import IGNORE_INDEX, Pixels

SIZE = (120, 160)
CAMVID = DATASETS["camvid"]
THIN = ("Pole", "SignSymbol", "Pedestrian")


def corner(label: Pixels, size: tuple[int, int]) -> Pixels:
    """Take the upper left pixel of each area."""
    return np.asarray(cv2.resize(label, size[::-1], interpolation=cv2.INTER_NEAREST))


def center(label: Pixels, size: tuple[int, int]) -> Pixels:
    """Take the pixel in the middle of each area."""
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(label.shape, size, strict=True))
    return label[rows][:, columns]


RULES: dict[str, Callable[[Pixels, tuple[int, int]], Pixels]] = {
    "area": resize_label,
    "center": center,
    "corner": corner,
}


def show(rule: str, metrics: SegmentationMetrics) -> None:
    """Print the mean IoU and that of thin classes."""
    thin = ", ".join(f"{name} {metrics.iou_per_class[CAMVID.classes.index(name)]:.3f}" for name in THIN)
    print(f"{rule:8} mIoU {metrics.miou:.3f}, {thin}")


def compare_labels(root: Path) -> None:
    """Score the labels of each rule against the areas and, enlarged again, against the files; time rules and decoding."""
    samples = [
        sample for split in ("train", "val", "test") for sample in CAMVID.samples(root, domain="all", split=split)
    ][::3]
    small, large = ({rule: ConfusionMatrix(len(CAMVID.classes)) for rule in RULES} for _ in range(2))
    spent: dict[str, list[float]] = {name: [] for name in ("decode", "image", *RULES)}
    for sample in samples:
        began = time.perf_counter()
        image, label = CAMVID.read(sample, with_label=True)
        spent["decode"].append(time.perf_counter() - began)
        began = time.perf_counter()
        resize_image(image, SIZE)
        spent["image"].append(time.perf_counter() - began)
        assert label is not None
        areas, stored = torch.from_numpy(resize_label(label, SIZE)), torch.from_numpy(label.copy())
        for rule, resize in RULES.items():
            began = time.perf_counter()
            resized = torch.from_numpy(np.ascontiguousarray(resize(label, SIZE)))
            spent[rule].append(time.perf_counter() - began)
            known = resized != IGNORE_INDEX
            small[rule].update(torch.where(known, resized, 0), torch.where(known, areas, IGNORE_INDEX))
            large[rule].update(enlarge(resized, stored.shape), stored)
    for title, counts in (("against areas", small), ("enlarged, against the files", large)):
        for rule in RULES:
            print(f"labels {title}: ", end="")
            show(rule, counts[rule].compute())
    print(", ".join(f"{name} {1000 * statistics.median(times):.2f} ms" for name, times in spent.items()))


def enlarge(label: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Return the prediction of a network that is sure of a label: scores are scaled bilinearly, as in `predict_image`."""
    scores = functional.one_hot(label.long().clamp(max=len(CAMVID.classes)))[..., : len(CAMVID.classes)]
    larger = functional.interpolate(scores.permute(2, 0, 1)[None].float(), size, mode="bilinear", align_corners=False)
    return larger[0].argmax(0)


def train_with(rule: str, config: TrainConfig, *, root: Path, folder: Path) -> SegmentationMetrics:
    """Train on labels of a rule, and score at full size."""
    with mock.patch("segda.datasets.cache.resize_label", RULES[rule]):
        train(config, lambda *_: None, folder=folder)
    network = make_ready(folder / "checkpoint.pt", None, device="cpu", precision="auto")
    counts = ConfusionMatrix(len(CAMVID.classes))
    for sample in CAMVID.samples(root, domain="all", split="test")[::3]:
        image, label = CAMVID.read(sample, with_label=True)
        prediction = predict_image(network.segmenter, image, size=SIZE, dtype=network.dtype)
        counts.update(torch.from_numpy(prediction), torch.from_numpy(np.asarray(label)))
    return counts.compute()


def main() -> None:
    """Compare labels, costs and trainings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("camvid", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    arguments = parser.parse_args()
    compare_labels(arguments.camvid)
    for seed in arguments.seeds:
        for rule in RULES:
            with tempfile.TemporaryDirectory() as folder:
                domain = {"dataset": "camvid", "root": str(arguments.camvid)}
                config = load_config(
                    {
                        "data": {
                            "source": domain | {"domain": "day"},
                            "target": domain | {"domain": "dusk"},
                            "height": SIZE[0],
                            "width": SIZE[1],
                            "augmentation": "aug1",
                            "cache": f"{folder}/cache",
                        },
                        "model": {"name": "bisenet_v1", "backbone": "efficientnet_lite0"},
                        "method": {"name": "source_only"},
                        "loss": {"name": "dice"},  # cross-entropy takes far more steps to predict a thin class at all
                        "optimizer": {"name": "adam", "lr": 1e-3},
                        "steps": arguments.steps,
                        "report_every": arguments.steps,
                        "batch_size": 8,
                        "seed": seed,
                        "oracle": "never",
                        "validators": [],
                    }
                )
                print(f"seed {seed}, ", end="", flush=True)
                show(rule, train_with(rule, config, root=arguments.camvid, folder=Path(folder) / "run"))


if __name__ == "__main__":
    main()
