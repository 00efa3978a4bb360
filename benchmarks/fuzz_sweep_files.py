"""Does any damaged configuration file bring a traceback, a hang, or a sweep that cannot be planned?

    python benchmarks/fuzz_sweep_files.py                    a thousand damaged sweep files, and a thousand training files
    python benchmarks/fuzz_sweep_files.py --count 5000 --seed 7

Each file is one of ours, damaged in its bytes or in its tree. `sweeps check` reads it in this process, within a limit of time for
each and one of memory for all. What is refused must be refused in one line of bounded length; what is accepted must do what
`sweeps plan` and `sweeps run` ask of it before anything is trained.
"""

import argparse
import resource
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "sweeps"))

from mutations import SWEEPS, TRAININGS, mutations
from readings import TooLongError, read_sweep, read_training

SECONDS = 20.0  # for one file; the slowest take some on a busy machine
MEMORY_BYTES = 8 * 2**30  # address space


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for kind, files, read in (("sweep", SWEEPS, read_sweep), ("training", TRAININGS, read_training)):
            for what, content in mutations(files, count=options.count, seed=options.seed):
                path = Path(folder) / "damaged.yaml"
                path.write_bytes(content)
                try:
                    answer = read(path, seconds=SECONDS)
                    counts[f"{kind}: {'accepted' if answer is None else 'refused in one line'}"] += 1
                except TooLongError:
                    counts[f"{kind}: HANG"] += 1
                    print(f"HANG {what}")
                except Exception as error:
                    counts[f"{kind}: TRACEBACK"] += 1
                    last = traceback.extract_tb(error.__traceback__)[-1]
                    print(
                        f"TRACEBACK {what}\n    {type(error).__name__}: {str(error)[:300]} ({last.filename}:{last.lineno})"
                    )
    for name, number in sorted(counts.items()):
        print(f"{number:6} {name}")
    sys.exit(int(any(name.endswith(("HANG", "TRACEBACK")) for name in counts)))


if __name__ == "__main__":
    main()
