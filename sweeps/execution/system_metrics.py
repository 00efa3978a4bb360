"""Load and memory of a worker's machine, under names that MLflow's page of system metrics understands."""

import contextlib

import psutil
import torch

PREFIX = "system/"
_MEBIBYTE = 2**20

# The first figure is of the time since the last call, and meaningless without one.
psutil.cpu_percent()


def sample() -> dict[str, float]:
    """Return the state of the machine that this process is on.

    Returns:
        `system/cpu_utilization_percentage` since the last call (the first: since this module was imported),
        `system/system_memory_usage_megabytes` (MiB) and `..._percentage`, `system/process_memory_usage_megabytes` of this
        process, and for each GPU that the process sees `system/gpu_<i>_memory_usage_megabytes` and `..._percentage` (of all
        processes) and, where NVIDIA's management library is installed, `system/gpu_<i>_utilization_percentage`.
    """
    memory = psutil.virtual_memory()
    figures = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": (memory.total - memory.available) / _MEBIBYTE,
        "system_memory_usage_percentage": memory.percent,
        "process_memory_usage_megabytes": psutil.Process().memory_info().rss / _MEBIBYTE,
    }
    # A process that has not touched its GPU must not begin to: that takes memory.
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            figures[f"gpu_{index}_memory_usage_megabytes"] = (total - free) / _MEBIBYTE
            figures[f"gpu_{index}_memory_usage_percentage"] = 100 * (total - free) / total
            with contextlib.suppress(ModuleNotFoundError, RuntimeError):
                figures[f"gpu_{index}_utilization_percentage"] = float(torch.cuda.utilization(index))
    return {f"{PREFIX}{name}": float(value) for name, value in figures.items()}
