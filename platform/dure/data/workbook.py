"""Tables as Excel workbooks, read and written by openpyxl, which is optional."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

from dure.data.cells import REPEATED_NAMES, Record, record_of, repeats
from dure.errors import UserError

_MOST_BYTES = 1 << 30
"""Bytes of a workbook's parts when they are unpacked; a reader holds all its different texts in memory."""
_FAILED = frozenset(("#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A"))
"""What a cell shows whose formula has no value."""
_MOST_LETTERS = 32_767
"""Letters that a cell of Excel holds."""


class WorkbookSource:
    """The first sheet of a workbook, mostly with one row of column names."""

    def __init__(self, path: Path, *, header: bool) -> None:
        openpyxl = require_openpyxl(str(path))
        self._has_header = header
        self.notes: list[str] = []
        try:
            with zipfile.ZipFile(path) as parts:
                size = sum(part.file_size for part in parts.infolist())
            if size > _MOST_BYTES:
                raise UserError(
                    f"the workbook has {size / 1e9:.1f} GB when it is unpacked",
                    where=str(path),
                    expected=f"at most {_MOST_BYTES / 1e9:.1f} GB",
                    hint="save the sheet as .csv",
                )
            self._book = openpyxl.load_workbook(path, read_only=True, data_only=True)
            sheets = self._book.worksheets
            rows = enumerate(sheets[0].iter_rows(values_only=True), start=1) if sheets else iter(())
            self._rows: Iterator[tuple[int, tuple[Any, ...]]] = (
                row for row in rows if any(value is not None for value in row[1])
            )
            first = next(self._rows, None)
        except UserError:
            raise
        except Exception as error:  # a damaged workbook raises whatever its parts are read by
            raise UserError(
                f"the workbook cannot be read ({type(error).__name__}: {str(error)[:120]})",
                where=str(path),
                expected="a whole .xlsx",
                hint="save it again as .xlsx, or as .csv",
            ) from None
        if first is None:
            problem = (
                "the file is empty" if len(sheets) < 2 else f"its first sheet, '{sheets[0].title}', is empty"
            )
            raise UserError(
                problem, where=str(path), expected="a row of column names and rows in the first sheet"
            )
        if len(sheets) > 1:
            self.notes.append(f"only its first sheet, '{sheets[0].title}', is read of {len(sheets)}")
        if header:
            self.columns = [_name(cell) for cell in first[1]]
            while self.columns and not self.columns[-1]:
                self.columns.pop()
        else:
            self._rows = chain([first], self._rows)
            self.columns = [str(place) for place in range(len(first[1]))]

    def records(self, columns: Sequence[str]) -> Iterator[Record]:
        """Give the rows with the cells of ``columns``; rows without a value are none."""
        places = {column: self.columns.index(column) for column in columns if column in self.columns}
        for number, (line, values) in enumerate(self._rows, start=1):
            texts = [None if value is None else _name(value) for value in values[: len(self.columns)]]
            if self._has_header and repeats(self.columns, texts) and len(texts) == len(self.columns):
                yield Record(number, line, {}, REPEATED_NAMES)
            else:
                cells = {
                    column: None
                    if place >= len(values) or values[place] in _FAILED
                    else _value(values[place])
                    for column, place in places.items()
                }
                yield record_of(number, line, cells)
        self._book.close()


def write_workbook(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], *, where: str) -> None:
    """Write a table as the only sheet of a workbook; texts stay texts, also those that begin like a formula.

    Raises:
        UserError: openpyxl is missing, or a text is longer than a cell of Excel holds.
    """
    openpyxl = require_openpyxl(where)
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet()
    for number, row in enumerate(chain([header], rows)):
        cells = []
        for value in row:
            if isinstance(value, str) and len(value) > _MOST_LETTERS:
                raise UserError(
                    f"row {number} has a text of {len(value):,} letters",
                    where=where,
                    expected=f"at most {_MOST_LETTERS:,} in a cell of Excel",
                    hint="write a .csv",
                )
            cell = openpyxl.cell.WriteOnlyCell(sheet, value=None)
            if isinstance(value, str):
                cell.value, cell.data_type = openpyxl.cell.cell.ILLEGAL_CHARACTERS_RE.sub("", value), "s"
            else:
                cell.value = value
            cells.append(cell)
        sheet.append(cells)
    whole = io.BytesIO()  # the archive complains of a disk that is full once more where it is dropped
    book.save(whole)
    path.write_bytes(whole.getbuffer())


def require_openpyxl(where: str) -> Any:
    """Return the module that reads and writes workbooks.

    Raises:
        UserError: It is missing.
    """
    try:
        return import_module("openpyxl")
    except ImportError:
        raise UserError(
            "workbooks of Excel need openpyxl, which is not installed",
            where=where,
            expected="openpyxl, or the table as .csv",
            hint="pip install openpyxl",
        ) from None


def _value(value: Any) -> Any:
    """Return a cell's value; Excel keeps whole numbers as floats."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _name(value: Any) -> str:
    return "" if value is None else str(_value(value))
