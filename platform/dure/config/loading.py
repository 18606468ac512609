"""From YAML files and overrides to a checked tree, with errors that name the file, the key and the remedy."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dure.config import library
from dure.config.schema import BatchStudy, Experiment, Profile
from dure.errors import UserError, nearest

Model = TypeVar("Model", bound=BaseModel)
Tree = dict[str, Any]
Origins = dict[tuple[str, ...], str]
"""Where each key was set last: a file with its line, or the override."""


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses a key given twice and remembers the line of every key."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> Tree:
    loader.flatten_mapping(node)
    result: Tree = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is no text; put it in quotes", key_node.start_mark
            )
        if key in result:
            raise yaml.constructor.ConstructorError(
                None, None, f"key '{key}' is given twice", key_node.start_mark
            )
        result[key] = loader.construct_object(value_node, deep=True)
    return result


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: Path) -> tuple[Tree, Origins]:
    """Read one YAML file as a tree of keys, with the line of every key.

    Raises:
        UserError: The file is missing, is not UTF-8, is not YAML or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError("there is no such file", where=str(path)) from None
    except IsADirectoryError:
        raise UserError("this is a folder, not a YAML file", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"byte {error.start} is not UTF-8", where=str(path), hint="save it as UTF-8"
        ) from None
    except OSError as error:
        raise UserError(f"it cannot be read ({error.strerror})", where=str(path)) from None
    try:
        tree = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
        origins: Origins = {}
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise UserError(f"not valid YAML: {error.problem or error}", where=where) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"not valid YAML: {error}", where=str(path)) from None
    if tree is None:
        raise UserError("the file is empty", where=str(path))
    if not isinstance(tree, dict):
        raise UserError(f"it holds a {type(tree).__name__}", where=str(path), expected="keys and values")
    if isinstance(node, yaml.MappingNode):
        _note_lines(node, (), path, origins)
    return tree, origins


def _note_lines(node: yaml.MappingNode, prefix: tuple[str, ...], path: Path, origins: Origins) -> None:
    for key_node, value_node in node.value:
        key = (*prefix, str(key_node.value))
        origins[key] = f"{path}:{key_node.start_mark.line + 1}"
        if isinstance(value_node, yaml.MappingNode) and len(key) < 50:
            _note_lines(value_node, key, path, origins)


def read_extended(path: Path, seen: tuple[Path, ...] = ()) -> tuple[Tree, Origins]:
    """Read a YAML file on top of the files that its ``extends:`` names, which lie beside it.

    Sections merge key by key; lists and values replace. ``null`` in place of a section removes what a
    parent says of it.

    Raises:
        UserError: As :func:`read_yaml`; or the files extend each other in a circle.
    """
    resolved = path.resolve()
    if resolved in seen:
        circle = " → ".join(file.name for file in (*seen, resolved))
        raise UserError(f"'extends' goes in a circle: {circle}", where=str(path))
    tree, origins = read_yaml(path)
    parents = tree.pop("extends", [])
    parents = [parents] if isinstance(parents, str) else parents
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise UserError(
            f"'extends' is {parents!r}",
            where=origins.get(("extends",), str(path)),
            expected="a file name or a list of them",
        )
    base: Tree = {}
    base_origins: Origins = {}
    for parent in parents:
        file = path.parent / parent
        if not file.is_file():
            raise UserError(f"'extends' names {parent}, which does not exist", where=origins[("extends",)])
        parent_tree, parent_origins = read_extended(file, (*seen, resolved))
        base = merged(base, parent_tree)
        base_origins |= parent_origins
    return merged(base, tree), base_origins | origins


def merged(base: Mapping[str, Any], top: Mapping[str, Any]) -> Tree:
    """Return ``base`` with ``top`` laid over it, section by section."""
    result = dict(base)
    for key, value in top.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def with_overrides(tree: Tree, origins: Origins, overrides: Iterable[str]) -> tuple[Tree, Origins]:
    """Lay ``a.b=value`` texts over a tree; values are read as YAML.

    Raises:
        UserError: A text has no ``=``, an empty key, or a value that is not YAML.
    """
    origins = dict(origins)
    for text in overrides:
        key, equals, raw = text.partition("=")
        parts = tuple(key.split("."))
        if not equals or not all(part.strip() == part and part for part in parts):
            raise UserError(
                f"'{text}' is no override",
                where="command line",
                expected="section.key=value, such as training.learning_rate=3e-5",
            )
        try:
            value = yaml.load(raw, Loader=_Loader)  # noqa: S506 - a SafeLoader
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            problem = getattr(error, "problem", None) or error
            raise UserError(f"the value of '{text}' is not YAML: {problem}", where="command line") from None
        layer: Any = value
        for part in reversed(parts):
            layer = {part: layer}
        tree = merged(tree, layer)
        origins[parts] = f"command line ({text})"
    return tree, origins


def checked(model: type[Model], tree: Tree, origins: Origins, source: str) -> Model:
    """Build a typed section from a tree.

    Raises:
        UserError: Unknown keys, wrong types or impossible values: every one with its place and remedy.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        problems = [_problem(model, detail, origins, source) for detail in error.errors()]
        first, rest = problems[0], problems[1:]
        if not rest:
            raise first from None
        more = "\n".join(str(problem) for problem in rest)
        raise UserError(
            f"{first.problem}{f' (expected: {first.expected})' if first.expected else ''}"
            f"{f'; try {first.hint}' if first.hint else ''}\n{more}",
            where=first.where,
        ) from None


def _problem(model: type[BaseModel], detail: ErrorDetails, origins: Origins, source: str) -> UserError:
    loc = tuple(str(part) for part in detail["loc"])
    key = ".".join(loc) or "the whole"
    where = source
    for length in range(len(loc), 0, -1):
        if loc[:length] in origins:
            where = origins[loc[:length]]
            break
    if detail["type"] == "extra_forbidden":
        keys = _keys_at(model, loc[:-1])
        like = nearest(loc[-1], keys)
        section = ".".join(loc[:-1])
        hint = ".".join((*loc[:-1], like)) if like else None
        return UserError(
            f"unknown key '{key}'",
            where=where,
            expected=f"keys of {section or 'the top level'}: {', '.join(keys)}" if keys else "no keys here",
            hint=f"'{hint}'" if hint else None,
        )
    if detail["type"] == "missing":
        return UserError(f"key '{key}' is missing", where=where)
    message = detail["msg"].removeprefix("Value error, ")
    return UserError(f"'{key}' is {_short(detail['input'])}: {message[:1].lower()}{message[1:]}", where=where)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _keys_at(model: type[BaseModel], loc: Sequence[str]) -> list[str]:
    current: type[BaseModel] | None = model
    for part in loc:
        field = current.model_fields.get(part) if current else None
        current = _section_in(field.annotation) if field else None
    return sorted(current.model_fields) if current else []


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in typing.get_args(annotation):
        found = _section_in(part)
        if found is not None:
            return found
    return None


def load_experiment(name_or_path: str, overrides: Iterable[str] = ()) -> Experiment:
    """Load an experiment by name or file, with ``a.b=value`` overrides on top.

    Raises:
        UserError: Nothing of that name, or something in it is wrong.
    """
    path = library.find("experiment", name_or_path)
    tree, origins = with_overrides(*read_extended(path), overrides)
    return checked(Experiment, tree, origins, str(path))


def load_study(name_or_path: str) -> BatchStudy:
    """Load a study by name or file.

    Raises:
        UserError: Nothing of that name, or something in it is wrong.
    """
    path = library.find("study", name_or_path)
    tree, origins = read_extended(path)
    return checked(BatchStudy, tree, origins, str(path))


def load_profile(name_or_path: str) -> Profile:
    """Load a machine profile by name or file.

    Raises:
        UserError: Nothing of that name, or something in it is wrong.
    """
    path = library.find("profile", name_or_path)
    tree, origins = read_extended(path)
    return checked(Profile, tree, origins, str(path))


def dump_yaml(section: BaseModel) -> str:
    """Write a section as YAML that loads back into an equal one; keys in the schema's order."""
    return yaml.safe_dump(
        section.model_dump(mode="json"),
        allow_unicode=True,
        sort_keys=False,
        width=110,
        default_flow_style=False,
    )
