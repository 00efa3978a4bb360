"""What a network costs: parameters, multiply-accumulates, latency, memory.

Every function takes any `nn.Module` and an input shape, and states what its number means.
"""

from segda.efficiency.latency import STEADY_SECONDS, Latency, measure_latency, measure_runtime_latency
from segda.efficiency.macs import count_macs
from segda.efficiency.memory import measure_peak_memory
from segda.efficiency.parameters import count_parameters
from segda.efficiency.profile import EfficiencyProfile, profile_segmenter

__all__ = [
    "STEADY_SECONDS",
    "EfficiencyProfile",
    "Latency",
    "count_macs",
    "count_parameters",
    "measure_latency",
    "measure_peak_memory",
    "measure_runtime_latency",
    "profile_segmenter",
]
