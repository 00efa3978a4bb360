import os
import sys
import threading
from pathlib import Path

import pytest
import torch

from segda.allocator import give_back_freed_memory, keep_freed_memory

MIB = 2**20


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_what_a_training_has_freed_is_kept_while_it_runs_and_given_back_at_its_end():
    if not keep_freed_memory():
        pytest.skip("the C library is not glibc")
    give_back_freed_memory()
    before = resident()

    def train() -> None:
        for _ in range(2):
            tensors = [torch.ones(MIB // 4) for _ in range(256)]
            assert len(tensors) == 256
            del tensors

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    kept = resident() - before
    give_back_freed_memory()
    left = resident() - before
    assert kept > 200 * MIB
    # Of the heaps of a thread, 64 MiB each, glibc keeps the last one.
    assert left < 80 * MIB
