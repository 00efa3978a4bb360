"""Which sampler a sweep has, and what is refused."""

import pytest
import yaml

from segda.cli_errors import run_cli
from segda.errors import ConfigError
from sweeps import cli
from sweeps.checks.makers import load_spec
from sweeps.file.auto import chosen_sampler

MIOU = "source/val/miou"
PARETO = [{"metric": MIOU, "direction": "maximize"}, {"metric": "macs", "direction": "minimize"}]
FINITE = {"optimizer.name": ["sgd", "adam"], "batch_size": [2, 4, 8]}
LR = {"optimizer.lr": {"low": 1e-3, "high": 1e-1, "log": True}}
CONDITIONAL = {
    "method.name": ["source_only", "adversarial"],
    "method.lambda_adv": {"low": 1e-4, "high": 1e-1, "log": True, "when": {"method.name": "adversarial"}},
    "schedule.power": {"low": 0.5, "high": 1.0, "step": 0.25},
}


@pytest.mark.parametrize(
    ("search", "trials", "changes", "chosen"),
    [
        (FINITE, 6, {}, "grid"),
        (FINITE, 5, {"sampler": {"startup_trials": 4}}, "tpe"),
        (LR, 10, {}, "qmc"),
        (LR, 11, {}, "tpe"),
        (LR, 10, {"sampler": {"warm_start": ["earlier"]}}, "tpe"),
        (LR, 1000, {"objectives": PARETO}, "tpe"),
        (FINITE, 6, {"sampler": {"name": "random"}}, "random"),
        (LR, 10, {"sampler": {"name": "gp"}}, "gp"),
    ],
)
def test_auto_goes_by_the_space_and_the_budget(make_spec, search, trials, changes, chosen):
    spec = make_spec(**{"search": search, "budget": {"trials": trials}, "sampler": {}} | changes)
    assert chosen_sampler(spec, spec.space) == chosen


def test_check_says_what_auto_has_chosen(tmp_path, capsys):
    import fakes

    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump(fakes.plain_spec(search=FINITE, sampler={}, budget={"trials": 6})))
    with pytest.raises(SystemExit):
        run_cli(cli.sweeps, ["check", str(path)])
    assert "sampler: grid, chosen by auto" in capsys.readouterr().out


@pytest.fixture
def refusal(tmp_path):
    """Return the line that a sweep file is refused with."""

    def read(**changes):
        import fakes

        path = tmp_path / "demo.yaml"
        path.write_text(yaml.safe_dump(fakes.plain_spec(**changes), sort_keys=False))
        with pytest.raises(ConfigError) as raised:
            load_spec(path)
        assert str(raised.value).startswith(f"{path}:")
        return str(raised.value)

    return read


def test_a_grid_needs_an_end_of_values(refusal):
    text = refusal(search=LR, sampler={"name": "grid"})
    assert "search.optimizer.lr: has no end of values" in text
    assert "give it a step or choices" in text


@pytest.mark.parametrize(
    ("sampler", "key"),
    [
        ({"name": "random", "startup_trials": 4}, "startup_trials"),
        ({"name": "nsga2", "startup_trials": 4}, "startup_trials"),
        ({"name": "qmc", "warm_start": ["earlier"]}, "warm_start.*"),
        ({"name": "random", "warm_start": ["earlier"]}, "warm_start.*"),
    ],
)
def test_a_setting_that_the_sampler_does_not_read_is_refused(refusal, sampler, key):
    assert f"sampler.{key.rstrip('.*')}" in refusal(sampler=sampler)
    assert f"has no effect with sampler {sampler['name']}; leave it out" in refusal(sampler=sampler)


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (
            {"schedule.power": 0.5},
            "sampler.first[0]: every parameter that exists there needs a value; without one: method.name",
        ),
        (
            {"method.name": "adversarial", "schedule.power": 0.5},
            "sampler.first[0]: every parameter that exists there needs a value; without one: method.lambda_adv",
        ),
        (
            {"method.name": "source_only", "schedule.power": 0.5, "method.lambda_adv": 0.01},
            "sampler.first[0].method.lambda_adv: does not exist at this point, only where method.name is adversarial",
        ),
        (
            {"method.name": "source_only", "schedule.powr": 0.5},
            "sampler.first[0].schedule.powr: is not searched (did you mean 'schedule.power'?)",
        ),
        (
            {"method.name": "source_only", "schedule.power": 0.6},
            "sampler.first[0].schedule.power: must be a number from 0.5 to 1, step 0.25, got 0.6",
        ),
        (
            {"method.name": "source_only", "schedule.power": 1.25},
            "sampler.first[0].schedule.power: must be a number from 0.5 to 1, step 0.25, got 1.25",
        ),
        (
            {"method.name": "fancy", "schedule.power": 0.5},
            "sampler.first[0].method.name: must be source_only, adversarial, got 'fancy'",
        ),
    ],
)
def test_a_first_point_outside_the_space_is_refused_at_its_line(refusal, point, message):
    assert message in refusal(search=CONDITIONAL, sampler={"first": [point]})


def test_more_first_points_than_trials_are_refused(refusal):
    points = [{"method.name": "source_only", "schedule.power": power} for power in (0.5, 0.6)]
    text = refusal(search=CONDITIONAL, sampler={"first": points, "default": False}, budget={"trials": 1})
    assert "sampler.first: has 2 points and budget.trials is 1; raise that or name fewer points" in text
    text = refusal(search=CONDITIONAL, sampler={"first": points}, budget={"trials": 2})
    assert "has 2 points, the default configuration is one more (sampler.default) and budget.trials is 2" in text


def test_a_first_point_listed_twice_is_refused(refusal):
    point = {"method.name": "source_only", "schedule.power": 0.5}
    text = refusal(search=CONDITIONAL, sampler={"first": [point, dict(point)]})
    assert "sampler.first[1]: is listed twice" in text


@pytest.mark.parametrize(
    ("names", "message"),
    [(["demo"], "is this sweep itself"), (["other", "other"], "other is listed twice; keep one of them")],
)
def test_a_warm_start_names_each_earlier_sweep_once(refusal, names, message):
    assert message in refusal(sampler={"name": "tpe", "warm_start": names})
