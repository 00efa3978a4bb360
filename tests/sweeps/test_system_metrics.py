"""What is sampled of a worker's machine."""

import pytest
import torch

from sweeps.execution.system_metrics import PREFIX, sample


def test_load_and_memory_are_in_their_units_under_names_that_mlflow_shows():
    figures = sample()
    assert all(name.startswith(PREFIX) for name in figures)
    assert 0 <= figures["system/cpu_utilization_percentage"] <= 100
    assert 0 < figures["system/system_memory_usage_percentage"] < 100
    # A process with torch in it has more than 100 MiB and less than the machine.
    assert 100 < figures["system/process_memory_usage_megabytes"] < figures["system/system_memory_usage_megabytes"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_in_use_is_sampled_too():
    block = torch.zeros(64, 2**20, device="cuda")  # 256 MiB
    figures = sample()
    assert block.nbytes / 2**20 <= figures["system/gpu_0_memory_usage_megabytes"]
    assert 0 < figures["system/gpu_0_memory_usage_percentage"] < 100
