"""Things that a configuration names: ours, those that installed packages offer, and those of a single file.

A name is looked up in this order: ours; the entry points of the catalog's group, with which an installed package offers its
own; a dotted name `package.module:Attribute`; where things can be described, the path of a YAML file; where a package has very many
of them, `family/name`. A guest, which is all that is not ours, is imported when its name is looked up and not before: a broken one
harms nobody who does not use it.
"""

import functools
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any, TypeVar

from segda.config_problems import shortened
from segda.errors import ConfigError, GuestError, UnknownNameError
from segda.guests import Guest, is_dotted, load, origin
from segda.names import nearest

log = logging.getLogger(__name__)

T = TypeVar("T")

DESCRIPTION_SUFFIXES = (".yaml", ".yml")


class Catalog(Mapping[str, T]):
    """Known things by name: ours first, then those of entry points.

    Iterating and counting import nothing. `in` and lookups import the guest that is asked for; they know dotted names too, of which
    there is no end.

    Attributes:
        noun: what the things are, for messages.
        group: entry-point group of packages that offer some.

    Example:
        >>> sizes = Catalog("size", group="segda.doctest", built_in={"small": 1, "large": 9}, check=instance_of(int))
        >>> sizes["small"], sizes["sys:maxsize"] > 0, list(sizes)
        (1, True, ['small', 'large'])
    """

    def __init__(
        self,
        noun: str,
        *,
        group: str,
        built_in: Mapping[str, T],
        check: Callable[[Any], T],
        describe: Callable[[str], tuple[T, Guest]] | None = None,
        families: Mapping[str, Callable[[str], tuple[T, Guest]]] | None = None,
    ) -> None:
        """Fill the catalog.

        Args:
            noun: what the things are, e.g. `method`.
            group: name of the entry-point group, e.g. `segda.methods`.
            built_in: ours.
            check: returns a guest as it is to be used, or raises TypeError saying what it must be and what it is.
            describe: makes a guest out of the path of a YAML file; None: none is described so.
            families: what makes a guest of `NAME` for the name `FAMILY/NAME`, by family; for packages that have very many things.
        """
        self.noun = noun
        self.group = group
        self._built_in = dict(built_in)
        self._check = check
        self._describe = describe
        self._families = dict(families or {})

    def __getitem__(self, name: str) -> T:
        """Return what a name stands for.

        Args:
            name: of one of ours or of an entry point, a dotted name, or one of a family.

        Raises:
            UnknownNameError: it stands for nothing.
            GuestError: the guest cannot be imported or is of another kind, or several packages offer it.
        """
        return self._built_in[name] if self.is_ours(name) else self._guest(name)[0]

    def origin(self, name: str) -> Guest | None:
        """Return where a guest comes from, or None for ours.

        Raises:
            ConfigError: as a lookup.
        """
        return None if self.is_ours(name) else self._guest(name)[1]

    def _guest(self, name: str) -> tuple[T, Guest]:
        shown, package = f"{self.noun} {name!r}", None
        points = {point.value: point for point in _entry_points(self.group) if point.name == name}
        if len(points) > 1:
            packages = " and ".join(sorted(map(_package, points.values())))
            raise GuestError(
                f"{shown} is offered by several packages, {packages}; say which is meant by its dotted name: {' or '.join(points)}"
            )
        if points:
            ((dotted, point),) = points.items()
            package = _package(point)
            shown += f" of {package}"
        elif isinstance(name, str) and is_dotted(name):
            dotted = name
        elif self._describe is not None and isinstance(name, str) and name.endswith(DESCRIPTION_SUFFIXES):
            return self._describe(name)
        elif isinstance(name, str) and name.partition("/")[0] in self._families and "/" in name:
            family, _, member = name.partition("/")
            return self._families[family](member)
        else:
            known = [*sorted(self), *(f"{family}/NAME" for family in self._families)]
            raise UnknownNameError(f"unknown {shown}{nearest(str(name), self)}; known: {', '.join(known)}")
        found = load(dotted, shown=shown)
        try:
            return self._check(found), origin(found, dotted, name=name, package=package)
        except TypeError as error:
            raise GuestError(f"{shown} {error}") from error
        except Exception as error:  # its constructor is code of somebody else
            raise GuestError(f"{shown} cannot be made: {type(error).__name__}: {shortened(str(error))}") from error

    def __iter__(self) -> Iterator[str]:
        yield from self._built_in
        offered = {point.name: point for point in _entry_points(self.group)}
        for name, point in offered.items():
            if self.is_ours(name):
                _warn(
                    f"{self.noun} {name!r} of {_package(point)} has the name of one of ours, which is used; "
                    f"its dotted name is {point.value}"
                )
            else:
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def is_ours(self, name: object) -> bool:
        """Return whether a name stands for a thing of this package."""
        return isinstance(name, str) and name in self._built_in

    def forms(self) -> list[tuple[str, str]]:
        """Return the forms of names that are not listed, each a regular expression and what such a name stands for."""
        found = [(r"^[^\s:/]+:[^\s:/]+$", f"{self.noun} of your own: package.module:Attribute")]
        if self._describe is not None:
            found.append((r"\.ya?ml$", f"{self.noun} that a YAML file describes"))
        return found + [(f"^{family}/.", f"{self.noun} of {family}, by its name there") for family in self._families]

    def usable(self) -> dict[str, T]:
        """Return all that is listed and can be had; guests that cannot are logged and left out."""
        found = {}
        for name in self:
            try:
                found[name] = self[name]
            except ConfigError as error:
                _warn(str(error))
        return found


def subclass_of(base: type, *, config: type | None = None) -> Callable[[Any], Any]:
    """Return a check for subclasses that lack nothing.

    Args:
        base: what they extend.
        config: what the class of their settings, their attribute `Config`, extends; None: they have none.
    """

    def check(found: Any) -> Any:
        if not _extends(found, base):
            raise TypeError(f"must be a subclass of {_full_name(base)}, is {_kind(found)}")
        if inspect.isabstract(found):
            missing = ", ".join(sorted(found.__abstractmethods__))
            raise TypeError(f"must define {missing}, as {_full_name(base)} says")
        if config is not None and not _extends(getattr(found, "Config", None), config):
            raise TypeError(f"must have a class attribute Config, a subclass of {_full_name(config)}")
        return found

    return check


def instance_of(base: type) -> Callable[[Any], Any]:
    """Return a check for instances; a subclass stands for the one instance that is made of it without arguments.

    Args:
        base: their class.
    """

    @functools.cache
    def the(kind: Any) -> Any:
        return kind()

    def check(found: Any) -> Any:
        if _extends(found, base):
            return the(subclass_of(base)(found))
        if not isinstance(found, base):
            raise TypeError(f"must be an instance or a subclass of {_full_name(base)}, is {_kind(found)}")
        return found

    return check


def maker_of(base: type) -> Callable[[Any], Any]:
    """Return a check for what makes an instance when it is called without arguments: a function, or a subclass that lacks nothing.

    Args:
        base: the class of what is made.
    """

    def check(found: Any) -> Any:
        return subclass_of(base)(found) if isinstance(found, type) else function(found)

    return check


def function(found: Any) -> Any:
    """Check that something is a function, or an object that can be called like one."""
    if isinstance(found, type) or not callable(found):
        raise TypeError(f"must be a function, is {_kind(found)}")
    return found


@functools.cache
def all_entry_points() -> Any:  # its class has changed with Python's versions; `select` stayed
    """Return what all installed packages offer; read once, which takes a hundredth of a second."""
    return metadata.entry_points()


def _entry_points(group: str) -> list[metadata.EntryPoint]:
    return list(all_entry_points().select(group=group))


@functools.cache
def _warn(text: str) -> None:
    """Say something once, however often it is met."""
    log.warning("%s", text)


def _package(point: metadata.EntryPoint) -> str:
    return "a package" if point.dist is None else f"{point.dist.name} {point.dist.version}"


def _extends(found: Any, base: type) -> bool:
    return isinstance(found, type) and issubclass(found, base)


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _kind(found: Any) -> str:
    if isinstance(found, type):
        return f"the class {found.__name__}"
    kind = type(found).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"
