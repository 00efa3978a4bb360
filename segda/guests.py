"""Importing what lives outside this package by a dotted name `package.module:Attribute`, and what is known of it.

Such a thing is called a guest. It is a name in an installed package, or in a single file that lies in a folder which
`make_importable` was told of: that of the configuration file, and the working folder. Processes that are started elsewhere, on this
machine or on another one, are told of the same folders, which must be there under the same paths.
"""

import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from segda.config_problems import shortened
from segda.errors import GuestError
from segda.files import expanded
from segda.names import nearest

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_LONGEST_SAID = 300  # characters of what an import says
# What `make_importable` was told, for messages and for processes elsewhere.
_folders: list[Path] = []
# Module -> what it was imported as, and the hash of its file then.
_digests: dict[str, tuple[ModuleSpec | None, str | None]] = {}


@dataclass(frozen=True)
class Guest:
    """Where something that is not ours comes from.

    Attributes:
        name: what a configuration calls it.
        module: where it is defined.
        package: name and version of the installed package that offers it; None: it was named by a dotted name.
        sha256: of the module's file when it was imported; None: there is no such file, e.g. in a notebook.
    """

    name: str
    module: str
    package: str | None
    sha256: str | None


def is_dotted(name: str) -> bool:
    """Return whether a name has the form `package.module:Attribute`.

    Example:
        >>> is_dotted("my_methods:MeanTeacher"), is_dotted("adversarial")
        (True, False)
    """
    return _DOTTED.fullmatch(name) is not None


def make_importable(folders: Iterable[Path | str]) -> None:
    """Let guests be found in folders, in this process and in those that it starts.

    The folders come last on `sys.path`, so that a file there hides no installed package.

    Args:
        folders: absolute or relative to the working folder.
    """
    for folder in folders:
        place = expanded(folder).absolute()
        if str(place) not in sys.path:
            sys.path.append(str(place))
        if place not in _folders:
            _folders.append(place)
    # A file may have been written since a folder was last listed.
    importlib.invalidate_caches()


def make_importable_beside(file: Path) -> None:
    """Let the guests that a configuration file names be found: in its folder, and in the working folder.

    Args:
        file: the configuration file.
    """
    make_importable([file.parent, Path.cwd()])


def importable_folders() -> list[str]:
    """Return the folders that `make_importable` was told of, for processes that are started elsewhere."""
    return list(map(str, _folders))


def files_named(name: str) -> list[Path]:
    """Return the files that a path may stand for: in the folders that `make_importable` was told of, and the working folder.

    Args:
        name: a path, absolute or relative.
    """
    places = dict.fromkeys((folder / expanded(name)).absolute() for folder in (*_folders, Path.cwd()))
    return [place for place in places if place.is_file()]


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
        _digest(sys.modules[module])
        holder = f"module {module} ({getattr(found, '__file__', None) or 'built in'})"
        for part in attribute.split("."):
            if not hasattr(found, part):
                hint = nearest(part, [known for known in dir(found) if not known.startswith("_")])
                if found is sys.modules["__main__"]:
                    hint += "; a name of __main__ is known to that program alone, other processes need a file"
                raise GuestError(f"{shown}: {holder} has no {part!r}{hint}; correct the name or the file")
            found, holder = getattr(found, part), part
    except (GuestError, KeyboardInterrupt):
        raise
    # A module of somebody else can raise anything, and a script without a guard ends the program.
    except BaseException as error:
        raise GuestError(f"{shown}: {_import_problem(module, error)}") from error
    return found


def origin(found: Any, dotted: str, *, name: str, package: str | None) -> Guest:
    """Return where a guest comes from.

    Args:
        found: what `load` returned.
        dotted: the dotted name that it was loaded by.
        name: what a configuration calls it.
        package: name and version of the package that offers it, if it is one's.
    """
    # A package may offer what another of its modules defines; an object of a class of ours belongs to the module that made it.
    kind = found if isinstance(found, type) or inspect.isroutine(found) else type(found)
    home = str(kind.__module__)
    module = dotted.partition(":")[0] if home.partition(".")[0] in ("segda", "builtins") else home
    return Guest(name=name, module=module, package=package, sha256=_digest(sys.modules[module]))


def _digest(module: ModuleType) -> str | None:
    """Return the hash of a module's file as it was when the module was imported, or rather first asked for."""
    spec = module.__spec__  # another one after a reload
    known = _digests.get(module.__name__)
    if known is None or known[0] is not spec:
        file = getattr(module, "__file__", None)
        text = Path(file).read_bytes() if file is not None and Path(file).is_file() else None
        known = (spec, None if text is None else hashlib.sha256(text).hexdigest())
        _digests[module.__name__] = known
    return known[1]


def _import_problem(module: str, error: BaseException) -> str:
    parents = [module.rsplit(".", depth)[0] for depth in range(module.count(".") + 1)]
    if isinstance(error, ModuleNotFoundError) and error.name in parents:
        file = f"{error.name.replace('.', '/')}.py"
        wanted = f"put {file} into {' or '.join(map(str, _folders)) or 'the working folder'}"
        return f"there is no module {error.name!r}; {wanted}, put its folder on PYTHONPATH, or install the package that has it"
    try:
        said = shortened(" ".join(str(error).split()), longest=_LONGEST_SAID)
    except Exception:  # even that is code of somebody else
        said = "(what it says cannot be read)"
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
