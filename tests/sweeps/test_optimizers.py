"""Optimizers in sweeps: each has its own settings, which are searched where it is, and its own defaults."""

import pytest

from segda.errors import ConfigError
from sweeps.execution.worker import _config

BOTH = ["sgd", "adam"]


def optimizer_of(spec, **params):
    return spec.train_config(params, seed=0).optimizer.model_dump()


def test_each_searched_name_has_its_own_defaults(make_spec):
    spec = make_spec(search={"optimizer.name": ["sgd", "rmsprop", "adam"], "optimizer.lr": [0.01, 0.1]})
    decays = {
        name: optimizer_of(spec, **{"optimizer.name": name, "optimizer.lr": 0.1})["weight_decay"]
        for name in ("sgd", "rmsprop", "adam")
    }
    assert decays == {"sgd": 1e-4, "rmsprop": 0.0, "adam": 0.0}
    assert optimizer_of(spec, **{"optimizer.name": "rmsprop"})["momentum"] == 0.0
    assert "momentum" not in optimizer_of(spec, **{"optimizer.name": "adam"})


def test_settings_are_searched_under_their_optimizer(make_spec):
    momentum = {"low": 0.5, "high": 0.95, "when": {"optimizer.name": "sgd"}}
    spec = make_spec(search={"optimizer.name": BOTH, "optimizer.momentum": momentum})
    assert optimizer_of(spec, **{"optimizer.name": "sgd", "optimizer.momentum": 0.7})["momentum"] == 0.7
    with pytest.raises(ValueError, match=r"optimizer adam has no such field; add `when: \{optimizer.name: sgd\}`"):
        make_spec(search={"optimizer.name": BOTH, "optimizer.momentum": [0.5, 0.9]})
    with pytest.raises(
        ValueError, match=r"no optimizer of this sweep has it, but adam and adamw; add that to optimizer"
    ):
        make_spec(search={"optimizer.beta2": [0.99, 0.999]})


def test_settings_in_base_reach_those_that_have_them(make_spec):
    base = make_spec().base | {"optimizer": {"name": "sgd", "momentum": 0.8, "beta2": 0.99, "lr": 0.02}}
    spec = make_spec(base=base, search={"optimizer.name": BOTH})
    assert optimizer_of(spec, **{"optimizer.name": "sgd"})["momentum"] == 0.8
    adam = optimizer_of(spec, **{"optimizer.name": "adam"})
    assert (adam["beta1"], adam["beta2"], adam["lr"]) == (0.9, 0.99, 0.02)
    with pytest.raises(ValueError, match=r"no optimizer of this sweep has it \(did you mean 'momentum'\?\)"):
        make_spec(base=make_spec().base | {"optimizer": {"momentun": 0.8}})


def test_all_optimizers_are_the_default_choice_and_references_may_name_one(make_spec):
    spec = make_spec(
        search={"optimizer.name": "default"},
        references={"document": {"optimizer.name": "rmsprop", "optimizer.alpha": 0.9}},
    )
    assert spec.search["optimizer.name"].choices == ("sgd", "adam", "adamw", "rmsprop")
    with pytest.raises(ValueError, match=r"unknown optimizer 'sdg' \(did you mean 'sgd'\?\)"):
        make_spec(references={"document": {"optimizer.name": "sdg"}})


def test_heads_learn_at_their_own_rate_only_beside_a_trunk(make_spec):
    factor = {"optimizer.head_lr_factor": [1, 10]}
    assert optimizer_of(make_spec(search=factor), **{"optimizer.head_lr_factor": 10})["head_lr_factor"] == 10
    networks = {"model.name": ["bisenet_v1", "fast_scnn"]}
    with pytest.raises(ValueError, match=r"fast_scnn has no trunk .*; add `when: \{model.name: \[bisenet_v1\]\}`"):
        make_spec(search=factor | networks)
    base = make_spec().base
    with pytest.raises(ValueError, match=r"fast_scnn has no trunk .* another rate; leave it out"):
        make_spec(base=base | {"model": {"name": "fast_scnn"}}, search=factor)
    with pytest.raises(ValueError, match=r"fast_scnn has no trunk"):
        make_spec(base=base | {"optimizer": {"head_lr_factor": 10}}, search=networks)
    make_spec(
        search=networks | {"optimizer.head_lr_factor": {"choices": [1, 10], "when": {"model.name": "bisenet_v1"}}}
    )


def test_a_stored_trial_of_an_earlier_version_is_refused_in_one_line(make_spec):
    """Adam's first moment was called momentum once."""
    config = make_spec().train_config({"optimizer.name": "adam"}, seed=0).model_dump(mode="json")
    config["optimizer"] = {"name": "adam", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.0, "grad_clip": None}

    class Stored:
        pass

    Stored.config = config
    with pytest.raises(ConfigError, match=r"another version .* wrote: optimizer.momentum: unknown key") as caught:
        _config(Stored)
    assert "\n" not in str(caught.value)
