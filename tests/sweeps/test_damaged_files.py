"""Damaged configuration files; `benchmarks/fuzz_sweep_files.py` reads thousands of them."""

import numpy as np
import pytest
from mutations import SWEEPS, TRAININGS, mutations
from readings import read_sweep, read_training

from segda.datasets.external_labels import Job, Maps, write_external_labels

COUNT, SEED, SECONDS = 80, 20, 60.0


@pytest.mark.parametrize(
    ("files", "read"), [(SWEEPS, read_sweep), (TRAININGS, read_training)], ids=["sweep", "training"]
)
def test_a_damaged_file_is_refused_in_one_line_or_can_be_planned(tmp_path, files, read):
    path = tmp_path / "damaged.yaml"
    answers = []
    for _, content in mutations(files, count=COUNT, seed=SEED):
        path.write_bytes(content)
        answers.append(read(path, seconds=SECONDS))
    assert 0.5 * COUNT < sum(answer is not None for answer in answers) < COUNT


@pytest.fixture
def labels_of_students(tmp_path, monkeypatch):
    """Write the labels which `students_camvid.yaml` says are to be made first, of one image."""
    monkeypatch.chdir(tmp_path)
    job = Job(classes=("Sky",), names=("dusk",), images="f" * 64, size=(2, 2), confidence="margin", made_by={})
    maps = Maps(np.zeros((1, 2, 2), np.uint8), np.zeros((1, 2, 2), np.uint8))
    write_external_labels(tmp_path / "runs" / "camvid_labels", job, lambda first: [maps], progress=lambda done: None)


@pytest.mark.usefixtures("labels_of_students")
@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.name)
def test_what_is_not_damaged_is_accepted(file):
    assert read_sweep(file, seconds=SECONDS) is None
