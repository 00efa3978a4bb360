"""Sockets of processes of one program."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

MEET = """
import multiprocessing.util, tempfile
from multiprocessing.connection import Listener
from segda.sockets import choose_socket_folder
choose_socket_folder()
Listener(family="AF_UNIX").close()
print(tempfile.gettempdir() == multiprocessing.util.get_temp_dir().rpartition("/")[0])
"""


@pytest.mark.parametrize(("name", "is_usual"), [("short", True), ("long" * 25, False)])
def test_sockets_find_a_folder_however_long_the_temporary_one_is(name, is_usual):
    # Not `tmp_path`, which is long itself where tests run side by side.
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        folder = Path(short) / name
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", MEET],
            env=os.environ | {"TMPDIR": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.stdout, done.returncode) == (f"{is_usual}\n", 0), done.stderr
