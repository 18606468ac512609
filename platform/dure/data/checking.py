"""What makes a row a bad one: empty cells and doubled ids, which are errors or are skipped and counted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dure.data.formats import Record, RowProblem
from dure.errors import UserError

_FIRST_ROWS = 5
"""Row numbers kept for each reason to skip rows."""
_MISSING_WORDS = ("nan", "<na>")
"""How pandas writes a missing value as text. ``null`` and ``none`` are not among them: they are words."""


class CellReader(ABC):
    """Says what a family makes of the cells of a column, so that a value it cannot use is told with its row.

    A reader is a frozen dataclass: its ``repr`` and its source file are part of the key of the table's cache.
    """

    @abstractmethod
    def read(self, text: str) -> str:
        """Return the text that the family gets for a cell that is not empty; an empty one for no value.

        Raises:
            UserError: The cell cannot be used; its ``problem`` and ``expected`` are told.
        """


@dataclass(frozen=True)
class Field:
    """A role as it is read from one table.

    Attributes:
        role: Name of the role.
        column: Name of the table's column.
        column_needed: Whether the column must be there.
        cell_needed: Whether a row without a value is a bad row.
        is_id: Whether values must be distinct.
        is_named: Whether the user named the column, and should know when it is not there.
        option: What the user sets to name another column.
        reader: What is made of a cell; its column may hold lists and objects, which it gets as JSON text.
    """

    role: str
    column: str
    column_needed: bool
    cell_needed: bool
    is_id: bool
    is_named: bool
    option: str
    reader: CellReader | None = None


class Checks:
    """What every row of a table goes through, and what became of the rows.

    Attributes:
        num_seen: Rows checked so far.
        filled: Roles for which some row had a value.
        skipped: Reason → how many rows were left out for it, and the numbers of the first.
    """

    def __init__(self, fields: Sequence[Field], source: str, on_bad_row: Literal["error", "skip"]) -> None:
        from dure.data.identifiers import IdIndex  # Brings numpy, which the command line does not need.

        self._fields = fields
        self._source = source
        self._skip = on_bad_row == "skip"
        self._ids = {field.role: IdIndex() for field in fields if field.is_id}
        self.num_seen = 0
        self.filled: set[str] = set()
        self.skipped: dict[str, tuple[int, list[int]]] = {}

    def texts(self, record: Record) -> list[str] | None:
        """Return the row's text by field, or None when it is skipped."""
        self.num_seen += 1
        texts: list[str] = []
        problem = record.problem
        if problem is None:
            texts = [record.cells.get(field.column) or "" for field in self._fields]
            problem = (
                self._empty_cell(record, texts)
                or self._unusable_cell(texts)
                or self._doubled_id(record, texts)
            )
        if problem is None:
            self.filled.update(field.role for field, text in zip(self._fields, texts, strict=True) if text)
            return texts
        if not self._skip:
            line = f" (line {record.line})" if record.line is not None else ""
            # Tables that no experiment names, as those of `dure score`, have no setting to skip rows.
            skips = all(field.option.startswith("data.") for field in self._fields)
            otherwise = ", or leave out all such rows with data.on_bad_row=skip" if skips else ""
            raise UserError(
                problem.text,
                where=f"{self._source}, row {record.number}{line}",
                expected=problem.expected,
                hint=f"correct the row{otherwise}",
            )
        count, first_rows = self.skipped.setdefault(problem.kind, (0, []))
        if count < _FIRST_ROWS:
            first_rows.append(record.number)
        self.skipped[problem.kind] = (count + 1, first_rows)
        return None

    def no_rows(self) -> UserError:
        """Return the error for a table of which no row is left."""
        if self.num_seen == 0:
            return UserError("there are no rows", where=self._source, expected="at least one row")
        reasons = "; ".join(f"{reason}: {count:,}" for reason, (count, _) in self.skipped.items())
        return UserError(
            f"no row is left, all {self.num_seen:,} were skipped ({reasons})",
            where=self._source,
            hint="data.on_bad_row=error shows the first bad row in full",
        )

    def _empty_cell(self, record: Record, texts: list[str]) -> RowProblem | None:
        for place, field in enumerate(self._fields):
            text = texts[place].strip()
            if text and text.lower() not in _MISSING_WORDS:
                continue
            if not field.cell_needed:
                texts[place] = ""
                continue
            kind = f"column '{field.column}' is empty"
            if text:
                return RowProblem(kind, f"column '{field.column}' holds '{text}', a missing value as text")
            if field.column not in record.cells:
                return RowProblem(kind, f"the row has no '{field.column}'")
            return RowProblem(kind, kind)
        return None

    def _unusable_cell(self, texts: list[str]) -> RowProblem | None:
        for place, field in enumerate(self._fields):
            if field.reader is None or not texts[place]:
                continue
            try:
                texts[place] = field.reader.read(texts[place].strip())
            except UserError as error:
                kind = f"column '{field.column}' holds what cannot be used"
                return RowProblem(kind, f"column '{field.column}' {error.problem}", error.expected)
        return None

    def _doubled_id(self, record: Record, texts: Sequence[str]) -> RowProblem | None:
        for field, text in zip(self._fields, texts, strict=True):
            if not field.is_id or not text:
                continue
            first = self._ids[field.role].add(text, record.number)
            if first is not None:
                return RowProblem(
                    f"column '{field.column}' repeats an id",
                    f"column '{field.column}' repeats the id '{text}' of row {first}",
                )
        return None
