"""A deployment that is killed when it is about to measure for the n-th time: `python kill_deploy.py STORE N`."""

import os
import signal
import sys

from sweeps.commands.deploying import deploy
from sweeps.deployment import artefacts


def main(root: str, left: int) -> None:
    measure = artefacts.measure

    def measure_or_die(*words, **options):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return measure(*words, **options)

    artefacts.measure = measure_or_die
    deploy("demo", "latency_ms <= 100000", store=root, slim=(), candidates=1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
