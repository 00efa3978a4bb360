"""Damaged configuration files; `benchmarks/fuzz_sweep_files.py` reads thousands of them."""

import pytest
from mutations import SWEEPS, TRAININGS, mutations
from readings import read_sweep, read_training

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


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.name)
def test_what_is_not_damaged_is_accepted(file, labels_of_students, monkeypatch):
    monkeypatch.chdir(labels_of_students)
    assert read_sweep(file, seconds=SECONDS) is None
