"""One row of a table as a file gives it: its cells as text, its place, and what may be wrong with it."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dure.data.canonical import canonical

LONGEST_CELL = 1 << 24
"""Characters of a cell; a quote that is never closed would otherwise swallow a whole file into memory."""


@dataclass(frozen=True)
class RowProblem:
    """Why a row cannot be used: ``kind`` groups the rows that are skipped, ``text`` tells about this one."""

    kind: str
    text: str
    expected: str | None = None
    hint: str | None = None


@dataclass(frozen=True)
class Record:
    """One row of a file."""

    number: int
    """Number of the row, from 1; the line of column names is not counted."""
    line: int | None
    """Line of the file where the row starts, from 1; None where the format has no lines."""
    cells: Mapping[str, str | None]
    """Column → text, or None for null and NaN; a column that the row lacks is left out."""
    problem: RowProblem | None = None
    """Why the row cannot be used."""


REPEATED_NAMES = RowProblem(
    "the column names once more",
    "the row repeats the column names, as in files that were put together by cat",
    hint="give the files one by one, as in data.train=[a.csv, b.csv]",
)
"""Why a row that repeats the column names cannot be used."""


_canonical_name = lru_cache(canonical)


def repeats(columns: Sequence[str], cells: Sequence[str | None]) -> bool:
    """Return whether a row only repeats the column names."""
    for column, cell in zip(columns, cells, strict=False):
        if cell is None or (cell != column and canonical(cell) != _canonical_name(column)):
            return False
    return True


class Number(str):
    """A number of a JSON line, as it is written there."""


def text_of(value: Any, column: str, *, nested: bool = False) -> str | RowProblem | None:
    """Return a cell's value as text: None for null and NaN, a problem for what is no text and no number."""
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
            f"column '{column}' holds no text", f"column '{column}' holds {kind_of(value)}, not text"
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


def record_of(
    number: int, line: int | None, values: Mapping[str, Any], nested: Collection[str] = ()
) -> Record:
    """Return the record of a row of values by column; lists and objects become JSON text in ``nested`` columns only."""
    cells: dict[str, str | None] = {}
    for column, value in values.items():
        cell = text_of(value, column, nested=column in nested)
        if isinstance(cell, RowProblem):
            return Record(number, line, {}, cell)
        cells[column] = cell
    return Record(number, line, cells)


def _json_of(value: Any) -> str:
    """Return a value as JSON text, its numbers as they stand in the file, and null for NaN."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_json_of, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key, ensure_ascii=False)}: {_json_of(each)}' for key, each in value.items())}}}"
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, float) and math.isnan(value):
        return "null"
    return json.dumps(value, ensure_ascii=False, default=str)


def kind_of(value: Any) -> str:
    """Return in words what a value is."""
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    return "bytes" if isinstance(value, bytes) else "a single value"
