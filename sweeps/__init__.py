"""The search for the best segmenter within a budget: what to vary, what ran, what came out, what to pick.

What a notebook needs is here, and imported when it is first used.
"""

from typing import TYPE_CHECKING

from segda.lazy import exports

if TYPE_CHECKING:
    from sweeps.checks.makers import load_spec
    from sweeps.commands.deploying import deploy
    from sweeps.commands.following import follow, logs
    from sweeps.commands.picking import pick
    from sweeps.commands.reading import figures, report, results, status
    from sweeps.commands.running import resume, run
    from sweeps.commands.showing import show
    from sweeps.commands.tidying import clean, delete, rename

__all__ = [
    "clean",
    "delete",
    "deploy",
    "figures",
    "follow",
    "load_spec",
    "logs",
    "pick",
    "rename",
    "report",
    "results",
    "resume",
    "run",
    "show",
    "status",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "sweeps.checks.makers": ("load_spec",),
        "sweeps.commands.deploying": ("deploy",),
        "sweeps.commands.following": ("follow", "logs"),
        "sweeps.commands.picking": ("pick",),
        "sweeps.commands.reading": ("figures", "report", "results", "status"),
        "sweeps.commands.running": ("resume", "run"),
        "sweeps.commands.showing": ("show",),
        "sweeps.commands.tidying": ("clean", "delete", "rename"),
    },
)
