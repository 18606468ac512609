"""What is wrong with YAML, in plain words, and in which line."""

from __future__ import annotations

from typing import Any

import yaml

_IN_PLAIN_WORDS = {
    "but found '<block mapping start>'": "this line is indented otherwise than the keys that it stands among",
    "but found '<block sequence start>'": "this item of a list is indented otherwise than those before it",
    "but found '}'": "a bracket } is closed here that was not opened",
    "but found ']'": "a bracket ] is closed here that was not opened",
    "cannot start any token": "a text cannot begin with this sign unless it is in quotes",
    "mapping values are not allowed here": "no colon can stand here: correct the indentation, add the colon that the line "
    "above lacks, or put a text with a colon in quotes",
    "could not find expected ':'": "a key without a colon behind it stands here or in the line above",
    "unexpected end of stream (while scanning a quoted scalar)": "a quote is opened and never closed",
}
"""What PyYAML says of the commonest mistakes, and what that means."""


class Refused(yaml.MarkedYAMLError):
    """Valid YAML that a configuration must not use."""

    def __init__(self, problem: str, at: Any) -> None:
        super().__init__(problem=problem, problem_mark=at.start_mark)


def line_of(error: yaml.YAMLError, text: str) -> int | None:
    """Return the number of the line that an error is about, from 1; None when it names none."""
    if isinstance(error, yaml.reader.ReaderError):
        return text.count("\n", 0, error.position) + 1
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return mark.line + 1 if mark else None


def said(error: yaml.YAMLError) -> str:
    """Return what is wrong."""
    if isinstance(error, Refused):
        return str(error.problem)
    if isinstance(error, yaml.reader.ReaderError):
        return f"character U+{error.character:04X} is not allowed in YAML"
    problem = str(getattr(error, "problem", None) or error)
    if "'\\t'" in problem:
        return "this is a tab; YAML is indented with spaces"
    context = getattr(error, "context", None)
    whole = f"{problem} ({context})" if context else problem
    plain = next((words for sign, words in _IN_PLAIN_WORDS.items() if sign in whole), whole)
    return f"this is not valid YAML: {plain}"
