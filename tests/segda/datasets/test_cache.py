import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segda.datasets import DATASETS
from segda.datasets.base import Sample
from segda.datasets.cache import DecodedSplit, decoded_split, default_cache
from segda.datasets.camvid import CamVid
from segda.errors import CacheError, ConfigError, CorruptSampleError
from segda.resizing import resize_label
from segda.types import Pixels

camvid = DATASETS["camvid"]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def decode(root: Path, cache: Path | None, **changes: object) -> DecodedSplit:
    given = {"domain": "all", "split": "train", "height": 6, "width": 8, "with_labels": True, "cache": cache} | changes
    return decoded_split(camvid, root, **given)  # type: ignore[arg-type]


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in cache.glob("*/*") if path.is_dir())


def test_full_size_holds_what_the_files_hold(segnet: Path, cache: Path) -> None:
    split = decode(segnet, cache, height=12, width=16)
    assert len(split) == 3
    assert split.names == ("0001TP_006690", "0006R0_f00930", "0016E5_00390")
    assert split.images.shape == (3, 12, 16, 3)
    assert split.labels is not None
    for index, sample in enumerate(camvid.samples(segnet, domain="all", split="train")):
        image, label = camvid.read(sample, with_label=True)
        np.testing.assert_array_equal(split.images[index], image)
        np.testing.assert_array_equal(split.labels[index], label)


def test_arrays_are_read_only_maps_of_uint8(segnet: Path, cache: Path) -> None:
    split = decode(segnet, cache)
    assert isinstance(split.images, np.memmap)
    assert isinstance(split.labels, np.memmap)
    assert split.images.dtype == split.labels.dtype == np.uint8
    with pytest.raises(ValueError, match="read-only"):
        split.images[0, 0, 0, 0] = 1


def test_shrinking_averages_areas_and_labels_take_what_covers_most(segnet: Path, cache: Path) -> None:
    split = decode(segnet, cache, height=6, width=8)
    image, label = camvid.read(camvid.samples(segnet, domain="all", split="train")[1], with_label=True)
    assert label is not None
    assert split.labels is not None
    means = image.reshape(6, 2, 8, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(split.images[1].astype(float), means, atol=0.51)
    np.testing.assert_array_equal(split.labels[1], resize_label(label, (6, 8)))


def test_growing_interpolates_images_and_repeats_labels(segnet: Path, cache: Path) -> None:
    split = decode(segnet, cache, height=24, width=32)
    image, label = camvid.read(camvid.samples(segnet, domain="all", split="train")[0], with_label=True)
    assert label is not None
    assert split.labels is not None
    np.testing.assert_array_equal(split.images[0], cv2.resize(image, (32, 24), interpolation=cv2.INTER_LINEAR))
    np.testing.assert_array_equal(split.labels[0], label.repeat(2, axis=0).repeat(2, axis=1))


def test_second_request_decodes_nothing(segnet: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = decode(segnet, cache)
    monkeypatch.setattr(CamVid, "decode_image", lambda *_: pytest.fail("decoded again"))
    second = decode(segnet, cache)
    np.testing.assert_array_equal(first.images, second.images)
    assert first.fingerprint == second.fingerprint


def test_sizes_and_splits_have_entries_of_their_own(segnet: Path, cache: Path) -> None:
    decode(segnet, cache)
    decode(segnet, cache, height=3)
    decode(segnet, cache, split="test")
    decode(segnet, cache, with_labels=False)
    assert len(entries(cache)) == 4


def test_labels_are_never_opened_without_being_asked_for(
    segnet: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(segnet / "trainannot")
    monkeypatch.setattr(CamVid, "decode_label", lambda *_: pytest.fail("opened a label"))
    assert decode(segnet, cache, with_labels=False).labels is None
    with pytest.raises(CorruptSampleError, match="has no label"):
        decode(segnet, cache, with_labels=True)


def test_split_published_without_labels_cannot_give_any(loveda_root: Path, cache: Path) -> None:
    given = {"domain": "rural", "split": "test", "height": 6, "width": 8, "cache": cache}
    assert len(decoded_split(DATASETS["loveda"], loveda_root, with_labels=False, **given)) == 1  # type: ignore[arg-type]
    with pytest.raises(CorruptSampleError, match="split without labels"):
        decoded_split(DATASETS["loveda"], loveda_root, with_labels=True, **given)  # type: ignore[arg-type]


def test_changed_image_is_decoded_again_and_changes_the_fingerprint(segnet: Path, cache: Path) -> None:
    before = decode(segnet, cache, height=12, width=16)
    image = segnet / "train" / "0006R0_f00930.png"
    Image.new("RGB", (16, 12), (1, 2, 3)).save(image)
    after = decode(segnet, cache, height=12, width=16)
    assert after.fingerprint != before.fingerprint
    assert after.images[1, 0, 0].tolist() == [1, 2, 3]


def test_changed_label_changes_the_fingerprint_of_labelled_data_only(segnet: Path, cache: Path) -> None:
    labelled, unlabelled = decode(segnet, cache), decode(segnet, cache, with_labels=False)
    Image.new("L", (16, 12), 3).save(segnet / "trainannot" / "0006R0_f00930.png")
    assert decode(segnet, cache).fingerprint != labelled.fingerprint
    assert decode(segnet, cache, with_labels=False).fingerprint == unlabelled.fingerprint


def test_fingerprint_survives_touching_moving_and_another_size(segnet: Path, cache: Path, tmp_path: Path) -> None:
    before = decode(segnet, cache).fingerprint
    assert decode(segnet, cache, height=5).fingerprint == before
    os.utime(segnet / "train" / "0006R0_f00930.png", ns=(1, 1))
    assert decode(segnet, cache).fingerprint == before
    shutil.copytree(segnet, tmp_path / "elsewhere")
    shutil.rmtree(segnet)
    assert decode(tmp_path / "elsewhere", tmp_path / "fresh").fingerprint == before


def test_moved_root_finds_its_entry(segnet: Path, cache: Path, tmp_path: Path) -> None:
    decode(segnet, cache)
    segnet.rename(tmp_path / "elsewhere")
    decode(tmp_path / "elsewhere", cache)
    assert len(entries(cache)) == 1


def test_damaged_sample_is_named_and_leaves_nothing(segnet: Path, cache: Path) -> None:
    image = segnet / "train" / "0006R0_f00930.png"
    image.write_bytes(image.read_bytes()[:100])
    with pytest.raises(CorruptSampleError, match=str(image)):
        decode(segnet, cache)
    assert entries(cache) == []


def test_damaged_entry_is_built_again(segnet: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = np.array(decode(segnet, cache).images)
    (entry,) = entries(cache)
    (entry / "images.npy").write_bytes((entry / "images.npy").read_bytes()[:150])
    np.testing.assert_array_equal(decode(segnet, cache).images, before)
    assert "damaged" in caplog.text


def test_pickle_of_a_cached_split_sends_its_path(segnet: Path, cache: Path) -> None:
    split = decode(segnet, cache, height=100, width=100)
    pickled = pickle.dumps(split)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)
    assert isinstance(again.images, np.memmap)
    np.testing.assert_array_equal(again.images, split.images)
    assert (again.names, again.fingerprint) == (split.names, split.fingerprint)


def test_pickle_of_arrays_in_memory_sends_them() -> None:
    split = DecodedSplit(images=np.ones((1, 2, 2, 3), np.uint8), labels=None, names=("a",), fingerprint="f")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(split)).images, split.images)


def test_place_comes_from_the_environment(segnet: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGDA_CACHE", raising=False)
    assert default_cache().parts[-2:] == ("segda", "decoded")
    monkeypatch.setenv("SEGDA_CACHE", str(cache))
    decode(segnet, None)
    assert len(entries(cache)) == 1


def test_place_that_cannot_be_written_is_named(segnet: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="SEGDA_CACHE"):
        decode(segnet, tmp_path / "file" / "cache")


def test_full_disk_is_an_error_and_leaves_nothing(segnet: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(CacheError, match="No space left on device"):
        decode(segnet, cache)
    assert entries(cache) == []


def test_size_zero_is_refused(segnet: Path, cache: Path) -> None:
    with pytest.raises(ConfigError, match="height 0"):
        decode(segnet, cache, height=0)


def test_progress_is_drawn_when_asked_for(segnet: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decode(segnet, cache)
    assert capsys.readouterr().err == ""
    decode(segnet, cache, height=5, progress=True)
    captured = capsys.readouterr()
    assert "Decoding camvid" in captured.err
    assert captured.out == ""


def test_waiting_for_another_builder_is_logged(
    segnet: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    entered, go_on, read = threading.Event(), threading.Event(), camvid.read
    counted: list[str] = []

    def slow(sample: Sample, *, with_label: bool) -> tuple[Pixels, Pixels | None]:
        counted.append(sample.name)
        entered.set()
        assert go_on.wait(30)
        return read(sample, with_label=with_label)

    monkeypatch.setattr(camvid, "read", slow)
    builders = [threading.Thread(target=decode, args=(segnet, cache)) for _ in range(2)]
    builders[0].start()
    assert entered.wait(30)
    builders[1].start()
    deadline = time.monotonic() + 30
    while "waiting for another process" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.01)
    go_on.set()
    for builder in builders:
        builder.join(30)
    assert "waiting for another process" in caplog.text
    assert len(counted) == 3  # each sample once


# A process of its own in which `count` children ask for one entry; `pause` seconds per image keep its builder busy.
BUILDER = textwrap.dedent(
    """
    import hashlib, os, sys, time
    from pathlib import Path
    from segda.datasets.cache import decoded_split
    from segda.datasets.camvid import CamVid

    root, cache, log = map(Path, sys.argv[1:4])
    count, pause = int(sys.argv[4]), float(sys.argv[5])

    class Slow(CamVid):
        def decode_image(self, path):
            with log.open("a") as file:
                file.write(f"{path.name}\\n")
            time.sleep(pause)
            return super().decode_image(path)

    def build():
        split = decoded_split(
            Slow(), root, domain="all", split="train", height=6, width=8, with_labels=True, cache=cache
        )
        content = hashlib.sha256(split.images.tobytes() + split.labels.tobytes()).hexdigest()
        os.write(1, f"{split.fingerprint} {content}\\n".encode())

    if count == 1:
        build()
    else:
        # Imported once and forked: eight interpreters would spend their time on imports and hardly meet.
        children = []
        for _ in range(count):
            child = os.fork()
            if child == 0:
                build()
                os._exit(0)
            children.append(child)
        sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
    """
)


class Builders:
    def __init__(self, root: Path, cache: Path, log: Path) -> None:
        self.root, self.cache, self.log = root, cache, log
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, count: int, *, pause: float) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", BUILDER, str(self.root), str(self.cache), str(self.log), str(count), str(pause)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        self.processes.append(process)
        return process

    def start_and_wait_until_it_decodes(self) -> "subprocess.Popen[str]":
        process = self.start(1, pause=60)
        deadline = time.monotonic() + 60
        while not self.decoded() and time.monotonic() < deadline:
            time.sleep(0.02)
        return process

    def decoded(self) -> list[str]:
        return sorted(self.log.read_text().split()) if self.log.exists() else []


@pytest.fixture
def builders(segnet: Path, cache: Path, tmp_path: Path) -> Iterator[Builders]:
    started = Builders(segnet, cache, tmp_path / "decoded.log")
    yield started
    for process in started.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_eight_processes_at_once_build_once_and_agree(builders: Builders) -> None:
    process = builders.start(8, pause=0.5)
    results = process.communicate(timeout=120)[0].splitlines()
    assert process.returncode == 0
    assert len(results) == 8
    assert len(set(results)) == 1
    assert builders.decoded() == ["0001TP_006690.png", "0006R0_f00930.png", "0016E5_00390.png"]
    assert len(entries(builders.cache)) == 1


def test_killed_builder_leaves_nothing_that_is_used(builders: Builders) -> None:
    killed = builders.start_and_wait_until_it_decodes()
    killed.send_signal(signal.SIGKILL)
    killed.wait(timeout=30)
    (leftover,) = entries(builders.cache)
    assert ".building-" in leftover.name
    split = decode(builders.root, builders.cache)
    assert split.labels is not None
    assert split.labels[0].any()
    (entry,) = entries(builders.cache)
    assert entry == split.folder


def test_leftover_of_another_entry_is_removed_but_not_that_of_a_living_builder(builders: Builders) -> None:
    builders.start_and_wait_until_it_decodes()
    dead = builders.cache / "camvid" / "all-val-6x8-labels-0123456789abcdef.building-x"
    dead.mkdir()
    decode(builders.root, builders.cache, height=5)
    kept = [path for path in entries(builders.cache) if ".building-" in path.name]
    assert len(kept) == 1
    assert kept[0] != dead
