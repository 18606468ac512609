"""Tables as text with separators: CSV, TSV and their like, with quotes or without."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

from dure.data.cells import LONGEST_CELL, REPEATED_NAMES, Record, RowProblem, repeats
from dure.data.decoding import text_lines
from dure.data.quoting import SEPARATOR_NAMES, recognise_quoting, separator_of
from dure.errors import UserError

_SAID_SEPARATOR = re.compile(r"sep=(.)")


class DelimitedSource:
    """CSV, TSV or text with tabs, mostly with one line of column names.

    Where quotes are meant, cells in double quotes may hold delimiters and line ends.
    """

    def __init__(
        self, path: Path, encoding: str, quoting: Literal["auto", "minimal", "none"], *, header: bool
    ) -> None:
        self._path = path
        self._encoding = encoding
        self._has_header = header
        self.notes: list[str] = []
        self._delimiter, skipped = self._separator()
        self._is_quoted = self._quotes_are_meant(quoting)
        self._lines = _CountedLines(text_lines(path, encoding), skipped)
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
        self._reader = csv.reader(
            self._lines,
            delimiter=self._delimiter,
            strict=True,
            quoting=csv.QUOTE_MINIMAL if self._is_quoted else csv.QUOTE_NONE,
        )
        first = self._next_row(0)
        if first is None:
            expected = "a line of column names and rows" if header else "rows"
            raise UserError("the file is empty", where=str(path), expected=expected)
        self._first = None if header else first
        self.columns = first[1] if header else [str(place) for place in range(len(first[1]))]

    def records(self, columns: Sequence[str]) -> Iterator[Record]:
        """Give the rows with the cells of ``columns``."""
        places = {column: self.columns.index(column) for column in columns if column in self.columns}
        number, row = 0, self._first
        while row is not None or (row := self._next_row(number + 1)) is not None:
            number += 1
            line, cells = row
            row = None
            if len(cells) != len(self.columns):
                yield Record(number, line, {}, self._wrong_size(len(cells)))
            elif self._has_header and repeats(self.columns, cells):
                yield Record(number, line, {}, REPEATED_NAMES)
            else:
                yield Record(number, line, {column: cells[place] for column, place in places.items()})

    def _separator(self) -> tuple[str, int]:
        """Return what separates cells, and how many lines say so and are no row."""
        first = next((line for line in text_lines(self._path, self._encoding) if line.strip()), "")
        suffix = self._path.suffix.lower()
        if said := _SAID_SEPARATOR.fullmatch(first.strip("\r\n")):  # as Excel writes it
            return said[1], 1
        separator = separator_of(suffix, first, header=self._has_header)
        if separator != ("," if suffix == ".csv" else "\t"):
            self.notes.append(f"its cells are separated by {SEPARATOR_NAMES[separator]}")
        return separator, 0

    def _quotes_are_meant(self, quoting: Literal["auto", "minimal", "none"]) -> bool:
        if quoting != "auto" or self._delimiter != "\t":
            return quoting != "none"
        lines, again = (text_lines(self._path, self._encoding) for _ in range(2))
        found = recognise_quoting(lines, again, self._delimiter)
        if found.occurs and found.is_meant:
            self.notes.append("cells in quotes are taken out of them (data.quoting=none leaves quotes)")
        elif found.occurs:
            self.notes.append('read without quoting: " is a letter like any other (data.quoting=minimal)')
        return found.is_meant

    def _wrong_size(self, size: int) -> RowProblem:
        text = f"the row has {size} cells, but the table has {len(self.columns)} columns"
        return RowProblem("wrong number of cells", text)

    def _next_row(self, number: int) -> tuple[int, list[str]] | None:
        """Return the next row that is not blank with its first line, or None at the end."""
        while True:
            first_line = self._lines.number + 1
            try:
                cells = next(self._reader)
            except StopIteration:
                return None
            except csv.Error as error:
                if "field limit" in str(error):
                    raise self._long_cell(number, first_line) from None
                raise self._broken_quote(number, first_line) from None
            if cells:
                return first_line, cells

    def _place(self, number: int, first_line: int) -> str:
        row = f"row {number} (line {first_line})" if number else f"the column names (line {first_line})"
        return f"{self._path}, {row}"

    def _long_cell(self, number: int, first_line: int) -> UserError:
        return UserError(
            f"a cell is longer than {LONGEST_CELL:,} characters",
            where=self._place(number, first_line),
            expected="a cell of text",
            hint='a quote (") is perhaps never closed there; data.quoting=none takes quotes as letters',
        )

    def _broken_quote(self, number: int, first_line: int) -> UserError:
        # Read once more, since what is remembered of every row would be the whole file where a quote stays open.
        lines = islice(text_lines(self._path, self._encoding), first_line - 1, self._lines.number)
        opened, closed = _quote_lines(lines, first_line, self._delimiter)
        problem = f'the quote (") that opens in line {opened} '
        if closed is None:
            problem += "is never closed"
        else:
            problem += f"is closed in line {closed}, but its cell goes on after that"
        return UserError(
            problem,
            where=self._place(number, first_line),
            expected='cells in quotes end with a quote, and quotes inside them are doubled ("")',
            hint=f"look at the cell that opens in line {opened}: it is cut off, or a quote is missing there; "
            "data.quoting=none takes quotes as letters",
        )


class _CountedLines:
    """Lines for the CSV reader, and how many of them it has taken."""

    def __init__(self, lines: Iterator[str], num_skipped: int) -> None:
        self._lines = islice(lines, num_skipped, None)
        self.number = num_skipped

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        return line


def _quote_lines(record: Iterable[str], first_line: int, delimiter: str) -> tuple[int, int | None]:
    """Return the line where the broken quote of a row opens, and where it closes in the middle of a cell."""
    quoted, at_start, opened = False, True, first_line
    for number, line in enumerate(record, start=first_line):
        place = 0
        while place < len(line):
            character = line[place]
            if quoted and character == '"':
                after = line[place + 1 : place + 2]
                if after == '"':
                    place += 1
                elif after in ("", delimiter, "\r", "\n"):
                    quoted = False
                else:
                    return opened, number
            elif character == '"' and at_start:
                quoted, opened = True, number
            at_start = not quoted and character in (delimiter, "\r", "\n")
            place += 1
    return opened, None
