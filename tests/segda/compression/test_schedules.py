"""How many weights are zero at which step."""

import pytest
from pydantic import ValidationError

from segda.compression.schedules import PRUNING_SCHEDULES, Cubic, CubicConfig, Fixed, Incremental


def levels(name, steps=200, epoch_steps=10, **settings):
    rule = PRUNING_SCHEDULES[name]
    chosen = rule.Config.model_validate(settings)
    return [rule.level(chosen, step=step, steps=steps, epoch=step // epoch_steps) for step in range(steps)]


@pytest.mark.parametrize("name", PRUNING_SCHEDULES)
def test_levels_never_fall_and_stay_below_the_highest(name):
    found = levels(name)
    assert found == sorted(found)
    assert max(found) <= PRUNING_SCHEDULES[name].Config().highest() < 1


def test_the_fixed_level_is_there_from_the_first_step():
    assert set(levels("fixed")) == {0.2}
    assert Fixed.Config().sparsity == 0.2


def test_the_incremental_level_is_the_number_of_the_epoch_times_its_step():
    found = levels("incremental", steps=1000)
    assert found[0] == found[9] == 0
    assert found[10] == pytest.approx(0.005)
    assert found[-1] == pytest.approx(0.495)  # the report's, after 100 epochs


def test_the_step_of_the_reports_code_stops_before_it_passes_one():
    # 0.05 per epoch is 1.05 after 21, at which torch.nn.utils.prune raises.
    found = levels("incremental", steps=400, per_epoch=0.05)
    assert max(found) == 0.9
    assert Incremental.level(Incremental.Config(per_epoch=0.05), step=0, steps=1, epoch=21) == 0.9


def test_the_cubic_level_follows_its_formula_in_equal_intervals():
    settings = CubicConfig(start=0.1, end=0.6, begin=0.2, until=0.7, updates=5)
    for step in range(100):
        expected = 0.0
        if step >= 20:
            t = min((step - 20) // 10 * 10, 50)
            expected = 0.6 + (0.1 - 0.6) * (1 - t / 50) ** 3
        assert Cubic.level(settings, step=step, steps=100, epoch=0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": 0.6, "end": 0.5}, "the level never falls"),
        ({"begin": 0.8, "until": 0.7}, "must be greater than begin"),
    ],
)
def test_a_cubic_schedule_that_does_not_rise_is_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        CubicConfig(**settings)
