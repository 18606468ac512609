"""Scoring a file of predictions against a file of references: what ``dure score`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dure.config.data import USUAL, ReadingConfig
from dure.data.canonical import canonical, is_blank, visible
from dure.data.labels import ClassIndex, class_names, form_of, key_of_label
from dure.data.tables import Role, read_table
from dure.errors import UserError
from dure.metrics.classification import classification_report
from dure.metrics.rouge import MultiReference, rouge
from dure.metrics.tokenizers import TokenizerName

Task = Literal["generation", "classification"]

_ID = "id of a row"
"""Role of the ids; the others bear the names of columns, of which one may be called ``id``."""
_NAMED_IDS = 5


def score_files(
    predictions: Path,
    references: Path,
    *,
    id_column: str = "fname",
    prediction_column: str = "summary",
    reference_columns: Sequence[str] = ("summary",),
    tokenizer: TokenizerName = "morpheme",
    special_tokens: Sequence[str] = (),
    task: Task = "generation",
    multi_reference: MultiReference = "best",
    reading: ReadingConfig = USUAL,
    cache_folder: Path,
) -> dict[str, Any]:
    """Join two tables by id and score the predictions.

    Args:
        predictions: Table with ``id_column`` and ``prediction_column``. An empty prediction scores 0.
        references: Table with ``id_column`` and ``reference_columns``, rows in any order.
        id_column: The column that says which rows belong together, in both files.
        prediction_column: The predicted text or class.
        reference_columns: The true ones. A text may have several, and a row may leave some of them
            empty; a class has one.
        tokenizer: ROUGE tokeniser; for ``generation`` only, as are the next and the last.
        special_tokens: Texts ROUGE keeps whole beside ``#Person1#`` and its like.
        task: ``generation`` (ROUGE) or ``classification``.
        multi_reference: With several references, the best or their mean.
        reading: How the tables are read. Where bad rows are skipped, their partners in the other table are too.
        cache_folder: Where checked tables are kept.

    Ids and classes are compared in canonical form, and as numbers where all are: ``1.0`` is ``1``.

    Returns:
        ``task`` with the figures of ``RougeResult.as_dict`` or of ``classification_report``, and ``num_skipped`` when
        rows were.

    Raises:
        UserError: A file, column or row is wrong, or an id stands in one file only.
    """
    _check_columns(reference_columns, task)
    predicted = _read(
        predictions,
        id_column,
        [prediction_column],
        "--prediction-column",
        reading=reading,
        cache_folder=cache_folder,
        may_be_empty=True,
    )
    expected = _read(
        references,
        id_column,
        reference_columns,
        "--reference-columns",
        reading=reading,
        cache_folder=cache_folder,
        may_be_empty=len(reference_columns) > 1,
    )
    num_skipped = _join(predicted, expected)

    texts = [visible(cells[0]) for cells in predicted.rows.values()]
    groups = [[visible(cell) for cell in expected.rows[key] if not is_blank(cell)] for key in predicted.rows]
    for key, group in zip(predicted.rows, groups, strict=True):
        if not group:
            raise UserError(
                f"{id_column} {predicted.ids[key]!r} has no reference in {', '.join(reference_columns)}",
                where=str(references),
                hint="fill one of these cells, or leave the row out of both tables",
            )
    figures: dict[str, Any]
    match task:
        case "generation":
            result = rouge(
                texts,
                groups,
                tokenizer=tokenizer,
                special_tokens=special_tokens,
                multi_reference=multi_reference,
            )
            figures = result.as_dict()
        case "classification":
            figures = _classification([group[0] for group in groups], texts)
        case _:
            raise UserError(f"there is no task {task!r}", expected="generation, classification")
    return {"task": task, **figures, **({"num_skipped": num_skipped} if num_skipped else {})}


def _check_columns(reference_columns: Sequence[str], task: Task) -> None:
    where = "--reference-columns"
    if not reference_columns:
        raise UserError("no column is named", where=where, expected="column names, with commas")
    if len(set(reference_columns)) < len(reference_columns):
        raise UserError("a column is named twice", where=where, expected="each column once")
    if task == "classification" and len(reference_columns) != 1:
        raise UserError(
            f"a class cannot be read from {len(reference_columns)} columns",
            where=where,
            expected="one column",
        )


def _classification(labels: Sequence[str], predictions: Sequence[str]) -> dict[str, Any]:
    """Compare classes by what their spellings mean, under the shortest of them."""
    spelled = [[canonical(label) for label in side] for side in (labels, predictions)]
    names = class_names(label for side in spelled for label in side)
    index = ClassIndex(names)
    true, predicted = ([names[index[label]] for label in side] for side in spelled)
    return classification_report(true, predicted)


@dataclass
class _Side:
    """One of the two tables.

    Attributes:
        path: Its file.
        rows: Key of a row → its cells, in the file's order.
        ids: Key of a row → its id as the file spells it.
        num_skipped: Bad rows that were left out.
    """

    path: Path
    rows: dict[str, list[str]]
    ids: dict[str, str]
    num_skipped: int


def _read(
    path: Path,
    id_column: str,
    columns: Sequence[str],
    option: str,
    *,
    reading: ReadingConfig,
    cache_folder: Path,
    may_be_empty: bool,
) -> _Side:
    """Return the cells of ``columns``, which ``option`` names, by id, in the file's order."""
    roles = [
        Role(_ID, id_column, is_id=True, option="--id-column"),
        *(Role(column, column, may_be_empty=may_be_empty, option=option) for column in columns),
    ]
    columns_by_role = {role.name: role.column for role in roles}
    table = read_table(path, roles, columns_by_role, reading=reading, cache_folder=cache_folder)
    rows = table.dataset.to_dict()
    keys = [canonical(key) for key in rows[_ID]]
    cells = {key: [rows[column][place] for column in columns] for place, key in enumerate(keys)}
    num_skipped = sum(skipped.count for skipped in table.skipped)
    return _Side(path, cells, dict(zip(keys, rows[_ID], strict=True)), num_skipped)


def _join(predicted: _Side, expected: _Side) -> int:
    """Give the rows of both tables the same keys, and return how many rows were left out of either.

    Raises:
        UserError: An id is in one of them only: a mean over the rest would flatter.
    """
    sides = (predicted, expected)
    form = form_of(key for side in sides for key in side.rows)
    by_value = [[key_of_label(key, form) for key in side.rows] for side in sides]
    if all(len({*keys}) == len(keys) for keys in by_value):
        for side, keys in zip(sides, by_value, strict=True):
            side.ids = dict(zip(keys, side.ids.values(), strict=True))
            side.rows = dict(zip(keys, side.rows.values(), strict=True))
    num_skipped = predicted.num_skipped + expected.num_skipped
    for side, other in (sides, sides[::-1]):
        alone = [key for key in side.rows if key not in other.rows]
        if len(alone) > other.num_skipped:
            named = ", ".join(side.ids[key] for key in alone[:_NAMED_IDS])
            more = ", …" if len(alone) > _NAMED_IDS else ""
            raise UserError(
                f"{len(alone)} of {len(side.rows)} ids are not in {other.path}: {named}{more}",
                where=str(side.path),
            )
        for key in alone:
            del side.rows[key]
    if not predicted.rows:
        raise UserError("no row is left to score", where=str(predicted.path), hint="correct the bad rows")
    return num_skipped
