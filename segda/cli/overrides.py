"""Words KEY=VALUE, which commands put over a configuration file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from segda.cli.completion import keys_or_values
from segda.config_file import parse_value
from segda.config_problems import shortened
from segda.errors import ConfigError
from segda.schema_keys import TRAINING_SCHEMA, shipped_keys, whole_key


def changes_of(words: Sequence[str], *, schema: Path = TRAINING_SCHEMA) -> dict[str, Any]:
    """Return dotted keys and their values, in the order in which they are to be applied.

    Args:
        words: `dotted.key=value`, the value in YAML; of a key that comes twice, the last one counts. The end of a key is enough
            where no other key of the schema ends so.
        schema: file of the schema whose keys are meant, as it comes with the installation: what a short key means does not depend
            on what else is installed.

    Raises:
        ConfigError: one of them is none; one line.

    Example:
        >>> changes_of(["steps=20", "images=3", "model={name: bisenet_v1}"])
        Traceback (most recent call last):
        segda.errors.ConfigError: key 'images' may be distillation.images or data.few_shot.images; write the one that is meant
        >>> changes_of(["steps=20", "horizon=40", "model={name: bisenet_v1}"])
        {'steps': 20, 'schedule.horizon': 40, 'model': {'name': 'bisenet_v1'}}
    """
    changes: dict[str, Any] = {}
    for word in words:
        key, separator, text = word.partition("=")
        if not (key and separator):
            raise ConfigError(
                f"expected KEY=VALUE after the file, e.g. base.steps=600 or optimizer.lr=0.01, got {shortened(word)!r}"
            )
        key = whole_key(key, shipped_keys(schema))
        try:
            value = parse_value(text)
        except ConfigError as error:
            raise ConfigError(f"{shortened(word)}: {error}; text with special characters needs quotes") from error
        changes.pop(key, None)
        changes[key] = value
    return changes


def changes_argument(schema: Path = TRAINING_SCHEMA) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that lets a command take words KEY=VALUE; they arrive as `changes`, dotted key -> value.

    Args:
        schema: file of the schema whose keys are meant.
    """

    def parsed(_context: click.Context, _argument: click.Parameter, words: Sequence[str]) -> dict[str, Any]:
        return changes_of(words, schema=schema)

    return click.argument(
        "changes", nargs=-1, metavar="[KEY=VALUE]...", callback=parsed, shell_complete=keys_or_values(schema)
    )


class FileOrChange(click.Path):
    """A file, which arrives as click.Path says, or a word KEY=VALUE, which arrives as it is."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Return the path or the word; a file whose name has a `=` is a file."""
        if isinstance(value, str) and "=" in value and not Path(value).exists():
            return value
        return super().convert(value, parameter, context)
