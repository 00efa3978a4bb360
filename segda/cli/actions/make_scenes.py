"""What `segda datasets make scenes` does."""

import sys
from pathlib import Path
from typing import Literal

from segda.cli.output import output
from segda.datasets.scenes import generate_scenes


def make_scenes_action(
    root: Path, size: int, train: int, val: int, seed: int, image_format: Literal["png", "tif"]
) -> None:
    """Do `segda datasets make scenes`; the arguments are the command's."""
    generate_scenes(
        root,
        size=size,
        train=train,
        val=val,
        seed=seed,
        image_format=image_format,
        progress=sys.stderr.isatty(),
    )
    output().print(f"written: {root}", highlight=False, soft_wrap=True)
