"""Where processes of one program meet: a socket's path may be 107 characters long, a cluster's temporary folder longer."""

import multiprocessing.util
import tempfile

_LONGEST = 107 - len("/pymp-12345678/listener-12345678")
_SHORT = "/tmp"


def choose_socket_folder() -> None:
    """Let this process and its children keep the sockets of `multiprocessing` in a short folder where the usual one is too long.

    Nothing else moves: the temporary folder may be where it is because it is large.
    """
    if len(tempfile.gettempdir()) <= _LONGEST:
        return
    usual, tempfile.tempdir = tempfile.tempdir, _SHORT
    try:
        multiprocessing.util.get_temp_dir()  # makes the folder, keeps it for later and hands it on to children
    finally:
        tempfile.tempdir = usual
