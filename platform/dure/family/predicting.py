"""Predicting rows with final models: those of a table, or those that a run's result is reported on."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.config.loading import check_reading
from dure.config.schema import Profile
from dure.data.fields import roles_to_predict
from dure.data.sources import files_of
from dure.data.tables import Role, Table, columns_of, read_table
from dure.data.writing import check_output, write_rows
from dure.errors import UserError
from dure.events import Notify
from dure.family import Family
from dure.family.corpus import Tested, cache_folder, encode_split
from dure.family.run_weights import RunWeights, weights_at
from dure.runs.folder import PREDICTED, PROBABILITY, ROW, SCORE, RunFolder

if TYPE_CHECKING:
    import datasets
    import torch
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dure.data.collating import Batch


@dataclass(frozen=True)
class Reported:
    """What a model makes of the rows that its result is reported on.

    Attributes:
        metrics: Figures over all rows; names begin with ``test_``.
        answers: What the family ``validates``, row by row in the order of the rows: logits, or generated ids; None of a
            family that validates by the loss alone.
        losses: What each row adds to the loss, which is the mean of them; None when the rows have no targets.
    """

    metrics: Mapping[str, float]
    answers: NDArray[Any] | None
    losses: Sequence[float] | None


def predict_rows(
    family: Family,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: datasets.Dataset,
    *,
    progress: Callable[[int], None] = lambda rows: None,
) -> list[dict[str, Any]]:
    """Predict every row of an encoded dataset, in its order; longest rows first, so that batches pad little.

    Args:
        family: Says how rows become batches, and what answers to them say.
        model: The model, on its device.
        tokenizer: What the rows were encoded by.
        dataset: Encoded rows, with or without targets.
        progress: Gets the number of rows done, batch by batch.
    """
    import torch

    from dure.data.batching import length_order
    from dure.data.collating import moved

    training = family.experiment.training
    batch_size = training.eval_batch_size or training.batch_size
    order = length_order(dataset["length"])
    batches = family.batches(tokenizer, model)
    found: dict[int, dict[str, Any]] = {}
    model.eval()
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = moved(batches.collate([dataset[row] for row in rows]), model.device)
        with torch.inference_mode():
            if family.predicts == "text":
                answers = generated(model, batches.prompts(batch))
            else:
                answers = model(**batches.inputs(batch))["logits"].float()
        found |= dict(zip(rows, family.predictions(answers.cpu(), batch, tokenizer), strict=True))
        progress(len(rows))
    return [found[row] for row in range(len(dataset))]


def read_answers(
    family: Family,
    tokenizer: PreTrainedTokenizerBase,
    dataset: datasets.Dataset,
    collate: Callable[[list[dict[str, Any]]], Batch],
    answers: NDArray[Any],
) -> list[dict[str, Any]]:
    """Return what answers that are there already say, for every row of an encoded dataset.

    Args:
        family: What the answers are of; it predicts what it validates.
        tokenizer: What the rows were encoded by.
        dataset: The rows.
        collate: Makes a batch of rows.
        answers: Logits, or generated ids that are filled up with negative numbers; rows are their first dimension.
    """
    import numpy as np
    import torch

    training = family.experiment.training
    batch_size = training.eval_batch_size or training.batch_size
    if family.predicts == "text":
        answers = np.where(answers < 0, int(tokenizer.pad_token_id or 0), answers)
    found = []
    for start in range(0, len(dataset), batch_size):
        rows = range(start, min(start + batch_size, len(dataset)))
        batch = collate([dataset[row] for row in rows])
        found += family.predictions(torch.from_numpy(answers[rows.start : rows.stop]), batch, tokenizer)
    return found


def generated(model: PreTrainedModel, prompts: Batch, **options: Any) -> torch.Tensor:
    """Return the ids that a model generates after prompts, shape (rows, length), as its ``generation_config`` says.

    A decoder-only model gives the prompt back with what it generates; that is cut off.
    """
    ids: torch.Tensor = model.generate(**prompts, **options)
    return ids if model.config.is_encoder_decoder else ids[:, prompts["input_ids"].shape[1] :]


def predict_file(
    runs: Sequence[Path],
    source: str,
    output: Path,
    *,
    overrides: Sequence[str] = (),
    force: bool = False,
    profile: Profile,
    progress: Callable[[int, int], None],
    notify: Notify,
) -> dict[str, Any]:
    """Predict the rows of a table with the models of runs, and write them in the table's order.

    Args:
        runs: Folders of runs of one family, or files of their weights; several, such as the folds of a
            cross-validation, predict together.
        source: Table with the family's input columns, and ids if it has them.
        output: File to write: the id column under its own name, then the family's predictions. Rows that are skipped
            stand there with their ids and without a prediction.
        overrides: ``data.key=value`` texts of how the table is read, over what the run was trained with.
        force: Whether a file that is there is replaced.
        profile: The machine.
        progress: Gets rows done and rows in all, over all models.
        notify: Gets one-line messages.

    Returns:
        ``rows`` (predicted ones), ``skipped``, ``output`` and ``models``.

    Raises:
        UserError: A folder holds no finished run, the table is not what the family needs, the output cannot be
            written or is there, or the family's predictions cannot be put together.
    """
    check_files(runs, source, output, overrides=overrides, force=force)
    origins = [weights_at(run) for run in runs]
    parts = []
    for place, origin in enumerate(origins):

        def advance(rows: int, total: int, before: int = place) -> None:
            progress(before * total + rows, len(runs) * total)

        # What is told of the table is told once.
        roles, table, family, predictions = _predicted(
            origin, source, overrides, profile, advance, notify if place == 0 else lambda message: None
        )
        parts.append(predictions)
    predictions = parts[0] if len(parts) == 1 else family.combine(parts)
    ids = {role.name: role.column for role in roles if role.is_id and role.name in table.dataset.column_names}
    write_rows(output, [*ids.values(), *predictions[0]], _with_left_out(table, list(ids), predictions))
    return {
        "rows": len(predictions),
        "skipped": len(table.left_out),
        "output": str(output),
        "models": [str(each.file or RunFolder(each.run).final_model) for each in origins],
    }


def check_files(
    runs: Sequence[Path], source: str, output: Path, *, overrides: Sequence[str] = (), force: bool = False
) -> None:
    """Check what :func:`predict_file` is given as far as that is known without a model, and without importing torch.

    Raises:
        UserError: A folder holds no finished run, there is no such table, or the output cannot be written or is there.
    """
    check_reading(overrides, with_columns=True)
    for run in runs:
        weights_at(run)
    files = files_of(source)
    if output.exists() and any(output.samefile(file) for file in files):
        raise UserError(
            "this is the table to predict, which would be lost",
            where=f"--output {output}",
            hint="another file",
        )
    check_output(output, force=force)


def _with_left_out(
    table: Table, ids: Sequence[str], predictions: Sequence[Mapping[str, Any]]
) -> Iterator[list[Any]]:
    """Give every row of a table to predict in the order of its files: its ids and what was predicted, or nothing."""
    places, columns = table.row_places(), [table.dataset[role][:] for role in ids]
    nothing = [None] * len(predictions[0])
    left_out = deque(table.left_out)
    for row, prediction in enumerate(predictions):
        while left_out and left_out[0].place < places[row]:
            each = left_out.popleft()
            yield [*(each.ids.get(role, "") for role in ids), *nothing]
        yield [*(column[row] for column in columns), *prediction.values()]
    for each in left_out:
        yield [*(each.ids.get(role, "") for role in ids), *nothing]


def _predicted(
    origin: RunWeights,
    source: str,
    overrides: Sequence[str],
    profile: Profile,
    advance: Callable[[int, int], None],
    notify: Notify,
) -> tuple[Sequence[Role], Table, Family, list[dict[str, Any]]]:
    import torch

    family = origin.family(notify, overrides)
    data = family.experiment.data
    roles = roles_to_predict(family.roles, data.columns, columns_of(source, data), notify)
    table = read_table(
        source,
        roles,
        {name: column for name, column in data.columns.items() if not _is_id(name, roles)},
        for_prediction=True,
        reading=data,
        cache_folder=cache_folder(),
    )
    for message in table.messages():
        notify(message)
    if origin.file is not None:
        notify(f"predicting with {origin.words}")
    model, tokenizer = origin.read(family, profile, notify)
    model.to(torch.device(profile.device))
    encoded = encode_split(family, tokenizer, table, notify=notify).dataset
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        advance(done, len(encoded))

    return roles, table, family, predict_rows(family, model, tokenizer, encoded, progress=count)


def _is_id(name: str, roles: Sequence[Role]) -> bool:
    """Return whether a role is an id, whose column :func:`roles_to_predict` has settled."""
    return any(role.is_id for role in roles if role.name == name)


def write_predictions(
    path: Path,
    family: Family,
    tested: Tested,
    predictions: Sequence[Mapping[str, Any]],
    losses: Sequence[float] | None,
) -> None:
    """Write what a model makes of the rows that its result is reported on, as CSV with what is true of them.

    The columns are ``row`` (number in the checked table, from 0), the roles of the family that the table has, what the
    family predicts (``probability_…`` as it is, everything else as ``predicted_…``), and what every row adds to metrics
    that are means over rows (``score_…``; empty where that is not finite).

    Args:
        path: File to write, whole or not at all.
        family: The model's family.
        tested: The rows.
        predictions: What the family says of them; nothing where it validates by the loss alone.
        losses: What each row adds to the loss.
    """
    dataset = tested.table.dataset
    rows = {role.name: dataset[role.name][:] for role in family.roles if role.name in dataset.column_names}
    columns: dict[str, Sequence[Any]] = {ROW: tested.numbers.tolist(), **rows}
    for name in predictions[0] if predictions else ():
        heading = name if name.startswith(PROBABILITY) else f"{PREDICTED}{name}"
        columns[heading] = [prediction[name] for prediction in predictions]
    scores = dict(family.row_scores(predictions, rows)) if predictions else {}
    if losses is not None:
        scores["loss"] = losses
    for name, values in scores.items():
        columns[f"{SCORE}{name}"] = [value if math.isfinite(value) else None for value in values]
    write_rows(path, list(columns), zip(*columns.values(), strict=True))
