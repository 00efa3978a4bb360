"""Shared by all tests: where real data may lie, and miniature data to train on."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from segda import catalog, guests
from segda.datasets.external_labels import Job, Maps, write_external_labels

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY / "tests"))  # forked.py

# Ray lets its workers compute only when nobody else does: here other tests always do.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's spelling

HEAVY = frozenset((REPOSITORY / "tests" / "heavy.txt").read_text().split())


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick", action="store_true", help="leave out the files of tests/heavy.txt, which take seconds each"
    )


# They take minutes, most of them in one test: at the end a single worker would be left with them.
LONGEST = ("test_readme.py", "test_automation.py", "test_examples.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    first = [REPOSITORY / "tests" / name for name in LONGEST]
    items.sort(key=lambda item: first.index(item.path) if item.path in first else len(first))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --quick, do not even import what starts Ray, MLflow, a database or a training."""
    is_heavy = config.getoption("--quick") and str(collection_path.relative_to(REPOSITORY)) in HEAVY
    return True if is_heavy else None


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


@pytest.fixture
def labels_of_students(tmp_path: Path) -> Path:
    """Write the labels that `students_camvid.yaml` says are to be made first, of one image, and return where `runs` lies."""
    job = Job(classes=("Sky",), names=("dusk",), images="f" * 64, size=(2, 2), confidence="margin", made_by={})
    maps = Maps(np.zeros((1, 2, 2), np.uint8), np.zeros((1, 2, 2), np.uint8))
    write_external_labels(tmp_path / "runs" / "camvid_labels", job, lambda first: [maps], progress=lambda done: None)
    return tmp_path


@pytest.fixture
def guest_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which modules are found during the test, and forgotten after it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(guests, "_folders", [])
    before = set(sys.modules)
    folder = tmp_path / "guests"
    folder.mkdir()
    guests.make_importable([folder])
    yield folder
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def install(guest_folder: Path) -> Iterator[Callable[..., None]]:
    """Make a package with these entry points look installed; its modules lie in `guest_folder`."""

    def install(package: str, entry_points: str, version: str = "1.2") -> None:
        folder = guest_folder / f"{package}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        (folder / "entry_points.txt").write_text(entry_points)
        catalog.all_entry_points.cache_clear()

    yield install
    catalog.all_entry_points.cache_clear()
