"""The report's page in a browser: tables by pages, sorted, searched in, and what its reader did after it was read again."""

import pytest
from browser import needs_browser, seen
from records import trial
from test_report import Page, markdown_table, table

from sweeps.reports import plots, report_tables
from sweeps.reports import view as view_module
from sweeps.reports.sweep_report import write_report
from sweeps.trial import TrialState


@pytest.fixture(autouse=True)
def short_script(monkeypatch):
    monkeypatch.setattr(plots, "plotly_script", lambda: "/* plotly.js v0 */")


@pytest.fixture
def report(ledger, store, begun, make_spec):
    """Write the report of sixty trials, of which every third one is complete, the later the better."""
    begun(make_spec(search={"method.name": ["adversarial", "source_only"]}))
    for number in range(60):
        state = TrialState.COMPLETE if number % 3 == 0 else TrialState.PRUNED
        ledger.add_trial(trial(number, 0.30 + number / 200, method="source_only", state=state, params={}))
    return lambda: write_report(ledger, store, "demo")


def test_the_page_lists_all_trials_where_figures_and_text_show_the_best(report, monkeypatch):
    monkeypatch.setattr(view_module, "MOST_SHOWN", 20)
    paths = report()
    page, text = paths.html.read_text(encoding="utf-8"), paths.markdown.read_text(encoding="utf-8")
    assert [row["trial"] for row in table(Page(page), "kind")] == [*map(str, range(57)), "57 ★", "58", "59"]
    assert '<table class="sortable wide" data-rows="50">\n<thead><tr><th class="number">trial</th><th>kind' in page
    assert len(markdown_table(text, "All trials")) == 20
    assert "40 more trials are in the table" not in page.split('id="trials"')[1].split('id="search"')[0]


def test_a_page_that_would_be_too_long_lists_the_best_and_says_so(report, monkeypatch):
    monkeypatch.setattr(view_module, "MOST_SHOWN", 20)
    monkeypatch.setattr(report_tables, "MOST_LISTED", 59)
    page = report().html.read_text(encoding="utf-8")
    assert len(table(Page(page), "kind")) == 20
    assert "40 more trials are in the table" in page.split('id="trials"')[1].split('id="search"')[0]


LOOK = """
  const table = document.querySelector("#trials ~ .scroll table");
  const look = () => ({
    trials: [...table.tBodies[0].rows].map((row) => parseInt(row.cells[0].textContent)),
    said: document.querySelector(".pager output").textContent,
    back: document.querySelector("[aria-label='previous rows']").disabled,
    on: document.querySelector("[aria-label='next rows']").disabled,
  });
  const type = (words) => {
    const box = document.querySelector(".pager input");
    box.value = words;
    box.dispatchEvent(new Event("input"));
  };
  const sort = (column) => table.tHead.rows[0].cells[column].querySelector("button").click();
"""


@needs_browser
def test_the_table_of_trials_is_turned_page_by_page(report, tmp_path):
    steps = "const first = look(); click('next rows'); const second = look(); click('previous rows');"
    first, second, again = seen(report().html, f"{LOOK} {steps} return [first, second, look()];", folder=tmp_path)
    assert first == {"trials": list(range(50)), "said": "1 to 50 of 60", "back": True, "on": False}
    assert second == {"trials": list(range(50, 60)), "said": "51 to 60 of 60", "back": False, "on": True}
    assert again == first


@needs_browser
def test_rows_are_found_by_words_and_sorted_over_all_pages(report, tmp_path):
    steps = """
      sort(7); const rising = look(); sort(7); const falling = look();
      type("PRUNED 32"); const found = look(); type("complete"); const complete = look(); type("nonsense");
      return [rising, falling, found, complete, look()];
    """
    rising, falling, found, complete, none = seen(report().html, LOOK + steps, folder=tmp_path)
    assert rising["trials"] == list(range(50))
    assert falling["trials"] == list(range(59, 9, -1))
    # Trial 32, and 4 and 5 whose figures begin with 32.
    assert (found["trials"], found["said"]) == ([32, 5, 4], "1 to 3 of 3 found, 60 in all")
    assert complete["trials"] == list(range(57, -1, -3))
    assert (none["trials"], none["said"]) == ([], "none of 60")


@needs_browser
def test_a_link_to_a_trial_turns_to_its_page(report, tmp_path):
    found = seen(report().html, f"{LOOK} return look();", folder=tmp_path, hash="#trial-57")
    assert found["said"] == "51 to 60 of 60"
    assert 57 in found["trials"]


@needs_browser
def test_paper_has_every_row(report, tmp_path):
    steps = "dispatchEvent(new Event('beforeprint')); const printed = look(); dispatchEvent(new Event('afterprint'));"
    printed, after = seen(report().html, f"{LOOK} {steps} return [printed.trials, look().trials];", folder=tmp_path)
    assert printed == list(range(60))
    assert after == list(range(50))


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_as_wide_as_the_window_and_wide_tables_move_in_their_boxes(report, tmp_path, width):
    steps = """
      const box = document.querySelector("#trials ~ .scroll");
      const root = document.documentElement;
      return [innerWidth, root.scrollWidth, box.scrollWidth, box.clientWidth];
    """
    window, page, inside, box = seen(report().html, steps, folder=tmp_path, width=width)
    assert page <= window
    assert box < window
    assert inside > box or width == 1280
