"""Scoring a file of predictions against a file of references: what ``dure score`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from dure.data.tables import Role, read_table
from dure.errors import UserError
from dure.metrics.classification import classification_report
from dure.metrics.rouge import MultiReference, rouge
from dure.metrics.tokenizers import TokenizerName

Task = Literal["summarization", "classification"]

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
    task: Task = "summarization",
    multi_reference: MultiReference = "best",
    cache_folder: Path,
) -> dict[str, Any]:
    """Join two tables by id and score the predictions.

    Args:
        predictions: Table with ``id_column`` and ``prediction_column``. An empty prediction scores 0.
        references: Table with ``id_column`` and ``reference_columns``, rows in any order.
        id_column: The column that says which rows belong together, in both files.
        prediction_column: The predicted summary or class.
        reference_columns: The true ones. A summary may have several, and a row may leave some of them
            empty; a class has one.
        tokenizer: ROUGE tokeniser; for ``summarization`` only, as are the next and the last.
        special_tokens: Texts ROUGE keeps whole beside ``#Person1#`` and its like.
        task: ``summarization`` (ROUGE) or ``classification``.
        multi_reference: With several references, the best or their mean.
        cache_folder: Where checked tables are kept.

    Returns:
        ``task`` with the figures of ``RougeResult.as_dict`` or of ``classification_report``.

    Raises:
        UserError: A file, column or row is wrong, or an id stands in one file only.
    """
    _check_columns(reference_columns, task)
    predicted = _read(
        predictions,
        id_column,
        [prediction_column],
        "--prediction-column",
        cache_folder=cache_folder,
        may_be_empty=True,
    )
    expected = _read(
        references,
        id_column,
        reference_columns,
        "--reference-columns",
        cache_folder=cache_folder,
        may_be_empty=len(reference_columns) > 1,
    )
    _check_partners(predicted, predictions, expected, references)
    _check_partners(expected, references, predicted, predictions)

    texts = [cells[0] for cells in predicted.values()]
    groups = [[cell for cell in expected[key] if cell.strip()] for key in predicted]
    for key, group in zip(predicted, groups, strict=True):
        if not group:
            raise UserError(
                f"{id_column} {key!r} has no reference in {', '.join(reference_columns)}",
                where=str(references),
                hint="fill one of these cells, or leave the row out of both tables",
            )

    match task:
        case "summarization":
            result = rouge(
                texts,
                groups,
                tokenizer=tokenizer,
                special_tokens=special_tokens,
                multi_reference=multi_reference,
            )
            return {"task": task, **result.as_dict()}
        case "classification":
            return {"task": task, **classification_report([group[0] for group in groups], texts)}
    raise UserError(f"there is no task {task!r}", expected="summarization, classification")


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


def _read(
    path: Path,
    id_column: str,
    columns: Sequence[str],
    option: str,
    *,
    cache_folder: Path,
    may_be_empty: bool,
) -> dict[str, list[str]]:
    """Return the cells of ``columns``, which ``option`` names, by id, in the file's order."""
    roles = [
        Role(_ID, id_column, is_id=True, option="--id-column"),
        *(Role(column, column, may_be_empty=may_be_empty, option=option) for column in columns),
    ]
    table = read_table(path, roles, {role.name: role.column for role in roles}, cache_folder=cache_folder)
    rows = table.dataset.to_dict()
    return {key: [rows[column][place] for column in columns] for place, key in enumerate(rows[_ID])}


def _check_partners(rows: dict[str, Any], path: Path, others: dict[str, Any], other_path: Path) -> None:
    """Refuse ids that only one of the files has: a mean over the rest would flatter."""
    alone = [key for key in rows if key not in others]
    if alone:
        named = ", ".join(alone[:_NAMED_IDS]) + (", …" if len(alone) > _NAMED_IDS else "")
        raise UserError(f"{len(alone)} of {len(rows)} ids are not in {other_path}: {named}", where=str(path))
