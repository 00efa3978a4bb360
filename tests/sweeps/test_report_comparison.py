"""The report of several sweeps."""

import pytest
from records import replicate, trial
from test_report import Page, markdown_table, table

from segda.cli_errors import run_cli
from segda.errors import ConfigError
from sweeps import cli
from sweeps.reports import plots
from sweeps.reports.comparison_report import write_comparison


@pytest.fixture(autouse=True)
def short_script(monkeypatch):
    monkeypatch.setattr(plots, "plotly_script", lambda: "/* plotly.js v0 */")


@pytest.fixture
def two(ledger, begun, make_spec):
    begun(make_spec(question="Is <it> | better?"))
    begun(make_spec(name="other", budget={"trials": 9}))
    first = trial(0, 0.6, 0.4, seconds=3600.0, finished=1.0)
    ledger.add_trial(first)
    ledger.add_trial(replicate(1, first, 0.55, 0.35, finished=2.0))
    ledger.add_trial(trial(0, 0.5, 0.5, sweep="other", seconds=1800.0, finished=1.0))


def test_both_files_have_picks_differences_and_load_nothing(ledger, store, two):
    paths = write_comparison(ledger, store, ["demo", "other"])
    assert paths.html == store.root / "comparison_demo+other.html"
    text, markup = paths.markdown.read_text(encoding="utf-8"), paths.html.read_text(encoding="utf-8")
    page = Page(markup)
    assert page.loads == []
    assert "<it>" not in markup
    rows = table(page, "worker hours")
    assert [(row["sweep"], row["worker hours"]) for row in rows] == [("demo", "1.00"), ("other", "0.50")]
    changed = {
        row["setting"]: (row["demo"], row["other"]) for row in markdown_table(text, "Differences of the sweep files")
    }
    assert changed["`budget.trials`"] == ("3", "9")
    assert changed["`question`"] == (r"Is &lt;it> \| better?", "Does the runner work?")
    assert "figure-progress" in page.ids
    picks = markdown_table(text, "Picks")
    assert [row["source mIoU % (search seed: optimistic)"] for row in picks] == ["60.0", "50.0"]
    assert [(row["n (further seeds)"], row["source mIoU % (further seeds)"]) for row in picks] == [
        ("1", "55.0"),
        ("0", "–"),
    ]


def test_sweeps_without_trials_can_be_compared(ledger, store, begun, make_spec):
    begun(make_spec())
    begun(make_spec(name="other"))
    paths = write_comparison(ledger, store, ["demo", "other"])
    assert "No fully trained candidate yet" in paths.html.read_text(encoding="utf-8")
    assert "None: the sweeps ask the same" in paths.markdown.read_text(encoding="utf-8")


def test_a_sweep_cannot_be_compared_with_itself_or_with_an_unknown_one(ledger, store, two):
    with pytest.raises(ConfigError, match="named twice"):
        write_comparison(ledger, store, ["demo", "demo"])
    with pytest.raises(ConfigError, match="no sweep 'nothing'"):
        write_comparison(ledger, store, ["demo", "nothing"])


def test_report_with_several_names_writes_a_comparison(store, two, capsys):
    with pytest.raises(SystemExit) as ended:
        run_cli(cli.sweeps, ["report", "demo", "other", "--store", str(store.root)])
    assert ended.value.code == 0
    assert "comparison_demo+other.html" in capsys.readouterr().out
