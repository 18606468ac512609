"""Predicting rows with final models: those of a table, or those that a run's result is reported on."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dure.config.loading import load_record
from dure.config.schema import Profile
from dure.data.tables import Table, read_table
from dure.errors import UserError
from dure.family import Family, load_family
from dure.family.corpus import Corpus, Tested, cache_folder, encode_split
from dure.family.saved_model import read_model
from dure.files import make_folder, write_text
from dure.runs.folder import PREDICTED, PROBABILITY, ROW, RunFolder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def predict_file(
    runs: Sequence[Path],
    source: Path,
    output: Path,
    *,
    profile: Profile,
    progress: Callable[[int, int], None],
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Predict the rows of a table with the final models of runs, and write them as CSV in the table's order.

    Args:
        runs: Folders of runs of one family; several, such as the folds of a cross-validation, predict together.
        source: Table with the family's input columns, and ids if it has them.
        output: CSV to write: the id column under its own name, then the family's predictions.
        profile: The machine.
        progress: Gets rows done and rows in all, over all models.
        tell: Gets one-line messages.

    Returns:
        ``rows``, ``output`` and ``models``.

    Raises:
        UserError: A folder holds no finished run, the table is not what the family needs, the output cannot be
            written or is the table itself, or the family's predictions cannot be put together.
    """
    for run in runs:
        _check_is_finished(run)
    if output.is_dir():
        raise UserError("this is a folder", where=f"--output {output}", expected="a CSV file to write")
    if output.exists() and source.exists() and output.samefile(source):
        raise UserError(
            "this is the table to predict, which would be lost",
            where=f"--output {output}",
            hint="another file",
        )
    make_folder(output.parent, where=f"--output {output}")
    parts = []
    for place, run in enumerate(runs):

        def advance(rows: int, total: int, before: int = place) -> None:
            progress(before * total + rows, len(runs) * total)

        # What is told of the table is told once.
        family, table, predictions = _predicted(
            run, source, profile, advance, tell if place == 0 else lambda message: None
        )
        parts.append(predictions)
    predictions = parts[0] if len(parts) == 1 else family.combine(parts)
    columns = family.experiment.data.columns
    ids = {
        columns.get(role.name, role.column): table.dataset[role.name]
        for role in family.roles
        if role.is_id and role.name in table.dataset.column_names
    }
    rows = zip(*ids.values(), strict=True) if ids else [()] * len(predictions)
    _write_table(
        output,
        [*ids, *predictions[0]],
        ([*cells, *prediction.values()] for cells, prediction in zip(rows, predictions, strict=True)),
    )
    models = [str(RunFolder(run).final_model) for run in runs]
    return {"rows": len(predictions), "output": str(output), "models": models}


def _check_is_finished(run: Path) -> None:
    folder = RunFolder(run)
    if not folder.experiment.is_file() or not folder.final_model.is_dir():
        inside = sorted(path.parent.name for path in run.glob("*/final_model")) if run.is_dir() else []
        raise UserError(
            "this is no folder of a finished run",
            where=str(run),
            expected="a folder with experiment.yaml and final_model/",
            hint=f"one of its experiments: {', '.join(inside)}" if inside else None,
        )


def _predicted(
    run: Path,
    source: Path,
    profile: Profile,
    advance: Callable[[int, int], None],
    tell: Callable[[str], None],
) -> tuple[Family, Table, list[dict[str, Any]]]:
    folder = RunFolder(run)
    experiment = load_record(folder.experiment)
    family = load_family(experiment, tell)
    table = read_table(
        source,
        family.roles,
        experiment.data.columns,
        for_prediction=True,
        encoding=experiment.data.encoding,
        on_bad_row=experiment.data.on_bad_row,
        cache_folder=cache_folder(),
    )
    for message in table.messages():
        tell(message)
    model, tokenizer = read_model(family, folder.final_model)
    model.to(torch.device(profile.device))
    encoded = encode_split(family, tokenizer, table, tell=tell).dataset
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        advance(done, len(encoded))

    return family, table, family.predict(model, tokenizer, encoded, progress=count)


def tested_rows(corpus: Corpus) -> Tested:
    """Return the rows of a corpus that a result is reported on.

    Raises:
        UserError: There are none.
    """
    if corpus.tested is None:
        raise UserError(
            "there are no rows to predict after training",
            where="data.test",
            expected="a table with targets, or data.fold",
        )
    return corpus.tested


def write_predictions(path: Path, family: Family, model: PreTrainedModel, corpus: Corpus) -> None:
    """Predict the rows that a result is reported on, and write them as CSV with what is true of them.

    The columns are ``row`` (number in the checked table, from 0), the roles of the family that the table has, but for
    ids, and what the family predicts: ``probability_…`` as it is, everything else as ``predicted_…``.

    Args:
        path: File to write, whole or not at all.
        family: The model's family.
        model: The model, on its device.
        corpus: Has the rows.

    Raises:
        UserError: There are no such rows.
    """
    tested = tested_rows(corpus)
    predictions = family.predict(model, corpus.tokenizer, corpus.test, progress=lambda rows: None)
    dataset = tested.table.dataset
    roles = [role.name for role in family.roles if role.name in dataset.column_names and not role.is_id]
    names = [name if name.startswith(PROBABILITY) else f"{PREDICTED}{name}" for name in predictions[0]]
    columns = [tested.numbers.tolist(), *(dataset[role][:] for role in roles)]
    _write_table(
        path,
        [ROW, *roles, *names],
        ([*cells, *prediction.values()] for *cells, prediction in zip(*columns, predictions, strict=True)),
    )


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())
