"""Fields of a configuration that name a thing in a catalog: `OneOf` for a name alone, `ConfigOf` for a name with its settings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from segda.catalog import Catalog
from segda.config_problems import LocatedError, Variants
from segda.errors import ConfigError
from segda.guests import Guest


@dataclass(frozen=True, eq=False)
class OneOf:
    """The field holds a name of the catalog, or several, which are looked up when a configuration is made.

        augmentation: Annotated[str, OneOf(RECIPES), Choice(*RECIPES)] = "none"

    Attributes:
        catalog: what is named.
    """

    catalog: Catalog[Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def _check(self, value: Any) -> Any:
        for name in _listed(value):
            self.catalog[name]  # raises what is wrong with it
        return value


@dataclass(frozen=True, eq=False)
class ConfigOf(Variants):
    """The field holds the settings of a thing in the catalog: an instance of its `Config`, made from a mapping with `name`.

        method: Annotated[SerializeAsAny[MethodConfig], ConfigOf(METHODS)]

    Attributes:
        catalog: classes with a `Config`.
        usual: the name that is meant where none is given; None: one must be.
    """

    catalog: Catalog[Any]
    usual: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._build, handler(source))

    def _build(self, value: Any) -> Any:
        if isinstance(value, BaseModel):
            return value
        kind = self.config_class(value)
        return kind.model_validate(value if "name" in value else {"name": self.usual, **value})

    def config_class(self, value: Any) -> type[BaseModel]:
        """Return the class of the settings that a mapping holds.

        Args:
            value: plain data as it came.

        Raises:
            ValueError: there is no name, or nothing that it stands for.
        """
        name = value.get("name", self.usual) if isinstance(value, Mapping) else None
        if name is None:
            raise ValueError(f"{self.catalog.noun} needs a name; known: {', '.join(sorted(self.catalog))}")
        try:
            found: type[BaseModel] = self.catalog[name].Config
        except ConfigError as error:
            raise LocatedError(("name",), str(error)) from error
        return found


def guests_in(config: BaseModel) -> list[Guest]:
    """Return where everything comes from that a configuration names and that is not ours, each once.

    Args:
        config: any configuration.
    """
    found = [catalog.origin(name) for catalog, name in _named(config)]
    return list(dict.fromkeys(guest for guest in found if guest is not None))


def _named(config: BaseModel) -> Iterator[tuple[Catalog[Any], str]]:
    for key, field in type(config).model_fields.items():
        value = getattr(config, key)
        for item in field.metadata:
            if isinstance(item, OneOf):
                yield from ((item.catalog, name) for name in _listed(value))
            elif isinstance(item, ConfigOf):
                yield item.catalog, value.name
        if isinstance(value, BaseModel):
            yield from _named(value)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
