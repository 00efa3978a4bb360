"""Styles in sweeps: a part of a part, with settings of its own that are searched where it is."""

import pytest
import yaml

from segda.transforms.styles import STYLES
from sweeps.checks.makers import load_spec

STYLED = ["lab", "fda", "amplitude_mix"]


def style_of(spec, **params):
    return spec.train_config(params, seed=0).data.style.model_dump()


def based(make_spec, style):
    base = make_spec().base
    return base | {"data": base["data"] | {"style": style}}


def test_styles_are_searched_with_their_own_settings(make_spec):
    beta = {"low": 0.01, "high": 0.09, "when": {"data.style.name": ["fda", "amplitude_mix"]}}
    probability = {"choices": [0.5, 1.0], "when": {"data.style.name": STYLED}}
    spec = make_spec(
        search={
            "data.style.name": ["none", *STYLED],
            "data.style.beta": beta,
            "data.style.probability": probability,
        }
    )
    assert style_of(spec, **{"data.style.name": "none"}) == {"name": "none"}
    lab = {"data.style.name": "lab", "data.style.probability": 0.5}
    assert style_of(spec, **lab) == {"name": "lab", "probability": 0.5}
    fda = {"data.style.name": "fda", "data.style.beta": 0.05, "data.style.probability": 1.0}
    assert style_of(spec, **fda) == {"name": "fda", "probability": 1.0, "beta": 0.05}
    assert {branch["data.style.name"] for branch in spec.space.branches()} == {"none", *STYLED}


def test_a_setting_without_its_condition_names_the_styles_that_have_it(make_spec):
    with pytest.raises(ValueError, match=r"style lab has no such field; add `when: \{data.style.name: fda\}`"):
        make_spec(search={"data.style.name": ["lab", "fda"], "data.style.beta": [0.01, 0.05]})
    with pytest.raises(
        ValueError, match=r"no style of this sweep has it, but fda and amplitude_mix; add that to data.style.name"
    ):
        make_spec(search={"data.style.beta": [0.01, 0.05]})


def test_all_styles_and_declared_ranges_are_the_default(make_spec):
    spec = make_spec(
        search={
            "data.style.name": "default",
            "data.style.beta": {"when": {"data.style.name": ["fda", "amplitude_mix"]}},
        }
    )
    assert spec.search["data.style.name"].choices == tuple(STYLES)
    beta = spec.search["data.style.beta"]
    assert (beta.low, beta.high, beta.log) == (0.005, 0.09, True)


def test_settings_in_base_reach_the_styles_that_have_them(make_spec):
    base = based(make_spec, {"probability": 0.5, "beta": 0.05})
    spec = make_spec(base=base, search={"data.style.name": ["none", "lab", "fda"]})
    found = {name: style_of(spec, **{"data.style.name": name}) for name in ("none", "lab", "fda")}
    assert found == {
        "none": {"name": "none"},
        "lab": {"name": "lab", "probability": 0.5},
        "fda": {"name": "fda", "probability": 0.5, "beta": 0.05},
    }
    assert spec.base["data"]["style"] == {"probability": 0.5, "beta": 0.05}
    with pytest.raises(ValueError, match=r"no style of this sweep has it \(did you mean 'beta'\?\)"):
        make_spec(base=based(make_spec, {"name": "fda", "betta": 0.05}))
    with pytest.raises(ValueError, match="must be a mapping"):
        make_spec(base=based(make_spec, "fda"))
    with pytest.raises(ValueError, match="unknown style 'fad'"):
        make_spec(base=based(make_spec, {"name": "fad"}))


def test_an_upper_bound_beside_a_style_in_base_has_none(make_spec):
    base = based(make_spec, {"name": "lab"})
    spec = make_spec(base=base, references={"upper bound": {"method.name": "target_only"}})
    assert style_of(spec, **{"method.name": "target_only"}) == {"name": "none"}
    assert style_of(spec, **{"method.name": "source_only"})["name"] == "lab"
    with pytest.raises(ValueError, match="target_only trains on target images"):
        make_spec(references={"upper bound": {"method.name": "target_only", "data.style.name": "lab"}})


def test_a_wrong_style_in_a_file_is_told_with_its_line(make_spec, tmp_path):
    plain = make_spec().canonical()
    plain["base"]["data"]["style"] = {"name": "lap"}
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({key: plain[key] for key in ("name", "question", "base", "search", "budget")}))
    line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if "name: lap" in text)
    with pytest.raises(ValueError, match=rf"sweep.yaml:{line}: base.data.style.name: unknown style 'lap'"):
        load_spec(path)
