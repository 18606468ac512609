"""Tables in columns: Parquet, and the Arrow files of ``save_to_disk``, read some rows at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from dure.data.cells import LONGEST_CELL, Record, record_of
from dure.errors import UserError
from dure.files import in_bytes

_BATCH_ROWS = 1000
_BATCH_BYTES = 1 << 24
"""Bytes of a batch up to which its rows are in memory together."""
_MOST_BYTES = 1 << 28
"""Bytes of a column in a row group from which on it must not have been packed more than any text can be."""
_MOST_PACKED = 500
"""How much smaller than its content a column of texts can be; text packs to a tenth, repeated text to less."""


class _ColumnarSource(ABC):
    """Rows that stand in batches of Arrow."""

    kind: ClassVar[str]
    _file: Any

    def __init__(self, path: Path, nested: Collection[str] = ()) -> None:
        self._path = path
        self._nested = nested
        self.notes: list[str] = []
        if path.stat().st_size == 0:
            raise UserError("the file is empty", where=str(path), expected=f"rows in a {self.kind}")
        try:
            self._schema = self._opened(path)
        except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
            raise self._corrupt(error) from None
        self.columns: list[str] = list(self._schema.names)

    def records(self, columns: Sequence[str]) -> Iterator[Record]:
        """Give the rows with the cells of ``columns``."""
        number = 0
        present = [column for column in columns if column in self.columns]
        for column in present:
            self._check_type(column)
        try:
            for batch in self._batches(present):
                for row in self._rows(_with_short_numbers(batch), number):
                    number += 1
                    yield record_of(number, None, row, self._nested)
        except (pyarrow.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
            raise self._corrupt(error) from None
        finally:
            self._file.close()

    def _check_type(self, column: str) -> None:
        """Refuse a column that can hold no text in any row."""
        kind = self._schema.field(column).type
        types = pyarrow.types
        is_bytes = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
        if is_bytes or (types.is_nested(kind) and column not in self._nested):
            change = "str.decode('utf-8')" if is_bytes else "map(…)"
            raise UserError(
                f"column '{column}' holds {kind}, not text",
                where=str(self._path),
                expected="texts, numbers or times",
                hint=f"name another column, or write the file again with df['{column}'].{change} in pandas",
            )

    @abstractmethod
    def _opened(self, path: Path) -> Any:
        """Open the file and return the names and types of its columns."""

    @abstractmethod
    def _batches(self, columns: list[str]) -> Iterator[Any]:
        """Give the file's rows with these columns."""

    def _rows(self, batch: Any, before: int) -> Iterator[dict[str, Any]]:
        """Give the rows of a batch; ``before`` is the number of rows before them.

        A long text that stands in many rows is in memory once, and for the row that is being read.
        """
        try:
            if sum(map(_unpacked_bytes, batch.columns)) <= _BATCH_BYTES:
                columns = [_unpacked(column).to_pylist() for column in batch.columns]
                yield from (
                    dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)
                )
                return
        except (ValueError, OverflowError):  # a text that is no UTF-8, or a time that Python has none for
            pass  # The row is found below.
        for place in range(batch.num_rows):
            try:
                cells = [column[place].as_py() for column in batch.columns]
            except (ValueError, OverflowError) as error:
                raise UserError(
                    f"a cell cannot be read ({error})",
                    where=f"{self._path}, row {before + place + 1}",
                    expected="texts in UTF-8, numbers or times",
                    hint="write the file again: it is damaged, or was not written as text",
                ) from None
            yield dict(zip(batch.schema.names, cells, strict=True))

    def _corrupt(self, error: Exception) -> UserError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return UserError(
            f"the {self.kind} cannot be read ({reason})",
            where=str(self._path),
            expected=f"a whole {self.kind}",
            hint="copy or write the file again: it is damaged, incomplete or of another format",
        )


class ParquetSource(_ColumnarSource):
    """A Parquet file; texts that are kept once in it for many rows are so in memory too."""

    kind = "Parquet file"

    def _opened(self, path: Path) -> Any:
        self._file = pyarrow.parquet.ParquetFile(path)
        return self._file.schema_arrow

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        self._check_sizes(columns)
        texts = [name for name in columns if pyarrow.types.is_string(self._schema.field(name).type)]
        with pyarrow.parquet.ParquetFile(self._path, read_dictionary=texts) as packed:
            for group in range(self._file.num_row_groups):
                # Reading texts packed is safe, and slower: only where one of them is long.
                first = next(packed.iter_batches(1, row_groups=[group], columns=columns), None)
                is_long = first is not None and any(map(_has_long_texts, first.columns))
                file = packed if is_long else self._file
                yield from file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns)

    def _check_sizes(self, columns: Collection[str]) -> None:
        """Refuse a column that grows more than text can, before any of it is in memory."""
        facts = self._file.metadata
        for group in range(facts.num_row_groups):
            # Where the metadata of a column is damaged, PyArrow 26 ends the process here, and raises when it reads: so
            # columns are looked at only where one of them can be too large.
            if facts.row_group(group).total_byte_size <= 4 * LONGEST_CELL:
                continue
            for place in range(facts.num_columns):
                column = facts.row_group(group).column(place)
                name = column.path_in_schema.partition(".")[0]
                size, packed = column.total_uncompressed_size, max(column.total_compressed_size, 1)
                longest = 4 * LONGEST_CELL * max(column.num_values, 1)
                if name in columns and (size > longest or size > max(_MOST_BYTES, _MOST_PACKED * packed)):
                    raise UserError(
                        f"column '{name}' grows from {in_bytes(packed)} to {in_bytes(size)} when it is read",
                        where=f"{self._path}, row group {group + 1}",
                        expected=f"cells of at most {LONGEST_CELL:,} characters",
                        hint="write the file again without such cells",
                    )


class ArrowSource(_ColumnarSource):
    """A file of ``save_to_disk``, mapped into memory."""

    kind = "Arrow file"

    def _opened(self, path: Path) -> Any:
        self._file = pyarrow.memory_map(str(path))
        self._reader = pyarrow.ipc.open_stream(self._file)
        return self._reader.schema

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        for batch in self._reader:
            yield batch.select(columns)


def _text_lengths(column: Any) -> Any:
    """Return the lengths of the different texts of a packed column, in bytes; None of any other column."""
    types = pyarrow.types
    if not types.is_dictionary(column.type) or not types.is_string(column.type.value_type):
        return None
    return pyarrow.compute.binary_length(column.dictionary)


def _unpacked_bytes(column: Any) -> int:
    """Return how many bytes a column has when every row has its own text."""
    lengths = _text_lengths(column)
    if lengths is None:
        return int(column.nbytes)
    return int(pyarrow.compute.sum(lengths.take(column.indices)).as_py() or 0)


def _has_long_texts(column: Any) -> bool:
    """Return whether a batch of rows that all have the longest text of a dictionary is a large one."""
    lengths = _text_lengths(column)
    longest = 0 if lengths is None else pyarrow.compute.max(lengths).as_py() or 0
    return bool(longest * _BATCH_ROWS > _BATCH_BYTES)


def _unpacked(column: Any) -> Any:
    return column.dictionary_decode() if pyarrow.types.is_dictionary(column.type) else column


def _with_short_numbers(batch: Any) -> Any:
    """Return a batch with numbers of 32 bits as text: Python would show 0.1 of them as 0.10000000149011612."""
    short = (pyarrow.float16(), pyarrow.float32())
    columns = [each.cast(pyarrow.string()) if each.type in short else each for each in batch.columns]
    return pyarrow.record_batch(columns, names=batch.schema.names)
