"""One kind of table in every place where tables are shown."""

import dataclasses
import io

import pytest
from rich.console import Console

from sweeps.reports.formats import CODE, DURATION, MISSING, PERCENT, PROSE, STATE, TRIAL, in_units
from sweeps.reports.page_tables import html_table, markdown_table
from sweeps.reports.seed_formats import INTERVAL, SPREAD, figure_interval, figure_spread
from sweeps.reports.table import PICKED, Column, Table, table_of
from sweeps.reports.terminal_tables import terminal_table
from sweeps.selection.seeds import mean_interval

COLUMNS = (
    Column("number", "trial", TRIAL),
    Column("state", "state", STATE),
    Column("target_miou", "target mIoU", PERCENT, "%", is_oracle=True),
    Column("macs", "MACs", in_units(1e-9), "G"),
    Column("path", "setting", CODE),
)
MARKS = {7: {"†": "fewer <images>", "¶": "in company"}}


@pytest.fixture
def table():
    rows = [(3, "pruned", 0.4567, 1.5e9, "a|b"), (7, "complete", None, None, "lr")]
    return Table(COLUMNS, rows, styles=["off", PICKED], marks=MARKS, notes=["One <seed>."], anchor="trial")


def printed(picture, width):
    console = Console(width=width, file=io.StringIO())
    console.print(picture)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_heading_says_unit_and_what_was_made_from_target_labels():
    assert [column.heading for column in COLUMNS] == ["trial", "state", "target mIoU % (oracle)", "MACs G", "setting"]
    chosen = Column("best", "best", PERCENT, "%", "oracle choice", is_oracle=True)
    assert chosen.heading == "best % (oracle choice)"


def test_a_page_sorts_by_values_and_says_what_marks_mean_and_no_text_is_markup(table):
    page = str(html_table(table))
    assert '<th class="number oracle">target <br>mIoU<small>%, oracle</small></th>' in page
    assert '<tr id="trial-3" class="off"><td class="number" data-value="3">3</td>' in page
    assert '<span class="chip pruned">pruned</span>' in page
    assert (
        '<td class="number" data-value="0.4567">45.7</td><td class="number" data-value="1500000000.0">1.5</td>' in page
    )
    assert f'<td class="number" data-value="">{MISSING}</td>' in page
    assert "<code>a|b</code>" in page
    mark = '<a href="#marks" title="fewer &lt;images&gt;">†</a><a href="#marks" title="in company">¶</a>'
    assert f"7{mark} ★</td>" in page
    assert page.endswith('<p class="note">One &lt;seed&gt;.</p>')


def test_markdown_has_the_same_cells_in_one_line_each(table):
    assert markdown_table(table).splitlines() == [
        "| trial | state | target mIoU % (oracle) | MACs G | setting |",
        "| ---: | --- | ---: | ---: | --- |",
        r"| 3 | pruned | 45.7 | 1.5 | `a\|b` |",
        f"| 7†¶ ★ | complete | {MISSING} | {MISSING} | `lr` |",
        "",
        "One &lt;seed>.",
    ]


def test_what_is_said_in_place_of_a_table_without_rows():
    empty = Table(COLUMNS, [], notes=["A note."], empty="No <trial> yet.")
    assert html_table(empty) == '<p class="note">No &lt;trial&gt; yet.</p>'
    assert markdown_table(empty) == "No <trial> yet."


def test_a_row_that_stands_out_without_a_trial_has_no_star():
    table = Table([Column("criterion", "criterion"), Column("trial", "trial", TRIAL)], [("im", None)], styles=[PICKED])
    assert table.text(0, 1) == MISSING
    assert f'<tr class="picked"><td>im</td><td class="number" data-value="">{MISSING}</td></tr>' in html_table(table)


def test_the_pick_stands_out_by_the_number_of_its_trial(table):
    told = dataclasses.replace(table, styles=["off", ""]).told(picked=3, notes=["Another."])
    assert [told.text(row, 0) for row in range(2)] == ["3 ★", "7"]
    assert told.notes == ["One <seed>.", "Another."]


def test_programs_get_the_values_and_not_their_texts(table):
    assert table.records("number", "target_miou") == [
        {"number": 3, "target_miou": 0.4567},
        {"number": 7, "target_miou": None},
    ]
    assert table.plain()["columns"] == ["number", "state", "target_miou", "macs", "path", "mark"]
    assert table.plain()["data"][1] == [7, "complete", None, None, "lr", "†¶"]


def test_a_terminal_breaks_headings_rather_than_widening_figures_and_leaves_out_what_has_no_room(table):
    wide = printed(terminal_table(table, width=80), 80)
    assert [line.split() for line in wide[-2:]] == [
        ["3", "pruned", "45.7", "1.5", "a|b"],
        ["7†¶", "★", "complete", MISSING, MISSING, "lr"],
    ]
    assert "target mIoU %" not in "\n".join(wide)
    narrow = printed(terminal_table(table, width=30, leave_out=["path", "macs", "state"]), 30)
    assert [line.split() for line in narrow[-2:]] == [["3", "pruned", "45.7"], ["7†¶", "★", "complete", MISSING]]
    assert max(map(len, narrow)) <= 30


def test_long_texts_go_on_in_the_next_line_and_a_name_loses_its_middle_last():
    table = table_of(
        ["camvid_day_to_dusk_with_all_methods"],
        [(Column("name", "sweep"), str), (Column("state", "state", PROSE), lambda name: "out of budget; " * 4)],
    )
    lines = printed(terminal_table(table, width=50, shorten="name"), 50)
    assert lines[1].startswith("camvid_day_t…")
    assert len(lines) > 2
    assert "…" not in "\n".join(printed(terminal_table(table, width=200, shorten="name"), 200))


def test_means_over_seeds_are_shown_with_what_they_are_worth():
    three, one = mean_interval([0.4, 0.5, 0.6]), mean_interval([0.5])
    assert (SPREAD.show(three), SPREAD.show(one)) == ("50.0 ± 10.0", "50.0")
    assert (INTERVAL.show(three), INTERVAL.show(one)) == ("25.2 to 74.8", MISSING)
    assert (SPREAD.order(three), figure_spread("im").show(three)) == (pytest.approx(0.5), "0.5 ± 0.1")
    assert figure_interval("im").show(one) == MISSING
    assert DURATION.show(65.0) == "1 min 05 s"
