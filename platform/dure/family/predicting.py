"""Predicting rows with final models: those of a table, or those that a run's result is reported on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.config.loading import load_experiment
from dure.config.schema import Profile
from dure.config.tree import is_torn
from dure.data.tables import Table, table_from_rows
from dure.data.writing import write_rows
from dure.errors import UserError, typed_path
from dure.events import Notify, silent
from dure.family import Family, Role, load_family
from dure.family.corpus import ChosenRows, cache_folder, encode_split
from dure.family.run_weights import weights_at
from dure.runs.folder import PREDICTED, PROBABILITY, ROW, SCORE, RunFolder

if TYPE_CHECKING:
    import datasets
    import torch
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dure.data.collating import Batch, Batches


@dataclass(frozen=True)
class Reported:
    """What a model makes of the rows that its result is reported on."""

    metrics: Mapping[str, float]
    """Figures over all rows; names begin with ``test_``."""
    answers: NDArray[Any] | None
    """What the family ``validates``, row by row in the order of the rows: logits, or generated ids; None of a family
    that validates by the loss alone."""
    losses: Sequence[float] | None
    """What each row adds to the loss, which is the mean of them; None when the rows have no targets."""


def predict_rows(
    family: Family,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: datasets.Dataset | list[dict[str, Any]],
    *,
    batches: Batches | None = None,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> list[dict[str, Any]]:
    """Predict encoded rows, in their order; longest rows first, so that batches pad little.

    ``progress`` gets the number of rows of every batch when it is done. Batches are as the family makes them and as large
    as those of validation, where nothing else is given.
    """
    from dure.data.batching import length_order

    size = batch_size or family.experiment.training.rows_evaluated
    lengths = [row["length"] for row in rows] if isinstance(rows, list) else rows["length"][:]
    order = length_order(lengths)
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    batches = batches or family.batches(tokenizer, model)
    found: dict[int, dict[str, Any]] = {}
    model.eval()
    asked = (batches.collate([rows[row] for row in group]) for group in groups)
    for group, predictions in zip(groups, _predicted(family, model, tokenizer, batches, asked), strict=True):
        found |= dict(zip(group, predictions, strict=True))
        progress(len(group))
    return [found[row] for row in range(len(rows))]


def _predicted(
    family: Family,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batches: Batches,
    asked: Iterator[Batch],
) -> Iterator[list[dict[str, Any]]]:
    import torch

    from dure.data.collating import moved

    here = (moved(batch, model.device) for batch in asked)

    def logits(batch: Batch) -> torch.Tensor:
        with torch.inference_mode():
            found: torch.Tensor = model(**batches.inputs(batch))["logits"].float()
        return found

    if family.predicts == "text":
        answered = generated_all(model, here, batches.prompts, torch.inference_mode)
    else:
        answered = ((batch, logits(batch)) for batch in here)
    for batch, answers in answered:
        yield family.predictions(answers.cpu(), batch, tokenizer)


def read_answers(
    family: Family,
    tokenizer: PreTrainedTokenizerBase,
    dataset: datasets.Dataset,
    collate: Callable[[list[dict[str, Any]]], Batch],
    answers: NDArray[Any],
) -> list[dict[str, Any]]:
    """Return what answers that are there already say, for every row of an encoded dataset.

    Answers are logits, or generated ids that are filled up with negative numbers; rows are their first dimension.
    """
    import numpy as np
    import torch

    batch_size = family.experiment.training.rows_evaluated
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
    ((_, ids),) = generated_all(model, [prompts], lambda asked: asked | options)
    return ids


def generated_all(
    model: PreTrainedModel, batches: Iterable[Batch], asks: Callable[[Batch], Batch], *within: Any
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """Give each batch with the ids that a model generates for it; as ``dure.modeling.decoding.generate_all`` says."""
    from dure.modeling.decoding import generate_all

    is_whole = model.config.is_encoder_decoder
    for batch, ids in generate_all(model, batches, asks, *within):
        yield batch, ids if is_whole else ids[:, asks(batch)["input_ids"].shape[1] :]


def predict_texts(
    runs: Sequence[Path],
    texts: Iterable[str | Mapping[str, str]],
    *,
    profile: Profile,
    progress: Callable[[int, int], None],
    notify: Notify,
) -> list[dict[str, Any]]:
    """Predict texts with the final models of runs, and return what is predicted of each, in their order.

    Several runs, of one family, predict together. A row is a text; for families that read several, a mapping from role
    to text. ``progress`` gets rows done and rows in all, over all models.

    Raises:
        UserError: A folder holds no finished run, there is no text, or the family reads several texts in a row.
    """
    import torch

    origins = [weights_at(run) for run in runs]
    texts = _given_texts(texts)
    done, parts = 0, []

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        progress(done, len(runs) * len(texts))

    for place, origin in enumerate(origins):
        heard = notify if place == 0 else silent
        if origin.file is not None:
            heard(f"predicting with {origin.words}")
        family = origin.family(notify)
        table = _table_of_texts(family, texts)
        model, tokenizer = origin.read(family, profile, heard)
        model.to(torch.device(profile.device))
        encoded = encode_split(family, tokenizer, table, notify=heard)
        parts.append(predict_rows(family, model, tokenizer, encoded, progress=count))
    return parts[0] if len(parts) == 1 else family.combine(parts)


def _given_texts(texts: Iterable[str | Mapping[str, str]]) -> list[str | Mapping[str, str]]:
    if isinstance(texts, Mapping | bytes) or hasattr(texts, "columns") or not isinstance(texts, Iterable):
        raise UserError(
            f"a {type(texts).__name__} is no list of texts",
            where="what is to be predicted",
            expected='texts such as ["문장"], rows such as [{"text": "문장"}], or the path of a table',
            hint='DataFrame.to_dict("records") gives such rows' if hasattr(texts, "columns") else None,
        )
    found = [*texts]
    if not found:
        raise UserError("there is no text to predict", expected="a text at least")
    for number, given in enumerate(found, start=1):
        said = given.values() if isinstance(given, Mapping) else [given]
        for text in said:
            if not isinstance(text, str) or is_torn(text):
                raise UserError(
                    f"{text!r} is no text"[:200], where=f"text {number}", expected="letters, as str has them"
                )
    return found


def predict_command(folder: Path, run: Path) -> str:
    """Return how models predict, as a command: a text, or a table where a row has several texts."""
    family = load_family(load_experiment(str(RunFolder(run).experiment)))
    what = "TABLE -o FILE" if len(_needed(family)) > 1 else '--text "…"'
    return f"dure predict {typed_path(folder)} {what}"


def _needed(family: Family) -> list[Role]:
    """Return the texts that every row has."""
    inputs = [role for role in family.roles if role.is_input]
    return [role for role in inputs if role.required] or inputs[:1]


def _table_of_texts(family: Family, texts: Sequence[str | Mapping[str, str]]) -> Table:
    inputs, needed = [role for role in family.roles if role.is_input], _needed(family)
    rows = []
    for number, text in enumerate(texts, start=1):
        if isinstance(text, str) and len(needed) > 1:
            raise UserError(
                f"a row of {family.experiment.family} has {len(needed)} texts: "
                f"{', '.join(role.name for role in needed)}",
                where=f"text {number}",
                expected="a table, or from Python a mapping with these keys for every row",
                hint="dure predict RUN TABLE -o FILE",
            )
        row = {needed[0].name: needed[0].given(text)} if isinstance(text, str) else dict(text)
        if strange := sorted(row.keys() - {role.name for role in inputs}):
            raise UserError(
                f"'{strange[0]}' is no text that {family.experiment.family} reads",
                where=f"text {number}",
                expected=f"keys {', '.join(role.name for role in inputs)}",
            )
        rows.append(row)
    return table_from_rows(rows, "the texts", inputs, cache_folder(), family.experiment.data)


def write_predictions(
    path: Path,
    family: Family,
    tested: ChosenRows,
    predictions: Sequence[Mapping[str, Any]],
    losses: Sequence[float] | None,
) -> None:
    """Write what a model makes of the rows that its result is reported on, as CSV with what is true of them.

    The columns are ``row`` (number in the checked table, from 0), the roles of the family that the table has, what the
    family predicts (``probability_…`` as it is, everything else as ``predicted_…``), and what every row adds to metrics
    that are means over rows (``score_…``; empty where that is not finite). The file appears whole or not at all.
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
