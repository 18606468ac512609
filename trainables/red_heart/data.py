"""Reading the rows of Red Heart: targets as lists, objects or names, and what each of them must be.

A cell that says a target is kept as JSON: a list in the order of the task's names, with ``null`` for what is not
said. Nothing is made up: what is missing stays so, down to the loss, and what cannot be used is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.data.canonical import folded
from dure.data.fields import CellReader
from dure.data.tables import Role
from dure.errors import UserError, nearest
from trainables.red_heart.tasks import SURD, TASKS, task_slices

LABELS = ("AUTHOR", "EVERYBODY", "INFO", "NOBODY", "OTHER")
"""Who is in the wrong; no head predicts it, but every split has its share of each."""
WHOLE = 0.01
"""By how much parts may miss 1 as their sum, before they are told to be taken as shares of it."""

Targets = NDArray[np.float32]


def roles_of(emotions: Sequence[str], bentham: Sequence[str]) -> tuple[Role, ...]:
    """Return the columns of the tables, by the names of the emotions and of the Bentham values."""
    feelings = tuple(emotions)
    return (
        Role("id", "id", required=False, is_id=True),
        Role("text", "text", is_input=True),
        Role("title", "title", required=False, is_input=True),
        Role("action", "action", required=False, is_input=True),
        Role("label", "label", required=False, is_class=True, reader=LabelReader()),
        Role("emotions", "emotions", required=False, reader=SharesReader(feelings, may_name_one=True)),
        Role(
            "leading_emotion",
            "emotions",
            required=False,
            is_class=True,
            reader=LeadReader(feelings),
            of="emotions",
        ),
        Role("bentham_scores", "bentham_scores", required=False, reader=BoundedReader(tuple(bentham))),
        Role("regret_factor", "regret_factor", required=False, reader=NumberReader()),
        Role("surd_metrics", "surd_metrics", required=False, reader=SharesReader(SURD)),
    )


TARGET_ROLES = dict(zip(TASKS, ("emotions", "bentham_scores", "regret_factor", "surd_metrics"), strict=True))
"""The column of each task's targets."""


@dataclass(frozen=True)
class LabelReader(CellReader):
    """Reads one of :data:`LABELS`, in any case."""

    def read(self, text: str) -> str:
        """Return the label in capitals."""
        if text.upper() not in LABELS:
            raise UserError(f"holds '{text}'", expected=f"one of {', '.join(LABELS)}")
        return text.upper()


@dataclass(frozen=True)
class NumberReader(CellReader):
    """Reads one number."""

    def read(self, text: str) -> str:
        """Return it as JSON."""
        value = _parsed(text, "a number")
        number = None if value is None else _number(value, "a number")
        return "" if number is None else json.dumps([number])


@dataclass(frozen=True)
class BoundedReader(CellReader):
    """Reads numbers in [0, 1], by place or by name; those that are not named or null are missing."""

    names: tuple[str, ...]
    """What the numbers are called, in order."""

    def read(self, text: str) -> str:
        """Return the list in order, null for what is missing; empty when all are."""
        expected = f"{len(self.names)} numbers from 0 to 1: a list, or an object with {', '.join(self.names)}"
        values = _values(text, self.names, expected)
        for name, value in zip(self.names, values, strict=True):
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"holds {value:g} for {name}", expected=expected)
        return "" if all(value is None for value in values) else json.dumps(values)


@dataclass(frozen=True)
class SharesReader(CellReader):
    """Reads how a whole is shared out, by place or by name: numbers from 0 of which one at least is above.

    They are kept as they are and need not sum to 1; :func:`targets_of` takes them as shares of their sum.
    """

    names: tuple[str, ...]
    """What the shares are called, in order."""
    may_name_one: bool = False
    """Whether the cell may be a single name, which then has all; and whether an object may leave out names, which then
    have nothing.
    """

    def read(self, text: str) -> str:
        """Return the list in order, or nothing for null."""
        values = self.shares(text)
        return "" if values is None else json.dumps(values)

    def shares(self, text: str) -> list[float] | None:
        """Return the numbers in order, or None for null.

        Raises:
            UserError: They cannot be used.
        """
        what = (
            f"{len(self.names)} numbers from 0, not all 0: a list, or an object with {', '.join(self.names)}"
        )
        expected = f"{what}; or one of these names" if self.may_name_one else what
        if self.may_name_one and (name := _name_in(text)) is not None:
            place = _place(name, self.names, expected)
            return [1.0 if place == other else 0.0 for other in range(len(self.names))]
        values = _values(text, self.names, expected, absent=0.0 if self.may_name_one else None)
        if all(value is None for value in values):
            return None
        shares = [value for value in values if value is not None]
        if len(shares) < len(values):
            name = self.names[values.index(None)]
            raise UserError(f"holds nothing for {name}", expected=expected)
        for name, share in zip(self.names, shares, strict=True):
            if share < 0:
                raise UserError(f"holds {share:g} for {name}", expected=expected)
        if not any(shares):
            raise UserError("holds nothing but zeros", expected=expected)
        return shares


@dataclass(frozen=True)
class LeadReader(CellReader):
    """Reads the emotion that has more than every other, by which rows are shared out among splits."""

    names: tuple[str, ...]
    """The emotions."""

    def read(self, text: str) -> str:
        """Return its name, or nothing when several have the most."""
        shares = SharesReader(self.names, may_name_one=True).shares(text)
        if shares is None or shares.count(max(shares)) > 1:
            return ""
        return self.names[shares.index(max(shares))]


def targets_of(rows: Mapping[str, Sequence[str]], sizes: Mapping[str, int], num_rows: int) -> Targets:
    """Return the targets of rows whose cells went through the readers, shape (rows, values of all tasks).

    What is missing, such as a whole role, is NaN. Emotions and SURD parts are divided by their sum.
    """
    targets = np.full((num_rows, sum(sizes.values())), np.nan, dtype=np.float32)
    for task, place in task_slices(sizes).items():
        for row, cell in enumerate(rows.get(TARGET_ROLES[task], ())):
            if not cell:
                continue
            values = np.array([np.nan if value is None else value for value in json.loads(cell)])
            if task in ("emotion", "surd"):
                values = values / values.sum()
            targets[row, place] = values
    return targets


def uneven_sums(cells: Sequence[str]) -> int:
    """Return how many cells of shares miss 1 as their sum by more than :data:`WHOLE`."""
    return sum(abs(sum(json.loads(cell)) - 1) > WHOLE for cell in cells if cell)


def _parsed(text: str, expected: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise UserError(f"holds '{_short(text)}'", expected=expected) from None


def _name_in(text: str) -> str | None:
    """Return the name that a cell is, or None when it is JSON of another kind."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text if text[:1] not in "[{" else None
    return value if isinstance(value, str) else None


def _values(
    text: str, names: Sequence[str], expected: str, absent: float | None = None
) -> list[float | None]:
    """Return the numbers of a list or an object in the order of the names; ``absent`` for names left out."""
    value = _parsed(text, expected)
    if value is None:
        return [None] * len(names)
    if isinstance(value, dict):
        given = {_place(name, names, expected): each for name, each in value.items() if each is not None}
        if len(given) < sum(each is not None for each in value.values()):
            raise UserError("names a value twice", expected=expected)
        fill = absent if given else None
        return [_number(given[place], expected) if place in given else fill for place in range(len(names))]
    if not isinstance(value, list):
        raise UserError(f"holds {_short(text)}", expected=expected)
    if len(value) != len(names):
        raise UserError(f"holds a list of {len(value)}", expected=expected)
    return [None if each is None else _number(each, expected) for each in value]


def _number(value: Any, expected: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"holds {_short(json.dumps(value, ensure_ascii=False))}", expected=expected)
    return float(value)


def _place(name: str, names: Sequence[str], expected: str) -> int:
    """Return the place of a name, whatever its case."""
    forms = [folded(each) for each in names]
    if folded(name) not in forms:
        like = nearest(name, names)
        raise UserError(
            f"holds the unknown name '{_short(name)}'{f' (is {like} meant?)' if like else ''}",
            expected=expected,
        )
    return forms.index(folded(name))


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}…"
