"""The reference of commands and configuration, made of what `dure --help` and `dure schema` print."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from dure.cli.app import app, help_records, load_verbs
from dure.cli.json_schema import json_schema
from dure.files import write_text

Schema = Mapping[str, Any]

_ESCAPED = str.maketrans({"|": "\\|", "<": "&lt;", "*": "\\*", "_": "\\_"})
_KINDS = {"experiment": "Experiments", "study": "Studies", "space": "Search spaces", "profile": "Profiles"}


def write_reference(folder: Path) -> None:
    """Write a page of all commands and one for every kind of YAML file; what has not changed is left untouched."""
    folder.mkdir(exist_ok=True)
    pages = {kind: _page(kind, title) for kind, title in _KINDS.items()} | {"commands": _commands()}
    for name, lines in pages.items():
        text, page = "\n".join(lines) + "\n", folder / f"{name}.md"
        if not page.is_file() or page.read_text(encoding="utf-8") != text:
            write_text(page, text)


def _commands() -> Iterator[str]:
    """Yield a section for every verb, in the order of `dure --help`."""
    load_verbs()
    group: Any = typer.main.get_command(app)
    context = group.make_context("dure", ["--help"], resilient_parsing=True)
    yield "# Commands\n\nEvery command with all of its options, as `dure VERB --help` has them."
    yield from _options(group, context)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        own = command.make_context(name, [], parent=context, resilient_parsing=True)
        usage = " ".join(own.get_usage().removeprefix("Usage: ").split())
        yield f"\n## {name}\n\n{_plain(command.help or '')}\n\n```text\n{usage}\n```"
        yield from _options(command, own)


def _options(command: Any, context: Any) -> Iterator[str]:
    rows = [
        f"| `{' '.join(name.split()).replace('|', chr(92) + '|')}` | {_plain(said)} |"
        for _, name, said in help_records(command, context)
    ]
    yield "\n| option | what it does |\n|---|---|"
    yield from rows


def _plain(text: str) -> str:
    """Return a text in one line that Markdown takes as it stands."""
    return " ".join(text.replace("\b", "").split()).translate(_ESCAPED)


def _page(kind: Any, title: str) -> Iterator[str]:
    schema = json_schema(kind)
    definitions = schema.get("$defs", {})
    yield f"# {title}"
    yield f"\nEvery key of a file, as `dure schema {kind}` has it. Numbers may be written as text, such as `1e-5`."
    for variant in schema.get("oneOf", [schema]):
        name = variant["properties"].get("kind", {}).get("const")
        if name is not None:
            yield f"\n## kind: {name}\n"
            yield _sentence(variant)
        elif not variant["properties"].keys() <= {"extends", *definitions}:
            yield "\n## At the top\n"
        yield from _table(variant, definitions)
        if name is None:
            yield from _sections(variant, definitions, "")


def _sections(schema: Schema, definitions: Schema, prefix: str) -> Iterator[str]:
    """Yield a heading and a table for every section, with its dotted name."""
    for key, field in schema["properties"].items():
        inner = _section_of(field, definitions)
        if inner is not None:
            yield f"\n## {prefix}{key}\n"
            yield _sentence(inner)
            yield from _table(inner, definitions)
            yield from _sections(inner, definitions, f"{prefix}{key}.")


def _table(schema: Schema, definitions: Schema) -> Iterator[str]:
    rows = [
        f"| `{key}` | {_type(field, definitions)} | {_default(field)} | {_sentence(field)} |"
        for key, field in schema["properties"].items()
        if _section_of(field, definitions) is None
    ]
    if rows:
        yield "\n| key | value | default | what it does |"
        yield "|---|---|---|---|"
        yield from rows


def _section_of(field: Schema, definitions: Schema) -> Schema | None:
    """Return the section that a key opens, if it is one."""
    for option in (field, *field.get("anyOf", [])):
        name = option.get("$ref", "").rpartition("/")[2]
        if name in definitions:
            found: Schema = definitions[name]
            return found
    return None


def _type(field: Schema, definitions: Schema) -> str:
    """Say in a few words what a value must be."""
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    options = [each for each in field.get("anyOf", []) if "pattern" not in each]
    if options:
        return " or ".join(dict.fromkeys(_type(each, definitions) for each in options))
    if "$ref" in field:
        return field["$ref"].rpartition("/")[2]
    kind = str(field.get("type", "any"))
    if kind == "array":
        return f"list of {_type(field.get('items', {}), definitions)}"
    return {"object": "keys and values", "string": "text", "boolean": "true or false"}.get(
        kind, kind
    ) + _bounds(field)


def _bounds(field: Schema) -> str:
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    said = [f"{sign} {field[key]:g}" for key, sign in words.items() if key in field]
    return f" {', '.join(said)}" if said else ""


def _default(field: Schema) -> str:
    return "" if field.get("default") is None else f"`{json.dumps(field['default'], ensure_ascii=False)}`"


def _sentence(schema: Schema) -> str:
    """Return a description in one line, with the marks of docstrings as Markdown has them."""
    return " ".join(str(schema.get("description", "")).replace("``", "`").replace("|", "\\|").split())
