"""JSON Schema of the YAML files, for editors and for ``dure schema``."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from dure.config.library import Kind
from dure.config.loading import checked
from dure.config.ratios import as_number
from dure.config.scalars import NUMBER_PATTERN
from dure.config.schema import Experiment, Profile
from dure.config.section import Section
from dure.config.spaces import SearchSpace
from dure.studies.study import study_kinds

Schema = dict[str, Any]

_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
}
"""What pydantic calls the bounds of numbers that may be null, and what JSON Schema calls them."""


_SECTIONS: dict[Kind, type[Section]] = {
    "experiment": Experiment,
    "profile": Profile,
    "space": SearchSpace,
}


class _Generator(GenerateJsonSchema):
    """Shows a default as a file would say it."""

    def encode_default(self, dft: Any) -> Any:
        """Write the default of a ratio as the number that it is."""
        return as_number(dft) if isinstance(dft, Fraction) else super().encode_default(dft)


def json_schema(kind: Kind) -> Schema:
    """Return the JSON Schema (draft 2020-12) of one kind of YAML file, with a description of every key.

    It describes files, which differ from the loaded tree: a number may be text, as YAML 1.1 reads ``1e-5``;
    and with ``extends:`` keys may be left to a parent, so that nothing is required, and a section may be null.
    """
    if kind == "study":
        schemas = [_of_file(member, "kind") for member in study_kinds().values()]
    else:
        schemas = [_of_file(_SECTIONS[kind])]
    root = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    if len(schemas) == 1:
        return root | schemas[0]
    definitions: Schema = {}
    for schema in schemas:
        definitions |= schema.pop("$defs", {})
    return root | {"oneOf": schemas, "$defs": definitions}


def family_schema(name: str) -> Schema:
    """Return what a family takes: the JSON Schema of its ``task:``, its columns and its metrics.

    Raises:
        UserError: There is no such family.
    """
    from dure.family import load_family

    bare = {"family": name, "experiment": {"name": "schema"}, "model": {"checkpoint": "none"}}
    family = load_family(checked(Experiment, bare, {}, "--family"))
    options = _as_written(type(family).options_section.model_json_schema(schema_generator=_Generator))
    columns = {
        role.name: {
            "column": role.column,
            "needed": "always"
            if role.is_input and role.required
            else "for training"
            if role.required
            else "no",
            "kind": "id"
            if role.is_id
            else "class"
            if role.is_class
            else "input"
            if role.is_input
            else "target",
        }
        for role in family.roles
    }
    metrics = {metric.name: metric.definition() for metric in family.metrics}
    about = " ".join((type(family).__doc__ or "").split())
    return {"family": name, "description": about, "task": options, "columns": columns, "metrics": metrics}


def _of_file(section: type[Section], *also_required: str) -> Schema:
    schema: Schema = _as_written(section.model_json_schema(schema_generator=_Generator))
    definitions = schema.get("$defs", {})
    schema["required"] = [*also_required, *schema.get("required", [])]
    complete = _completeness(schema, definitions)
    # Without a parent there is nothing that null could remove.
    whole = {name: {"type": "object"} for name, field in schema["properties"].items() if "$ref" in field}
    for name, inner in complete.get("properties", {}).items():
        whole[name] = whole.get(name, {}) | inner
    for part in (schema, *definitions.values()):
        part.pop("required", None)
        for name, field in part["properties"].items():
            if "$ref" in field:
                inner = field.pop("$ref")
                said = {"description": definitions[inner.rpartition("/")[2]]["description"]}
                part["properties"][name] = said | field | {"anyOf": [{"$ref": inner}, {"type": "null"}]}
    schema["properties"] = {
        "extends": {
            "description": "What this file adds to: a file beside it, a name that dure knows, or a list of them.",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        }
    } | schema["properties"]
    schema["if"] = {"not": {"required": ["extends"]}}
    schema["then"] = complete | {"properties": whole}
    return schema


def _as_written(node: Any) -> Any:
    """Let every number of a schema be text as well."""
    if isinstance(node, list):
        return [_as_written(item) for item in node]
    if not isinstance(node, dict):
        return node
    schema: Schema = {_BOUNDS.get(str(key), str(key)): _as_written(value) for key, value in node.items()}
    if schema.get("type") not in ("integer", "number"):
        return schema
    outer = {key: schema.pop(key) for key in ("title", "description", "default") if key in schema}
    return outer | {"anyOf": [schema, {"type": "string", "pattern": NUMBER_PATTERN}]}


def _completeness(section: Schema, definitions: Schema) -> Schema:
    """Return what a file without parents must have, through all its sections."""
    complete: Schema = {"required": section["required"]} if section.get("required") else {}
    nested: Schema = {}
    for name, field in section["properties"].items():
        for option in (field, *field.get("anyOf", [])):
            if "$ref" in option:
                inner = _completeness(definitions[option["$ref"].rpartition("/")[2]], definitions)
                nested |= {name: inner} if inner else {}
    return complete | ({"properties": nested} if nested else {})
