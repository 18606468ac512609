"""Arguments of Python's functions in the form that the command line has them: settings, names, lists of names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dure.config.problems import in_yaml
from dure.errors import UserError

Overrides = str | Mapping[str, Any] | Sequence[str]
"""Settings: ``{"training.epochs": 2}``, ``"training.epochs=2"``, or several of such texts."""
Names = str | Path | Sequence[str | Path]
"""A name or a path, or several."""


def overrides_of(given: Overrides) -> list[str]:
    """Return settings as ``a.b=value`` texts.

    Raises:
        UserError: A value is nothing that YAML can hold.
    """
    if isinstance(given, Mapping):
        return [f"{key}={_value(key, value)}" for key, value in given.items()]
    return [given] if isinstance(given, str) else [*given]


def plain_value(value: Any) -> Any:
    """Return a path as text, and numbers of NumPy or PyTorch as those of Python; in lists and mappings too."""
    if isinstance(value, Mapping):
        return {key: plain_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    return value.tolist() if hasattr(value, "tolist") else value


def name_of(given: str | Path) -> str:
    """Return a name or a path as text.

    Raises:
        UserError: It is neither.
    """
    if isinstance(given, str | Path):
        return str(given)
    raise UserError(
        f"{type(given).__name__} is given in place of a name or a path",
        expected="text or a Path",
        hint="write the table first, such as by DataFrame.to_csv" if hasattr(given, "to_csv") else None,
    )


def path_of(given: str | Path | None) -> Path | None:
    """Return a name or a path as a path; None where nothing is given.

    Raises:
        UserError: It is neither.
    """
    return None if given is None else Path(name_of(given))


def names_of(*given: Names) -> list[str]:
    """Return names and paths as texts, those within lists too.

    Raises:
        UserError: Something is neither.
    """
    return [
        name
        for each in given
        for name in (names_of(*each) if isinstance(each, list | tuple) else [name_of(each)])  # type: ignore[arg-type]
    ]


def _value(key: str, value: Any) -> str:
    try:
        return in_yaml(plain_value(value))
    except yaml.YAMLError:
        raise UserError(
            f"a {type(value).__name__} is no value of a setting",
            where=key,
            expected="text, a path, a number, true or false, a list or a mapping",
        ) from None
