"""JSON schemas of configuration files, for editors that complete and check them; made from the classes that check a file.

What a class cannot say in types stays unsaid: that a crop fits into its image is told when the file is read. What a guest of a file
takes (`package.module:Attribute`) no schema knows, so its settings may be any; guests of installed packages are in it by name.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from segda.catalog import Catalog
from segda.field_docs import catalog_of, doc_of, first_paragraph, meaning_of, searched_at, variants_of
from segda.named import ConfigOf

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]


def schema_of(model: type[BaseModel], *, title: str) -> Schema:
    """Return the JSON schema (draft 2020-12) of files that hold a configuration.

    Args:
        model: its class.
        title: what the files are.

    Example:
        >>> from segda.optim import SGDConfig
        >>> schema_of(SGDConfig, title="optimizer")["properties"]["lr"]["exclusiveMinimum"]
        0
    """
    found = model.model_json_schema(by_alias=True, schema_generator=_Generator)
    return {"$schema": DIALECT, **found, "title": title}


class _Generator(GenerateJsonSchema):
    """Adds what pydantic does not know of a field: the names of its catalog with their settings, what it is for, its range."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        found = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        found["description"] = first_paragraph(doc_of(model))
        for name, field in model.model_fields.items():
            key = field.alias or name
            found["properties"][key] = self._completed(found["properties"][key], field)
        return found

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        found = super().str_schema(schema)
        # Categories of characters are beyond what the regular expressions of schemas are sure to know.
        if r"\p{" in found.get("pattern", ""):
            del found["pattern"]
        return found

    def _completed(self, said: Schema, field: FieldInfo) -> Schema:
        variants, catalog = variants_of(field), catalog_of(field)
        if variants is not None:
            said = {**self._settings_by_name(variants), **_kept(said, "default")}
        elif catalog is not None:
            names = names_schema(catalog)
            said = {
                **({**said, "items": names} if said.get("type") == "array" else {**_kept(said, "default"), **names})
            }
        said.pop("title", None)
        text = ". ".join(part for part in (meaning_of(field), _range_text(field)) if part)
        return {**said, "description": text} if text else said

    def _settings_by_name(self, variants: ConfigOf) -> Schema:
        kinds = variants.catalog.usable()
        cases: list[Schema] = []
        for name, kind in kinds.items():
            is_it: Schema = {"properties": {"name": {"const": name}}}
            if name != variants.usual:
                is_it["required"] = ["name"]
            # A thing of no settings of its own shares the class of those with others like it: each file gets one definition.
            cases.append({"if": is_it, "then": self.generate_inner(kind.Config.__pydantic_core_schema__)})
        found: Schema = {
            "type": "object",
            "properties": {"name": names_schema(variants.catalog, kinds)},
            "allOf": cases,
        }
        if variants.usual is None:
            found["required"] = ["name"]
        return found


def names_schema(catalog: Catalog[Any], known: Mapping[str, Any] | None = None) -> Schema:
    """Return the schema of a name in a catalog: those that are known, each with what it is, and the forms of all others.

    Args:
        catalog: what is named.
        known: the things that are listed, by name; unset: all that can be had.
    """
    things = catalog.usable() if known is None else known
    names: list[Schema] = []
    for name, thing in things.items():
        text = first_paragraph(doc_of(thing))
        names.append({"const": name, "description": text} if text else {"const": name})
    forms = [{"type": "string", "pattern": pattern, "description": text} for pattern, text in catalog.forms()]
    return {"anyOf": [*names, *forms]}


def _kept(said: Schema, *keys: str) -> Schema:
    return {key: said[key] for key in keys if key in said}


def _range_text(field: FieldInfo) -> str:
    values = ", ".join(searched_at(field))
    return f"Searched at `default`: {values}" if values else ""
