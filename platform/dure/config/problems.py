"""Turning what pydantic finds into errors that name the place, the key, the value and the remedy.

A validator of one field says in its ``ValueError`` what is *expected*; a validator of a whole section says
what is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dure.config.aliases import Successor, successor
from dure.config.sections import dotted_keys, section_at
from dure.config.tree import COMMAND_LINE, Dumper, Places
from dure.errors import UserError, nearest, shell_word, shortened

_LONGEST_VALUE = 80
_KEY = re.compile(r"\w+(?:\.\w+)*")
"""What may be a key, dotted or not, in a sentence."""
Location = tuple[str | int, ...]

_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "keys and values",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int_type": "a whole number",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_type": "keys and values",
    "string_too_short": "text that is not empty",
    "string_type": "text",
    "too_short": "a list of at least {min_length}",
    "tuple_type": "a list",
    "union_tag_invalid": "{discriminator} to be one of {expected_tags}",
    "union_tag_not_found": "key {discriminator} among them",
    "value_error": "{error}",
}
"""What would have been right, by pydantic's type of error and with its words; others keep pydantic's sentence."""


def user_error(
    error: ValidationError, model: type[BaseModel], values: Mapping[str, Any], places: Places, source: str
) -> UserError:
    """Return all that is wrong as one error; ``source`` is the place of what has none in ``places``."""
    details: dict[Location, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        for location, part in _parts(detail, _location(detail, values)):
            details.setdefault(location, []).append(part)
    within = {location[:length] for location in details for length in range(len(location))}
    problems = [
        _problem(location, found, model, _place_of_problem(location, found[0], places, source))
        for location, found in details.items()
        # A list of which an item is wrong counts as too short beside it.
        if location not in within or found[0]["type"] != "too_short"
    ]
    if len(problems) == 1:
        return problems[0]
    listed = "\n".join(str(problem) for problem in problems)
    hint = None
    if _is_experiment(model) and source.endswith((".yaml", ".yml")):
        old = [location for location, found in details.items() if _successor(location, found[0])]
        # A file with parents is not converted: what it extends stays as it is.
        is_whole = all(
            place == COMMAND_LINE or place.rpartition(":")[0] == source for place in places.values()
        )
        if is_whole and any(_place(location, places, source) != COMMAND_LINE for location in old):
            hint = f"dure convert {shell_word(source)} -o NEW.yaml writes it in the keys of dure"
    return UserError(f"{len(problems)} things are wrong\n{listed}", where=source, hint=hint)


def _is_experiment(model: type[BaseModel]) -> bool:
    """Whether the keys of other systems have their successors in a section."""
    return {"family", "training"} <= model.model_fields.keys()


def _parts(detail: ErrorDetails, location: Location) -> Iterator[tuple[Location, ErrorDetails]]:
    """Take an unknown section apart when other systems know the keys within it."""
    inner = detail["input"]
    keys = [(*location, key) for key in inner] if isinstance(inner, Mapping) else []
    if detail["type"] != "extra_forbidden" or not any(_known(key, inner[key[-1]]) for key in keys):
        yield location, detail
        return
    for key in keys:
        part = detail.copy()
        part["input"] = inner[key[-1]]
        yield key, part


def _known(location: Location, value: Any) -> Successor | None:
    return successor([str(part) for part in location], value)


def _successor(location: Location, detail: ErrorDetails) -> Successor | None:
    return _known(location, detail["input"]) if detail["type"] == "extra_forbidden" else None


def _location(detail: ErrorDetails, values: Any) -> Location:
    """Return the keys that the user wrote, without pydantic's names for the members of a union."""
    location: list[str | int] = []
    for part in detail["loc"]:
        try:
            values = values[part]
        except (LookupError, TypeError):
            if detail["type"] != "missing" or part != detail["loc"][-1]:
                continue
        location.append(part)
    return tuple(location)


def _place(location: Location, places: Places, source: str) -> str:
    for length in range(len(location), 0, -1):
        place = places.get(tuple(str(part) for part in location[:length]))
        if place is not None:
            return place
    return source


def _place_of_problem(location: Location, detail: ErrorDetails, places: Places, source: str) -> str:
    """Return the place of a key; of keys that do not go together, the command line where it gave one of them."""
    if detail["type"] == "value_error" and isinstance(detail["input"], Mapping):
        named = _KEY.findall(str(detail["ctx"]["error"]))
        within = tuple(str(part) for part in location)
        given = (
            ".".join(keys[len(within) :])
            for keys, place in places.items()
            if place == COMMAND_LINE and keys[: len(within)] == within
        )
        if any(f"{key}.".startswith(f"{name}.") for key in given for name in named):
            return COMMAND_LINE
    return _place(location, places, source)


def _problem(
    location: Location, details: list[ErrorDetails], model: type[BaseModel], place: str
) -> UserError:
    detail = details[0]
    key = _dotted(location)
    match detail["type"]:
        case "extra_forbidden":
            now = _successor(location, detail) if _is_experiment(model) else None
            if now is None:
                return _unknown_key(location, detail["input"], model, place)
            return _old_key(location, now, place)
        case "missing":
            return UserError(f"key '{key}' is missing", where=place, expected=_description(location, model))
        case "value_error" if isinstance(detail["input"], Mapping):
            message = str(detail["ctx"]["error"])
            return UserError(f"'{key}': {message}" if key else message, where=place)
        case _:
            return UserError(
                f"'{key}' is {shown(detail['input'])}" if key else f"this is {shown(detail['input'])}",
                where=place,
                expected=", or ".join(dict.fromkeys(_expected(found) for found in details)),
                hint=next(filter(None, (_remedy(found, key, place) for found in details)), None),
            )


def _description(location: Location, model: type[BaseModel]) -> str | None:
    section = section_at(model, location[:-1])
    field = section.model_fields.get(str(location[-1])) if section else None
    return field.description.replace("``", "'").rstrip(".") if field and field.description else None


def _unknown_key(location: Location, value: Any, model: type[BaseModel], place: str) -> UserError:
    section = section_at(model, location[:-1])
    keys = list(section.model_fields) if section else []
    name = str(location[-1])
    known = [*dotted_keys(model)]
    elsewhere = [key for key in known if key.rpartition(".")[2] == name.lower()]
    like = nearest(name, keys)
    hint = elsewhere[0] if elsewhere else _dotted((*location[:-1], like)) if like else None
    parted = name.replace("/", ".")
    if len(location) == 1 and parted in known:  # a dotted key where YAML has sections
        outer, _, inner = parted.rpartition(".")
        hint = parted if place == COMMAND_LINE else f"{outer}: {{{inner}: …}}"
    if hint:
        is_setting = place == COMMAND_LINE and hint in known and isinstance(value, bool | int | float)
        hint = shell_word(f"{hint}={in_yaml(value)}") if is_setting else f"'{hint}'"
    return UserError(
        f"unknown key '{_dotted(location)}'",
        where=place,
        expected=None if hint or not keys else f"one of: {', '.join(keys)}",
        hint=hint,
    )


def _old_key(location: Location, now: Successor, place: str) -> UserError:
    """Return the error of a key that another system knows, with what takes its place."""
    if now.key is None or place == COMMAND_LINE:
        hint = as_override(now)
    else:
        note = f"; {now.note}" if now.note else ""
        sections = now.key.split(".")
        written = "".join(f"{part}: {{" for part in sections[:-1]) + f"{sections[-1]}: {in_yaml(now.value)}"
        hint = f"'{now.key}', as in {written}{'}' * (len(sections) - 1)}{note}"
    return UserError(f"unknown key '{_dotted(location)}'", where=place, hint=hint)


def as_override(now: Successor) -> str:
    """Return what takes the place of an old key on the command line, with what differs."""
    said = "leave it out" if now.key is None else shell_word(f"{now.key}={in_yaml(now.value)}")
    return f"{said}; {now.note}" if now.note else said


def in_yaml(value: Any) -> str:
    """Return a value in one line of YAML, as a file and the command line read it alike."""
    text = yaml.dump(
        value, Dumper=Dumper, default_flow_style=True, allow_unicode=True, width=1_000_000, sort_keys=False
    )
    return text.removesuffix("...\n").strip()


def _expected(detail: ErrorDetails) -> str:
    words = {
        name: each.replace("'", "") if isinstance(each, str) else each
        for name, each in detail.get("ctx", {}).items()
    }
    found = _EXPECTED.get(detail["type"], "").format(**words) or detail["msg"].removeprefix(
        "Input should be "
    )
    return found.removeprefix("expected ")


def _remedy(detail: ErrorDetails, key: str, place: str) -> str | None:
    value = detail["input"]
    match detail["type"]:
        case "literal_error" if isinstance(value, str):
            allowed = str(detail["ctx"]["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
            return nearest(value, allowed) if len(allowed) > 3 else None  # few are seen at a glance
        case "string_type" if isinstance(value, (bool, int, float)):
            # How a number was written is not known any more: 1e10 and 1.10 are other texts than those of their values.
            text = '"…"' if isinstance(value, float) else f'"{shown(value)}"'
            is_whole = place == COMMAND_LINE and "[" not in key
            return shell_word(f"{key}={text}") if is_whole else f"{text}, in quotes"
        case "model_type" if isinstance(value, bool) and detail["loc"][-1] == "wandb":
            switch = shown(value)
            return f"wandb.enabled={switch}" if place == COMMAND_LINE else f"wandb: {{enabled: {switch}}}"
        case "tuple_type" if isinstance(value, (str, int, float)):
            return f"[{value}]"
        case _:
            return None


def shown(value: Any) -> str:
    """Return a value as the user wrote it, near enough, and never long."""
    return shortened(json.dumps(value, ensure_ascii=False, default=str), _LONGEST_VALUE)


def _dotted(location: Location) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(
        "."
    )
