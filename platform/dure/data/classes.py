"""The classes of a table: which there are, in an order that every run agrees on."""

from __future__ import annotations

from collections.abc import Sequence

from dure.data.labels import ClassIndex, class_names, labels_in, order_of
from dure.data.tables import Table
from dure.errors import UserError

_NAMED_CLASSES = 12


def classes_of(table: Table, role: str, separator: str | None = None) -> tuple[str, ...]:
    """Return the classes of a table, as :func:`class_names` of its labels.

    Args:
        table: Where the classes stand.
        role: The column that has them.
        separator: What stands between the labels of one cell, should there be several.

    Raises:
        UserError: There are fewer than two.
    """
    classes = class_names(
        label for cell in table.dataset.unique(role) for label in labels_in(cell, separator)
    )
    if len(classes) < 2:
        raise UserError(
            f"every row is of the class '{classes[0]}'" if classes else "no row has a class",
            where=f"{table.source}, role '{role}'",
            expected="at least two classes",
            hint=f"data.columns.{role}=COLUMN names the column to read",
        )
    return classes


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
    index = ClassIndex(classes)
    found = {label for cell in table.dataset.unique(role) for label in labels_in(cell, separator)}
    strange = sorted((label for label in found if index.find(label) is None), key=order_of)
    if not strange:
        return
    cells = table.dataset[role]
    row = next(place for place, cell in enumerate(cells) if strange[0] in labels_in(cell, separator))
    named = ", ".join(classes[:_NAMED_CLASSES]) + (", …" if len(classes) > _NAMED_CLASSES else "")
    others = f" (and {len(strange) - 1} more)" if len(strange) > 1 else ""
    raise UserError(
        f"the training table has no class '{strange[0]}'{others}",
        where=f"{table.source}, role '{role}', {table.place(row)}",
        expected=f"one of {named}",
        hint="correct or remove such rows, or train on a table that has the class",
    )
