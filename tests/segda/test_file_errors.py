"""Files and disks that fail, told apart by what the system and libraries say."""

import errno
import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch

from segda.errors import WeightsError
from segda.file_errors import is_disk_failure, is_file_error

FULL = Path("/dev/full")

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")


def write(path):
    with path.open("wb") as file:
        file.write(b"0" * 10_000)


def write_by_numpy(path):
    with path.open("wb") as file:
        np.zeros(1_000_000).tofile(file)


def save_into_file(path):
    with path.open("wb") as file:
        torch.save({"a": torch.zeros(10_000)}, file)


@pytest.mark.parametrize(
    "save",
    [write, write_by_numpy, save_into_file, lambda path: torch.save({"a": torch.zeros(10_000)}, path)],
    ids=["python", "numpy", "torch, file", "torch, path"],
)
def test_a_full_disk_is_told_whoever_writes(save):
    with pytest.raises((OSError, RuntimeError)) as raised:
        save(FULL)
    assert is_disk_failure(raised.value)


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(number, os.strerror(number)) for number in (errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)),
        OSError("Caught OSError in DataLoader worker process 0.\nOSError: [Errno 28] No space left on device: 'x'"),
        OSError("3276800 requested and 1310704 written"),
        OSError("Not enough free space to write 24000000 bytes after offset 128"),
        RuntimeError(
            "[enforce fail at inline_container.cc:747] . open file failed with strerror: Read-only file system"
        ),
        RuntimeError("PytorchStreamWriter failed writing file data/7: file write failed"),
        sqlite3.OperationalError("database or disk is full"),
    ],
    ids=str,
)
def test_a_disk_that_fails_is_told_by_number_or_words(error):
    assert is_disk_failure(error)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        RuntimeError("PytorchStreamReader failed reading zip archive: failed finding central directory"),
        RuntimeError("shape '[2, 3]' is invalid for input of size 5"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    ],
    ids=str,
)
def test_other_errors_are_no_disk_s(error):
    assert not is_disk_failure(error)


def read_from_a_broken_disk():
    try:
        raise OSError(errno.EIO, "Input/output error")
    except OSError:
        raise WeightsError("checkpoint.pt cannot be read") from None


def test_a_disk_is_found_behind_an_error_that_hides_it():
    with pytest.raises(WeightsError) as raised:
        read_from_a_broken_disk()
    assert is_disk_failure(raised.value)


def test_a_missing_file_is_a_file_error_also_as_text_out_of_another_process():
    assert is_file_error(FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0."))
    assert not is_file_error(OSError("some text"))
