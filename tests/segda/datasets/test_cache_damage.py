"""A cache entry that is not what was written is decoded again, with one warning; nobody trains on it."""

import errno
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segda.datasets import DATASETS, entry
from segda.datasets.base import Sample
from segda.datasets.cache import DecodedSplit, decoded_split
from segda.errors import CacheError
from segda.types import Pixels

camvid = DATASETS["camvid"]


@pytest.fixture(autouse=True)
def in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forget what this process has verified."""

    def forget() -> None:
        monkeypatch.setattr(entry, "_verified", set())

    forget()
    return forget


@pytest.fixture
def decode(segnet: Path, tmp_path: Path) -> Callable[[], DecodedSplit]:
    def decoded() -> DecodedSplit:
        return decoded_split(
            camvid, segnet, domain="all", split="train", height=6, width=8, with_labels=True, cache=tmp_path / "cache"
        )

    return decoded


def turned(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def changed(path: Path, **values: object) -> None:
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"entry": record["entry"] | values}))


def into_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def into_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def saved(path: Path, array: object) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=True)


def replaced_by(folder: Path, make: Callable[[Path], object]) -> None:
    shutil.rmtree(folder)
    make(folder)


IMAGES, LABELS, RECORD = "images.npy", "labels.npy", "entry.json"
DAMAGES: dict[str, Callable[[Path], object]] = {
    "zeros": lambda folder: saved(folder / IMAGES, np.zeros((3, 6, 8, 3), np.uint8)),
    "zeros as labels": lambda folder: saved(folder / LABELS, np.zeros((3, 6, 8), np.uint8)),
    "a pipe": lambda folder: into_pipe(folder / IMAGES),
    "a record that is a pipe": lambda folder: into_pipe(folder / RECORD),
    "a turned bit": lambda folder: turned(folder / IMAGES, 200),
    "a turned bit in the last label": lambda folder: turned(folder / LABELS, -1),
    "a turned bit in the shape": lambda folder: turned(folder / IMAGES, 60),
    "cut off": lambda folder: (folder / IMAGES).write_bytes((folder / IMAGES).read_bytes()[:150]),
    "empty": lambda folder: (folder / IMAGES).write_bytes(b""),
    "longer": lambda folder: (folder / IMAGES).write_bytes((folder / IMAGES).read_bytes() + b"x"),
    "missing": lambda folder: (folder / LABELS).unlink(),
    "a folder as file": lambda folder: into_folder(folder / IMAGES),
    "another shape": lambda folder: saved(folder / IMAGES, np.zeros((1, 2), np.uint8)),
    "another type": lambda folder: saved(folder / IMAGES, np.zeros((3, 6, 8, 3))),
    "objects": lambda folder: saved(folder / IMAGES, np.array([{}, None], dtype=object)),
    "record empty": lambda folder: (folder / RECORD).write_text(""),
    "record missing": lambda folder: (folder / RECORD).unlink(),
    "record zeros": lambda folder: (folder / RECORD).write_bytes(bytes(300)),
    "record not UTF-8": lambda folder: (folder / RECORD).write_bytes(b'{"names": "\xff"}'),
    "record too deep": lambda folder: (folder / RECORD).write_text("[" * 100_000),
    **{
        f"record {text}": lambda folder, text=text: (folder / RECORD).write_text(text)  # type: ignore[misc]
        for text in ("null", "[]", "{}", "3", '"x"', '{"names": 3}')
    },
    "record of other names": lambda folder: changed(folder / RECORD, names=["a", "b", "c"]),
    "record of other data": lambda folder: changed(folder / RECORD, fingerprint="0" * 64),
    "record without checksums": lambda folder: changed(folder / RECORD, checksums={}),
    "record of a file elsewhere": lambda folder: changed(folder / RECORD, checksums={"../images.npy": 0}),
    "record a folder": lambda folder: into_folder(folder / RECORD),
    "a file as entry": lambda folder: replaced_by(folder, Path.touch),
    "a pipe as entry": lambda folder: replaced_by(folder, os.mkfifo),
    "a dangling link as entry": lambda folder: replaced_by(folder, lambda path: path.symlink_to("/nowhere/entry")),
    "an empty folder as entry": lambda folder: replaced_by(folder, Path.mkdir),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_decoded_again_with_one_warning(
    decode: Callable[[], DecodedSplit],
    in_a_new_process: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    before = decode()
    images, labels = np.array(before.images), np.array(before.labels)
    assert before.folder is not None
    DAMAGES[damage](before.folder)
    in_a_new_process()
    after = decode()
    np.testing.assert_array_equal(after.images, images)
    assert after.labels is not None
    np.testing.assert_array_equal(after.labels, labels)
    assert (after.names, after.fingerprint, after.folder) == (before.names, before.fingerprint, before.folder)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert str(before.folder) in warnings[0]
    assert "\n" not in warnings[0]
    assert {path.name for path in before.folder.parent.iterdir()} == {
        before.folder.name,
        f"{before.folder.name}.lock",
    }


def test_what_says_nothing_about_the_entry_leaves_it_as_it_is(
    decode: Callable[[], DecodedSplit], in_a_new_process: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = decode()
    assert before.folder is not None
    content = {path.name: path.read_bytes() for path in before.folder.iterdir()}
    in_a_new_process()

    def refuse(path: Path) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr(entry, "checksum", refuse)
    with pytest.raises(CacheError, match="Too many open files"):
        decode()
    assert {path.name: path.read_bytes() for path in before.folder.iterdir()} == content


def test_another_entry_in_its_place_is_not_taken_for_it(
    decode: Callable[[], DecodedSplit], segnet: Path, tmp_path: Path, in_a_new_process: Callable[[], None]
) -> None:
    wanted = decode()
    other = decoded_split(
        camvid, segnet, domain="all", split="train", height=12, width=16, with_labels=True, cache=tmp_path / "cache"
    )
    assert wanted.folder is not None
    assert other.folder is not None
    shutil.rmtree(wanted.folder)
    shutil.copytree(other.folder, wanted.folder)
    in_a_new_process()
    assert decode().images.shape == (3, 6, 8, 3)


def test_bytes_are_compared_once_in_a_process(
    decode: Callable[[], DecodedSplit], in_a_new_process: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode()
    in_a_new_process()
    read: list[str] = []
    checksum = entry.checksum
    monkeypatch.setattr(entry, "checksum", lambda path: read.append(path.name) or checksum(path))
    for _ in range(3):
        decode()
    assert read == [IMAGES, LABELS]


def test_what_others_have_mapped_stays_as_it_was(
    decode: Callable[[], DecodedSplit], in_a_new_process: Callable[[], None]
) -> None:
    mapped = decode()
    images = np.array(mapped.images)
    assert mapped.folder is not None
    (mapped.folder / RECORD).write_text("")
    in_a_new_process()
    again = decode()
    np.testing.assert_array_equal(mapped.images, images)
    assert not np.shares_memory(mapped.images, again.images)


def test_of_many_that_find_the_damage_at_once_one_decodes(
    decode: Callable[[], DecodedSplit], in_a_new_process: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = decode()
    assert before.folder is not None
    turned(before.folder / IMAGES, 200)
    in_a_new_process()
    decoded: list[str] = []
    read = camvid.read

    def counted(sample: Sample, *, with_label: bool) -> tuple[Pixels, Pixels | None]:
        decoded.append(sample.name)
        return read(sample, with_label=with_label)

    monkeypatch.setattr(camvid, "read", counted)
    found: list[DecodedSplit] = []
    threads = [threading.Thread(target=lambda: found.append(decode())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(decoded) == sorted(before.names)
    assert len(found) == 6
    for split in found:
        np.testing.assert_array_equal(split.images, found[0].images)
