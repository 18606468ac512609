"""The file formats of tables: CSV, TSV, JSON lines and Parquet, read row by row with the place of each row."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from dure.data.decoding import text_lines
from dure.errors import UserError

TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
"""Suffixes of the formats that have an encoding."""
SUFFIXES = (*TEXT_SUFFIXES, ".parquet")
"""Suffixes of all formats."""

_LONGEST_CELL = 1 << 24
"""Characters of a CSV cell; a quote that is never closed would otherwise swallow a whole file into memory."""
_PARQUET_ROWS = 1000


@dataclass(frozen=True)
class RowProblem:
    """Why a row cannot be used: ``kind`` groups the rows that are skipped, ``text`` tells about this one."""

    kind: str
    text: str
    expected: str | None = None


@dataclass(frozen=True)
class Record:
    """One row of a file.

    Attributes:
        number: Number of the row, from 1; the line of column names is not counted.
        line: Line of the file where the row starts, from 1; None where the format has no lines.
        cells: Column → text, or None for null and NaN; a column that the row lacks is left out.
        problem: Why the row cannot be used.
    """

    number: int
    line: int | None
    cells: Mapping[str, str | None]
    problem: RowProblem | None = None


class Source(Protocol):
    """An open table."""

    columns: list[str]
    """Column names as they stand in the file, doubled ones twice."""

    def records(self, columns: Sequence[str]) -> Iterator[Record]:
        """Give the rows with the cells of ``columns``; can be called once."""


def open_source(path: Path, encoding: str, nested: Collection[str] = ()) -> Source:
    """Open a table of any of the :data:`SUFFIXES`.

    Args:
        path: The file.
        encoding: Codec of its text; not used for Parquet.
        nested: Columns that may hold lists and objects, which become JSON text.

    Raises:
        UserError: The file is empty, or its first row shows that it is damaged or of another format.
    """
    match path.suffix.lower():
        case ".csv":
            return DelimitedSource(path, encoding, ",")
        case ".tsv":
            return DelimitedSource(path, encoding, "\t")
        case ".jsonl" | ".ndjson":
            return JsonLinesSource(path, encoding, nested)
        case ".parquet":
            return ParquetSource(path, nested)
        case suffix:
            raise UserError(
                f"tables with the suffix '{suffix}' cannot be read",
                where=str(path),
                expected=f"one of {', '.join(SUFFIXES)}",
            )


class DelimitedSource:
    """CSV or TSV with one line of column names; cells in double quotes may hold delimiters and line ends."""

    def __init__(self, path: Path, encoding: str, delimiter: str) -> None:
        self._path = path
        self._encoding = encoding
        self._delimiter = delimiter
        self._lines = _CountedLines(text_lines(path, encoding))
        csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))
        self._reader = csv.reader(self._lines, delimiter=delimiter, strict=True)
        header = self._next_row(0)
        if header is None:
            raise UserError("the file is empty", where=str(path), expected="a line of column names and rows")
        self.columns = header[1]

    def records(self, columns: Sequence[str]) -> Iterator[Record]:
        """Give the rows with the cells of ``columns``."""
        places = {column: self.columns.index(column) for column in columns if column in self.columns}
        number = 0
        while (row := self._next_row(number + 1)) is not None:
            number += 1
            line, cells = row
            if len(cells) == len(self.columns):
                yield Record(number, line, {column: cells[place] for column, place in places.items()})
            else:
                text = f"the row has {len(cells)} cells, but the table has {len(self.columns)} columns"
                yield Record(number, line, {}, RowProblem("wrong number of cells", text))

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
            f"a cell is longer than {_LONGEST_CELL:,} characters",
            where=self._place(number, first_line),
            expected="a cell of text",
            hint='a quote (") is perhaps never closed there',
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
            hint=f"look at the cell that opens in line {opened}: it is cut off, or a quote is missing there",
        )


class _CountedLines:
    """Lines for the CSV reader, and how many of them it has taken."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.number = 0

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


class JsonLinesSource:
    """One JSON object a line; the keys of the first are the columns."""

    def __init__(self, path: Path, encoding: str, nested: Collection[str] = ()) -> None:
        self._path = path
        self._nested = nested
        numbered = enumerate(text_lines(path, encoding), start=1)
        self._lines = ((number, line) for number, line in numbered if line.strip())
        first = next(self._lines, None)
        if first is None:
            raise UserError("the file is empty", where=str(path), expected="one JSON object a line")
        parsed = _parse_json_line(first[1])
        if isinstance(parsed, RowProblem):
            raise UserError(
                parsed.text,
                where=f"{path}, row 1 (line {first[0]})",
                expected="one JSON object a line (JSON lines, not one JSON document)",
            )
        self._first = first
        self.columns = list(parsed)

    def records(self, columns: Sequence[str]) -> Iterator[Record]:
        """Give the rows with the cells of ``columns``."""
        yield self._record(1, *self._first, columns)
        for number, (line_number, line) in enumerate(self._lines, start=2):
            yield self._record(number, line_number, line, columns)

    def _record(self, number: int, line_number: int, line: str, columns: Sequence[str]) -> Record:
        parsed = _parse_json_line(line)
        if isinstance(parsed, RowProblem):
            return Record(number, line_number, {}, parsed)
        cells: dict[str, str | None] = {}
        for column in columns:
            if column in parsed:
                cell = text_of(parsed[column], column, nested=column in self._nested)
                if isinstance(cell, RowProblem):
                    return Record(number, line_number, {}, cell)
                cells[column] = cell
        return Record(number, line_number, cells)


class _Number(str):
    """A number of a JSON line, as it is written there."""


class _DoubledKeyError(ValueError):
    """A JSON object names a key twice."""


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _DoubledKeyError(next(key for key in keys if keys.count(key) > 1))
    return values


def _parse_json_line(line: str) -> dict[str, Any] | RowProblem:
    """Return the object of a line, its numbers as the text that they are written with."""
    try:
        value = json.loads(line, parse_int=_Number, parse_float=_Number, object_pairs_hook=_distinct_keys)
    except _DoubledKeyError as error:
        return RowProblem("doubled JSON key", f"the key '{error}' stands twice in the JSON object")
    except json.JSONDecodeError as error:
        text = f"the line is no JSON: {error.msg} at character {error.pos + 1}"
        return RowProblem("malformed JSON", text)
    except RecursionError:
        return RowProblem("malformed JSON", "the line is no row: its JSON is nested too deeply")
    if not isinstance(value, dict):
        return RowProblem("JSON that is no object", f"the line is no JSON object but {_kind_of(value)}")
    return value


class ParquetSource:
    """A Parquet file, read a thousand rows at a time."""

    def __init__(self, path: Path, nested: Collection[str] = ()) -> None:
        import pyarrow
        import pyarrow.parquet

        self._path = path
        self._nested = nested
        if path.stat().st_size == 0:
            raise UserError("the file is empty", where=str(path), expected="a Parquet file")
        try:
            self._file = pyarrow.parquet.ParquetFile(path)
            self.columns = list(self._file.schema_arrow.names)
        except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
            raise self._corrupt(error) from None

    def records(self, columns: Sequence[str]) -> Iterator[Record]:
        """Give the rows with the cells of ``columns``."""
        import pyarrow

        number = 0
        present = [column for column in columns if column in self.columns]
        try:
            for batch in self._file.iter_batches(_PARQUET_ROWS, columns=present):
                for row in self._rows(batch, number):
                    number += 1
                    yield self._record(number, row)
        except (pyarrow.ArrowException, OSError, MemoryError) as error:
            raise self._corrupt(error) from None
        finally:
            self._file.close()

    def _record(self, number: int, row: Mapping[str, Any]) -> Record:
        cells: dict[str, str | None] = {}
        for column, value in row.items():
            cell = text_of(value, column, nested=column in self._nested)
            if isinstance(cell, RowProblem):
                return Record(number, None, {}, cell)
            cells[column] = cell
        return Record(number, None, cells)

    def _rows(self, batch: Any, before: int) -> list[dict[str, Any]]:
        """Return the rows of a batch; ``before`` is the number of rows before them."""
        try:
            rows: list[dict[str, Any]] = batch.to_pylist()
        except (ValueError, OverflowError):  # a text that is no UTF-8, or a time that Python has none for
            for place in range(batch.num_rows):
                try:
                    batch.slice(place, 1).to_pylist()
                except (ValueError, OverflowError) as error:
                    raise UserError(
                        f"a cell cannot be read ({error})",
                        where=f"{self._path}, row {before + place + 1}",
                        expected="texts in UTF-8, numbers or times",
                        hint="write the file again: it is damaged, or was not written as text",
                    ) from None
            raise
        return rows

    def _corrupt(self, error: Exception) -> UserError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return UserError(
            f"the Parquet file cannot be read ({reason})",
            where=str(self._path),
            expected="a whole Parquet file",
            hint="copy or write the file again: it is damaged, incomplete or of another format",
        )


def text_of(value: Any, column: str, *, nested: bool = False) -> str | RowProblem | None:
    """Return a cell's value as text: None for null and NaN, a problem for what is no text and no number.

    Args:
        value: The value.
        column: Its column, for the problem.
        nested: Whether a list or an object is no problem but becomes JSON text.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if nested and isinstance(value, list | dict | tuple):
        try:
            text = _json_of(value)
        except RecursionError:
            return RowProblem(
                f"column '{column}' is nested too deeply", f"column '{column}' is nested too deeply"
            )
    elif isinstance(value, list | dict | tuple | bytes):
        return RowProblem(
            f"column '{column}' holds no text", f"column '{column}' holds {_kind_of(value)}, not text"
        )
    else:
        text = str(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # "\ud83d" alone is allowed in JSON, but is no character.
        return RowProblem(
            f"column '{column}' holds half a character",
            f"column '{column}' holds half of a surrogate pair (such as \\ud83d), which is no character",
        )
    return text


def _json_of(value: Any) -> str:
    """Return a value as JSON text, its numbers as they stand in the file, and null for NaN."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_json_of, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key, ensure_ascii=False)}: {_json_of(each)}' for key, each in value.items())}}}"
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, float) and math.isnan(value):
        return "null"
    return json.dumps(value, ensure_ascii=False, default=str)


def _kind_of(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    return "bytes" if isinstance(value, bytes) else "a single value"
