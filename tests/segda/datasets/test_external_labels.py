"""The folder of external labels: exact figures, whole or absent, resumed byte for byte, and compared before it is believed."""

import fcntl
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from segda.datasets import external_labels
from segda.datasets.external_labels import (
    ExternalMaps,
    Job,
    Maps,
    confidences_of_levels,
    digest_in,
    levels_of,
    open_external_labels,
    write_external_labels,
)
from segda.errors import ConfigError, CorruptSampleError, DatasetNotFoundError

COUNT, SIZE, CLASSES = 7, (6, 8), ("a", "b", "c", "absent", "once")


def job(confidence: str = "margin", **made_by: object) -> Job:
    return Job(
        classes=CLASSES,
        names=tuple(f"image{number}" for number in range(COUNT)),
        images="f" * 64,
        size=SIZE,
        confidence=confidence,
        made_by=made_by,
    )


def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Return labels and levels of all images: one image all void, one class absent, one with a single pixel."""
    generator = np.random.default_rng(3)
    label = generator.integers(0, 3, (COUNT, *SIZE), dtype=np.uint8)
    level = np.minimum(generator.integers(0, 400, (COUNT, *SIZE)), 255).astype(np.uint8)  # many are as sure as can be
    label[2] = 255
    label[4, 1, 1:5] = 255
    label[5, 0, 0] = 4
    return label, level


def pieces(first: int, *, size: int = 2, until: int = COUNT, confident: bool = True) -> Iterator[Maps]:
    label, level = drawn()
    for start in range(first, COUNT, size):
        if start >= until:
            raise InterruptedError
        part = slice(start, start + size)
        yield Maps(label[part], level[part] if confident else None)


def write(folder: Path, wanted: Job | None = None, **options: object) -> ExternalMaps:
    return write_external_labels(
        folder, wanted or job(), lambda first: pieces(first, **options), progress=lambda done: None
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_levels_are_fine_where_confidences_crowd():
    table = confidences_of_levels().astype(np.float64)
    assert (table[0], table[255]) == (0, 1)
    assert (np.diff(table) > 0).all()
    expected = 1 - ((255 - np.arange(256)) / 255) ** 2
    assert np.allclose(table, expected, atol=1e-7)
    assert np.array_equal(levels_of(expected), np.arange(256))
    confidence = np.random.default_rng(0).uniform(0, 1, 10_000) ** 0.05
    error = np.abs(table[levels_of(confidence)] - confidence)
    # Half a step of the root of the doubt.
    assert (error <= np.sqrt(1 - confidence) / 255 + 1 / 510**2 + 1e-7).all()
    assert error.max() < 0.004
    assert np.median(error) < 0.5 * np.median(np.abs(np.rint(confidence * 255) / 255 - confidence))
    assert levels_of(np.array([-1e-9, 1 + 1e-9])).tolist() == [0, 255]


def test_class_means_run_over_all_images_and_are_exact():
    label, level = drawn()
    exact = [Fraction(65025 - (255 - int(value)) ** 2, 65025) for value in range(256)]
    for index, name in enumerate(CLASSES):
        values = level[label == index]
        means = external_labels._class_means(np.bincount(values, minlength=256))
        if name == "absent":
            assert means == (None, None)
            continue
        mean = sum((exact[value] for value in values), Fraction(0)) / len(values)
        assert means[0] == pytest.approx(float(mean), rel=1e-12)
        assert exact[means[1]] >= mean
        assert means[1] == 0 or exact[means[1] - 1] < mean


def test_what_is_as_confident_as_its_class_on_average_is_kept_and_the_rest_is_not(tmp_path):
    labels = write(tmp_path / "labels")
    label, level = drawn()
    confidence = 1 - ((255 - level.astype(np.float64)) / 255) ** 2
    least = labels.class_confidences()
    assert least.dtype == np.float32
    assert np.isinf(least[CLASSES.index("absent")])
    table = confidences_of_levels()
    for index in (0, 1, 2, 4):
        of_class = label == index
        expected = confidence >= confidence[of_class].mean() - 1e-12
        got = table[level] >= least[index]
        assert np.array_equal(got[of_class], expected[of_class])
        assert got[of_class].any()
    assert (table[level] >= least[4])[label == 4].all()  # the only pixel of a class is its own mean
    assert labels.record.pixels == (*(int((label == index).sum()) for index in range(5)), int((label == 255).sum()))


def test_equal_confidences_are_all_kept():
    for value in (0, 1, 130, 255):
        assert external_labels._class_means(np.bincount([value] * 3, minlength=256))[1] == value


def test_maps_come_back_as_they_were_written(tmp_path):
    labels = write(tmp_path / "labels")
    label, level = drawn()
    assert np.array_equal(np.load(tmp_path / "labels" / "labels.npy"), label)
    assert np.array_equal(np.load(tmp_path / "labels" / "confidences.npy"), level)
    assert digest_in(tmp_path / "labels") == labels.fingerprint
    assert sorted(contents(tmp_path / "labels")) == ["confidences.npy", "labels.json", "labels.npy"]
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]
    assert str(tmp_path).encode() not in contents(tmp_path / "labels")["labels.json"]


def test_labels_without_confidences_have_no_class_means(tmp_path):
    labels = write(tmp_path / "labels", job("none"), confident=False)
    assert labels.class_confidences() is None
    assert set(labels.record.mean_confidence) == {None}
    assert sorted(contents(tmp_path / "labels")) == ["labels.json", "labels.npy"]


@pytest.mark.parametrize("until", [1, 2, 3, 6])
def test_interrupted_labelling_goes_on_and_ends_with_the_same_bytes(tmp_path, monkeypatch, until):
    monkeypatch.setattr(external_labels, "_SECONDS_BETWEEN_NOTES", -1.0)
    expected = write(tmp_path / "whole")
    with pytest.raises(InterruptedError):
        write(tmp_path / "labels", until=until)
    assert not (tmp_path / "labels").exists()
    asked = []

    def label_from(first: int) -> Iterator[Maps]:
        asked.append(first)
        return pieces(first)

    seen = []
    labels = write_external_labels(tmp_path / "labels", job(), label_from, progress=seen.append)
    assert asked == [2 * ((until + 1) // 2)]
    assert seen[0] == asked[0]
    assert seen[-1] == COUNT
    assert labels.fingerprint == expected.fingerprint
    assert contents(tmp_path / "labels") == contents(tmp_path / "whole")


@pytest.mark.parametrize("note", ["", "[]", '{"job": 1, "done": 2}', "remove", "array"])
def test_what_cannot_be_gone_on_with_is_made_anew(tmp_path, monkeypatch, note):
    monkeypatch.setattr(external_labels, "_SECONDS_BETWEEN_NOTES", -1.0)
    expected = write(tmp_path / "whole")
    with pytest.raises(InterruptedError):
        write(tmp_path / "labels", until=4)
    left = tmp_path / ".labels.unfinished"
    if note == "remove":
        (left / "progress.json").unlink()
    elif note == "array":
        (left / "labels.npy").unlink()
    else:
        (left / "progress.json").write_text(note)
    assert write(tmp_path / "labels").fingerprint == expected.fingerprint
    assert contents(tmp_path / "labels") == contents(tmp_path / "whole")


def test_what_another_job_left_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(external_labels, "_SECONDS_BETWEEN_NOTES", -1.0)
    with pytest.raises(InterruptedError):
        write(tmp_path / "labels", job(temperature=2.0), until=4)
    asked = []
    write_external_labels(
        tmp_path / "labels", job(), lambda first: (asked.append(first), pieces(first))[1], progress=lambda done: None
    )
    assert asked == [0]


def test_finished_labels_of_the_same_job_are_opened_and_others_refused(tmp_path):
    first = write(tmp_path / "labels")

    def refused(first: int) -> Iterator[Maps]:
        raise AssertionError

    again = write_external_labels(tmp_path / "labels", job(), refused, progress=lambda done: None)
    assert again.fingerprint == first.fingerprint
    with pytest.raises(ConfigError, match="exists and holds labels that were made otherwise; choose another folder"):
        write(tmp_path / "labels", job(temperature=2.0))
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match="exists and holds no labels of"):
        write(tmp_path / "other")


def test_two_processes_do_not_write_one_folder(tmp_path):
    left = tmp_path / ".labels.unfinished"
    left.mkdir()
    with (left / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process is writing external labels to"):
            write(tmp_path / "labels")
    write(tmp_path / "labels")


def test_the_same_labels_by_another_teacher_are_others(tmp_path):
    assert write(tmp_path / "a").fingerprint != write(tmp_path / "b", job(temperature=2.0)).fingerprint


@pytest.mark.parametrize("name", ["labels.npy", "confidences.npy"])
@pytest.mark.parametrize(
    "elsewhere", [True, False], ids=["by another process", "by the one that had looked at it before"]
)
def test_a_bit_that_has_turned_is_noticed(tmp_path, name, elsewhere):
    digest = write(tmp_path / "labels").fingerprint
    if elsewhere:
        external_labels._verified.clear()
    path = tmp_path / "labels" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptSampleError, match=f"{name} has changed since it was written; bring it back"):
        open_external_labels(tmp_path / "labels", digest=digest)


def test_absent_damaged_and_other_labels_are_told_in_one_line(tmp_path):
    digest = write(tmp_path / "labels").fingerprint
    with pytest.raises(DatasetNotFoundError, match=r"no external labels in .*nowhere .*`segda teach` writes them"):
        digest_in(tmp_path / "nowhere")
    with pytest.raises(CorruptSampleError, match=r"are others than those that were configured .*wanted 0000"):
        open_external_labels(tmp_path / "labels", digest="0" * 64)
    record = tmp_path / "labels" / "labels.json"
    text = record.read_text()
    record.write_text(text.replace("image3", "image9"))
    with pytest.raises(CorruptSampleError, match=r"labels\.json has changed since it was written"):
        open_external_labels(tmp_path / "labels", digest=digest)
    for damaged in ("", "[]", "{}", '{"digest": 3}', text.replace('"format": 1', '"format": 2')):
        record.write_text(damaged)
        with pytest.raises(CorruptSampleError, match=r"is not what `segda teach` writes"):
            digest_in(tmp_path / "labels")
    record.write_text(text)
    (tmp_path / "labels" / "confidences.npy").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"confidences\.npy cannot be read"):
        open_external_labels(tmp_path / "labels", digest=digest)


def test_what_came_before_an_error_of_the_user_is_not_left_beside(tmp_path):
    def broken(first):
        yield next(pieces(first))
        raise CorruptSampleError("images/3.png cannot be decoded")

    with pytest.raises(CorruptSampleError):
        write_external_labels(tmp_path / "labels", job(), broken, progress=lambda done: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (Maps(np.full((1, *SIZE), 5, np.uint8), np.zeros((1, *SIZE), np.uint8)), r"labels must be 0\.\.4 or 255"),
        (Maps(np.zeros((1, 3, 3), np.uint8), np.zeros((1, 3, 3), np.uint8)), "were announced, got others"),
        (Maps(np.zeros((1, *SIZE), np.uint8), None), "were announced, got others"),
        (Maps(np.zeros((1, *SIZE), np.uint8), np.zeros((1, *SIZE), np.uint8)), "1 images were labelled, there are 7"),
    ],
)
def test_maps_that_do_not_fit_are_no_labels(tmp_path, maps, message):
    with pytest.raises(ValueError, match=message):
        write_external_labels(tmp_path / "labels", job(), lambda first: iter([maps]), progress=lambda done: None)
    assert not (tmp_path / "labels").exists()
