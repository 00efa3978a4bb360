"""What a shell needs to complete the words of a command line; click makes it, this program answers at each Tab.

Two things of click's scripts are changed: Bash, which takes `key=value` for three words, gets it as one, and no space is put behind
a key that waits for its value.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ZshComplete,
    add_completion_class,
    shell_complete,
)

from segda.files import expanded
from segda.schema_keys import resolved, shipped_keys, shipped_schema

SHELLS = ("bash", "zsh", "fish")
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]
CONFIGS = Path(__file__).parents[1] / "configs"
_YAML = (".yaml", ".yml")
_HOW = {
    "bash": 'eval "$({program} completion bash)"  in ~/.bashrc',
    "zsh": 'eval "$({program} completion zsh)"  in ~/.zshrc, after compinit',
    "fish": "{program} completion fish > ~/.config/fish/completions/{program}.fish",
}


class _Bash(BashComplete):
    source_template = BashComplete.source_template.replace(
        "    return 0\n", "    [[ $COMPREPLY == *= ]] && compopt -o nospace 2>/dev/null\n    return 0\n"
    )

    def get_completion_args(self) -> tuple[list[str], str]:
        words = os.environ["COMP_WORDS"].split("\n")[: int(os.environ["COMP_CWORD"]) + 1]
        whole = words[:1]
        for word in words[1:]:
            if whole[1:] and (word == "=" or whole[-1].endswith("=")):
                whole[-1] += word
            else:
                whole.append(word)
        return whole[1:-1], whole[-1]

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        done = incomplete.rpartition("=")[0]  # what Bash leaves as it is
        return [
            CompletionItem(str(item.value).removeprefix(f"{done}=") if done else item.value, item.type, item.help)
            for item in super().get_completions(args, incomplete)
        ]


class _Zsh(ZshComplete):
    source_template = (
        ZshComplete.source_template.replace("    local -a response\n", "    local -a response behind\n")
        .replace(
            '        if [[ "$type" == "plain" ]]; then\n',
            '        if [[ "$type" == "plain" ]]; then\n            [[ "$key" == *= ]] && behind=(-S "")\n',
        )
        .replace("completions_with_descriptions -U\n", 'completions_with_descriptions -U "${behind[@]}"\n')
        .replace("compadd -U", 'compadd "${behind[@]}" -U')
    )


for _shell in (_Bash, _Zsh):
    add_completion_class(_shell)


def completion_command(program: str) -> click.Command:
    """Return the command `completion` of a program.

    Args:
        program: its name.
    """
    lines = "\n".join(f"  {_HOW[shell].format(program=program)}" for shell in SHELLS)

    @click.command("completion", epilog=f"\b\nExamples:\n{lines}")
    @click.argument("shell", type=click.Choice(SHELLS))
    @click.pass_context
    def command(context: click.Context, shell: str) -> None:
        """Print what lets a shell complete commands, options, names and keys."""
        kind = {"bash": _Bash, "zsh": _Zsh, "fish": FishComplete}[shell]
        click.echo(kind(context.find_root().command, {}, program, _variable(program)).source(), nl=False)

    return command


def answer_shell(group: click.Command, program: str) -> None:
    """Answer a shell that asks how words go on, and exit; do nothing where none asks.

    Args:
        group: the program's commands.
        program: its name.
    """
    instruction = os.environ.get(_variable(program))
    if instruction:
        asked, _, what = instruction.partition("_")
        sys.exit(shell_complete(group, {}, program, _variable(program), f"{asked}_{what}"))


def _variable(program: str) -> str:
    return f"_{program.upper()}_COMPLETE"


def files_or_shipped(shipped: Path) -> Completer:
    """Return what completes a configuration file: names of those that come with the installation, YAML files, and folders.

    Args:
        shipped: folder of the former.
    """

    def complete(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        names = sorted(path.stem for path in shipped.glob("*.yaml") if path.stem.startswith(incomplete))
        return [CompletionItem(name) for name in [*names, *_paths(incomplete)]]

    return complete


def _paths(incomplete: str) -> list[str]:
    """Return the YAML files and folders whose paths begin so."""
    folder, slash, start = incomplete.rpartition("/")
    place = expanded(f"{folder}{slash}" or ".")
    if not place.is_dir():
        return []
    found = sorted(path for path in place.iterdir() if path.name.startswith(start) and not path.name.startswith("."))
    return [
        f"{folder}{slash}{path.name}{'/' if path.is_dir() else ''}"
        for path in found
        if path.is_dir() or path.suffix in _YAML
    ]


def keys_or_values(schema: Path) -> Completer:
    """Return what completes words KEY=VALUE: keys of a schema, then the values that it lists for a key.

    Args:
        schema: its file.
    """

    def complete(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        keys = shipped_keys(schema)
        key, separator, value = incomplete.partition("=")
        if not separator:
            found = [name for name in keys if name.startswith(incomplete) and "*" not in name]
            return [CompletionItem(f"{name}=") for name in found]
        values = dict.fromkeys(item for said in keys.get(key, ()) for item in _values(said, shipped_schema(schema)))
        return [CompletionItem(f"{key}={item}") for item in values if item.startswith(value)]

    return complete


def _values(said: Any, schema: Any) -> list[str]:
    """Return the values that a schema lists."""
    said = resolved(said, schema)
    if said.get("type") == "boolean":
        return ["true", "false"]
    listed = [*said.get("enum", ()), *([said["const"]] if "const" in said else ())]
    return [str(item) for item in listed] + [item for case in said.get("anyOf", ()) for item in _values(case, schema)]
