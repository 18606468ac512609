"""The classes of a table: which there are, in an order that every run agrees on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dure.data.tables import Table
from dure.errors import UserError

_NAMED_CLASSES = 12


def classes_of(table: Table, role: str) -> tuple[str, ...]:
    """Return the classes of a table without the white space around them: numbers by value, else by spelling.

    Raises:
        UserError: There are fewer than two.
    """
    classes = sorted({label.strip() for label in table.dataset.unique(role)}, key=_place)
    if len(classes) < 2:
        raise UserError(
            f"every row is of the class '{classes[0]}'",
            where=f"{table.source}, role '{role}'",
            expected="at least two classes",
            hint=f"data.columns.{role}=COLUMN names the column to read",
        )
    return tuple(classes)


def check_classes(table: Table, role: str, classes: Sequence[str]) -> None:
    """Refuse a table with a class that is none of ``classes``; rows without a class pass.

    Raises:
        UserError: A row is of another class.
    """
    if role not in table.dataset.column_names:
        return
    strange = sorted({label.strip() for label in table.dataset.unique(role)} - {"", *classes}, key=_place)
    if not strange:
        return
    labels = table.dataset[role]
    row = next(place for place, label in enumerate(labels, 1) if label.strip() == strange[0])
    named = ", ".join(classes[:_NAMED_CLASSES]) + (", …" if len(classes) > _NAMED_CLASSES else "")
    others = f" (and {len(strange) - 1} more)" if len(strange) > 1 else ""
    raise UserError(
        f"the training table has no class '{strange[0]}'{others}",
        where=f"{table.source}, role '{role}', checked row {row}",
        expected=f"one of {named}",
        hint="correct or remove such rows, or train on a table that has the class",
    )


def _place(label: str) -> tuple[bool, float, str]:
    try:
        number = float(label)
    except ValueError:
        number = math.nan
    return (False, number, label) if math.isfinite(number) else (True, 0.0, label)
