"""Shared by all tests: where real data may lie, and miniature data to train on."""

import os
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def camvid_root() -> Path:
    """Root of the real CamVid; the test is skipped where it is not at hand."""
    root = Path(os.environ.get("SEGDA_CAMVID_ROOT", REPOSITORY.parent / "shared" / "data" / "camvid"))
    if not (root / "trainannot").is_dir():
        pytest.skip("the real CamVid is not here; set SEGDA_CAMVID_ROOT to its folder")
    return root


@pytest.fixture(scope="session", autouse=True)
def _one_thread_from_the_start() -> None:
    """What fixtures of modules train must give the same sums as what tests train."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests run beside each other: one thread each, and the same sums whatever the machine and the tests before."""
    torch.set_num_threads(1)
