"""Pages from templates: the words and units that they share, and how they are written."""

from pathlib import Path
from typing import Any

import jinja2

from segda.files import write_text
from sweeps.labels import duration, format_value, listed, method_label, short_params
from sweeps.metrics import CRITERIA
from sweeps.reports.failure_tables import history
from sweeps.reports.markdown import markdown_block, markdown_code, markdown_line
from sweeps.reports.text import date, interval, percent, scaled, spread
from sweeps.selection.seeds import MeanInterval


def write_page(path: Path, template: str, content: dict[str, Any], **more: Any) -> None:
    """Write a page, completely or not at all.

    Args:
        path: file to write or replace.
        template: name in `sweeps/reports/templates`; what ends in `.html.j2` is escaped for HTML.
        content: what the template shows.
        **more: further such things.
    """
    write_text(path, _templates().get_template(template).render(content, **more))


def _figure(value: float | None, criterion: str) -> str:
    """Return a criterion's figure: mean IoU in per cent, a validator's score as it is."""
    return percent(value) if CRITERIA[criterion].endswith("miou") else "–" if value is None else f"{value:.4g}"


def _spread(summary: MeanInterval | None, criterion: str) -> str:
    """Return mean and standard deviation of a criterion's figure, or a dash."""
    if summary is None:
        return "–"
    mean = _figure(summary.mean, criterion)
    if summary.std is None:
        return mean
    return f"{mean} ± {percent(summary.std) if CRITERIA[criterion].endswith('miou') else format(summary.std, '.2g')}"


def _interval(summary: MeanInterval | None, criterion: str) -> str:
    """Return the 95 % interval of a criterion's figure, or a dash."""
    if summary is None or summary.low is None or summary.high is None:
        return "–"
    return f"{_figure(summary.low, criterion)} to {_figure(summary.high, criterion)}"


def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("sweeps.reports"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"percent": percent, "scaled": scaled, "spread": spread, "interval": interval}
    templates.filters |= {
        "figure": _figure,
        "figure_spread": _spread,
        "figure_interval": _interval,
        "duration": duration,
    }
    templates.filters |= {
        "listed": listed,
        "cell": markdown_line,
        "code": markdown_code,
        "fenced": markdown_block,
        "date": date,
        "value": format_value,
    }
    templates.filters |= {"words": lambda text: text.replace("_", " "), "history": history}
    templates.filters |= {"method": method_label, "params": short_params}
    return templates
