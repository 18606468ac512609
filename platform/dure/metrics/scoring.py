"""Scoring a file of predictions against a file of references: what ``dure score`` prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from dure.config.data import USUAL, ReadingConfig
from dure.data.canonical import canonical, is_blank, visible
from dure.data.fields import CellReader
from dure.data.labels import ClassIndex, class_names, form_of, key_of_label, labels_in, shown_label
from dure.data.tables import Role, columns_of, read_table
from dure.errors import UserError
from dure.metrics.classification import classification_report, multilabel_report
from dure.metrics.library_metric import LibraryMetrics
from dure.metrics.numbers import NumberReader, are_measures, number_report
from dure.metrics.rouge import MultiReference, rouge
from dure.metrics.score_columns import ScoredColumns, find_columns
from dure.metrics.tokenizers import TokenizerName

Task = Literal["generation", "classification", "number"]

_ID = "id of a row"
"""Role of the ids; the others have the names of columns, of which one may be called ``id``."""
_NAMED_IDS = 5
_NAMED_CLASSES = 4
_SEPARATOR = "|"
"""What stands between the labels of a cell where the user does not say."""


def score_files(
    predictions: Path,
    references: Path,
    *,
    id_column: str | None = None,
    prediction_column: str | None = None,
    reference_columns: Sequence[str] | None = None,
    tokenizer: TokenizerName = "morpheme",
    special_tokens: Sequence[str] = (),
    task: Task | None = None,
    multi_reference: MultiReference = "best",
    label_separator: str | None = None,
    metrics: Sequence[str] = (),
    reading: ReadingConfig = USUAL,
    cache_folder: Path,
) -> dict[str, Any]:
    """Join two tables by id and score the predictions.

    Args:
        predictions: Table of predictions. An empty prediction scores 0.
        references: Table of what is true, rows in any order where there are ids.
        id_column: The column that says which rows belong together, in both files; found by its name when not given,
            and where there is none, rows are paired by their order.
        prediction_column: The predicted summary or class; found by its name when not given.
        reference_columns: The true ones, found by name when not given. A summary may have several, and a row may leave
            some of them empty; a class has one.
        tokenizer: ROUGE tokeniser; for ``generation`` only, as are the next and the last.
        special_tokens: Texts ROUGE keeps whole beside ``#Person1#`` and its like.
        task: ``generation`` (ROUGE), ``classification`` or ``number`` (correlation and squared error); by the name of
            the column when not given, and by the references, whether they are numbers with fractions.
        multi_reference: With several references, the best or their mean.
        label_separator: What stands between several classes in a cell; ``|`` where that occurs.
        metrics: Further ones of the ``evaluate`` library, by folder or name.
        reading: How the tables are read. Where bad rows are skipped, their partners in the other table are too.
        cache_folder: Where checked tables are kept.

    Ids and classes are compared in canonical form, and as numbers where all are: ``1.0`` is ``1``.

    Returns:
        ``task`` with the figures of ``RougeResult.as_dict``, ``classification_report`` or ``number_report``,
        ``num_skipped`` when rows were, and ``notes`` where the figures look like a mistake.

    Raises:
        UserError: A file, column or row is wrong, or an id stands in one file only.
    """
    library = LibraryMetrics(metrics, "--metric")  # before anything is read
    columns = find_columns(
        columns_of(predictions, reading),
        columns_of(references, reading),
        id_column=id_column,
        prediction_column=prediction_column,
        reference_columns=reference_columns,
    )
    is_guessed = task is None
    task = task or ("classification" if columns.are_classes else "generation")
    _check_columns(columns.references, task)
    several = label_separator is not None
    how: Any = {"several": several, "reading": reading, "cache_folder": cache_folder}
    predicted, expected, num_skipped = _joined(predictions, references, columns, task, **how)
    if is_guessed and task == "classification" and are_measures([row[0] for row in expected.rows.values()]):
        task = "number"
        predicted, expected, num_skipped = _joined(predictions, references, columns, task, **how)

    texts = [visible(cells[0]) for cells in predicted.rows.values()]
    groups = [[visible(cell) for cell in expected.rows[key] if not is_blank(cell)] for key in predicted.rows]
    if not several:
        _check_references(predicted, groups, columns, references)
    found = {
        "columns": {"id": columns.id, "prediction": columns.prediction, "references": [*columns.references]}
    }
    more = {"num_skipped": num_skipped} if num_skipped else {}
    rules: Any = {
        "tokenizer": tokenizer,
        "special_tokens": special_tokens,
        "multi_reference": multi_reference,
    }
    figures = _figures(task, texts, groups, label_separator, library, **rules)
    if columns.references == (columns.prediction,) and predictions.resolve() == references.resolve():
        figures["notes"] = [
            f"column '{columns.prediction}' is compared with itself: --reference-columns names another"
        ]
    return {"task": task, **found, **figures, **more}


def _figures(
    task: Task,
    texts: Sequence[str],
    groups: Sequence[Sequence[str]],
    label_separator: str | None,
    library: LibraryMetrics,
    **rules: Any,
) -> dict[str, Any]:
    """Score texts, each beside its references."""
    match task:
        case "generation":
            return {**rouge(texts, groups, **rules).as_dict(), **_library(library.scores(texts, groups))}
        case "classification":
            truth = [each[0] if each else "" for each in groups]
            return _classification(truth, texts, label_separator, library)
        case "number" if not library:
            report = number_report([float(group[0]) for group in groups], [float(text) for text in texts])
            return {**report, "num_rows": len(texts)}
        case "number":
            raise UserError(
                "metrics of the library are for texts and classes", where="--metric", hint="leave it out"
            )
    raise UserError(f"there is no task {task!r}", expected=", ".join(get_args(Task)))


def _check_references(
    predicted: _Side, groups: Sequence[Sequence[str]], columns: ScoredColumns, references: Path
) -> None:
    """Check that every prediction has a reference."""
    lacking = next((key for key, group in zip(predicted.rows, groups, strict=True) if not group), None)
    if lacking is not None:
        raise UserError(
            f"{columns.id} {predicted.ids[lacking]!r} has no reference in {', '.join(columns.references)}",
            where=str(references),
            hint="fill one of these cells, or leave the row out of both tables",
        )


def _joined(
    predictions: Path, references: Path, columns: ScoredColumns, task: Task, *, several: bool, **how: Any
) -> tuple[_Side, _Side, int]:
    """Read both tables and pair their rows; also returns how many of them were skipped."""
    how["reader"] = NumberReader() if task == "number" else None
    predicted = _read(
        predictions,
        columns.id,
        [columns.prediction],
        "--prediction-column",
        may_be_empty=task != "number",
        **how,
    )
    expected = _read(
        references,
        columns.id,
        columns.references,
        "--reference-columns",
        may_be_empty=task != "number" and (len(columns.references) > 1 or several),
        **how,
    )
    if columns.id is None:
        _check_order(predicted, expected)
    return predicted, expected, _join(predicted, expected)


def _check_order(predicted: _Side, expected: _Side) -> None:
    """Check that rows without ids can be paired by their order."""
    sizes = (len(predicted.rows), len(expected.rows))
    if sizes[0] != sizes[1] or predicted.num_skipped or expected.num_skipped:
        raise UserError(
            f"no column is an id of both tables, and by their order {sizes[0]:,} rows and {sizes[1]:,} do not pair up",
            where=str(predicted.path),
            expected="the same column of ids in both, or all rows of both in one order",
            hint="--id-column COLUMN",
        )


def _check_columns(reference_columns: Sequence[str], task: Task) -> None:
    where = "--reference-columns"
    if not reference_columns:
        raise UserError("no column is named", where=where, expected="column names, with commas")
    if len(set(reference_columns)) < len(reference_columns):
        raise UserError("a column is named twice", where=where, expected="each column once")
    if task != "generation" and len(reference_columns) != 1:
        raise UserError(
            f"a class or a number cannot be read from {len(reference_columns)} columns",
            where=where,
            expected="one column",
        )


def _classification(
    labels: Sequence[str], predictions: Sequence[str], separator: str | None, library: LibraryMetrics
) -> dict[str, Any]:
    """Compare classes by what their spellings mean, under the shortest of them."""
    if separator is None and any(_SEPARATOR in cell for side in (labels, predictions) for cell in side):
        separator = _SEPARATOR
    if separator is not None:
        if library:
            raise UserError(
                "metrics of the library are for one class in a row, and these cells hold several",
                where="--metric",
                expected="no --metric: the figures of several labels are dure's own",
            )
        return _several_labels(labels, predictions, separator)
    spelled = [[canonical(label) for label in side] for side in (labels, predictions)]
    names = class_names(label for side in spelled for label in side if label)
    index = ClassIndex(names)
    true, predicted = ([names[index[label]] if label else "" for label in side] for side in spelled)
    report = classification_report(true, predicted) | {"num_empty_predictions": predicted.count("")}
    strange = {*predicted} - {"", *true}
    if strange and {*predicted}.isdisjoint(true):
        report["notes"] = [
            f"no predicted class ({_some(strange)}) is among the true ones ({_some({*true})}): are they spelled alike?"
        ]
    return {**report, **_library(library.scores(predicted, [[each] for each in true], (*names, "")))}


def _some(classes: Set[str]) -> str:
    named = sorted(classes)[:_NAMED_CLASSES]
    return ", ".join(map(shown_label, named)) + (", …" if len(classes) > len(named) else "")


def _library(scores: Mapping[str, float]) -> dict[str, Any]:
    """Return the figures of further metrics under a key of their own, apart from dure's."""
    figures = {name: value if math.isfinite(value) else None for name, value in scores.items()}
    return {"library": figures} if scores else {}


def _several_labels(labels: Sequence[str], predictions: Sequence[str], separator: str) -> dict[str, Any]:
    """Compare any number of classes for every row."""
    sides = [[labels_in(cell, separator) for cell in side] for side in (labels, predictions)]
    names = class_names(label for side in sides for cell in side for label in cell)
    index = ClassIndex(names)
    truth, predicted = np.zeros((2, len(labels), len(names)), dtype=bool)
    for table, side in ((truth, sides[0]), (predicted, sides[1])):
        for row, cell in enumerate(side):
            table[row, [index[label] for label in cell]] = True
    return {"label_separator": separator, **multilabel_report(truth, predicted, names)}


@dataclass
class _Side:
    """One of the two tables.

    Rows are cells by key, in the file's order; ``ids`` are as the file spells them.
    """

    path: Path
    rows: dict[str, list[str]]
    ids: dict[str, str]
    num_skipped: int


def _read(
    path: Path,
    id_column: str | None,
    columns: Sequence[str],
    option: str,
    *,
    reading: ReadingConfig,
    cache_folder: Path,
    may_be_empty: bool,
    reader: CellReader | None,
) -> _Side:
    """Return the cells of ``columns``, which ``option`` names, by id, in the file's order."""
    ids = [] if id_column is None else [Role(_ID, id_column, is_id=True, option="--id-column")]
    roles = [
        *ids,
        *(
            Role(column, column, may_be_empty=may_be_empty, option=option, reader=reader)
            for column in columns
        ),
    ]
    columns_by_role = {role.name: role.column for role in roles}
    table = read_table(path, roles, columns_by_role, reading=reading, cache_folder=cache_folder)
    rows = table.dataset.to_dict()
    shown = rows[_ID] if ids else [str(place) for place in range(1, table.num_rows + 1)]
    keys = [canonical(key) for key in shown]
    cells = {key: [rows[column][place] for column in columns] for place, key in enumerate(keys)}
    num_skipped = sum(skipped.count for skipped in table.skipped)
    return _Side(path, cells, dict(zip(keys, shown, strict=True)), num_skipped)


def _join(predicted: _Side, expected: _Side) -> int:
    """Give the rows of both tables the same keys, and return how many rows were left out of either.

    An id in one of them only is an error: a mean over the rest would flatter.
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
                expected="predictions and references of the same rows",
                hint="the table that was predicted; or --id-column NAME, where another column joins the two",
            )
        for key in alone:
            del side.rows[key]
    if not predicted.rows:
        raise UserError("no row is left to score", where=str(predicted.path), hint="correct the bad rows")
    return num_skipped
