"""Pages from templates: the words and units that they share, and how they are written."""

from pathlib import Path
from typing import Any

import jinja2

from segda.files import write_text
from sweeps.labels import format_value
from sweeps.reports.formats import scaled
from sweeps.reports.markdown import markdown_block, markdown_code, markdown_line
from sweeps.reports.page_tables import html_table, markdown_table


def write_page(path: Path, template: str, content: dict[str, Any], **more: Any) -> None:
    """Write a page, completely or not at all.

    Args:
        path: file to write or replace.
        template: name in `sweeps/reports/templates`; what ends in `.html.j2` is escaped for HTML.
        content: what the template shows.
        **more: further such things.
    """
    write_text(path, _templates(is_html=".html" in template).get_template(template).render(content, **more))


def _templates(*, is_html: bool) -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("sweeps.reports"),
        autoescape=is_html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"table": html_table if is_html else markdown_table, "scaled": scaled, "value": format_value}
    templates.filters |= {"cell": markdown_line, "code": markdown_code, "fenced": markdown_block}
    return templates
