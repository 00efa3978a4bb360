"""Whether a report is still renewed: what its page says about itself, and how often it is read again."""

from sweeps.ledger.records import SweepState
from sweeps.reports.view import SweepView

RENEW_SECONDS = 30  # between two reports of a sweep that runs, and between two looks of its page at them
LONGEST_SECONDS = 300  # without a new report, whether or not something happened
STALE_SECONDS = 3 * LONGEST_SECONDS  # a page that is so old was left by its driver


def renewal_line(view: SweepView, *, is_renewed: bool) -> str:
    """Return whether a report stays as it is, and why, in one sentence.

    Args:
        view: the sweep, as the report tells of it.
        is_renewed: whether its driver writes the report anew while it works.
    """
    if is_renewed:
        return f"The sweep runs: its driver renews this page, which is read again every {RENEW_SECONDS} s."
    if view.is_driven:
        return "The sweep runs, and this copy stays as it is."
    state = view.record.state
    if state is None or state is SweepState.RUNNING:
        return "No driver works on the sweep, and none said how it ended; this page stays as it is."
    return f"The sweep is over for now ({state.label}); this page stays as it is."
