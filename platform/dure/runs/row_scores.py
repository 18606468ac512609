"""What runs predicted for their test rows, and what each row adds to their metrics; ``predictions.csv`` of a run."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dure.data.cells import LONGEST_CELL
from dure.errors import UserError
from dure.metrics.paired import Difference
from dure.metrics.paired_classes import paired_bootstrap
from dure.runs.folder import PREDICTED, PROBABILITY, ROW, SCORE

Number = TypeVar("Number", int, float)
Value = TypeVar("Value")


@dataclass(frozen=True)
class RowScores:
    """The test rows of a run, or of the folds of several runs together, ascending by their number.

    ``rows`` are their numbers in the table, ``contents`` hashes of what stands in them, and ``scores`` by metric what
    every row adds to it; NaN where that is not finite.
    """

    rows: NDArray[np.int64]
    contents: tuple[bytes, ...]
    scores: Mapping[str, NDArray[np.float64]]

    @property
    def content_hash(self) -> str:
        """A SHA-256 over the numbers and the contents of all rows."""
        digest = hashlib.sha256(self.rows.tobytes())
        for content in self.contents:
            digest.update(content)
        return digest.hexdigest()

    def of(self, metric: str, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the scores of some of its rows."""
        return self.scores[metric][np.searchsorted(self.rows, rows)]


def read_scores(files: Sequence[Path]) -> RowScores | None:
    """Read the rows of the runs of one seed; None when one of them left none.

    Raises:
        UserError: A file is not what dure writes, or a row is in two of them.
    """
    if not files or not all(file.is_file() for file in files):
        return None
    numbers: list[int] = []
    contents: list[bytes] = []
    columns: dict[str, list[float]] = {}
    for file in files:
        for number, row in rows_in(file):
            numbers.append(number)
            cells = [*of_table(row).values()]
            contents.append(hashlib.blake2b(repr(cells).encode("utf-8", "replace"), digest_size=16).digest())
            for name, cell in row.items():
                if name.startswith(SCORE):
                    score = _number(cell, float, file) if cell else float("nan")
                    columns.setdefault(name.removeprefix(SCORE), []).append(score)
    order = order_of(numbers, files[0])
    rows = np.asarray(numbers, dtype=np.int64)[order]
    return RowScores(
        rows,
        tuple(contents[place] for place in order),
        {
            name: np.asarray(scores, dtype=np.float64)[order]
            for name, scores in columns.items()
            if len(scores) == len(rows)
        },
    )


def read_rows(files: Iterable[Path], wanted: set[int]) -> dict[int, dict[str, str]]:
    """Return some of the rows as they stand in the files, by their number: column → cell."""
    return {number: row for file in files for number, row in rows_in(file) if number in wanted}


def of_table(columns: Mapping[str, Value]) -> dict[str, Value]:
    """Return of the columns of ``predictions.csv`` those of the table: inputs, targets and all that is kept of it."""
    added = (PREDICTED, PROBABILITY, SCORE)
    return {name: each for name, each in columns.items() if name != ROW and not name.startswith(added)}


def with_prefix(columns: Mapping[str, Value], prefix: str) -> dict[str, Value]:
    """Return the columns whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): each for name, each in columns.items() if name.startswith(prefix)}


def share_difference(first: Path, second: Path, share: str, level: float) -> tuple[Difference, int] | None:
    """Return by how much one file of predictions is above another in a share of classes, and on how many rows.

    None where there is no such share, or the files are not of the same classes of the same rows.
    """
    sides = [_classes_in(file) for file in (first, second)]
    rows = sorted(sides[0].keys() & sides[1].keys())
    labels, again = ([side[row][0] for row in rows] for side in sides)
    if not rows or labels != again:
        return None
    found = paired_bootstrap(labels, *([side[row][1] for row in rows] for side in sides), level=level)
    return (found[share], len(rows)) if share in found else None


def _classes_in(file: Path) -> dict[int, tuple[str, str]]:
    """Return the class of every row and the one that is predicted of it; nothing of a file of anything else."""
    found, column = {}, None
    for number, row in rows_in(file):
        if column is None:
            named = [name for name in row if f"{PREDICTED}{name}" in row]
            if f"{SCORE}accuracy" not in row or len(named) != 1:  # rows of several labels have no accuracy
                return {}
            column = named[0]
        found[number] = (row[column], row[f"{PREDICTED}{column}"])
    return found


def order_of(rows: Sequence[int], file: Path) -> NDArray[np.int64]:
    """Return the places of rows of one seed, ascending by their number; one file of theirs is for errors.

    Raises:
        UserError: A row is in two of the files.
    """
    order = np.argsort(rows, kind="stable")
    ordered = np.asarray(rows)[order]
    doubled = ordered[1:][np.diff(ordered) == 0]
    if doubled.size:
        raise UserError(
            f"row {doubled[0]} is held out by two folds",
            where=str(file.parent.parent),
            expected="folds of one cross-validation",
        )
    return order


def rows_in(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Give the rows of a file as they stand there, column → cell, with their number.

    Raises:
        UserError: It is not what dure writes.
    """
    csv.field_size_limit(LONGEST_CELL)
    with file.open(encoding="utf-8", newline="") as stream:
        lines = csv.reader(stream)
        header = next(lines, [])
        for number, cells in enumerate(lines, start=1):
            if len(cells) != len(header) or ROW not in header:
                raise _broken(file, f"row {number} has {len(cells)} cells for {len(header)} columns")
            row = dict(zip(header, cells, strict=True))
            yield _number(row[ROW], int, file), row


def _number(cell: str, kind: Callable[[str], Number], file: Path) -> Number:
    try:
        return kind(cell)
    except ValueError:
        raise _broken(file, f"{cell!r} is no number") from None


def _broken(file: Path, problem: str) -> UserError:
    return UserError(
        f"these are no predictions of a run: {problem}",
        where=str(file),
        hint="remove it, and the run is compared by its scores alone",
    )
