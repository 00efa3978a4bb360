"""Pruning in sweeps: schedules are searched with their own settings, and only a method with a discriminator has one pruned."""

import pytest

from segda.compression.schedules import PRUNING_SCHEDULES

SCHEDULE = "pruning.segmenter.schedule"


def pruning_of(spec, **params):
    return spec.train_config(params, seed=0).pruning


def test_schedules_are_searched_with_their_own_settings_and_ranges(make_spec):
    spec = make_spec(
        search={
            f"{SCHEDULE}.name": "default",
            f"{SCHEDULE}.end": {"when": {f"{SCHEDULE}.name": "cubic"}},
            f"{SCHEDULE}.sparsity": {"low": 0.1, "high": 0.4, "when": {f"{SCHEDULE}.name": "fixed"}},
            "pruning.segmenter.scope": "default",
        }
    )
    assert spec.search[f"{SCHEDULE}.name"].choices == tuple(PRUNING_SCHEDULES)
    assert (spec.search[f"{SCHEDULE}.end"].low, spec.search[f"{SCHEDULE}.end"].high) == (0.2, 0.9)
    assert spec.search["pruning.segmenter.scope"].choices == ("global", "module")

    cubic = pruning_of(
        spec, **{f"{SCHEDULE}.name": "cubic", f"{SCHEDULE}.end": 0.4, "pruning.segmenter.scope": "module"}
    )
    assert (cubic.segmenter.schedule.name, cubic.segmenter.schedule.end, cubic.segmenter.scope) == (
        "cubic",
        0.4,
        "module",
    )
    assert not pruning_of(spec, **{f"{SCHEDULE}.name": "none", "pruning.segmenter.scope": "global"}).segmenter.is_on


def test_a_setting_without_its_condition_names_the_schedule_that_has_it(make_spec):
    with pytest.raises(ValueError, match=r"add `when: \{pruning.segmenter.schedule.name: cubic\}`"):
        make_spec(search={f"{SCHEDULE}.name": ["none", "cubic"], f"{SCHEDULE}.end": [0.4, 0.6]})


def test_methods_without_a_discriminator_do_not_see_how_one_is_pruned(make_spec):
    base = make_spec().base | {"pruning": {"discriminator": {"schedule": {"name": "fixed"}}}}
    spec = make_spec(base=base, search={"method.name": ["source_only", "adversarial"]})
    assert not pruning_of(spec, **{"method.name": "source_only"}).discriminator.is_on
    assert pruning_of(spec, **{"method.name": "adversarial"}).discriminator.is_on


def test_a_discriminators_pruning_that_is_searched_needs_a_method_with_one(make_spec):
    search = {
        "method.name": ["source_only", "adversarial"],
        "pruning.discriminator.schedule.name": ["fixed", "incremental"],
    }
    with pytest.raises(ValueError, match="trains no discriminator"):
        make_spec(search=search)
    when = {"choices": ["fixed", "incremental"], "when": {"method.name": "adversarial"}}
    spec = make_spec(search=search | {"pruning.discriminator.schedule.name": when})
    params = {"method.name": "adversarial", "pruning.discriminator.schedule.name": "incremental"}
    assert pruning_of(spec, **params).discriminator.schedule.per_epoch == 0.005
