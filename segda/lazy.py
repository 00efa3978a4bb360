"""What is imported when it is first used: names that a package exports, and what commands do."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def imported(dotted: str) -> Any:
    """Import what `package.module:name` stands for.

    Example:
        >>> imported("math:gcd")(12, 18)
        6
    """
    module, _, name = dotted.partition(":")
    return getattr(importlib.import_module(module), name)


def exports(package: str, names: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package whose import must stay cheap.

    None of the names may be that of a module of the package: importing that module, which anybody may do, would replace what is
    exported.

    Args:
        package: its name.
        names: module -> what is exported of it.
    """
    homes = {name: module for module, exported in names.items() for name in exported}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = imported(f"{homes[name]}:{name}")
        setattr(sys.modules[package], name, value)  # found without this function from now on
        return value

    def known() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, known
