"""What is said of a field of settings, for people: in the tables of the documentation, and in the schemas that editors read."""

import inspect
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel, WithJsonSchema
from pydantic.fields import FieldInfo

from segda.catalog import Catalog
from segda.named import ConfigOf, OneOf
from segda.tunable import Choice, Range


def doc_of(thing: Any) -> str:
    """Return the docstring of a class or function, or of the class of an instance, without what it inherits."""
    kind = thing if isinstance(thing, type) or inspect.isroutine(thing) else type(thing)
    return inspect.cleandoc(kind.__doc__ or "")


def module_doc_of(thing: Any) -> str:
    """Return the docstring of the module that a class or function, or the class of an instance, is defined in."""
    kind = thing if isinstance(thing, type) or inspect.isroutine(thing) else type(thing)
    module = inspect.getmodule(kind)
    return inspect.cleandoc((module.__doc__ if module is not None else None) or "")


def first_paragraph(doc: str) -> str:
    r"""Return the first paragraph of a docstring, in one line.

    Example:
        >>> first_paragraph("A class.\n\nMore of it.")
        'A class.'
    """
    return " ".join(doc.partition("\n\n")[0].split())


def written_as(metadata: Iterable[Any]) -> str:
    """Return an example of settings that a file holds as one text, or nothing.

    Args:
        metadata: of the field's type.
    """
    schemas = [item.json_schema for item in metadata if isinstance(item, WithJsonSchema) and item.json_schema]
    return next((str(schema["examples"][0]) for schema in schemas if "examples" in schema), "")


def catalog_of(field: FieldInfo) -> Catalog[Any] | None:
    """Return the catalog whose names a field takes, alone or with their settings; None: it takes others."""
    return next((item.catalog for item in field.metadata if isinstance(item, OneOf | ConfigOf)), None)


def variants_of(field: FieldInfo) -> ConfigOf | None:
    """Return what says which settings a field holds by a name among them; None: its settings do not depend on a name."""
    return next((item for item in field.metadata if isinstance(item, ConfigOf)), None)


def group_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the class of the settings that a field holds, alone or as items of a list; None: it holds values."""
    waiting = [field.annotation]
    while waiting:
        annotation = waiting.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return annotation
        if not written_as(getattr(annotation, "__metadata__", ())):
            waiting += get_args(annotation)
    return None


def searched_at(field: FieldInfo) -> list[str]:
    """Return the range that `default` means in a sweep: one text for an interval, or the values; empty: none is declared.

    Example:
        >>> from typing import Annotated
        >>> searched_at(FieldInfo.from_annotation(Annotated[float, Range(1e-4, 1e-1, log=True)]))
        ['0.0001 to 0.1, log']
    """
    for item in field.metadata:
        if isinstance(item, Range):
            return [f"{item.low:g} to {item.high:g}{', log' if item.log else ''}"]
        if isinstance(item, Choice):
            return [str(value).lower() if isinstance(value, bool) else str(value) for value in item.values]
    return []


def meaning_of(field: FieldInfo) -> str:
    """Return what a field is for: its description, or what the settings that it holds are."""
    if field.description:
        return field.description
    variants, group = variants_of(field), group_of(field)
    if variants is not None:
        return f"the {variants.catalog.noun}; a name alone is not enough, write `{{name: ...}}`"
    return "" if group is None else first_paragraph(doc_of(group))
