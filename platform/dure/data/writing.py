"""Writing tables as their names say, without replacing what someone else wrote."""

from __future__ import annotations

import csv
import filecmp
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from dure.data.workbook import require_openpyxl, write_workbook
from dure.errors import UserError
from dure.files import make_folder, written_beside

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")
_ROWS_AT_ONCE = 4096


def check_output(path: Path, *, force: bool) -> None:
    """Check that a table can be written to a path, and that nothing is lost by it.

    Raises:
        UserError: It is a folder, its suffix names no format that can be written, or a file is there.
    """
    where = f"--output {path}"
    if path.is_dir():
        raise UserError("this is a folder", where=where, expected="a file to write, such as a .csv")
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise UserError(
            f"tables with the suffix '{path.suffix}' cannot be written"
            if suffix
            else "its name has no suffix, which says the format",
            where=where,
            expected=f"one of {', '.join(_SUFFIXES)}",
        )
    if suffix == ".xlsx":
        require_openpyxl(where)
    if path.exists() and not force:
        raise UserError(
            "this file is there already, and would be lost",
            where=where,
            expected="a file that is not there",
            hint="another name, or --force to replace it",
        )
    make_folder(path.parent, where=where)


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table in the format that its suffix names, whole or not at all; None becomes an empty cell."""
    with written_beside(path) as beside:
        if path.suffix.lower() == ".xlsx":
            write_workbook(beside, header, rows, where=f"--output {path}")
            return
        if path.suffix.lower() == ".parquet":
            _write_parquet(beside, header, rows)
            return
        with beside.open("w", encoding="utf-8", newline="") as file:
            if path.suffix.lower() == ".jsonl":
                for row in rows:
                    values = dict(zip(header, row, strict=True))
                    file.write(json.dumps(values, ensure_ascii=False) + "\n")
                return
            separator = "\t" if path.suffix.lower() == ".tsv" else ","
            writer = csv.writer(file, delimiter=separator, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)


def _write_parquet(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows as Parquet; a column has the type of its first value, or text where it has none."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    rows = iter(rows)
    first: list[Sequence[Any]] = []
    kinds: dict[int, pyarrow.DataType] = {}
    for row in rows:
        first.append(row)
        kinds |= {
            place: pyarrow.scalar(cell).type
            for place, cell in enumerate(row)
            if cell is not None and place not in kinds
        }
        if len(kinds) == len(header):
            break
    schema = pyarrow.schema([(name, kinds.get(place, pyarrow.string())) for place, name in enumerate(header)])
    with ParquetWriter(path, schema) as writer:
        all_rows = chain(first, rows)
        while batch := list(islice(all_rows, _ROWS_AT_ONCE)):
            arrays = [
                pyarrow.array(cells, kind)
                for cells, kind in zip(zip(*batch, strict=True), schema.types, strict=True)
            ]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))


def place_files(files: Mapping[str, Path], folder: Path, *, force: bool) -> dict[str, Path]:
    """Move files into a folder, all of them or none, and return them there by name.

    With ``force`` files that are there, and say something else, are replaced.

    Raises:
        UserError: The folder cannot be written to, or a file is there that says something else.
    """
    where = f"--output {folder}"
    make_folder(folder, where=where)
    placed = {name: folder / file.name for name, file in files.items()}
    lost = [
        target.name
        for name, target in placed.items()
        if target.exists() and not (target.is_file() and filecmp.cmp(files[name], target, shallow=False))
    ]
    if lost and not force:
        raise UserError(
            f"{', '.join(lost)} {'holds' if len(lost) == 1 else 'hold'} something else, which would be lost",
            where=where,
            expected="a folder without such files",
            hint="another folder, or --force to replace them",
        )
    for name, target in placed.items():
        with written_beside(target) as beside:
            shutil.copyfile(files[name], beside)
    return placed
