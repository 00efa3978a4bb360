"""Start of the program `sweeps`."""

import signal
import sys

from sweeps import exit_codes


def main() -> None:
    """Run the command line and exit.

    A cluster may take its machine back while modules are being imported, which takes seconds: then too the exit code says that the
    same command goes on later. A running sweep ends more carefully, see `sweeps.execution.runner`.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(exit_codes.STOPPED))
    from sweeps.cli import main as run

    run()
