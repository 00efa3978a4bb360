"""Miniature copies of published folder layouts, and the command line as a function."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from PIL import Image

from segda.cli import cli
from segda.cli_errors import run_cli
from segda.discriminators import FCD

SIDE = 64  # pixels


class Outcome(NamedTuple):
    """How a command line ended."""

    code: int
    output: str
    errors: str


@pytest.fixture
def segda(capsys) -> Callable[..., Outcome]:
    """Run `segda` with the given words in this process, as its entry point does."""

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_cli(cli, [str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(int(ended.value.code), captured.out, captured.err)

    return run


def write_loveda(root: Path) -> Path:
    """Write three training and two validation tiles of each domain in LoveDA's layout; rural is darker than urban."""
    generator = np.random.default_rng(0)
    for split, count in (("Train", 3), ("Val", 2)):
        for domain, brightness in (("Urban", 1.0), ("Rural", 0.6)):
            folder = root / split / domain
            (folder / "images_png").mkdir(parents=True)
            (folder / "masks_png").mkdir()
            for number in range(count):
                stored = generator.integers(0, 8, (4, 4), dtype=np.uint8).repeat(SIDE // 4, 0).repeat(SIDE // 4, 1)
                color = np.stack([stored * 30, 255 - stored * 30, stored * 20], axis=2) * brightness
                Image.fromarray(color.astype(np.uint8)).save(folder / "images_png" / f"{number}.png")
                Image.fromarray(stored).save(folder / "masks_png" / f"{number}.png")
    return root


def write_camvid(root: Path) -> Path:
    """Write a few frames of each sequence in the layout of SegNet's copy of CamVid."""
    generator = np.random.default_rng(1)
    frames = {
        "train": ("0006R0_000001", "0016E5_000001", "0001TP_000001"),
        "val": ("0016E5_000002",),
        "test": ("Seq05VD_000001", "0001TP_000002"),
    }
    for split, names in frames.items():
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for name in names:
            label = generator.integers(0, 12, (4, 4), dtype=np.uint8).repeat(SIDE // 4, 0).repeat(SIDE // 4, 1)
            image = np.stack([label * 20, 255 - label * 20, label * 10], axis=2)
            Image.fromarray(image).save(root / split / f"{name}.png")
            Image.fromarray(label).save(root / f"{split}annot" / f"{name}.png")
    return root


def write_config(path: Path, *, dataset: str = "loveda", source: str = "urban", target: str = "rural") -> Path:
    """Write a training configuration of two steps on the miniature data."""
    config = {
        "data": {
            "source": {"dataset": dataset, "domain": source},
            "target": {"dataset": dataset, "domain": target},
            "height": SIDE,
            "width": SIDE,
        },
        "model": {"pretrained": "none"},
        "method": {"name": "source_only"},
        "steps": 2,
        "batch_size": 2,
        "precision": "fp32",
        "device": "cpu",
    }
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


class Miniatures(NamedTuple):
    """The writers of this file, for tests that damage what they write."""

    loveda: Callable[[Path], Path] = write_loveda
    camvid: Callable[[Path], Path] = write_camvid
    config: Callable[..., Path] = write_config


@pytest.fixture
def miniatures() -> Miniatures:
    return Miniatures()


@pytest.fixture
def narrow_discriminator(monkeypatch) -> None:
    """Make the usual discriminator of 45,000 weights in the place of 2.8 million, where its width does not matter."""
    monkeypatch.setattr(FCD, "hidden", (8, 16, 32, 64))


class Trained(NamedTuple):
    """A finished run on the miniature LoveDA."""

    root: Path
    config: Path
    folder: Path
    cache: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Trained:
    """Train once by the command line; tests that only read share the run."""
    base = tmp_path_factory.mktemp("trained")
    run = Trained(write_loveda(base / "loveda"), write_config(base / "tiny.yaml"), base / "run", base / "cache")
    words = ["train", run.config, "--folder", run.folder, "--data-root", f"loveda={run.root}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGDA_CACHE", str(run.cache))
        with pytest.raises(SystemExit) as ended:
            run_cli(cli, [str(word) for word in words])
    assert ended.value.code == 0
    return run
