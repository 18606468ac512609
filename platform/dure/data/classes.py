"""The classes of a table: which there are, in an order that every run agrees on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dure.data.tables import Table
from dure.errors import UserError

_NAMED_CLASSES = 12


def labels_in(cell: str, separator: str | None = None) -> tuple[str, ...]:
    """Return the labels of one cell without the white space around them.

    Args:
        cell: What a table says.
        separator: What stands between labels; a cell is one label when it is not given.

    Returns:
        Each label once, in their order; none of an empty cell.
    """
    parts = [cell] if separator is None else cell.split(separator)
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def classes_of(table: Table, role: str, separator: str | None = None) -> tuple[str, ...]:
    """Return the classes of a table without the white space around them: numbers by value, else by spelling.

    Args:
        table: Where the classes stand.
        role: The column that has them.
        separator: What stands between the labels of one cell, should there be several.

    Raises:
        UserError: There are fewer than two.
    """
    cells = table.dataset.unique(role)
    classes = sorted({label for cell in cells for label in labels_in(cell, separator)}, key=_place)
    if len(classes) < 2:
        raise UserError(
            f"every row is of the class '{classes[0]}'" if classes else "no row has a class",
            where=f"{table.source}, role '{role}'",
            expected="at least two classes",
            hint=f"data.columns.{role}=COLUMN names the column to read",
        )
    return tuple(classes)


def check_classes(table: Table, role: str, classes: Sequence[str], separator: str | None = None) -> None:
    """Refuse a table with a class that is none of ``classes``; rows without a class pass.

    Args:
        table: What is checked.
        role: The column of classes, which the table may lack.
        classes: Those that are known.
        separator: What stands between the labels of one cell, should there be several.

    Raises:
        UserError: A row is of another class.
    """
    if role not in table.dataset.column_names:
        return
    found = {label for cell in table.dataset.unique(role) for label in labels_in(cell, separator)}
    strange = sorted(found - {*classes}, key=_place)
    if not strange:
        return
    cells = table.dataset[role]
    row = next(place for place, cell in enumerate(cells, 1) if strange[0] in labels_in(cell, separator))
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
