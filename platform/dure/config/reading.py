"""Settings of how tables are read, as commands take them that read a table of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dure.config.data import ReadingConfig
from dure.config.loading import checked
from dure.config.tree import COMMAND_LINE, places, plain, with_overrides
from dure.errors import UserError, nearest

_COLUMNS = "data.columns"


def reading_of(overrides: Iterable[str]) -> ReadingConfig:
    """Return how tables are read, from ``data.key=value`` texts over the defaults.

    Raises:
        UserError: A text is no such setting, or its value is impossible.
    """
    given = list(overrides)
    check_reading(given)
    section = with_overrides({}, given).get("data")
    tree = section.value if section is not None else {}
    return checked(ReadingConfig, plain(tree), places(tree), f"{COMMAND_LINE} (data)")


def check_reading(overrides: Sequence[str], *, with_columns: bool = False) -> None:
    """Check that overrides set nothing but how a table is read.

    Args:
        overrides: ``key=value`` texts.
        with_columns: Whether ``data.columns.ROLE`` may be set too.

    Raises:
        UserError: One sets something else.
    """
    known = [f"data.{name}" for name in ReadingConfig.model_fields]
    if with_columns:
        known.append(f"{_COLUMNS}.ROLE")
    for override in overrides:
        key = override.partition("=")[0]
        if key in known or (with_columns and (key == _COLUMNS or key.startswith(f"{_COLUMNS}."))):
            continue
        like = nearest(key, known)
        raise UserError(
            f"'{key}' does not say how a table is read",
            where=COMMAND_LINE,
            expected=f"one of {', '.join(known)}",
            hint=f"{like}=…" if like else None,
        )
