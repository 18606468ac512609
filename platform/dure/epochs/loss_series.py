"""The losses of a model's modules over the epochs, as a run recorded them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from dure.errors import UserError
from dure.files import json_lines
from dure.runs.folder import RunFolder

LOSS = "eval_loss"
_FIELDS = {"epoch", "train_loss", "eval_loss"}
_END_OF_EPOCH = 0.02
"""How far from a whole number an epoch may end, in epochs; a last step of fewer batches is counted as a part."""


class Point(NamedTuple):
    """One epoch of a module.

    Attributes:
        epoch: Counted from 1, as in the names of epoch files.
        train_loss: Mean training loss of the epoch; None when it was not recorded.
        eval_loss: Validation loss after the epoch; NaN when it was not finite.
    """

    epoch: int
    train_loss: float | None
    eval_loss: float


@dataclass
class _Mean:
    """The sum of an epoch's losses and their number: the records of a long run are many."""

    total: float = 0.0
    count: int = 0

    def add(self, loss: float) -> None:
        self.total += loss
        self.count += 1


Series = Sequence[Point]
"""Epochs that were validated, in their order; some may be missing."""


def points_of(records: Iterable[Mapping[str, Any]]) -> list[Point]:
    """Turn records ``{epoch, train_loss, eval_loss}`` into a series.

    Raises:
        ValueError: A record has other fields, such as an accuracy; or an epoch comes twice.
    """
    points = []
    for record in records:
        if not record.keys() <= _FIELDS or "epoch" not in record or LOSS not in record:
            raise ValueError(
                f"a record has the fields {sorted(record)}; it must have {sorted(_FIELDS)}, all losses"
            )
        train, loss = record.get("train_loss"), record[LOSS]
        points.append(
            Point(
                int(record["epoch"]),
                float(train) if train is not None and math.isfinite(train) else None,
                math.nan if loss is None else float(loss),
            )
        )
    points.sort()
    if len({point.epoch for point in points}) < len(points):
        raise ValueError(f"an epoch comes twice in {[point.epoch for point in points]}")
    return points


def series_of(
    folder: Path, modules: Iterable[str], losses: Mapping[str, str] = MappingProxyType({})
) -> dict[str, list[Point]]:
    """Read the losses of a run's modules from its ``metrics.jsonl``.

    Only losses are read. A validation in the middle of an epoch is of weights that no epoch file holds, and is left out.

    Args:
        folder: Folder of the run.
        modules: Names of its modules.
        losses: Module → the validation loss that it is judged by, such as ``eval_loss_regret``, with the training loss
            ``loss_regret`` beside it; ``eval_loss`` for modules that are not named.

    Returns:
        Module → its series, in the order of ``modules``.

    Raises:
        UserError: A record is none of a run, or a loss was never recorded at the end of an epoch.
        ValueError: What a module is to be judged by is no validation loss.
    """
    path = RunFolder(folder).metrics
    evals: dict[int, Mapping[str, Any]] = {}
    trains: dict[int, dict[str, _Mean]] = {}
    for number, record in enumerate(json_lines(path), start=1):
        kind, epoch = record.get("kind"), record.get("epoch")
        if not isinstance(kind, str) or isinstance(epoch, bool) or not isinstance(epoch, int | float):
            raise UserError(
                "this is no record of a run: it lacks its kind or its epoch", where=f"{path}, record {number}"
            )
        if kind == "train":
            means = trains.setdefault(max(1, math.ceil(epoch - _END_OF_EPOCH)), {})
            for name, value in record.items():
                if name.startswith("loss") and value is not None:
                    means.setdefault(name, _Mean()).add(value)
        elif round(epoch) > 0 and abs(epoch - round(epoch)) <= _END_OF_EPOCH:
            # A test comes after the last epoch, without the losses of validation.
            evals[round(epoch)] = {**evals.get(round(epoch), {}), **record}
    series = {}
    for module in modules:
        name = losses.get(module, LOSS)
        if name != LOSS and not name.startswith(f"{LOSS}_"):
            raise ValueError(f"{module} is to be judged by {name}, which is no validation loss")
        series[module] = _one_series(evals, trains, name)
        if not series[module]:
            raise UserError(
                f"{name} was never recorded at the end of an epoch",
                where=str(path),
                expected=f"records of validation with {name}; training.eval_every says when validation comes",
            )
    return series


def _one_series(
    evals: Mapping[int, Mapping[str, Any]], trains: Mapping[int, Mapping[str, _Mean]], name: str
) -> list[Point]:
    records = []
    for epoch, record in evals.items():
        train = trains.get(epoch, {}).get(name.removeprefix("eval_"))
        # A record without the loss says nothing of it; null is a loss that was not finite.
        if name in record:
            mean = None if train is None else train.total / train.count
            records.append({"epoch": epoch, "train_loss": mean, "eval_loss": record[name]})
    return points_of(records)
