"""`sweeps profile`, with figures that are not measured."""

import fakes
import pytest
import records
import yaml

from sweeps.planning import profiles
from sweeps.planning.profiles import Profile

ALONE = {"num_parameters": 12e6, "macs": 3e9, "latency_ms": 11.1, "latency_iqr_ms": 0.4, "latency_spread": 0.02}
ALONE |= {"fps": 90.1, "peak_memory_bytes": 2.0**25, "latency_reliable": 1.0}
DOUBTFUL = ALONE | {"latency_ms": 75.2, "latency_spread": 0.4, "latency_reliable": 0.0}


@pytest.fixture
def figures(monkeypatch):
    """What is measured next, in a list of one."""
    found = [Profile(ALONE)]
    monkeypatch.setattr(profiles, "measure", lambda architecture, device, min_seconds: found[0])
    monkeypatch.setattr(profiles, "look", lambda device: ("somebody computes",))
    return found


@pytest.fixture
def profile(call, store, tmp_path):
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump(fakes.plain_spec(resources={"cpus": 1, "idle_wait_minutes": 0})))

    def invoke(*words, sweep=path):
        code, out, err = call("profile", sweep, "--store", store.root, *words)
        assert code == 0, err
        return out

    return invoke


def test_networks_of_a_file_are_measured_once_and_again_when_asked_to(profile, figures):
    assert all(shown in profile() for shown in ("11.1", "0.4", "90.1", "measured alone"))
    figures[0] = Profile(ALONE | {"latency_ms": 12.5})
    assert "11.1" in profile()
    assert "12.5" in profile("--again")
    assert "12.5" in profile()


def test_what_speaks_against_a_figure_is_told(profile, figures):
    figures[0] = Profile(DOUBTFUL, doubts=("others used 1.0 of 2 processors",), unchecked=("load of the GPU",))
    out = profile()
    assert "latency is not reliable" in " ".join(out.split())
    assert "is not reliable: others used 1.0 of 2 processors" in out
    assert "not checked: load of the GPU" in out
    figures[0] = Profile(ALONE)
    assert "measured alone" in profile()


def test_doubtful_trials_of_a_sweep_get_the_new_figures(profile, figures, make_spec, begun, ledger):
    begun(make_spec())
    for number, known in enumerate((DOUBTFUL, ALONE)):
        ledger.add_trial(records.trial(number, params={"optimizer.lr": 0.01}, profile=known))
    figures[0] = Profile(ALONE | {"latency_ms": 12.5})
    assert "new figures for trial 0; `sweeps report demo --store" in profile(sweep="demo")
    assert [trial.profile["latency_ms"] for trial in ledger.trials("demo")] == [12.5, 11.1]
