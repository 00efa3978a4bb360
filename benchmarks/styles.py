"""What does a style step cost per image, beside the augmentation that every image gets anyway?

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/styles.py [--rounds 9]

The steps take turns on one processor core; the median processor time of a step is compared with that of the recipe
`scale_crop_color` in the same round. Images are noise with a gradient: no step looks for anything in them.

Found, in times of the recipe, which takes 1.2 ms at 180 x 240 and 7.6 ms at 512 x 1024:

|                       | 180 x 240 | 512 x 1024 |
| --------------------- | --------- | ---------- |
| channel_statistics    | 0.2       | 0.4        |
| lab                   | 2.6       | 2.1        |
| histogram             | 3.0       | 3.5        |
| covariance            | 1.1       | 1.9        |
| fda, beta 0.01 / 0.09 | 0.6 / 1.0 | 1.3 / 2.5  |
| amplitude_mix         | the same  | the same   |
"""

import argparse
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np

from segda.transforms import build_recipe
from segda.transforms.styles import STYLES, build_style
from segda.types import Pixels

SIZES = ((180, 240), (512, 1024))
BETAS = (0.01, 0.09)
RECIPE = "scale_crop_color"


def image(size: tuple[int, int], seed: int) -> Pixels:
    """Return a noisy gradient, uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    gradient = np.linspace(0, 160, size[1])[None, :, None] * rng.uniform(0.3, 1, 3)
    return (gradient + rng.integers(0, 90, (*size, 3))).astype(np.uint8)


def calls(size: tuple[int, int]) -> dict[str, Callable[[], object]]:
    """Return what is measured, by name."""
    source, target = image(size, 0), image(size, 1)
    rng = np.random.default_rng(0)
    found: dict[str, Callable[[], object]] = {}
    for name, kind in STYLES.usable().items():
        for beta in BETAS if "beta" in kind.Config.model_fields else (None,):
            settings = {"name": name} if beta is None else {"name": name, "beta": beta}
            style = build_style(kind.Config.model_validate(settings))
            if style is not None:
                shown = name if beta is None else f"{name} {beta}"
                found[shown] = lambda style=style: style(source, target, rng=rng)  # type: ignore[misc]
    recipe = build_recipe(RECIPE, height=size[0], width=size[1])
    found[RECIPE] = lambda: recipe(source, None, seed=int(rng.integers(1000)))
    return found


def main() -> None:
    """Print a row per step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    cv2.setNumThreads(0)
    for size in SIZES:
        measured = calls(size)
        seconds: dict[str, list[float]] = {name: [] for name in measured}
        for number in range(rounds + 1):
            for name, call in measured.items():
                start = time.process_time()
                call()
                if number:  # the first round warms up
                    seconds[name].append(time.process_time() - start)
        base = statistics.median(seconds[RECIPE])
        print(f"{size[0]} x {size[1]}: {RECIPE} {1000 * base:.1f} ms")
        for name, own in seconds.items():
            print(f"  {name:20s} {1000 * statistics.median(own):6.1f} ms  x {statistics.median(own) / base:.2f}")


if __name__ == "__main__":
    main()
