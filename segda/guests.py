"""Importing what lives outside this package by a dotted name `package.module:Attribute`.

Such a thing is called a guest. It is a name in an installed package, or in a single file that lies in a folder which
`make_importable` was told of: that of the configuration file, and the working folder.
"""

import importlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from segda.errors import GuestError
from segda.names import nearest

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
# What `make_importable` was told, for messages and for processes elsewhere.
_folders: list[Path] = []


def is_dotted(name: str) -> bool:
    """Return whether a name has the form `package.module:Attribute`.

    Example:
        >>> is_dotted("my_methods:MeanTeacher"), is_dotted("adversarial")
        (True, False)
    """
    return _DOTTED.fullmatch(name) is not None


def make_importable(folders: Iterable[Path]) -> None:
    """Let guests be found in folders, in this process and in those that it starts.

    The folders come last on `sys.path`, so that a file there hides no installed package.

    Args:
        folders: absolute or relative to the working folder.
    """
    for folder in folders:
        place = folder.expanduser().absolute()
        if str(place) not in sys.path:
            sys.path.append(str(place))
        if place not in _folders:
            _folders.append(place)
    # A file may have been written since a folder was last listed.
    importlib.invalidate_caches()


def importable_folders() -> list[Path]:
    """Return the folders that `make_importable` was told of, for processes that are started elsewhere."""
    return list(_folders)


def load(name: str, *, shown: str) -> Any:
    """Import what a dotted name stands for.

    Args:
        name: `package.module:Attribute`.
        shown: what it is wanted as, put before messages.

    Raises:
        GuestError: the module cannot be imported or has no such attribute; says what the import said and what to do.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
    # A module of somebody else can raise anything, and a script without a guard ends the program.
    except (Exception, SystemExit) as error:
        raise GuestError(f"{shown}: {_import_problem(module, error)}") from error
    holder = f"module {module} ({getattr(found, '__file__', None) or 'built in'})"
    for part in attribute.split("."):
        if not hasattr(found, part):
            hint = nearest(part, [known for known in dir(found) if not known.startswith("_")])
            raise GuestError(f"{shown}: {holder} has no {part!r}{hint}; correct the name or the file")
        found, holder = getattr(found, part), part
    return found


def _import_problem(module: str, error: BaseException) -> str:
    parents = [module.rsplit(".", depth)[0] for depth in range(module.count(".") + 1)]
    if isinstance(error, ModuleNotFoundError) and error.name in parents:
        file = f"{error.name.replace('.', '/')}.py"
        wanted = f"put {file} into {' or '.join(map(str, _folders)) or 'a folder of PYTHONPATH'}"
        return f"there is no module {error.name!r}; {wanted}, or install the package that has it"
    said = " ".join(str(error).split())
    return f"importing {module} failed with {type(error).__name__}: {said}{_line_of(error)}; correct that file, or name another one"


def _line_of(error: BaseException) -> str:
    """Return where an import failed: file and line."""
    place, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file != __file__ and "importlib" not in file:
            place = f" ({file}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place
