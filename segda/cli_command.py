"""Commands whose work is imported when they run, so that help and mistakes are answered at once."""

from collections.abc import Mapping
from typing import Any

import click

from segda.lazy import imported


class Command(click.Command):
    """A command of two parts: what is typed and read, and what is then done.

    The function that makes it has its arguments as decorators and its help as docstring. It is called with the arguments first, to
    refuse what does not go together. Neither it nor its module imports what takes time; the action's module does.

    Example:
        >>> @click.command("join", cls=Command, action="os.path:join")
        ... @click.argument("a")
        ... def join_command(a: str) -> None:
        ...     "Join A."
        ...     if not a:
        ...         raise click.UsageError("A is empty")
        >>> join_command.action
        'os.path:join'
    """

    def __init__(self, *args: Any, action: str, **settings: Any) -> None:
        """Describe a command.

        Args:
            *args: as for `click.Command`.
            action: what is done, as `package.module:function`. It gets the arguments by their names, and returns the exit code;
                None: 0.
            **settings: as for `click.Command`.
        """
        super().__init__(*args, **settings)
        self.action = action

    def invoke(self, context: click.Context) -> None:
        """Check the arguments against each other, import the action, and do it."""
        super().invoke(context)
        code: int | None = context.invoke(imported(self.action), **context.params)
        if code:
            context.exit(code)


class Group(click.Group):
    """Commands in the order in which they were added, with the exit codes of the program at the end of its help."""

    def __init__(self, *args: Any, exit_codes: Mapping[int, str], **settings: Any) -> None:
        """Describe a program.

        Args:
            *args: as for `click.Group`.
            exit_codes: what each means.
            **settings: as for `click.Group`.
        """
        super().__init__(*args, **settings)
        self.exit_codes = exit_codes

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(self.commands)

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the end of the help."""
        super().format_epilog(context, formatter)
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in self.exit_codes.items()])
