"""Models that stay in memory and predict what is asked of them, as ``dure predict`` does."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.config.families import trusting
from dure.config.schema import Profile
from dure.errors import DureError, UserError
from dure.events import Notify
from dure.family import Family
from dure.family.predicting import predict_rows
from dure.family.run_weights import weights_at

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from dure.data.collating import Batches

logger = logging.getLogger(__name__)

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
        encoded: list[dict[str, list[Any]] | UserError] = []
        for rows in requests:
            try:
                encoded.append(self._encoded(loaded, rows))
            except UserError as error:
                encoded.append(error)
        found = iter(
            predict_rows(
                loaded.family,
                loaded.model,
                loaded.tokenizer,
                [
                    dict(zip(each, values, strict=True))
                    for each in encoded
                    if not isinstance(each, UserError)
                    for values in zip(*each.values(), strict=True)
                ],
                batches=loaded.batches,
                batch_size=self._batch_size,
            )
        )
        return [
            each
            if isinstance(each, UserError)
            else Answer(
                list(islice(found, len(each["truncated"]))),
                [place for place, is_cut in enumerate(each["truncated"]) if is_cut],
            )
            for each in encoded
        ]

    @staticmethod
    def _encoded(loaded: _Loaded, rows: Sequence[Row]) -> dict[str, list[Any]]:
        from dure.data.encoding import encode_rows

        return encode_rows(
            {role: [row[role] for row in rows] for role in rows[0]},
            partial(loaded.family.encode, tokenizer=loaded.tokenizer),
            tokenizer=loaded.tokenizer,
            max_unknown_rate=loaded.family.experiment.tokenizer.max_unknown_rate,
            source="texts",
        )


class Replica:
    """What Ray Serve runs several of: the models of runs in a process of their own, which predicts batch after batch.

    Ray Serve would start a replica whose constructor raises again and again, and report the reason as a traceback; so a
    model that cannot be loaded is remembered here, for :meth:`loaded` to report. ``folder`` is the working folder of
    the command, where the user's own modules lie.
    """

    def __init__(
        self, runs: Sequence[str], profile: Profile, batch_size: int, trust_code: bool, folder: str
    ) -> None:
        self._error: DureError | None = None
        self._id = uuid.uuid4().hex
        if Path(folder).is_dir():
            os.chdir(folder)
        try:
            with trusting(trust_code):
                self._predictor = Predictor([Path(run) for run in runs], profile, batch_size, logger.info)
        except DureError as error:
            self._error = error

    def loaded(self) -> tuple[str, DureError | None]:
        """Return what tells this replica from the others, and why the models could not be loaded, or None when they are."""
        return self._id, self._error

    def predict(self, requests: Sequence[Sequence[Row]]) -> list[Answer | UserError]:
        """Predict the rows of several requests in one batch.

        Raises:
            DureError: This replica could not load the models, as when the folder was removed meanwhile.
        """
        if self._error is not None:
            raise self._error
        return self._predictor.predict(requests)
