"""Start of the program `sweeps`."""

import signal
import sys
import traceback
from types import TracebackType

from segda.masking import masked
from segda.streams import make_best_effort
from sweeps import exit_codes


def main() -> None:
    """Run the command line and exit.

    A cluster may take its machine back while modules are being imported, which takes seconds: then too the exit code says that the
    same command goes on later. A running sweep ends more carefully, see `sweeps.execution.runner`.
    """
    sys.excepthook = _print_bug
    make_best_effort()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # by `nohup`
            signal.signal(number, lambda *_: sys.exit(exit_codes.STOPPED))
    from sweeps.cli import main as run

    run()


def _print_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback as Python does, without passwords: people send it to others."""
    sys.stderr.write(masked("".join(traceback.format_exception(kind, error, trace))))


if __name__ == "__main__":
    main()
