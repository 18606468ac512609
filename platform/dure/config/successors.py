"""What takes the place of one old key, by the table of aliases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dure.config.aliases import ALIASES, UNSAID


@dataclass(frozen=True)
class Successor:
    """What takes the place of an old key and its value.

    Attributes:
        key: Dotted key of an experiment; None where there is none, or where the value needs none.
        value: Value for it.
        note: What differs, or why there is none.
    """

    key: str | None
    value: Any = None
    note: str = ""


def successor(path: Sequence[str], value: Any) -> Successor | None:
    """Return what an old key is now; None when nobody knows the key.

    Args:
        path: The key, with the sections that it stood in.
        value: What it said.
    """
    names = [part.lower().replace("-", "_").lstrip("_") for part in path]
    alias = next(
        (ALIASES[key] for start in range(len(names)) if (key := ".".join(names[start:])) in ALIASES), None
    )
    if alias is None:
        return None
    if alias.key is None:
        return Successor(None, None, alias.note)
    if not alias.values:
        listed = [value] if alias.key == "lora.targets" and isinstance(value, str) else value
        return Successor(alias.key, listed, alias.note)
    said = value if isinstance(value, list) else [value]
    known = [alias.values[text] for each in said or ["none"] if (text := str(each).lower()) in alias.values]
    if not known:
        if alias.is_open:
            return Successor(alias.key, value, alias.note)
        allowed = ", ".join(alias.values)
        return Successor(None, None, alias.note or f"{alias.key} knows only {allowed}")
    if known[0] is UNSAID:
        return Successor(None, None, f"{alias.key} is so by itself")
    return Successor(alias.key, known[0], alias.note)
