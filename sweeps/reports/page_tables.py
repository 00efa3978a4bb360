"""Tables in pages, and the same in Markdown."""

from markupsafe import Markup, escape

from sweeps.reports.fitting import wrapped
from sweeps.reports.markdown import markdown_code, markdown_line
from sweeps.reports.table import Table

_ROWS = 50  # that a page shows of a longer table at a time, with a box to search in, where there is JavaScript
_SMALL = 12  # characters of small print beside which no heading needs another line
_ALIGNED = {True: "---:", False: "---"}


def html_table(table: Table) -> Markup:
    """Return a table that can be sorted by each column, and what must be known to read it; without rows what is said instead.

    Args:
        table: what it says. Its texts may have any sign.
    """
    if not table.rows:
        return Markup('<p class="note">{}</p>').format(table.empty)
    heads = Markup("").join(_head(table, column) for column in range(len(table.columns)))
    rows = Markup("\n").join(_row(table, row) for row in range(len(table.rows)))
    wide = " wide" if any(column.format.look == "text" for column in table.columns) else ""
    notes = Markup("").join(Markup('\n<p class="note">{}</p>').format(note) for note in table.notes)
    # Rows that others point to are looked for, however few they are.
    pages = Markup(' data-rows="{}"').format(_ROWS) if table.anchor or len(table.rows) > _ROWS else ""
    return Markup(
        '<div class="scroll"><table class="sortable{}"{}>\n<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody></table></div>{}'
    ).format(wide, pages, heads, rows, notes)


def _head(table: Table, place: int) -> Markup:
    column = table.columns[place]
    oracle, is_number = " oracle" if column.is_oracle else "", column.format.is_number
    cells = [table.text(row, place) for row in range(len(table.rows))] if is_number else []
    small = ", ".join(filter(None, (column.unit, column.remark)))
    title, remark = [column.title], [small]
    if is_number:  # figures are narrow, and a heading above them is no wider than it must be
        title = wrapped(column.title, cells)
        remark = wrapped(small, [*cells, *title, "·" * _SMALL])
    return Markup("<th{}>{}{}</th>").format(
        _class(f"{'number' if is_number else ''}{oracle}"),
        _lines(title),
        Markup("<small>{}</small>").format(_lines(remark)) if small else "",
    )


def _lines(texts: list[str]) -> Markup:
    return Markup(" <br>").join(texts)


def _row(table: Table, row: int) -> Markup:
    anchor = Markup(' id="{}-{}"').format(table.anchor, table.rows[row][0]) if table.anchor else ""
    cells = Markup("").join(_cell(table, row, column) for column in range(len(table.columns)))
    return Markup("<tr{}{}>{}</tr>").format(anchor, _class(table.style(row)), cells)


def _cell(table: Table, row: int, column: int) -> Markup:
    form, value = table.columns[column].format, table.rows[row][column]
    text = escape(table.cell(row, column))
    if form.is_number:
        signs = Markup("").join(
            Markup('<a href="#marks" title="{}">{}</a>').format(meaning, sign)
            for sign, meaning in table.signs(row, column).items()
        )
        star = " ★" if table.is_starred(row, column) else ""
        order = "" if value is None else form.order(value)
        return Markup('<td class="number" data-value="{}">{}{}{}</td>').format(order, text, signs, star)
    if form.look == "code":
        text = Markup("<code>{}</code>").format(text)
    elif form.look == "state":
        text = Markup('<span class="chip {}">{}</span>').format(text, text)
    return Markup("<td{}>{}</td>").format(_class({"text": "text", "name": "method"}.get(form.look, "")), text)


def _class(names: str) -> Markup:
    return Markup(' class="{}"').format(names.strip()) if names.strip() else Markup("")


def markdown_table(table: Table) -> str:
    """Return a table in Markdown, with what must be known to read it; without rows what is said instead.

    Args:
        table: what it says. Its texts may have any sign.
    """
    if not table.rows:
        return table.empty
    lines = [
        [markdown_line(column.heading) for column in table.columns],
        [_ALIGNED[column.format.is_number] for column in table.columns],
        *(
            [_markdown_cell(table, row, column) for column in range(len(table.columns))]
            for row in range(len(table.rows))
        ),
    ]
    shown = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return "\n\n".join([shown, *map(markdown_line, table.notes)])


def _markdown_cell(table: Table, row: int, column: int) -> str:
    text = table.text(row, column)
    is_code = table.columns[column].format.look == "code"
    return markdown_code(text).replace("|", "\\|") if is_code else markdown_line(text)
