"""The losses of a model's modules over the epochs, as a run recorded them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from dure.errors import UserError
from dure.files import json_lines
from dure.runs.folder import RunFolder

LOSS = "eval_loss"
_END_OF_EPOCH = 0.02
"""How far from a whole number an epoch may end, in epochs; a last step of fewer batches is counted as a part."""


class Point(NamedTuple):
    """One epoch of a module."""

    epoch: int
    """Counted from 1, as in the names of epoch files."""
    train_loss: float | None
    """Mean training loss of the epoch; None when it was not recorded."""
    eval_loss: float
    """Validation loss after the epoch; NaN when it was not finite."""


Series = Sequence[Point]
"""Epochs that were validated, in their order; some may be missing."""


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
    trains: dict[int, dict[str, list[float]]] = {}
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
                    means.setdefault(name, []).append(value)
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
    evals: Mapping[int, Mapping[str, Any]], trains: Mapping[int, Mapping[str, list[float]]], name: str
) -> list[Point]:
    points = []
    for epoch, record in sorted(evals.items()):
        # A record without the loss says nothing of it; null is a loss that was not finite.
        if name in record:
            train = trains.get(epoch, {}).get(name.removeprefix("eval_"))
            mean = None if train is None else sum(train) / len(train)
            loss = math.nan if record[name] is None else float(record[name])
            points.append(Point(epoch, mean, loss))
    return points
