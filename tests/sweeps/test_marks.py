"""Marks of trials that were not trained as the others."""

from dataclasses import replace
from typing import Any

import pytest

from sweeps.reports.marks import explained, footnotes, mark, target_labels
from sweeps.trial import TrialKind, TrialRecord


def trial(
    number: int = 0, *, micro_batch: int | None = None, profile: dict[str, float] | None = None, **config: Any
) -> TrialRecord:
    plain = {"batch_size": 8, "precision": "auto", "data": {}} | config
    record = TrialRecord("demo", number, "key", TrialKind.SEARCH, {}, plain, 0, micro_batch=micro_batch)
    return replace(record, profile=profile or {})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ""),
        ({"micro_batch": 4}, "†"),
        ({"data": {"few_shot": {"names": ["a", "b"]}}}, "‡"),
        ({"precision": "bf16", "batch_size": 2}, "§"),
        ({"precision": "fp16", "batch_size": 2}, "§"),
        ({"precision": "bf16", "batch_size": 4}, ""),
        ({"precision": "auto", "batch_size": 2}, ""),  # computes in single precision then
        ({"micro_batch": 4, "data": {"few_shot": {"images": 1}}}, "†‡"),
        ({"profile": {"latency_ms": 75.2, "latency_reliable": 0.0}}, "¶"),
        ({"profile": {"latency_ms": 11.1, "latency_reliable": 1.0}}, ""),
        ({"method": {"name": "naae"}, "data": {"few_shot": {"images": 1}}}, "‡‖"),
        ({"method": {"name": "joint"}}, ""),
        ({"method": {"name": "mic", "host": {"name": "corte"}}}, "‖"),
        ({"method": {"name": "mic", "host": {"name": "dacs"}}}, ""),
        ({"method": {"name": "of_a_guest_that_is_gone"}}, ""),
    ],
)
def test_a_mark_says_what_is_special(settings, expected):
    assert mark(trial(**settings)) == expected
    assert "".join(explained(trial(**settings), processes=1)) == expected


def test_who_only_looks_at_a_sweep_is_not_told_of_its_methods():
    # Only PyTorch can tell.
    reconstructed = trial(method={"name": "fsda"})
    assert mark(reconstructed) == "‖"
    assert footnotes([reconstructed], processes=1)[0].startswith("‖ fsda is a reconstruction: ")
    assert mark(reconstructed, of_methods=False) == ""
    assert footnotes([reconstructed], processes=1, of_methods=False) == []


def test_footnotes_name_the_trials_of_each_meaning_once():
    trials = [trial(0), trial(2, micro_batch=4), trial(1, micro_batch=4), trial(3, precision="bf16", batch_size=2)]
    assert footnotes(trials, processes=1) == [
        "§ trained in bf16 with 2 images at once: batch normalization of pooled maps amplifies the rounding, gradients deviate "
        "(trial 3).",
        "† trained with 4 images at once instead of 8: batch normalization saw fewer images (trials 1, 2).",
    ]


@pytest.mark.parametrize(
    ("few_shot", "expected"),
    [
        (None, ""),
        ({"images": 1}, "1 target image"),
        ({"names": ["a", "b"]}, "2 target images"),
        ({"images": 3, "per": "scene", "names": None}, "3 target images of each scene"),
    ],
)
def test_whose_labels_were_used_is_said(few_shot, expected):
    assert target_labels(trial(data={"few_shot": few_shot})) == expected
