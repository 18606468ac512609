"""Predicting a table with the final model of a run."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dure.config.loading import load_experiment
from dure.config.schema import Profile
from dure.data.tables import read_table
from dure.errors import UserError
from dure.family import load_family
from dure.files import make_folder, write_text
from dure.training.corpus import cache_folder, encode_split
from dure.training.records import RunFolder


def predict_file(
    run: Path,
    source: Path,
    output: Path,
    *,
    profile: Profile,
    progress: Callable[[int, int], None],
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Predict the rows of a table with the final model of a run, and write them as CSV in the table's order.

    Args:
        run: Folder of a run.
        source: Table with the family's input columns, and ids if it has them.
        output: CSV to write: the id column under its own name, then the family's predictions.
        profile: The machine.
        progress: Gets rows done and rows in all.
        tell: Gets one-line messages.

    Returns:
        ``rows``, ``output`` and ``model``.

    Raises:
        UserError: The folder holds no finished run, the table is not what the family needs, or the output
            cannot be written.
    """
    folder = RunFolder(run)
    if not folder.experiment.is_file() or not folder.final_model.is_dir():
        inside = sorted(path.parent.name for path in run.glob("*/final_model")) if run.is_dir() else []
        raise UserError(
            "this is no folder of a finished run",
            where=str(run),
            expected="a folder with experiment.yaml and final_model/",
            hint=f"one of its experiments: {', '.join(inside)}" if inside else None,
        )
    if output.is_dir():
        raise UserError("this is a folder", where=f"--output {output}", expected="a CSV file to write")
    make_folder(output.parent, where=f"--output {output}")
    experiment = load_experiment(str(folder.experiment))
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
    model, tokenizer = family.load_exported(folder.final_model)
    model.to(torch.device(profile.device))
    encoded = encode_split(family, tokenizer, table, tell=tell).dataset
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        progress(done, len(encoded))

    predictions = family.predict(model, tokenizer, encoded, progress=advance)
    ids = {
        experiment.data.columns.get(role.name, role.column): table.dataset[role.name]
        for role in family.roles
        if role.is_id and role.name in table.dataset.column_names
    }
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*ids, *predictions[0]])
    for index, prediction in enumerate(predictions):
        writer.writerow([*(column[index] for column in ids.values()), *prediction.values()])
    write_text(output, text.getvalue())
    return {"rows": len(predictions), "output": str(output), "model": str(folder.final_model)}
