"""What commands tell programs: the documents that docs/automation.md describes, and no figure made from target labels unasked."""

import json
import math

import fakes
import pytest
import yaml
from documented import PAGE, described, differences, is_time
from records import trial
from test_plan import COSTS
from test_profile_command import ALONE

from segda.datasets.scenes import generate_scenes
from segda.documents import as_json, document
from sweeps.cli.actions import plan as plan_module
from sweeps.failures import FailureClass
from sweeps.file.spec import SweepSpec
from sweeps.ledger.records import RETRIED, STARTED, SweepState, attempt_text
from sweeps.planning import profiles
from sweeps.planning.estimate import Tried
from sweeps.planning.profiles import Profile
from sweeps.trial import TrialKind, TrialState

# Figures that nothing else has, as they are and as people read them.
TARGETS = {0: 0.41371, 1: 0.47293, 2: 0.42919, 3: 0.35117, 4: 0.58331, 5: 0.43913}
SOURCES = {0: 0.60217, 1: 0.62129, 2: 0.65713, 3: 0.64901, 4: 0.51833, 5: 0.61}
OF_ONE_SWEEP = (
    ("status",),
    ("status", "demo"),
    ("show", "demo"),
    *(("show", "demo", str(number)) for number in range(7)),
    ("report", "demo"),
    ("report", "demo", "other"),
    ("audit", "demo", "--no-mlflow"),
)


def finish(spec, ledger):
    """Add a sweep that has ended, with references, repetitions over seeds, and what failed."""
    ledger.create_sweep(spec.name, spec=spec.canonical())

    def one(number, **changes):
        params = {"optimizer.lr": 0.01 * (1 + number % 5)} | changes.pop("params", {})
        config = spec.train_config(params, seed=changes.get("seed", 0)).model_dump(mode="json")
        made = {"sweep": spec.name, "params": params, "config": config, "step": 6, "attempt": 1}
        return trial(
            number, SOURCES.get(number), TARGETS.get(number), **made | {"started": 10.0, "finished": 20.0} | changes
        )

    trials = [one(number) for number in range(3)]
    reference = {"kind": TrialKind.REFERENCE}
    trials += [
        one(3, name="source only", **reference),
        one(4, name="upper bound", params={"method.name": "target_only"}, **reference),
        one(5, kind=TrialKind.REPLICATE, parent=2, seed=1, params=trials[2].params),
        one(6, state=TrialState.FAILED, failure=FailureClass.ERROR, error="boom", attempt=2, step=0),
    ]
    for record in trials:
        ledger.add_trial(record)
    for number, target in TARGETS.items():
        for step in (3, 6):
            share = step / 6
            metrics = {
                "source/val/miou": SOURCES[number] * share,
                "oracle/target/miou": target * share,
                "train/lr": math.nan,
            }
            ledger.add_point(
                spec.name, number, attempt=trials[number].attempt, step=step, timestamp=float(step), metrics=metrics
            )
    for attempt in (1, 2):
        ledger.add_event(
            spec.name, STARTED, attempt_text(attempt, "node:7", "GPU 0"), number=6, timestamp=10.0 * attempt
        )
        kind = RETRIED if attempt == 1 else "failed"
        ledger.add_event(spec.name, kind, "boom", number=6, timestamp=10.0 * attempt + 5, failure=FailureClass.ERROR)
    ledger.update_sweep(spec.name, state=SweepState.FINISHED)


@pytest.fixture
def finished(make_spec, ledger, store):
    """Two sweeps that have ended, one of which chooses by what the file says."""

    def make(**changes):
        for name in ("demo", "other"):
            finish(make_spec(name=name, seeds=[0, 1], **changes), ledger)
        return store

    return make


@pytest.fixture
def asked(call, store):
    """Return the document of a command."""

    def ask(*words, code=0):
        got, out, err = call(*words, "--store", store.root, "--json")
        assert got == code, err
        return json.loads(out)

    return ask


def ask_all(asked, *options):
    return [
        asked(*words, *(options if words[0] != "audit" else ()), code=1 if words[0] == "audit" else 0)
        for words in OF_ONE_SWEEP
    ]


def walk(value, path=()):
    """Yield (keys on the way, single value) of everything in a document."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from walk(item, (*path, key))
    elif isinstance(value, list):
        for item in value:
            yield from walk(item, path)
    else:
        yield path, value


def is_marked(path):
    return any(key == "oracle" or key.startswith("oracle/") for key in path)


def test_no_document_has_a_figure_of_target_labels_unless_asked(finished, asked):
    finished()
    # What is shown on request, and only under a name that says so, is what nobody may meet otherwise.
    secret = {
        value
        for shown in ask_all(asked, "--oracle")
        for path, value in walk(shown)
        if is_marked(path) and isinstance(value, float) and value not in (0.0, 1.0)
    }
    assert set(TARGETS.values()) <= secret
    regret = TARGETS[1] - TARGETS[2]
    assert any(value == pytest.approx(regret) for value in secret)
    written = {f"{100 * value:.1f}" for value in [*TARGETS.values(), regret]}
    for told in ask_all(asked):
        for path, value in walk(told):
            assert not is_marked(path) or path == ("config", "oracle"), (told["schema"], path)  # which is a setting
            if isinstance(value, float):
                assert value not in secret, (told["schema"], path)
            if isinstance(value, str) and not is_time(value):
                assert not [text for text in written if text in value], (told["schema"], path, value)
        assert "upper_bound" not in told
        assert "oracle" not in [item.get("criterion") for item in told.get("criteria", ())]


def test_the_warning_that_the_choice_loses_on_the_target_is_told_on_request_alone(finished, asked):
    finished()
    lost = f"The choice loses {100 * (TARGETS[1] - TARGETS[2]):.1f} points of target mIoU"
    assert any(line.startswith(lost) for line in asked("report", "demo", "--oracle")["warnings"])
    told = asked("report", "demo")["warnings"]
    assert told
    assert not any("target mIoU" in line or "correlation" in line for line in told)


def test_a_sweep_that_chooses_by_target_labels_says_so_and_hides_nothing(finished, asked):
    finished(selection="oracle")
    status, report = asked("status", "demo"), asked("report", "demo")
    assert status["has_oracle"]
    assert status["trials"][0]["oracle"] == {"oracle/target/miou": TARGETS[0]}
    assert "oracle/target/miou" not in status["trials"][0]["metrics"]
    assert report["pick"]["reads_target_labels"]
    assert report["pick"]["trial"] == 1
    assert report["oracle"]["upper_bound"] == 4


@pytest.mark.parametrize("options", [(), ("--oracle",)], ids=["without", "with oracle"])
def test_documents_of_a_sweep_are_as_the_page_says(finished, asked, options):
    finished()
    for told in ask_all(asked, *options):
        assert differences(told) == []


def test_numbers_that_json_does_not_have_are_null_and_passwords_are_hidden():
    told = document(
        "example/1", {"loss": math.nan, "best": -math.inf, "uri": "postgresql://me:s3cr@db/x", "steps": (1, 2)}
    )
    assert json.loads(as_json(told)) == {
        "schema": "example/1",
        "loss": None,
        "best": None,
        "uri": "postgresql://***@db/x",
        "steps": [1, 2],
    }


def test_a_trial_is_told_with_its_last_and_best_metrics_and_each_of_its_attempts(finished, asked):
    finished()
    told = asked("show", "demo", "0")
    history = told["metrics"]["source/val/miou"]
    assert (history["last"], history["step"], history["best_step"]) == (SOURCES[0], 6, 6)
    assert told["metrics"]["train/lr"] == {"last": None, "step": 6, "direction": None, "best": None, "best_step": None}
    told = asked("show", "demo", "6")
    assert [item["end"] for item in told["attempts"]] == ["failed", "failed"]
    assert told["attempts"][1] == {
        "number": 2,
        "worker": "node:7",
        "device": "GPU 0",
        "started": "1970-01-01T00:00:20.000Z",
        "ended": "1970-01-01T00:00:25.000Z",
        "end": "failed",
        "failure": "error",
        "message": "boom",
    }


def test_what_is_wrong_stays_one_line_and_no_document(finished, call, store):
    finished()
    for words in (("status", "nothing"), ("show", "demo", "99"), ("report", "nothing"), ("audit", "nothing")):
        code, out, err = call(*words, "--store", store.root, "--json")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("Error: no ")
    code, out, err = call("status", "demo", "--store", store.root, "--json", "--watch")
    assert (code, out) == (2, "")
    assert "--json prints one document" in err


# What a sweep is going to do


@pytest.fixture
def sweep_file(tmp_path):
    path = tmp_path / "demo.yaml"
    plain = fakes.plain_spec(
        resources={"cpus": 1, "idle_wait_minutes": 0},
        constraints=["macs <= 1e12"],
        references={"half the rate": {"optimizer.lr": 0.005}},
    )
    path.write_text(yaml.safe_dump(plain))
    return path


def test_a_check_is_told_also_where_data_are_missing(call, sweep_file, has_camvid, monkeypatch):
    code, out, _ = call("check", sweep_file, "--json")
    told = json.loads(out)
    assert (code, differences(told)) == (0, [])
    assert told["planned"] == {"search": 3, "references": 1, "replicates": 0, "total": 4}
    assert [item["is_there"] for item in told["data_sets"]] == [True]
    monkeypatch.delenv("SEGDA_CAMVID_ROOT")
    code, out, err = call("check", sweep_file, "--json")
    assert (code, err) == (2, "Error: 1 data set is missing: camvid\n")
    told = json.loads(out)
    assert differences(told) == []
    assert not told["data_sets"][0]["is_there"]


def test_a_plan_is_told_with_the_branch_that_fails(asked, sweep_file, has_camvid, monkeypatch, call, store):
    monkeypatch.setattr(plan_module, "data_fingerprint", lambda *_, **__: "0")
    monkeypatch.setattr(
        profiles, "measure", lambda architecture, device, min_seconds: Profile(ALONE, unchecked=("load",))
    )
    results = [(COSTS, None), (None, "no memory")]

    def try_all(spec, to_try, **_):
        return [Tried(case, *result) for case, result in zip(to_try, results, strict=True)]

    monkeypatch.setattr(plan_module, "try_all", try_all)
    code, out, err = call("plan", sweep_file, "--store", store.root, "--json")
    told = json.loads(out)
    assert code == 2
    assert err.splitlines()[-1].startswith("Error: 1 of 2 branches fail")
    assert differences(told) == []
    assert [item["error"] for item in told["branches"]] == [None, "no memory"]
    assert told["estimate"]["trials"] == 4
    results[1] = (COSTS, None)
    assert asked("plan", sweep_file)["branches"][1]["costs"]["seconds_per_step"] == COSTS.seconds_per_step


def test_profiles_are_told_with_what_speaks_against_them(asked, sweep_file, monkeypatch):
    doubtful = ALONE | {"latency_reliable": 0.0}
    monkeypatch.setattr(
        profiles, "measure", lambda *_: Profile(doubtful, doubts=("others compute",), unchecked=("load",))
    )
    monkeypatch.setattr(profiles, "look", lambda device: ("others compute",))
    told = asked("profile", sweep_file)
    assert differences(told) == []
    assert [item["is_doubtful"] for item in told["networks"]] == [True]
    assert told["unchecked"] == ["load"]


# Data sets


@pytest.fixture
def segda(capsys):
    """Return exit code, document and errors of a command of segda."""
    from segda.cli import cli
    from segda.cli_errors import run_cli

    def invoke(*words):
        with pytest.raises(SystemExit) as ended:
            run_cli(cli, [*map(str, words), "--json"])
        shown = capsys.readouterr()
        return ended.value.code, json.loads(shown.out), shown.err

    return invoke


def test_data_sets_are_told_with_what_is_wrong(segda, tmp_path):
    for words in (("list",), ("recipes",)):
        code, told, _ = segda("datasets", *words)
        assert (code, differences(told)) == (0, [])
    root = generate_scenes(tmp_path / "scenes", size=32, train=2, val=1, seed=0)
    for words in ((), ("--quick",)):
        code, told, err = segda("datasets", "verify", "scenes", "--root", root, *words)
        assert (code, err, differences(told)) == (0, "", [])
        assert told["holds"]
        assert bool(told["classes"]) is not bool(words)
    next(root.rglob("*.png")).write_bytes(b"")
    code, told, err = segda("datasets", "verify", "scenes", "--root", root)
    assert (code, err.count("\n"), told["holds"], len(told["problems"])) == (2, 1, False, 1)


def test_the_page_describes_no_document_that_there_is_not():
    known = {
        *(
            "sweeps.overview/1",
            "sweeps.status/1",
            "sweeps.sweep/1",
            "sweeps.trial/1",
            "sweeps.check/1",
            "sweeps.plan/1",
        ),
        *("sweeps.profile/1", "sweeps.report/1", "sweeps.comparison/1", "sweeps.audit/1"),
        *("sweeps.deletion/1", "sweeps.cleaning/1", "sweeps.pick/1"),
        *("segda.datasets/1", "segda.recipes/1", "segda.verification/1"),
    }
    assert {name for name in described() if "/" in name} == known
    text = PAGE.read_text(encoding="utf-8")
    used = {
        word for fields in described().values() for kind in fields.values() for word in kind.split() if word.isupper()
    }
    assert used == {name for name in described() if name.isupper() and name not in ("DRIVEN", "STANDING")} | used
    assert all(f"### {name}\n" in text for name in used)


def test_sweep_files_of_the_page_are_right():
    (text,) = PAGE.read_text(encoding="utf-8").split("```yaml\n")[1:]
    SweepSpec.model_validate(yaml.safe_load(text.partition("```")[0]))
