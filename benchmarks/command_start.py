"""How long do the command lines take to answer, beside the import of torch?

    python benchmarks/command_start.py [--rounds 5]

Each round starts a process for every answer, one after another, and one that imports torch alone; a ratio is the median time of an
answer over that of the import, both from start to end of the process. The exit code is 1 if an answer takes more than half of it.

Found on two processor cores that others used too, where the import took 5.4 s:

|                          | times of the import |
| ------------------------ | ------------------- |
| sweeps, help             | 0.07 to 0.15        |
| sweeps, mistakes         | 0.07 and 0.10       |
| segda, help              | 0.12 to 0.25        |
| segda, mistakes          | 0.12 and 0.15       |

Before, commands imported what they need to run together with their help: `sweeps --help` took 3.6 times as long as the import.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import click

from segda.cli import cli
from sweeps.cli import sweeps

LONGEST = 0.5
IMPORT = ("-c", "import torch")
MISTAKES = {
    "segda": ("no-such-command", "train --no-such-option"),
    "sweeps": ("no-such-command", "run --no-such-option"),
}


def calls(command: click.Command, *words: str) -> Iterator[tuple[str, ...]]:
    """Yield the words that ask for the help of a command and of all under it."""
    yield (*words, "--help")
    if isinstance(command, click.Group):
        for name, part in command.commands.items():
            yield from calls(part, *words, name)


def seconds(*words: str) -> float:
    """Return how long a Python process takes."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - start


def main() -> None:
    """Print a row per answer, the slowest last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    asked = {" ".join(IMPORT): IMPORT}
    for program, group in (("segda", cli), ("sweeps", sweeps)):
        mistakes = [tuple(line.split()) for line in MISTAKES[program]]
        for words in [("--version",), *calls(group), *mistakes]:
            asked[" ".join((program, *words))] = ("-m", program, *words)
    took: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(rounds):
        for name, words in asked.items():
            took[name].append(seconds(*words))
    medians = {name: statistics.median(times) for name, times in took.items()}
    base = medians.pop(" ".join(IMPORT))
    print(f"import of torch: {base:.2f} s")
    for name, median in sorted(medians.items(), key=lambda item: item[1]):
        print(f"  {name:34s} {median:5.2f} s  x {median / base:.2f}")
    slow = [name for name, median in medians.items() if median > LONGEST * base]
    if slow:
        sys.exit(f"more than {LONGEST:g} of the import: {', '.join(slow)}")


if __name__ == "__main__":
    main()
