"""What a table says, whoever shows it: a page, Markdown, a terminal, MLflow or a document for programs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sweeps.reports.formats import MISSING, TEXT, Format

Marks = Mapping[int, Mapping[str, str]]  # number of trial -> mark -> what it means
T = TypeVar("T")
PICKED, OFF = "picked", "off"  # what stands out, and what is not to be compared


@dataclass(frozen=True)
class Column:
    """What stands below each other.

    Attributes:
        key: its name for programs.
        title: its name for people.
        format: how its values are shown.
        unit: of its values.
        note: what else they are, e.g. `mean ± std`.
        is_oracle: whether they are made from target labels, which its heading says.
    """

    key: str
    title: str
    format: Format = TEXT
    unit: str = ""
    note: str = ""
    is_oracle: bool = False

    @property
    def remark(self) -> str:
        """What its heading says in small print."""
        return ", ".join(filter(None, (self.note, "oracle" if self.is_oracle and "oracle" not in self.note else "")))

    @property
    def heading(self) -> str:
        """Its heading in one line, e.g. `target mIoU % (oracle)`."""
        named = " ".join(filter(None, (self.title, self.unit)))
        return f"{named} ({self.remark})" if self.remark else named


@dataclass(frozen=True)
class Table:
    """Plain values under headings.

    Attributes:
        columns: from left to right.
        rows: one value per column: plain data, None where there is none.
        styles: how each row stands out: `picked`, `off`, a state of trials, or empty; none at all where no row does.
        notes: what must be known to read it, in sentences.
        empty: what is said in its place if it has no row.
        marks: of the trials in it.
        anchor: what a page calls the rows, which are one trial each, e.g. `trial` for `#trial-3`.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    styles: Sequence[str] = ()
    notes: Sequence[str] = ()
    empty: str = ""
    marks: Marks = field(default_factory=dict)
    anchor: str = ""

    def style(self, row: int) -> str:
        """Return how a row stands out."""
        return self.styles[row] if self.styles else ""

    def cell(self, row: int, column: int) -> str:
        """Return a value for people, without marks."""
        value = self.rows[row][column]
        return MISSING if value is None else self.columns[column].format.show(value)

    def signs(self, row: int, column: int) -> Mapping[str, str]:
        """Return the marks beside a value: mark -> what it means."""
        value = self.rows[row][column]
        return self.marks.get(value, {}) if self.columns[column].format.look == "trial" else {}

    def is_starred(self, row: int, column: int) -> bool:
        """Return whether a value is the number by which a row that is picked is known."""
        return self.style(row) == PICKED and column in self._trials()[:1] and self.rows[row][column] is not None

    def text(self, row: int, column: int) -> str:
        """Return a value for people, with its marks and, if it is picked, a star."""
        star = " ★" if self.is_starred(row, column) else ""
        return f"{self.cell(row, column)}{''.join(self.signs(row, column))}{star}"

    def told(self, *, marks: Marks | None = None, picked: int | None = None, notes: Sequence[str] = ()) -> "Table":
        """Return the table with what only the whole sweep tells.

        Args:
            marks: of trials, see `sweeps.reports.marks.meanings`.
            picked: number of the trial to use, whose row stands out.
            notes: what stands under it besides.
        """
        styles = self.styles or [""] * len(self.rows)
        (place, *_) = [*self._trials(), 0]
        if picked is not None:
            styles = [PICKED if row[place] == picked else style for row, style in zip(self.rows, styles, strict=True)]
        return replace(self, marks=marks or {}, styles=styles, notes=[*self.notes, *notes])

    def _trials(self) -> list[int]:
        return [index for index, item in enumerate(self.columns) if item.format.look == "trial"]

    def records(self, *keys: str) -> list[dict[str, Any]]:
        """Return the rows for programs: key -> value.

        Args:
            *keys: of the columns that are wanted; unset: of all.
        """
        wanted = [(index, item.key) for index, item in enumerate(self.columns) if not keys or item.key in keys]
        return [{key: row[index] for index, key in wanted} for row in self.rows]

    def plain(self) -> dict[str, Any]:
        """Return the table as MLflow takes it, with the marks of each row's trial."""
        marked = ["".join(self.marks.get(row[0], ())) for row in self.rows]
        return {
            "columns": [*(item.key for item in self.columns), "mark"],
            "data": [[*row, mark] for row, mark in zip(self.rows, marked, strict=True)],
        }


def table_of(
    items: Iterable[T],
    columns: Sequence[tuple[Column, Callable[[T], Any]]],
    *,
    style: Callable[[T], str] | None = None,
    **more: Any,
) -> Table:
    """Return a table with a row per item.

    Args:
        items: whatever the rows are about.
        columns: each with what reads its value from an item.
        style: how an item's row stands out.
        **more: further attributes of `Table`.

    Example:
        >>> table_of(["fcd", "dwd"], [(Column("length", "letters"), len)]).records()
        [{'length': 3}, {'length': 3}]
    """
    listed = list(items)
    return Table(
        columns=[column for column, _ in columns],
        rows=[tuple(read(item) for _, read in columns) for item in listed],
        styles=[] if style is None else [style(item) for item in listed],
        **more,
    )
