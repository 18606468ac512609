"""The losses of a model's modules over the epochs, as a run recorded them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dure.errors import UserError
from dure.files import read_json_lines
from dure.training.records import RunFolder

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


def series_of(folder: Path, modules: Iterable[str]) -> dict[str, list[Point]]:
    """Read the losses of a run's modules from its ``metrics.jsonl``.

    A module whose name has that of a task as a word, such as ``heads.regret`` or ``regret_analyser``, has the losses
    of that task (``eval_loss_regret``, ``loss_regret``); every other one those of the whole model. Only losses are
    read. A validation in the middle of an epoch is of weights that no epoch file holds, and is left out.

    Args:
        folder: Folder of the run.
        modules: Names of its modules.

    Returns:
        Module → its series, in the order of ``modules``.

    Raises:
        UserError: The run recorded no validation at the end of an epoch.
    """
    path = RunFolder(folder).metrics
    evals: dict[int, Mapping[str, Any]] = {}
    trains: dict[int, list[Mapping[str, Any]]] = {}
    for record in read_json_lines(path):
        epoch = float(record["epoch"])
        if record["kind"] == "train":
            trains.setdefault(max(1, math.ceil(epoch - _END_OF_EPOCH)), []).append(record)
        elif LOSS in record and round(epoch) > 0 and abs(epoch - round(epoch)) <= _END_OF_EPOCH:
            evals[round(epoch)] = record
    if not evals:
        raise UserError(
            "no validation at the end of an epoch is recorded",
            where=str(path),
            expected="records with eval_loss; training.eval_every decides when validation comes",
        )
    tasks = {
        key.removeprefix(f"{LOSS}_")
        for record in evals.values()
        for key in record
        if key.startswith(f"{LOSS}_")
    }
    return {module: _one_series(evals, trains, _task_of(module, tasks)) for module in modules}


def _one_series(
    evals: Mapping[int, Mapping[str, Any]],
    trains: Mapping[int, Sequence[Mapping[str, Any]]],
    task: str | None,
) -> list[Point]:
    suffix = "" if task is None else f"_{task}"
    records = []
    for epoch, record in evals.items():
        losses = [value for each in trains.get(epoch, ()) if (value := each.get(f"loss{suffix}")) is not None]
        # A validation without the task's loss says nothing of the task; null is a loss that was not finite.
        if LOSS + suffix in record:
            train = sum(losses) / len(losses) if losses else None
            records.append({"epoch": epoch, "train_loss": train, "eval_loss": record[LOSS + suffix]})
    return points_of(records)


def _task_of(module: str, tasks: Iterable[str]) -> str | None:
    """Return the task whose name is a word of the module's; the longest one when there are several."""
    found = [task for task in tasks if re.search(rf"(^|[._-]){re.escape(task)}($|[._-])", module)]
    return max(found, key=len, default=None)
