from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from segda.settings import Settings


class Inner(Settings):
    weight: float | None = None


class Example(Settings):
    steps: int = 1
    seeds: tuple[int, ...] = ()
    sides: tuple[tuple[float, float], ...] = ()
    scale: Annotated[float, Field(gt=0)] = 1.0
    integer: bool = Field(False, alias="int")
    value: bool | int | float | str = 0
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("given", "place", "noun"),
    [
        ({"steps": True}, ("steps",), "a whole number"),
        ({"seeds": [0, False]}, ("seeds", 1), "a whole number"),
        ({"scale": True}, ("scale",), "a number"),
        ({"inner": {"weight": True}}, ("weight",), "a number"),
    ],
)
def test_true_and_false_are_no_numbers(given, place, noun):
    with pytest.raises(ValidationError) as caught:
        Example.model_validate(given)
    error = caught.value.errors()[0]["ctx"]["error"]
    assert error.location == place
    assert f"must be {noun}, got {str(place[-1] != 1).lower()}" == error.text


def test_numbers_are_numbers_and_truth_is_truth():
    given = {"steps": 3, "seeds": [0, 1], "sides": [[1, 2.5]], "scale": 2, "int": True, "value": True}
    example = Example.model_validate(given)
    assert (example.steps, example.seeds, example.scale) == (3, (0, 1), 2.0)
    assert example.integer is True
    assert example.value is True


def test_unknown_names_changes_and_infinite_numbers_are_refused():
    for wrong in ({"stepps": 1}, {"scale": float("inf")}):
        with pytest.raises(ValidationError):
            Example.model_validate(wrong)
    with pytest.raises(ValidationError, match="frozen"):
        Example().steps = 2
