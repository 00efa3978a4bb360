"""What ends one process of a training arrives in the first one as what it is."""

import errno
import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest
import torch

import segda
from segda import errors
from segda.errors import OutOfMemoryError, ProcessLostError, SegdaError
from segda.file_errors import is_file_error
from segda.team import First, tell_failure

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, SegdaError)]


@pytest.fixture
def arrived(tmp_path):
    """Return what rank 0 makes of an error that rank 1 died of."""

    def tell(error):
        with subprocess.Popen([sys.executable, "-c", "import os; os._exit(1)"], stdin=subprocess.PIPE) as peer:
            peer.wait()
            tell_failure(tmp_path, 1, error)
            return First(torch.device("cpu"), [peer], tmp_path).failure()

    return tell


@pytest.mark.parametrize("kind", ALL)
def test_every_error_of_the_library_keeps_its_class_and_its_words(arrived, kind):
    found = arrived(kind("images are missing"))
    assert type(found) is kind
    assert str(found) == "images are missing"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OSError),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), OSError),
        (PermissionError(errno.EACCES, "Permission denied", "/data/a.png"), PermissionError),
        (FileNotFoundError(errno.ENOENT, "No such file", "/data/a.png"), FileNotFoundError),
    ],
)
def test_a_file_that_fails_is_no_lost_process(arrived, error, kind):
    found = arrived(error)
    assert type(found) is kind
    assert (found.errno, is_file_error(found)) == (error.errno, True)
    assert f"rank 1 of 2 failed: {kind.__name__}" in str(found)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")])
def test_memory_that_did_not_suffice_is_out_of_memory(arrived, error):
    assert type(arrived(error)) is OutOfMemoryError


@pytest.mark.parametrize("error", [ConnectionResetError(errno.ECONNRESET, "reset by peer"), KeyError("bug")])
def test_what_may_follow_from_the_loss_of_another_process_is_a_lost_process(arrived, error):
    assert type(arrived(error)) is ProcessLostError


def test_all_errors_of_the_library_are_where_they_are_looked_up():
    for module in pkgutil.walk_packages(segda.__path__, "segda."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    known, found = [SegdaError], set()
    while known:
        kind = known.pop()
        found.add(kind)
        known += kind.__subclasses__()
    assert {kind for kind in found if kind.__module__.startswith("segda.")} == set(ALL)
