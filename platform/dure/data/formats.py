"""The file formats of tables, read row by row with the place of each row."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from dure.config.data import ReadingConfig
from dure.data.cells import Record
from dure.data.delimited import DelimitedSource
from dure.data.json_files import is_array, json_array, json_lines
from dure.data.workbook import WorkbookSource
from dure.errors import UserError


class TableSource(Protocol):
    """An open table."""

    columns: list[str]
    """Column names as they stand in the file, doubled ones twice."""
    notes: list[str]
    """What the user should know about how the file is read."""

    def records(self, columns: Sequence[str]) -> Iterator[Record]:
        """Give the rows with the cells of ``columns``; can be called once."""


def open_source(
    path: Path, encoding: str, reading: ReadingConfig, nested: Collection[str] = ()
) -> TableSource:
    """Open a file that :func:`~dure.data.sources.files_of` gave.

    ``encoding`` is the codec of a text, and not used for others; columns that are ``nested`` may hold lists and objects,
    which become JSON text.

    Raises:
        UserError: The file is empty, its first row shows that it is damaged or of another format, or it cannot be
            without column names.
    """
    suffix = path.suffix.lower()
    match suffix:
        case ".csv" | ".tsv" | ".txt":
            return DelimitedSource(path, encoding, reading.quoting, header=reading.header)
        case ".xlsx":
            return WorkbookSource(path, header=reading.header)
    if not reading.header:
        raise UserError(
            f"the columns of a {suffix} have names of their own",
            where=f"data.header=false ({path})",
            expected="data.header=true",
        )
    match suffix:
        case ".json" if is_array(path, encoding):
            return json_array(path, encoding, nested)
        case ".json" | ".jsonl" | ".ndjson":
            return json_lines(path, encoding, nested)
        case ".parquet":
            from dure.data.columnar import ParquetSource  # Brings pyarrow.

            return ParquetSource(path, nested)
        case _:  # a file of save_to_disk
            from dure.data.columnar import ArrowSource

            return ArrowSource(path, nested)
