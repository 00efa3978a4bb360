"""Methods on top of others in sweeps: the host is searched like a method, with settings of its own."""

from types import SimpleNamespace

import pytest

from sweeps.labels import method_label, short_params


def method_of(spec, **params):
    return spec.train_config(params, seed=0).method.model_dump()


def test_hosts_are_searched_with_their_own_settings(make_spec):
    spec = make_spec(
        search={
            "method.name": ["source_only", "mic"],
            "method.ratio": {"low": 0.5, "high": 0.8, "when": {"method.name": "mic"}},
            "method.host.name": {"choices": ["dacs", "min_entropy"], "when": {"method.name": "mic"}},
            "method.host.tau": {"choices": [0.8, 0.968], "when": {"method.host.name": "dacs"}},
            "method.host.lambda_ent": {"when": {"method.host.name": "min_entropy"}},
        }
    )
    assert method_of(spec, **{"method.name": "source_only"}) == {"name": "source_only"}
    found = method_of(
        spec, **{"method.name": "mic", "method.ratio": 0.6, "method.host.name": "dacs", "method.host.tau": 0.8}
    )
    assert (found["ratio"], found["host"]["name"], found["host"]["tau"]) == (0.6, "dacs", 0.8)
    branches = [(branch["method.name"], branch.get("method.host.name")) for branch in spec.space.branches()]
    assert sorted(branches, key=str) == [("mic", "dacs"), ("mic", "min_entropy"), ("source_only", None)]
    assert spec.search["method.host.lambda_ent"].log


def test_settings_of_the_usual_host_are_searched_without_naming_it(make_spec):
    base = make_spec().base
    spec = make_spec(base=base | {"method": {"name": "mic"}}, search={"method.host.tau": "default"})
    assert method_of(spec, **{"method.host.tau": 0.7})["host"]["tau"] == 0.7


def test_settings_in_base_reach_the_host_that_has_them_and_no_other_method(make_spec):
    base = make_spec().base | {"method": {"host": {"name": "dacs", "tau": 0.7}, "ratio": 0.5}}
    spec = make_spec(base=base, search={"method.name": ["dacs", "mic"]})
    found = method_of(spec, **{"method.name": "mic"})
    assert (found["ratio"], found["host"]["tau"]) == (0.5, 0.7)
    assert method_of(spec, **{"method.name": "dacs"})["tau"] == 0.968
    with pytest.raises(ValueError, match=r"no host method of this sweep has it \(did you mean 'tau'\?\)"):
        make_spec(base=base | {"method": {"name": "mic", "host": {"tua": 0.7}}}, search={"method.ratio": "default"})


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (
            {"method.name": ["dacs"], "method.host.tau": [0.8]},
            "no method of this sweep has it, but mic; add that to method.name or leave the path out",
        ),
        (
            {"method.name": ["dacs", "mic"], "method.host.name": ["dacs", "joint"]},
            "joint trains with the labels of a few target images",
        ),
        (
            {"method.name": ["dacs", "mic"], "method.host.name": ["dacs"]},
            r"method dacs has no such field; add `when: \{method.name: mic\}`",
        ),
        (
            {
                "method.name": ["mic"],
                "method.host.name": ["dacs", "source_only"],
                "method.host.tau": [0.8],
            },
            r"host method source_only has no such field; add `when: \{method.host.name: dacs\}`",
        ),
        ({"method.name": ["mic"], "method.host.name": ["target_only"]}, "target_only is trained on target labels"),
        ({"method.name": ["mic"], "method.host.name": ["nope"]}, "unknown host method 'nope'"),
    ],
)
def test_what_no_host_has_is_told_with_what_to_do(make_spec, search, message):
    with pytest.raises(ValueError, match=message):
        make_spec(search=search)


def test_few_shot_labels_reach_a_host_that_uses_them(make_spec):
    base = make_spec().base
    base = base | {"data": base["data"] | {"few_shot": {"images": 2}}}
    hosts = {"choices": ["joint", "dacs"], "when": {"method.name": "mic"}}
    spec = make_spec(base=base, search={"method.name": ["mic", "source_only"], "method.host.name": hosts})
    few = {
        host: spec.train_config({"method.name": "mic", "method.host.name": host}, seed=0).data.few_shot
        for host in ("joint", "dacs")
    }
    assert few["joint"] is not None
    assert few["dacs"] is None


def test_a_reference_may_be_on_top_of_another_method(make_spec):
    spec = make_spec(references={"masked": {"method.name": "mic", "method.host.name": "min_entropy"}})
    assert method_of(spec, **spec.references["masked"])["host"]["name"] == "min_entropy"


def test_a_label_says_what_a_method_is_put_on(make_spec):
    params = {"method.name": "mic", "method.host.name": "dacs", "method.ratio": 0.5}
    trial = SimpleNamespace(config={"method": {"name": "mic", "host": {"name": "dacs"}}}, params=params)
    assert method_label(trial) == "mic × dacs"
    assert short_params(params) == "ratio 0.5"
