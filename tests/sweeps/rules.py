"""Schedulers in few words."""

from sweeps.schedulers.asha import Asha, AshaConfig
from sweeps.schedulers.median import Median, MedianConfig


def asha(factor, low, steps):
    return Asha(AshaConfig(reduction_factor=factor, min_steps=low), steps=steps, report_every=1)


def median_rule(min_trials, low, steps, *, report_every=1):
    config = MedianConfig(min_trials=min_trials, min_steps=low)
    return Median(config, steps=steps, report_every=report_every)
