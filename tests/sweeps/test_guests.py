# ruff: noqa: E501 - a table of messages reads best with one case per line
"""A user's own method in a sweep file."""

import textwrap

import pytest

from segda.errors import ConfigError
from sweeps.spec import load_spec, sweep_schema

SHY = """
    from typing import Annotated

    from pydantic import Field

    from segda.methods import MethodConfig
    from segda.methods.source_only import SourceOnly
    from segda.methods.target_only import TargetOnly
    from segda.tunable import Range

    class ShyConfig(MethodConfig):
        lambda_shy: Annotated[float, Range(0.1, 0.9)] = Field(0.5, ge=0, description="weight of nothing")

    class Shy(SourceOnly):
        Config = ShyConfig

    class Bold(TargetOnly):
        Config = ShyConfig
"""

SWEEP = """\
name: shy
base:
  data:
    source: {dataset: camvid, domain: day}
    target: {dataset: camvid, domain: dusk}
    height: 96
    width: 128
  method: {lambda_adv: 1e-4}
  steps: 900
  report_every: 100
search:
  method.name: [source_only, "shy:Shy", adversarial]
  method.lambda_shy: {when: {method.name: "shy:Shy"}}
  optimizer.lr: {low: 5e-3, high: 5e-2, log: true}
budget: {trials: 12}
references:
  bold: {method.name: "shy:Bold", method.lambda_shy: 0.3}
"""


@pytest.fixture
def load(guest_folder, tmp_path):
    (guest_folder / "shy.py").write_text(textwrap.dedent(SHY))

    def load(*changes):
        text = SWEEP
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        return load_spec(path)

    return load


def test_a_guest_is_searched_at_its_own_ranges_where_it_is_chosen(load):
    spec = load()
    item = spec.search["method.lambda_shy"]
    assert (item.low, item.high, item.when) == (0.1, 0.9, {"method.name": ("shy:Shy",)})
    params = {"method.name": "shy:Shy", "method.lambda_shy": 0.2, "optimizer.lr": 0.01}
    assert spec.train_config(params, seed=0).method.model_dump() == {"name": "shy:Shy", "lambda_shy": 0.2}
    assert spec.train_config({"method.name": "adversarial"}, seed=0).method.lambda_adv == 1e-4
    assert type(spec).model_validate(spec.canonical()) == spec


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"shy:Shy", adv', '"shy:Sly", adv', "12: search.method.name[1]: method 'shy:Sly': module shy ("),
        ('"shy:Shy", adv', '"sly:Shy", adv', "12: search.method.name[1]: method 'sly:Shy': there is no module 'sly'; put sly.py into"),
        ('"shy:Shy", adv', '"shy:Bold", adv', "12: search.method.name[1]: shy:Bold is trained on target labels and never picked"),
        ("method.lambda_shy: {when", "method.lambda_shi: {when", "13: search.method.lambda_shi: a training configuration has no such field (did you mean 'method.lambda_shy'?)"),
        ('{when: {method.name: "shy:Shy"}}', "{low: -1, high: 1, when: {method.name: 'shy:Shy'}}", "13: search.method.lambda_shy: must be at least 0, got -1"),
        ('{when: {method.name: "shy:Shy"}}', "default", "13: search.method.lambda_shy: method adversarial has no such field; add `when: {method.name: shy:Shy}`"),
        ("shy:Bold", "shy:Bald", "17: references.bold.method.name: method 'shy:Bald': module shy ("),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_guest_is_told_with_file_and_line(load, tmp_path, old, new, message):
    with pytest.raises(ConfigError) as error:
        load(old, new)
    assert str(error.value).startswith(f"{tmp_path / 'sweep.yaml'}:{message}")


def test_an_installed_method_is_part_of_the_default_range_and_of_the_schema_and_a_broken_one_is_not(
    load, guest_folder, install, caplog
):
    (guest_folder / "wreck.py").write_text("raise RuntimeError('water')\n")
    install("shyness", "[segda.methods]\nshy = shy:Shy\nbold = shy:Bold\nwreck = wreck:Wreck\n")
    spec = load(
        'method.name: [source_only, "shy:Shy", adversarial]',
        "method.name: default",
        'when: {method.name: "shy:Shy"}',
        "when: {method.name: shy}",
    )
    assert spec.search["method.name"].choices == ("source_only", "adversarial", "shy")
    assert "method.lambda_shy" in sweep_schema()["properties"]["search"]["propertyNames"]["enum"]
    assert "importing wreck failed with RuntimeError: water" in caplog.text
