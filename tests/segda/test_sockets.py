"""Sockets of processes of one program."""

import os
import subprocess
import sys

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
def test_sockets_find_a_folder_however_long_the_temporary_one_is(tmp_path, name, is_usual):
    (tmp_path / name).mkdir()
    environment = os.environ | {"TMPDIR": str(tmp_path / name)}
    done = subprocess.run([sys.executable, "-c", MEET], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == (f"{is_usual}\n", 0), done.stderr
