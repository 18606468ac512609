"""Reading YAML into a tree in which every key knows the place that set it, and laying trees over each other.

The YAML is that of the YAML 1.2 core schema, without what surprises people: ``1e-5`` is a number, ``no`` is
text and ``010`` is ten. Anchors, aliases and merge keys are refused, because ``extends:`` does their work with
better errors (and because aliases let a small file grow without bound).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dure.config import library
from dure.config.yaml_errors import Refused, line_of, said
from dure.errors import UserError, shell_word, shortened, shown_path

COMMAND_LINE = "command line"
MAX_DEPTH = 32
"""Deepest nesting of keys and lists; no configuration needs a quarter of it."""
MAX_BYTES = 1 << 20
"""Largest file; the longest configuration of this repository has a hundredth of it."""
MAX_DIGITS = 300
"""Longest number; more digits hold nothing that a number could mean here."""

_TAG = "tag:yaml.org,2002:"
_PLAIN_VALUES = {
    "null": (re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    "bool": (re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    "int": (re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789")),
    "float": (
        re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$"),
        list("-+.0123456789"),
    ),
}
"""What plain (unquoted) text means, and the characters it may begin with; everything else is text."""
_LONGEST_SHOWN = 120
_BRACKETS = ("[", "{", '"', "'")
"""What a value on the command line begins with that is read as YAML."""
_PLACEHOLDER = re.compile(r"\{\w+\}")
"""A name in braces, with which a template may begin: valid YAML, but for a key without a value."""


@dataclass(frozen=True)
class Entry:
    """The value of a key, which is a tree of its own for a section, and the place that set it last.

    Where nothing stands behind a key the value is None, and ``is_said`` is false.
    """

    value: Any
    place: str
    is_said: bool = True


Tree = dict[str, Entry]
Places = Mapping[tuple[str, ...], str]
"""Where each key was set: a file with its line, or the command line."""


class _Loader(yaml.SafeLoader):
    """Builds nodes, never Python objects, and refuses anchors, aliases, tags and bottomless nesting."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Build the next node; PyYAML calls it for every value and key."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None) is not None:
            raise Refused("anchors (&) and aliases (*) are not read; share values with 'extends:'", event)
        if getattr(event, "tag", None) is not None:
            raise Refused(f"tags ({event.tag.replace(_TAG, '!!')}) are not read", event)
        if self.depth > MAX_DEPTH:
            raise Refused(f"nested more than {MAX_DEPTH} deep", event)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class Dumper(yaml.SafeDumper):
    """Quotes every text that this or an older YAML reader would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write a value out wherever it stands, since aliases are not read."""
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Escape what cannot be seen; PyYAML itself takes U+0085 for a space when it writes it as it is."""
        return self.represent_scalar(f"{_TAG}str", data, style=None if data.isprintable() else '"')


Dumper.add_representer(str, Dumper.represent_str)
for _kind, (_pattern, _first) in _PLAIN_VALUES.items():
    _Loader.add_implicit_resolver(_TAG + _kind, _pattern, _first)
    Dumper.add_implicit_resolver(_TAG + _kind, _pattern, _first)


def read_yaml(path: Path) -> Tree:
    """Read one YAML file.

    Raises:
        UserError: The file cannot be read, is not UTF-8, is not YAML, or holds no keys.
    """
    shown = shown_path(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(
                f"the file is larger than {MAX_BYTES // 1024} KiB", where=shown, expected="a configuration"
            )
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise UserError(
            f"byte 0x{byte:02x} is not UTF-8", where=f"{shown}:{line}", hint="save the file as UTF-8"
        ) from None
    except OSError as error:
        raise UserError(f"the file cannot be read ({error.strerror})", where=shown) from None
    try:
        node = yaml.compose(text, Loader=_Loader)
        if isinstance(node, yaml.MappingNode):
            return _tree(node, lambda key: f"{shown}:{key.start_mark.line + 1}")
    except yaml.YAMLError as error:
        number = line_of(error, text)
        raise UserError(said(error), where=f"{shown}:{number}" if number else shown) from None
    except (ValueError, OverflowError) as error:  # PyYAML on escapes such as "\UFFFFFFFF"
        raise UserError(f"this is not valid YAML: {error}", where=shown) from None
    found = (
        "is empty" if node is None else f"holds {'a list' if isinstance(node.value, list) else 'one value'}"
    )
    raise UserError(f"the file {found}", where=shown, expected="keys and values, such as 'name: …'")


def _tree(node: yaml.MappingNode, place: Callable[[yaml.Node], str]) -> Tree:
    tree: Tree = {}
    for key, value in node.value:
        tree[_key(key, tree)] = Entry(
            _tree(value, place) if isinstance(value, yaml.MappingNode) else _value(value),
            place(key),
            is_said=value.value != "" or value.style is not None,
        )
    return tree


def _key(node: Any, taken: Mapping[str, Any]) -> str:
    key = _value(node)
    if isinstance(key, (list, dict)):
        raise Refused("a list or mapping cannot be a key", node)
    if not isinstance(key, str):
        raise Refused(f"key {node.value or 'null'} is not text; put it in quotes", node)
    if key == "<<" and node.style is None:
        raise Refused("merge keys (<<) are not read; share values with 'extends:'", node)
    if key in taken:
        raise Refused(f"key '{key}' is given twice", node)
    return key


def _value(node: yaml.Node) -> Any:
    """Return the plain value of a node; what lies inside a list has no place of its own."""
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key, value in node.value:
            mapping[_key(key, mapping)] = _value(value)
        return mapping
    text = str(node.value)
    match node.tag.removeprefix(_TAG):
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int" if len(text) <= MAX_DIGITS:
            return int(text)
        case "float" if len(text) <= MAX_DIGITS and math.isfinite(float(text)):
            return float(text)
        case "int" | "float":
            raise Refused("this number is beyond all bounds; a text of digits stands in quotes", node)
        case _ if is_torn(text):
            raise Refused("half of a surrogate pair is no character", node)
        case _:
            return text


def is_torn(text: str) -> bool:
    """Return whether a text holds half of a surrogate pair, as bytes that are no UTF-8 become on a command line."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def read_extended(path: Path, kind: library.Kind, keys: Collection[str]) -> Tree:
    """Read a YAML file on top of what its ``extends:`` names: files beside it, or names that dure knows.

    Sections merge key by key; lists and values replace. ``null`` in place of a section removes what a parent says of
    it. A parent that lies neither in the working folder nor in that of the file, and holds anything but ``keys``, is
    not quoted: a file that somebody handed on must not show what others hold.

    Raises:
        UserError: As :func:`read_yaml`; or a parent does not exist; or files extend each other in a circle.
    """
    return _Reading(kind, frozenset(keys), (Path.cwd(), path.parent.resolve()), {}).tree(path, ())


@dataclass(frozen=True)
class _Reading:
    """Reading a file with its parents; ``read`` holds those that are done, since many may share a parent."""

    kind: library.Kind
    keys: frozenset[str]
    at_home: tuple[Path, ...]
    read: dict[Path, Tree]

    def tree(self, path: Path, seen: tuple[Path, ...]) -> Tree:
        """Return a file below those of ``seen``, laid over its parents."""
        place = path.resolve()
        if place not in self.read:
            self.read[place] = self._over_its_parents(path, (*seen, place))
        return self.read[place]

    def _over_its_parents(self, path: Path, seen: tuple[Path, ...]) -> Tree:
        if len(seen) > MAX_DEPTH:
            raise UserError(f"'extends' is nested more than {MAX_DEPTH} deep", where=shown_path(path))
        tree = read_yaml(path)
        extends = tree.pop("extends", None)
        if extends is None:
            return tree
        base: Tree = {}
        for parent in extends.value if isinstance(extends.value, list) else [extends.value]:
            file = self._parent(parent, path, extends.place)
            if file.resolve() in seen:
                circle = " → ".join(link.name for link in (*seen, file))
                raise UserError(f"'extends' goes in a circle: {circle}", where=extends.place)
            below = self.tree(file, seen)
            if not self._is_near(file) and not below.keys() <= self.keys:
                raise UserError(
                    f"'extends': {shown_path(file)} is no {self.kind}",
                    where=extends.place,
                    expected=f"a file that holds nothing but keys of one, such as {', '.join(sorted(self.keys)[:4])}",
                )
            base = merged(base, below)
        return merged(base, tree)

    def _parent(self, parent: Any, path: Path, place: str) -> Path:
        if not isinstance(parent, str):
            raise UserError(
                "'extends' names something that is not text",
                where=place,
                expected="a file, a name, or a list of them",
            )
        try:
            return library.find(self.kind, parent, beside=path.parent)
        except UserError as error:
            raise error.at(place, f"'extends': {error.problem}") from None

    def _is_near(self, file: Path) -> bool:
        places = (*self.at_home, *library.folders(self.kind))
        return any(file.resolve().is_relative_to(place) for place in places)


INSTEAD = {"warmup_steps": "warmup_ratio", "warmup_ratio": "warmup_steps"}
"""Keys that say one thing in two ways: what a later layer says replaces what an earlier one said the other way."""


def merged(base: Tree, top: Tree) -> Tree:
    """Return ``base`` with ``top`` laid over it, section by section; ``null`` removes a section.

    A key of :data:`INSTEAD` replaces the other one too, unless both are given on the command line.
    """
    result = dict(base)
    for key, entry in top.items():
        other = INSTEAD.get(key)
        if other in result and other not in top and entry.value is not None:
            is_one_layer = entry.place == result[other].place == COMMAND_LINE
            if not is_one_layer:
                del result[other]
        below = result.pop(key, None)
        if below is None or not isinstance(below.value, dict):
            result[key] = entry
        elif isinstance(entry.value, dict):
            result[key] = Entry(merged(below.value, entry.value), entry.place)
        elif entry.value is not None:
            result[key] = entry
        elif not entry.is_said:
            raise UserError(
                f"section '{key}' is empty here, but not in the extended file",
                where=entry.place,
                expected="keys and values",
                hint=f"leave the line out, or '{key}: null' to remove all that the extended file says there",
            )
    return result


def with_overrides(tree: Tree, overrides: Iterable[str]) -> Tree:
    """Lay ``a.b=value`` texts over a tree.

    A value in brackets or quotes is YAML. Everything else is one plain value taken literally: ``#`` and
    ``: `` in it mean nothing, and no value at all is empty text. A template such as ``{text}`` is text.

    Raises:
        UserError: A text has no ``=``, an empty key, or brackets that are not YAML.
    """
    for override in overrides:
        key, equals, raw = override.partition("=")
        parts = key.split(".")
        is_key = all(part and part == part.strip() and not is_torn(part) for part in parts)
        if not equals or not is_key or len(parts) > MAX_DEPTH:
            raise UserError(
                f"'{shortened(override, _LONGEST_SHOWN)}' is no override",
                where=COMMAND_LINE,
                expected="section.key=value, such as training.learning_rate=3e-5",
            )
        try:
            value = given_value(raw)
        except ValueError as error:
            quoted = shell_word(f"{key}={json.dumps(raw, ensure_ascii=False)}")
            hint = f"correct its brackets or quotes; where they belong to a text: {shortened(quoted, _LONGEST_SHOWN)}"
            raise UserError(
                f"'{shortened(override, _LONGEST_SHOWN)}': {error}",
                where=COMMAND_LINE,
                hint=hint if raw.strip().startswith(_BRACKETS) else None,
            ) from None
        for part in reversed(parts):
            value = {part: Entry(value, COMMAND_LINE)}
        tree = merged(tree, value)
    return tree


def given_value(raw: str) -> Any:
    """Read a value as the command line gives it; a section is a :data:`Tree`.

    Raises:
        ValueError: It has brackets or quotes and is no YAML; the message says why.
    """
    text = raw.strip()
    try:
        if text.startswith(_BRACKETS) and not _PLACEHOLDER.match(text):
            node: Any = yaml.compose(text, Loader=_Loader)
            return _tree(node, lambda _: COMMAND_LINE) if isinstance(node, yaml.MappingNode) else _value(node)
        tag: Any = _Loader("").resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        is_text = not text or tag == f"{_TAG}str"
        return _value(yaml.ScalarNode(f"{_TAG}str", raw) if is_text else yaml.ScalarNode(tag, text))
    except yaml.YAMLError as error:
        raise ValueError(said(error)) from None
    except (ValueError, OverflowError) as error:
        raise ValueError(f"this is not valid YAML: {error}") from None


def plain(tree: Tree) -> dict[str, Any]:
    """Return the values of a tree without their places."""
    return {
        key: plain(entry.value) if isinstance(entry.value, dict) else entry.value
        for key, entry in tree.items()
    }


def places(tree: Tree, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    """Return the places of a tree's keys, sections included."""
    result: dict[tuple[str, ...], str] = {}
    for key, entry in tree.items():
        result[(*prefix, key)] = entry.place
        if isinstance(entry.value, dict):
            result |= places(entry.value, (*prefix, key))
    return result


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return sections within sections as values by dotted key; an empty section is a value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return found
