"""Sizes, numbers and names that no sweep can have: told when the file is read, not when the night is over."""

import time

import fakes
import pytest

from segda.errors import ConfigError
from sweeps.checks.makers import load_spec

LR, WARMUP = "optimizer.lr", "schedule.warmup_steps"


def _base(**changes):
    plain = fakes.plain_spec()["base"]
    return {"base": plain | changes}


def _data(**changes):
    return _base(data=fakes.plain_spec()["base"]["data"] | changes)


CASES = [
    ({"name": "x" * 101}, "name: must have at most 100 characters"),
    ({"name": "-rf"}, "name: must match ^[a-z0-9_][a-z0-9_-]*$, got '-rf'"),
    ({"name": "ledger.db"}, "name: must match ^[a-z0-9_][a-z0-9_-]*$, got 'ledger.db'"),
    ({"name": "mlartifacts"}, "name: the store has mlartifacts for itself; give the sweep another name"),
    ({"name": ".."}, "name: must match"),
    ({"name": "Demo"}, "name: must match"),
    ({"question": "x" * 2001}, "question: must have at most 2000 characters"),
    ({"seed": 2**63}, "seed: must be at most 4294967295, got 9223372036854775808"),
    ({"seeds": [0, 2**32]}, "seeds[1]: must be at most 4294967295, got 4294967296"),
    ({"budget": {"trials": 10**12}}, "budget.trials: must be at most 1000000, got 1000000000000"),
    ({"budget": {"trials": 3, "hours": float("inf")}}, "budget.hours: must be a finite number, got inf"),
    ({"budget": {"trials": 3, "hours": float("nan")}}, "budget.hours: must be a finite number, got nan"),
    ({"budget": {"trials": 3, "hours": 1e300}}, "budget.hours: must be at most 1e+06, got 1e+300"),
    ({"budget": {"trials": 3, "concurrency": 10**9}}, "budget.concurrency: must be at most 10000, got 1000000000"),
    ({"resources": {"cpus": 10**9}}, "resources.cpus: must be at most 10000, got 1000000000"),
    ({"resources": {"cpus": 1e-9}}, "resources.cpus: must be at least 0.0001, got 1e-09"),
    ({"resources": {"gpus": 1e-9}}, "resources.gpus: must be auto, 0, or a number from 0.0001 to 1024, got 1e-09"),
    ({"resources": {"processes": 10**6}}, "resources.processes: must be at most 1024, got 1000000"),
    ({"resources": {"watchdog_minutes": 1e300}}, "resources.watchdog_minutes: must be at most 1e+06, got 1e+300"),
    ({"tracking": {"experiment": "x" * 501}}, "tracking.experiment: must have at most 256 characters"),
    ({"tracking": {"experiment": "  "}}, "tracking.experiment: must match"),
    ({"tracking": {"experiment": "a\nb"}}, "tracking.experiment: must match"),
    (_data(height=10**9), "base.data.height: must be at most 16384, got 1000000000"),
    (_data(workers=10**9), "base.data.workers: must be at most 256, got 1000000000"),
    (_base(steps=10**18), "base.steps: must be at most 1000000000, got 1000000000000000000"),
    (_base(batch_size=10**9), "base.batch_size: must be at most 4096, got 1000000000"),
    (_base(optimizer=3), "base.optimizer: must be a mapping `key: value`"),
    (_base(schedule={"power": float("inf")}), "base.schedule.power: must be a finite number, got inf"),
    (
        {"search": {LR: {"low": 0, "high": 1, "log": True}}},
        "search.optimizer.lr.low: must be greater than 0 on a logarithmic scale",
    ),
    (
        {"search": {LR: {"low": 1e-3, "high": 1e308}}},
        "search.optimizer.lr.high: must lie within 1e+15 of 0, got 1e+308",
    ),
    (
        {"search": {LR: {"low": 1, "high": 2, "step": 1e-320}}},
        "search.optimizer.lr.step: must give at most 100000 steps from 1 to 2",
    ),
    (
        {"search": {LR: {"low": 1, "high": 2, "when": {WARMUP: []}}, WARMUP: [0, 1]}},
        "when.schedule.warmup_steps: must have at least 1",
    ),
    (
        {"search": {LR: [index / 1e6 for index in range(1, 1002)]}},
        "search.optimizer.lr.choices: must have at most 1000 items",
    ),
    (
        {"search": {WARMUP: {"low": 0, "high": 1e12, "step": 1}}},
        "search.schedule.warmup_steps.step: must give at most 100000 steps",
    ),
    (
        {"search": {LR: {"low": 0.1, "high": 1, "when": {WARMUP: 3}}, WARMUP: {"low": 0, "high": 10**9}}},
        "search: the conditions make more than 1000 branches, each of which is tried; search less at once",
    ),
    ({"search": {LR: [0.1, [0.2]]}}, "search.optimizer.lr.choices[1]"),
    (
        {"search": {LR: {"low": 0.1, "high": 1, "when": {"batch_size": {"a": 1}}}}},
        "search.optimizer.lr.when.batch_size",
    ),
    ({"references": {"x" * 101: {}}}, "references: a reference needs a name of one line"),
]


@pytest.mark.parametrize(("changes", "message"), CASES, ids=[message[:50] for _, message in CASES])
def test_what_no_sweep_can_have_is_told_at_once(changes, message):
    began = time.monotonic()
    with pytest.raises(ConfigError) as error:
        load_spec(fakes.plain_spec(**changes))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    assert time.monotonic() - began < 20


def test_ranges_without_a_list_of_their_values_cost_nothing():
    plain = fakes.plain_spec(search={WARMUP: {"low": 0, "high": 5}, LR: {"low": 0.1, "high": 0.2}})
    wide = load_spec(plain | _base(steps=10**9) | {"search": {WARMUP: {"low": 0, "high": 10**8}}})
    assert wide.space.num_combinations() == 10**8 + 1
