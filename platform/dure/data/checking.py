"""What makes a row a bad one: empty cells and doubled ids, which are errors or are skipped and counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from dure.data.canonical import canonical, composed, is_blank
from dure.data.cells import LONGEST_CELL, Record, RowProblem
from dure.data.fields import Field
from dure.errors import UserError

_FIRST_ROWS = 5
"""Row numbers kept for each reason to skip rows."""
_MISSING_WORDS = ("nan", "<na>")
"""How pandas writes a missing value as text. ``null`` and ``none`` are not among them: they are words."""
_LONGEST_WORD = 16
"""Letters of a cell that may be such a word, with what surrounds it."""
_FILE_BITS = 40


def place_of(file: int, row: int) -> int:
    """Return the number of a row among those of all files of a table; ``file`` counts from 0, ``row`` from 1."""
    return file << _FILE_BITS | row


def file_and_row(place: int) -> tuple[int, int]:
    """Return the file and the row of a number that :func:`place_of` made."""
    return place >> _FILE_BITS, place & ((1 << _FILE_BITS) - 1)


def shown_place(place: int, files: Sequence[str]) -> str:
    """Return the number of a row, with its file where there are several."""
    file, row = file_and_row(place)
    return f"row {row}" if len(files) == 1 else f"row {row} of {files[file]}"


class Checks:
    """What every row of a table goes through, and what became of the rows.

    Where ``keeps_left_out``, ids of rows that are skipped are kept, to be written beside no prediction.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        files: Sequence[str],
        on_bad_row: Literal["error", "skip"],
        *,
        keeps_left_out: bool = False,
    ) -> None:
        from dure.data.identifiers import IdIndex  # Brings numpy, which the command line does not need.

        self.fields = fields
        self._files = files
        self._file = 0
        self._skip = on_bad_row == "skip"
        self._keeps_left_out = keeps_left_out
        self._ids = {each.name: IdIndex() for each in fields if each.role.is_id and not each.role.may_repeat}
        self.num_seen = 0
        """Rows checked so far."""
        self.num_composed = 0
        """Rows of which a text was brought to Unicode NFC."""
        self.num_replaced = 0
        """Rows with U+FFFD, which an earlier conversion put where it could not read a letter."""
        self.filled: set[str] = set()
        """Roles for which some row had a value."""
        self.skipped: dict[str, tuple[int, list[int]]] = {}
        """Reason → how many rows were left out for it, and the places of the first."""
        self.left_out: list[tuple[int, dict[str, str]]] = []
        """Place of every row that was left out, and its ids by field, where they are kept."""

    def begin(self, file: int, fields: Sequence[Field]) -> None:
        """Go on to the file of this number, of which these fields are read."""
        self._file = file
        self.fields = fields

    def texts(self, record: Record) -> tuple[int, list[str]] | None:
        """Return the place of a row and its text by field, or None when it is skipped."""
        self.num_seen += 1
        place = place_of(self._file, record.number)
        texts = [_text(record, field) for field in self.fields]
        problem = (
            record.problem
            or self._empty_cell(record, texts)
            or self._unusable_cell(texts)
            or self._doubled_id(place, texts)
        )
        if problem is None:
            self._compose(texts)
            self.num_replaced += any("\ufffd" in text for text in texts)
            self.filled.update(field.name for field, text in zip(self.fields, texts, strict=True) if text)
            return place, texts
        if not self._skip:
            line = f" (line {record.line})" if record.line is not None else ""
            raise UserError(
                problem.text,
                where=f"{self._files[self._file]}, row {record.number}{line}",
                expected=problem.expected,
                hint=f"{problem.hint or 'correct the row'}, or leave out all such rows with data.on_bad_row=skip",
            )
        count, first_rows = self.skipped.setdefault(problem.kind, (0, []))
        if count < _FIRST_ROWS:
            first_rows.append(place)
        self.skipped[problem.kind] = (count + 1, first_rows)
        if self._keeps_left_out:
            named = zip(self.fields, texts, strict=True)
            self.left_out.append((place, {field.name: text for field, text in named if field.role.is_id}))
        return None

    def kept(self) -> list[str]:
        """Return the roles that the table has: those that are required, and others where some row has a value."""
        return [each.name for each in self.fields if each.role.required or each.name in self.filled]

    def no_rows(self) -> UserError:
        """Return the error for a table of which no row is left."""
        where = ", ".join(self._files)
        if self.num_seen == 0:
            return UserError("there are no rows", where=where, expected="at least one row")
        reasons = "; ".join(f"{reason}: {count:,}" for reason, (count, _) in self.skipped.items())
        return UserError(
            f"no row is left, all {self.num_seen:,} were skipped ({reasons})",
            where=where,
            hint="data.on_bad_row=error shows the first bad row in full",
        )

    def _empty_cell(self, record: Record, texts: list[str]) -> RowProblem | None:
        for place, field in enumerate(self.fields):
            text = texts[place]
            if len(text) > LONGEST_CELL:
                kind = f"column '{field.column}' is longer than {LONGEST_CELL:,} characters"
                return RowProblem(kind, kind, "a cell of text")
            if not _is_missing(text):
                continue
            if not field.cell_needed:
                texts[place] = ""
                continue
            kind = f"column '{field.column}' is empty"
            if text.strip().lower() in _MISSING_WORDS:
                word = text.strip()
                return RowProblem(kind, f"column '{field.column}' holds '{word}', a missing value as text")
            if not any(column in record.cells for column in field.columns):
                return RowProblem(kind, f"the row has no '{field.column}'")
            if text.strip():
                return RowProblem(kind, f"column '{field.column}' holds nothing but what cannot be seen")
            return RowProblem(kind, kind)
        return None

    def _unusable_cell(self, texts: list[str]) -> RowProblem | None:
        for place, field in enumerate(self.fields):
            reader = field.role.reader
            if reader is None or not texts[place]:
                continue
            try:
                texts[place] = reader.read(texts[place] if reader.keeps_spaces else canonical(texts[place]))
            except UserError as error:
                kind = f"column '{field.column}' holds what cannot be used"
                return RowProblem(kind, f"column '{field.column}' {error.problem}", error.expected)
        return None

    def _doubled_id(self, place: int, texts: Sequence[str]) -> RowProblem | None:
        for field, text in zip(self.fields, texts, strict=True):
            if field.name not in self._ids or not text:
                continue
            first = self._ids[field.name].add(canonical(text), place)
            if first is not None:
                return RowProblem(
                    f"column '{field.column}' repeats an id",
                    f"column '{field.column}' repeats the id '{text}' of {shown_place(first, self._files)}",
                    hint=f"{field.option}=NAME reads another column of ids, and none where no column is called so",
                )
        return None

    def _compose(self, texts: list[str]) -> None:
        """Bring the texts of a row to Unicode NFC, where that is asked for."""
        changed = False
        for place, field in enumerate(self.fields):
            if field.is_composed and not texts[place].isascii():
                text = composed(texts[place])
                changed = changed or text != texts[place]
                texts[place] = text
        self.num_composed += changed


def _text(record: Record, field: Field) -> str:
    """Return what a row has for a field; of several columns all that have something."""
    if len(field.columns) == 1:
        return record.cells.get(field.columns[0]) or ""
    cells = (record.cells.get(column) or "" for column in field.columns)
    return field.joint.join(cell for cell in cells if not _is_missing(cell))


def _is_missing(text: str) -> bool:
    return is_blank(text) or (len(text) <= _LONGEST_WORD and canonical(text).lower() in _MISSING_WORDS)
