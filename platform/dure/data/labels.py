"""Labels: which spellings mean one class, and the names of the classes."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from dure.data.canonical import canonical, is_blank, visible
from dure.errors import UserError, shortened

if TYPE_CHECKING:
    from dure.data.tables import Table

_NUMBER = re.compile(r"([-+]?)(?=\.?[0-9])(0|[1-9][0-9]*|)(?:\.([0-9]*))?")
"""A plain number, as any program writes it: 1, +1, 1.0, 1. or .5; ``007`` is a code, compared as it is spelled."""
_NAMED_CLASSES = 12
_NAMED_PAIRS = 3
_AROUND = "\"'`“”‘’.,;:!「」"
"""Signs that stand around a label by accident."""
_FEW_ROWS = 10
_SHOWN_LETTERS = 40
_TRUTH = {"true": "1", "false": "0"}

Form = Literal["spelling", "numbers", "truth"]
"""How the labels of one column are told apart."""


def labels_in(cell: str, separator: str | None = None) -> tuple[str, ...]:
    """Return each label of one cell once, as it is spelled but for what cannot be seen and the space around it."""
    parts = [cell] if separator is None else cell.split(separator)
    labels = (visible(part).strip() for part in parts if not is_blank(part))
    return tuple({canonical(label): label for label in labels}.values())


def form_of(labels: Iterable[str]) -> Form:
    """Return how the labels of a column are told apart, which all of them decide together.

    - ``truth``: all are 0, 1, true or false (in any case, also 0.0 and 1.0), so true is 1;
    - ``numbers``: all are plain numbers, so 1.0 and 1. are 1; pandas writes whole numbers so beside an empty cell;
    - ``spelling``: anything else, so "1.0" beside "version 1" is a name like any other.
    """
    found = {*labels}
    if found and all(_as_truth(label) in ("0", "1") for label in found):
        return "truth"
    return "numbers" if found and all(map(_NUMBER.fullmatch, found)) else "spelling"


def key_of_label(label: str, form: Form) -> str:
    """Return what two labels of one class share; ``label`` is canonical."""
    match form:
        case "spelling":
            return label
        case "truth":
            return _as_truth(label)
        case "numbers":
            return _as_number(label)


def class_keys(labels: Iterable[str | None]) -> list[str | None]:
    """Return what labels of one class share, for all labels of a column; None stays None."""
    spelled = [None if label is None else canonical(label) for label in labels]
    form = form_of(label for label in spelled if label)
    return [None if label is None else key_of_label(label, form) for label in spelled]


class ClassIndex:
    """Finds the class that a label of any table means: its number in ``names``.

    The names decide what the labels are: where all are numbers, ``1.0`` means ``1``; where all are truth values,
    ``true`` means ``1`` too. Elsewhere labels are compared as they are spelled, in canonical form.
    """

    def __init__(self, names: Sequence[str]) -> None:
        spelled = [canonical(name) for name in names]
        self._form = form_of(spelled)
        self._places = {key_of_label(name, self._form): place for place, name in enumerate(spelled)}
        # A name as it is spelled is itself, whatever else it could mean.
        self._places |= {name: place for place, name in enumerate(spelled)}

    def find(self, label: str) -> int | None:
        """Return the number of the class that a label means, or None when it is none of them."""
        spelled = canonical(label)
        return self._places.get(spelled, self._places.get(key_of_label(spelled, self._form)))

    def __getitem__(self, label: str) -> int:
        place = self.find(label)
        if place is None:
            raise KeyError(label)
        return place


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the classes among labels: numbers by value, else by spelling.

    A class that is spelled in several ways gets the shortest of them, of equal ones the first by order.
    """
    found = {*labels}
    form = form_of(map(canonical, found))
    names: dict[str, str] = {}
    for label in sorted(found, key=lambda label: (len(label), label)):
        names.setdefault(key_of_label(canonical(label), form), label)
    return tuple(sorted(names.values(), key=order_of))


def label_counts(cells: Iterable[str], separator: str | None = None) -> Counter[str]:
    """Count the rows of every class, by the names of :func:`class_names`; a row without one counts as ``""``."""
    counts = Counter(cells)
    found = {cell: labels_in(cell, separator) for cell in counts}
    names = class_names(label for labels in found.values() for label in labels)
    index = ClassIndex(names)
    totals: Counter[str] = Counter()
    for cell, number in counts.items():
        for name in dict.fromkeys(names[index[label]] for label in found[cell]) or ("",):
            totals[name] += number
    return totals


def notes_on_classes(table: Table, role: str, separator: str | None = None) -> list[str]:
    """Return what looks like a mistake about the classes of a training table, a line each."""
    counts = label_counts(table.cells(role), separator)
    del counts[""]
    lines = []
    alike: dict[str, list[str]] = {}
    for name in counts:
        alike.setdefault(_loosely(name), []).append(name)
    pairs = [
        f"'{shown_label(names[0])}' and '{shown_label(names[1])}'"
        for names in alike.values()
        if len(names) > 1
    ]
    if pairs:
        named = ", ".join(pairs[:_NAMED_PAIRS]) + (", …" if len(pairs) > _NAMED_PAIRS else "")
        lines.append(
            f"{table.source}: {named} are classes of their own, though they differ only in case, spaces or signs; spell "
            "them alike if they are one"
        )
    if _FEW_ROWS <= table.num_rows < 2 * len(counts):
        lines.append(
            f"{table.source}: {len(counts):,} classes in {table.num_rows:,} rows, so most have a single row; is another "
            f"column meant (data.columns.{role}=COLUMN)?"
        )
    return lines


def shown_label(name: str) -> str:
    """Return a label as messages show it: in one line, and cut where it is long."""
    return shortened(" ".join(name.split()), _SHOWN_LETTERS)


def classes_of(table: Table, role: str, separator: str | None = None) -> tuple[str, ...]:
    """Return the classes of a table, as :func:`class_names` of its labels.

    Raises:
        UserError: There are fewer than two.
    """
    classes = class_names(
        label for cell in table.dataset.unique(role) for label in labels_in(cell, separator)
    )
    if len(classes) < 2:
        raise UserError(
            f"every row is of the class '{shown_label(classes[0])}'" if classes else "no row has a class",
            where=f"{table.source}, role '{role}'",
            expected="at least two classes",
            hint=f"data.columns.{role}=COLUMN names the column to read",
        )
    return classes


def check_classes(table: Table, role: str, classes: Sequence[str], separator: str | None = None) -> None:
    """Refuse a table with a class that is none of ``classes``; rows without a class pass.

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
    row = next(
        place for place, cell in enumerate(table.cells(role)) if strange[0] in labels_in(cell, separator)
    )
    named = ", ".join(map(shown_label, classes[:_NAMED_CLASSES])) + (
        ", …" if len(classes) > _NAMED_CLASSES else ""
    )
    others = f" (and {len(strange) - 1} more)" if len(strange) > 1 else ""
    raise UserError(
        f"the training table has no class '{shown_label(strange[0])}'{others}",
        where=f"{table.source}, role '{role}', {table.place(row)}",
        expected=f"one of {named}",
        hint="correct or remove such rows, or train on a table that has the class"
        if len(strange) < len(found)
        else f"no class of it is known: spell them as training did, or name another column, data.columns.{role}=COLUMN",
    )


def _loosely(name: str) -> str:
    """Return what two labels share that a person would take for one."""
    plain = "".join(unicodedata.normalize("NFKC", name).casefold().split()).strip(_AROUND)
    return _as_number(plain) or name


def _as_truth(label: str) -> str:
    return _TRUTH.get(label.lower()) or _as_number(label)


def _as_number(label: str) -> str:
    """Return a plain number without what changes nothing: plus, a zero's sign, a fraction of zeros; else the label."""
    number = _NUMBER.fullmatch(label)
    if number is None:
        return label
    sign, whole, fraction = number.groups()
    # Not int: it refuses thousands of digits. 1.10 stays apart from 1.1, for both may be versions.
    text = (whole or "0") + (f".{fraction}" if fraction and fraction.strip("0") else "")
    return text if sign != "-" or text == "0" else f"-{text}"


def order_of(label: str) -> tuple[bool, float, str]:
    """Return what labels are sorted by: numbers by value, before all others by spelling."""
    try:
        number = float(label)
    except ValueError:
        number = math.nan
    return (False, number, label) if math.isfinite(number) else (True, 0.0, label)
