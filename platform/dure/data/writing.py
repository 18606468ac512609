"""Writing tables as their names say, without replacing what someone else wrote."""

from __future__ import annotations

import csv
import filecmp
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dure.data.workbook import check_can_write, write_workbook
from dure.errors import UserError
from dure.files import make_folder, written_beside

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".xlsx")


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
            f"tables with the suffix '{path.suffix}' cannot be written",
            where=where,
            expected=f"one of {', '.join(_SUFFIXES)}",
        )
    if suffix == ".xlsx":
        check_can_write(where)
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


def place_files(files: Mapping[str, Path], folder: Path, *, force: bool) -> dict[str, Path]:
    """Move files into a folder, all of them or none.

    With ``force`` files that are there, and say something else, are replaced.

    Returns:
        Name → file in the folder.

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
