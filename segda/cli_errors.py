"""Turn exceptions into exit codes (`segda.exit_codes`): one line for a user's error, a traceback for a bug."""

import sys
from collections.abc import Callable, Sequence

import click

from segda.config_problems import shortened
from segda.errors import SegdaError
from segda.exit_codes import DONE, INTERRUPTED, USER_ERROR
from segda.masking import masked

_LONGEST_MESSAGE = 1500  # characters


def run_cli(
    group: click.Command,
    arguments: Sequence[str] | None = None,
    *,
    interrupted: str
    | Callable[[], str] = "Interrupted; what was finished is kept, and the run resumes with the same command.",
) -> None:
    """Run a command line and end the process with the matching exit code.

    Args:
        group: the program; its name is what help and messages call it.
        arguments: words of the command line without the program's name; None reads those of the process.
        interrupted: what to say after Ctrl-C, or what returns it then.

    Raises:
        SystemExit: always, with 0, 2 or 130.
        Exception: a bug passes through, so that Python prints its traceback and exits with 1.
    """
    words = list(arguments) if arguments is not None else sys.argv[1:]
    try:
        # Not `group.main`, which puts an empty line before whatever is said about Ctrl-C.
        with group.make_context(group.name, words) as context:
            group.invoke(context)
    except click.exceptions.Exit as ended:  # --help, --version
        sys.exit(ended.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:  # a group alone: its help is the answer
        click.echo(error.format_message(), err=True)
        sys.exit(USER_ERROR)
    except click.ClickException as error:
        _fail(_with_context(error))
    except SegdaError as error:
        _fail(str(error))
    except (click.Abort, KeyboardInterrupt):
        click.echo(interrupted if isinstance(interrupted, str) else interrupted(), err=True)
        sys.exit(INTERRUPTED)
    sys.exit(DONE)


def _fail(message: str) -> None:
    click.echo(f"Error: {shortened(one_line(masked(message)), longest=_LONGEST_MESSAGE)}", err=True)
    sys.exit(USER_ERROR)


def one_line(text: str) -> str:
    r"""Join the lines of a message with single spaces.

    Example:
        >>> one_line("first\n  second")
        'first second'
    """
    return " ".join(text.split())


def _with_context(error: click.ClickException) -> str:
    """Say the message of a usage error and where its help is."""
    context = getattr(error, "ctx", None)
    hint = f" See '{context.command_path} --help'." if context is not None else ""
    return error.format_message() + hint
