"""The file formats of tables, read row by row with the place of each row."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from dure.data.cells import Record
from dure.data.delimited import DelimitedSource
from dure.data.json_files import is_array, json_array, json_lines
from dure.data.sources import ARROW
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


@dataclass(frozen=True)
class Opening:
    """What a file is opened with."""

    encoding: str = "utf-8-sig"
    """Codec of a text; not used for others."""
    quoting: Literal["auto", "minimal", "none"] = "auto"
    """Whether quotes mean something in a text with separators."""
    header: bool = True
    """Whether the first line, or the first row of a sheet, names the columns."""
    nested: Collection[str] = ()
    """Columns that may hold lists and objects, which become JSON text."""


def open_source(path: Path, opening: Opening) -> TableSource:
    """Open a table of any of the :data:`~dure.data.sources.SUFFIXES`.

    Raises:
        UserError: The file is empty, its first row shows that it is damaged or of another format, or it cannot be
            without column names.
    """
    suffix = path.suffix.lower()
    match suffix:
        case ".csv" | ".tsv" | ".txt":
            return DelimitedSource(path, opening.encoding, opening.quoting, header=opening.header)
        case ".xlsx":
            return WorkbookSource(path, header=opening.header)
    if not opening.header:
        raise UserError(
            f"the columns of a {suffix} have names of their own",
            where=f"data.header=false ({path})",
            expected="data.header=true",
        )
    match suffix:
        case ".json" if is_array(path, opening.encoding):
            return json_array(path, opening.encoding, opening.nested)
        case ".json" | ".jsonl" | ".ndjson":
            return json_lines(path, opening.encoding, opening.nested)
        case ".parquet":
            from dure.data.columnar import ParquetSource  # Brings pyarrow.

            return ParquetSource(path, opening.nested)
        case _ if suffix == ARROW:
            from dure.data.columnar import ArrowSource

            return ArrowSource(path, opening.nested)
        case _:
            raise ValueError(f"{path} was not checked to be a table")
