"""Models that stay in memory and predict what is asked of them, as ``dure predict`` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.config.schema import Profile
from dure.errors import UserError
from dure.events import Notify
from dure.family import Family
from dure.family.run_weights import weights_at

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from dure.data.collating import Batches

Row = Mapping[str, str]
"""Role → text."""


@dataclass(frozen=True)
class Answer:
    """What is predicted of the rows of a request.

    The family's output columns, row by row, and the places from 0 of the rows that lost text.
    """

    predictions: list[dict[str, Any]]
    truncated: list[int]


@dataclass(frozen=True)
class _Loaded:
    """A model with what predicts by it."""

    family: Family
    model: Any
    tokenizer: PreTrainedTokenizerBase
    batches: Batches


class Predictor:
    """The models of runs, loaded once; several, such as the folds of a cross-validation, predict together.

    Raises:
        UserError: A folder holds no model, or one that is broken.
    """

    def __init__(self, runs: Sequence[Path], profile: Profile, batch_size: int, notify: Notify) -> None:
        import torch

        self._models: list[_Loaded] = []
        self._batch_size = batch_size
        for run in runs:
            weights = weights_at(run)
            family = weights.family(notify)
            model, tokenizer = weights.read(family, profile, notify)
            model.to(torch.device(profile.device)).eval()
            self._models.append(_Loaded(family, model, tokenizer, family.batches(tokenizer, model)))

    def predict(self, requests: Sequence[Sequence[Row]]) -> list[Answer | UserError]:
        """Predict the rows of several requests together; what one of them cannot have is its answer alone.

        Rows were checked as those of a table are.
        """
        parts = [self._predicted_by(each, requests) for each in self._models]
        answers: list[Answer | UserError] = []
        for each in zip(*parts, strict=True):
            if (error := next((part for part in each if isinstance(part, UserError)), None)) is not None:
                answers.append(error)
                continue
            found = [part for part in each if isinstance(part, Answer)]
            together = [part.predictions for part in found]
            answers.append(
                Answer(
                    together[0] if len(found) == 1 else self._models[0].family.combine(together),
                    sorted({place for part in found for place in part.truncated}),
                )
            )
        return answers

    def _predicted_by(self, loaded: _Loaded, requests: Sequence[Sequence[Row]]) -> list[Answer | UserError]:
        """Return what one model makes of requests."""
        answers: list[Answer | UserError] = []
        waiting: list[tuple[dict[str, Any], list[dict[str, Any]], int]] = []
        for rows in requests:
            try:
                features = _encoded(loaded, rows)
            except UserError as error:
                answers.append(error)
                continue
            cut = [place for place, is_cut in enumerate(features["truncated"]) if is_cut]
            answer = Answer([{}] * len(rows), cut)
            answers.append(answer)
            for place, values in enumerate(zip(*features.values(), strict=True)):
                waiting.append((dict(zip(features, values, strict=True)), answer.predictions, place))
        _predict_all(loaded, waiting, self._batch_size)
        return answers


def _encoded(loaded: _Loaded, rows: Sequence[Row]) -> dict[str, list[Any]]:
    from functools import partial

    from dure.data.encoding import encode_rows

    return encode_rows(
        {role: [row[role] for row in rows] for role in rows[0]},
        partial(loaded.family.encode, tokenizer=loaded.tokenizer),
        tokenizer=loaded.tokenizer,
        max_unknown_rate=loaded.family.experiment.tokenizer.max_unknown_rate,
        source="texts",
    )


def _predict_all(
    loaded: _Loaded, waiting: Sequence[tuple[dict[str, Any], list[dict[str, Any]], int]], size: int
) -> None:
    """Predict encoded rows, the longest first, and put what is predicted of each into its place."""
    from dure.data.batching import length_order
    from dure.family.predicting import predict_batch

    order = length_order([row["length"] for row, _, _ in waiting])
    for start in range(0, len(order), size):
        chosen = [waiting[number] for number in order[start : start + size]]
        found = predict_batch(
            loaded.family, loaded.model, loaded.tokenizer, loaded.batches, [row for row, _, _ in chosen]
        )
        for (_, predictions, place), prediction in zip(chosen, found, strict=True):
            predictions[place] = prediction
