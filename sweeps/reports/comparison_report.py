"""Several sweeps in one report: one HTML file that needs no network, and the same tables as Markdown."""

import time
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from segda.errors import ConfigError
from sweeps.ledger.database import Ledger
from sweeps.reports import comparison, comparison_plots, plots
from sweeps.reports.formats import date
from sweeps.reports.pages import write_page
from sweeps.reports.sweep_report import ReportPaths
from sweeps.reports.text import context_line, mark_lines
from sweeps.reports.view import load_view
from sweeps.store import Store


def write_comparison(ledger: Ledger, store: Store, sweeps: Sequence[str], *, folder: Path | None = None) -> ReportPaths:
    """Write `comparison_A+B.html` and `.md`.

    Args:
        ledger: where the sweeps are.
        store: where their files are and the report goes.
        sweeps: names of at least two sweeps; they may be running, killed or empty.
        folder: where to; unset: the store.

    Returns:
        The two files.

    Raises:
        ConfigError: there is no such sweep, or one is named twice.
    """
    for name in sweeps:
        if list(sweeps).count(name) > 1:
            raise ConfigError(f"sweep {name!r} is named twice; a comparison needs different sweeps")
    views = [load_view(ledger, store, name) for name in sweeps]
    figure = comparison_plots.best_so_far_figure(views)
    content = {
        "views": views,
        "sweeps": comparison.sweeps_table(views),
        "differences": comparison.differences_table(views),
        "obstacles": comparison.obstacles(views),
        "contexts": [(view.record.name, " ".join([context_line(view), *mark_lines(view)])) for view in views],
        "written": date(time.time()),
    }
    stem = (folder or store.root) / f"comparison_{'+'.join(sweeps)}"
    paths = ReportPaths(html=stem.with_name(f"{stem.name}.html"), markdown=stem.with_name(f"{stem.name}.md"))
    drawn = None if figure is None else Markup(plots.to_html(figure, element="figure-progress"))
    write_page(paths.html, "comparison.html.j2", content, progress=drawn, plotly=Markup(plots.plotly_script()))
    write_page(paths.markdown, "comparison.md.j2", content)
    return paths
