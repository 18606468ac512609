"""What keys a typed section has, through all the sections within it."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel


def section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a field holds, also when it may be null."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(section_in, typing.get_args(annotation))), None)


def section_at(model: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel] | None:
    """Return the section that a path of keys leads to; None where there is none."""
    section: type[BaseModel] | None = model
    for part in path:
        field = section.model_fields.get(str(part)) if section else None
        section = section_in(field.annotation) if field else None
    return section


def place_in(model: type[BaseModel], section: type[BaseModel]) -> str | None:
    """Return the dotted key at which a section of a model is of this very type; None where none is."""
    keys = dotted_keys(model, with_sections=True)
    return next((key for key in keys if section_at(model, key.split(".")) is section), None)


def dotted_keys(model: type[BaseModel], prefix: str = "", *, with_sections: bool = False) -> Iterator[str]:
    """Return every key that holds a value, such as ``training.learning_rate``; and those of sections, if wanted."""
    for name, field in model.model_fields.items():
        section = section_in(field.annotation)
        if section is None or with_sections:
            yield prefix + name
        if section is not None:
            yield from dotted_keys(section, f"{prefix}{name}.", with_sections=with_sections)


def has_key(model: type[BaseModel], path: Sequence[str], *, whole: bool = False) -> bool:
    """Return whether a path names a value of a section.

    Where ``whole``, it must lead to the value itself, and not to a key of a mapping that is one.
    """
    section: type[BaseModel] | None = model
    for place, part in enumerate(path):
        field = section.model_fields.get(part) if section else None
        if field is None:
            return False
        section = section_in(field.annotation)
        if section is None:
            is_mapping = typing.get_origin(field.annotation) is dict
            return place == len(path) - 1 or (is_mapping and not whole)
    return False


def may_be_null(model: type[BaseModel], path: Sequence[str]) -> bool:
    """Return whether the value that a path names may be null."""
    section = section_at(model, path[:-1])
    field = section.model_fields.get(path[-1]) if section else None
    return field is not None and type(None) in typing.get_args(field.annotation)


def inner_section(tree: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """Return the section of a tree that a path leads to, which is made where there is none."""
    for part in path:
        below = tree.get(part)
        tree[part] = tree = below if isinstance(below, dict) else {}
    return tree


def in_sections(
    model: type[BaseModel], values: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield values by dotted key, those of a mapping that stands for a section one by one."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and section_at(model, name.split(".")) is not None:
            yield from in_sections(model, value, f"{name}.")
        else:
            yield name, value


def in_order(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by dotted key as sections within sections, in the order of the fields."""
    order = {key: place for place, key in enumerate(dotted_keys(model, with_sections=True))}
    tree: dict[str, Any] = {}
    for key in sorted(values, key=lambda key: order.get(key, order.get(key.rpartition(".")[0], len(order)))):
        *sections, last = key.split(".")
        inner_section(tree, sections)[last] = values[key]
    return tree
