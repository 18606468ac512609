"""Tables as JSON: an object a line, or one array of objects, read object by object."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from dure.data.cells import LONGEST_CELL, Number, Record, RowProblem, kind_of, record_of
from dure.data.decoding import text_lines
from dure.data.sources import to_parquet
from dure.errors import UserError, shell_word

_CHUNK = 1 << 16
"""Characters that are read at once."""
_FIRST_ROWS = 100
"""Rows that are looked at for the names of columns."""
_LONGEST_VALUE = 4 * LONGEST_CELL
"""Characters of one row of an array."""
_REMEDY = "pandas writes such a file by df.to_json(FILE, orient='records', lines=True, force_ascii=False)"

_Row = tuple[int, dict[str, Any] | RowProblem]
"""Line where an object begins, and the object."""


class JsonSource:
    """Rows of JSON objects; the keys of the first rows together are the columns, since a row may leave some out."""

    def __init__(self, rows: Iterator[_Row], nested: Collection[str]) -> None:
        first = list(islice(rows, _FIRST_ROWS))
        self.num_first = len(first)
        self.columns = list(dict.fromkeys(key for _, row in first if isinstance(row, dict) for key in row))
        self.notes: list[str] = []
        self._rows = chain(first, rows)
        self._nested = nested

    def records(self, columns: Sequence[str]) -> Iterator[Record]:
        """Give the rows with the cells of ``columns``."""
        for number, (line, row) in enumerate(self._rows, start=1):
            if isinstance(row, RowProblem):
                yield Record(number, line, {}, row)
            else:
                wanted = {column: row[column] for column in columns if column in row}
                yield record_of(number, line, wanted, self._nested)


def json_lines(path: Path, encoding: str, nested: Collection[str]) -> JsonSource:
    """Open one JSON object a line."""
    numbered = enumerate(text_lines(path, encoding), start=1)
    lines = ((number, line) for number, line in numbered if line.strip())
    first = next(lines, None)
    if first is None:
        raise UserError("the file is empty", where=str(path), expected="one JSON object a line")
    parsed = ((number, _parse_json_line(line)) for number, line in chain([first], lines))
    source = JsonSource(parsed, nested)
    row, is_list = _parse_json_line(first[1]), first[1].lstrip().startswith("[")
    if path.suffix.lower() == ".json" and isinstance(row, dict) and not row.keys() & {*nested}:
        _check_is_row(row, path, is_alone=source.num_first == 1)
    if isinstance(row, RowProblem) and (is_list or not source.columns):
        is_document = path.suffix.lower() == ".json"
        raise UserError(
            row.text,
            where=f"{path}, row 1 (line {first[0]})",
            expected="an array of JSON objects, or one object a line"
            if is_document
            else "one JSON object a line (JSON lines, not one JSON document)",
            hint="an array of objects is read from a file that is called .json" if is_list else _REMEDY,
        )
    return source


def _check_is_row(value: Mapping[str, Any], path: Path, *, is_alone: bool) -> None:
    """Refuse the only object of a file where it holds columns, as pandas writes them, or a list of rows."""
    if not (is_alone and value and all(isinstance(each, list | dict) for each in value.values())):
        return
    of_rows = [
        key for key, each in value.items() if isinstance(each, list) and isinstance([*each, 0][0], dict)
    ]
    if of_rows:
        hint = f"jq '.{of_rows[0]}' {shell_word(str(path))} > {of_rows[0]}.json writes the rows alone"
    else:
        hint = f"{to_parquet('pandas.read_json', path, 'dtype=False')} writes rows"
    raise UserError(
        f"its only object holds {'lists of rows' if of_rows else 'columns, not rows'} ({', '.join([*value][:5])})",
        where=str(path),
        expected="an array of JSON objects, or one object a line",
        hint=hint,
    )


def json_array(path: Path, encoding: str, nested: Collection[str]) -> JsonSource:
    """Open one array of JSON objects, of which one is in memory at a time."""
    values = _array_values(path, encoding)
    line, row = next(values, (0, None))
    if not line:
        raise UserError("there are no rows", where=str(path), expected="at least one row")
    if not isinstance(row, dict):
        raise UserError(
            f"it is no JSON object but {kind_of(row)}",
            where=f"{path}, row 1 (line {line})",
            expected="an array of JSON objects",
            hint=_REMEDY,
        )
    rows = ((line, _object(value, "the row")) for line, value in chain([(line, row)], values))
    return JsonSource(rows, nested)


def is_array(path: Path, encoding: str) -> bool:
    """Return whether the first thing in a file is the beginning of a JSON array."""
    first = next((line for line in text_lines(path, encoding) if line.strip()), "")
    return first.lstrip().startswith("[")


def _array_values(path: Path, encoding: str) -> Iterator[tuple[int, Any]]:
    """Give the values of an array with the lines where they begin, reading on as far as the next one needs."""
    decoder = json.JSONDecoder(parse_int=Number, parse_float=Number, object_pairs_hook=distinct_keys)
    text = _Window(path, encoding)
    text.skip_space()
    text.take("[")
    number = 0
    while text.next_sign() != "]":
        if number:
            text.take(",")
        number += 1
        text.skip_space()
        line = text.line
        try:
            yield line, text.value(decoder)
        except DoubledKeyError as error:
            raise text.broken(f"the key '{error}' stands twice in row {number}", line) from None
        except json.JSONDecodeError as error:
            raise text.broken(f"row {number} is no JSON: {error.msg}", line) from None
        except RecursionError:
            raise text.broken(f"row {number} is nested too deeply", line) from None
    text.take("]")
    text.skip_space()
    if text.next_sign():
        raise text.broken("the file goes on behind the end of the array", text.line)


class _Window:
    """The part of a text that is being read."""

    def __init__(self, path: Path, encoding: str) -> None:
        self._path = path
        self._lines = text_lines(path, encoding)
        self._text = ""
        self._place = 0
        self.line = 1

    def next_sign(self) -> str:
        """Return the next sign that is no space; none at the end."""
        self.skip_space()
        return self._text[self._place : self._place + 1]

    def skip_space(self) -> None:
        """Go on to the next sign that is no space."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in " \t\r\n":
                self.line += self._text[self._place] == "\n"
                self._place += 1
            if self._place < len(self._text) or not self._more(1):
                return

    def take(self, sign: str) -> None:
        """Go on behind a sign, which must be the next."""
        found = self.next_sign()
        if found != sign:
            what = f"'{found}' stands where '{sign}' should" if found else "the file ends within its array"
            raise self.broken(what, self.line)
        self._place += 1

    def value(self, decoder: json.JSONDecoder) -> Any:
        """Return the next value, and go on behind it; where it is none, or longer than a row may be, json's error."""
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self._place)
                # A number that the window cuts off would be another one.
                if end < len(self._text) or not self._more(1):
                    break
            except json.JSONDecodeError:
                rest = len(self._text) - self._place
                if rest > _LONGEST_VALUE or not self._more(max(rest, 1)):
                    raise
        self.line += self._text.count("\n", self._place, end)
        self._place = end
        return value

    def broken(self, problem: str, line: int) -> UserError:
        """Return the error for a place where the file is no array."""
        return UserError(
            problem,
            where=f"{self._path}, line {line}",
            expected="a whole array of JSON objects",
            hint="correct that place: nothing behind it can be read",
        )

    def _more(self, size: int) -> bool:
        """Read on by at least some characters, and forget what was read; False at the end."""
        parts, added = [self._text[self._place :]], 0
        for line in self._lines:
            parts.append(line)
            added += len(line)
            if added >= max(size, _CHUNK):
                break
        self._text, self._place = "".join(parts), 0
        return added > 0


class DoubledKeyError(ValueError):
    """A JSON object names a key twice."""


def distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of pairs as JSON has them, for its ``object_pairs_hook``.

    Raises:
        DoubledKeyError: A key stands twice, so that one of its values would be lost.
    """
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        raise DoubledKeyError(next(key for key in keys if keys.count(key) > 1))
    return values


def _parse_json_line(line: str) -> dict[str, Any] | RowProblem:
    """Return the object of a line, its numbers as the text that they are written with."""
    try:
        value = json.loads(line, parse_int=Number, parse_float=Number, object_pairs_hook=distinct_keys)
    except DoubledKeyError as error:
        return RowProblem("doubled JSON key", f"the key '{error}' stands twice in the JSON object")
    except json.JSONDecodeError as error:
        text = f"the line is no JSON: {error.msg} at character {error.pos + 1}"
        return RowProblem("malformed JSON", text)
    except RecursionError:
        return RowProblem("malformed JSON", "the line is no row: its JSON is nested too deeply")
    return _object(value, "the line")


def _object(value: Any, what: str) -> dict[str, Any] | RowProblem:
    if isinstance(value, dict):
        return value
    return RowProblem("JSON that is no object", f"{what} is no JSON object but {kind_of(value)}")
