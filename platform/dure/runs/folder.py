"""The record of a run: what its folder holds, written so that a reader never sees half of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from dure.errors import RunError, UserError
from dure.files import read_json, write_json
from dure.metrics.targets import Reached

RUN_RECORD = "experiment.yaml"
"""What is written first into the folder of a run."""
STUDY_FILE = "study.yaml"
"""What a study is, in its folder."""
EVENTS_FILE = "events.jsonl"
"""What a run or study said while it went on, in its folder."""
CROSSOVER_FILE = "crossover_final.pth"
"""Weights that won a crossover: those of the modules' best epochs, or of the baseline that beat them."""
ROW = "row"
"""Column of ``predictions.csv``: number of the row in the checked table that it comes from, from 0."""
PREDICTED = "predicted_"
"""What the columns of ``predictions.csv`` begin with that hold predictions, but for probabilities."""
PROBABILITY = "probability_"
"""What the columns of predictions begin with that hold the probability of a class."""
SCORE = "score_"
"""What the columns of ``predictions.csv`` begin with that hold what a row adds to a metric, which is their mean."""

RunState = Literal["completed", "stopped", "diverged", "failed", "interrupted"]


@dataclass(frozen=True)
class RunResult:
    """How a run ended; ``result.json`` of its folder."""

    name: str
    """Name of the experiment."""
    state: RunState
    """``completed`` (also after early stopping), ``stopped`` (by its study, before its time), ``diverged``, ``failed``
    or ``interrupted``.
    """
    metrics: dict[str, float | int | str] = field(default_factory=dict)
    """Metrics of the best checkpoint, and figures of the run, by name."""
    best_checkpoint: str | None = None
    """Folder of the best checkpoint, relative to the run's folder."""
    final_model_path: str | None = None
    """Folder of the final model, relative to the run's folder."""
    seconds: float = 0.0
    """Wall time of training and validation, over all resumptions."""
    error: str | None = None
    """What went wrong, in one line, when it failed."""
    best_metric: str | None = None
    """What chose the best checkpoint."""
    definitions: dict[str, dict[str, str | None]] = field(default_factory=dict)
    """Direction and unit of the metrics of its family, by name."""
    targets: tuple[Reached, ...] = ()
    """What the experiment was to reach, beside what its best checkpoint has."""
    forecast: dict[str, Any] | None = None
    """What was forecast at the start of memory, time and cost, to be compared with what came."""

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON-ready data."""
        return asdict(self) | {"targets": [asdict(each) for each in self.targets]}


_KINDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("packages", "profile", "data", "split", "recognised"), (dict,)),
    "git": (dict, type(None)),
    "memory_mb": (int,),
}
"""What the entries of a record of an environment are that are more than words."""


@cache
def _results() -> TypeAdapter[RunResult]:
    return TypeAdapter(RunResult)


def finite(metrics: Mapping[str, float | int | str]) -> dict[str, float | int | str]:
    """Return what JSON can hold of metrics: neither NaN nor infinity."""
    return {
        key: value for key, value in metrics.items() if not isinstance(value, float) or math.isfinite(value)
    }


class RunFolder:
    """Names and contents of one run's folder.

    A report, a resumption or a prediction needs this folder and nothing else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.experiment = path / RUN_RECORD
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.jsonl"
        self.events = path / EVENTS_FILE
        self.result = path / "result.json"
        self.log = path / "run.log"
        self.final_model = path / "final_model"
        self.predictions = path / "predictions.csv"
        self.dev_losses = path / "dev_losses.json"
        self.checkpoints = path

    def epoch_file(self, epoch: int, learning_rate: float) -> Path:
        """Return the file that the weights of an epoch are kept in."""
        return self.checkpoints / f"epoch_{epoch}.pt"

    def read_environment(self) -> dict[str, Any]:
        """Return what the run ran on; nothing of one that ended before it was known.

        Raises:
            UserError: ``environment.json`` is not what dure writes.
        """
        if not self.environment.is_file():
            return {}
        hint = "put a copy back, or remove it: what the training table decided is then as the experiment says"
        kept = read_json(self.environment, what="record of an environment", hint=hint)
        for key, kinds in _KINDS.items():
            if key in kept and not isinstance(kept[key], kinds):
                raise UserError(
                    f"this is no record of an environment ('{key}' is {type(kept[key]).__name__})",
                    where=str(self.environment),
                    hint=hint,
                )
        return kept

    def read_result(self) -> RunResult | None:
        """Return the result, or None when the run has not ended.

        Raises:
            UserError: ``result.json`` is not what dure writes.
        """
        if not self.result.exists():
            return None
        hint = "remove it and run again"
        values = read_json(self.result, what="result of a run", hint=hint)
        try:
            return _results().validate_python(values, extra="forbid")
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            raise UserError(
                f"this is no result of a run ('{key}': {first['msg']})", where=str(self.result), hint=hint
            ) from None

    def write_result(self, result: RunResult) -> None:
        """Write the result, whole or not at all."""
        write_json(self.result, result.as_dict())


class UnifiedFolder(RunFolder):
    """The folder of a unified training, whose epochs are kept by name of epoch, learning rate and time."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
        self.log = path / "logs" / f"training_{self._stamp}.log"
        self.checkpoints = path / "checkpoints_final"
        self.metadata = self.checkpoints / "metadata.json"
        self.crossover = self.checkpoints / CROSSOVER_FILE

    def epoch_file(self, epoch: int, learning_rate: float) -> Path:
        """Return the file of an epoch, such as ``checkpoint_epoch_0002_lr_0.000100_20261120_093000.pt``."""
        return self.checkpoints / f"checkpoint_epoch_{epoch:04d}_lr_{learning_rate:.6f}_{self._stamp}.pt"


class StageFolder(RunFolder):
    """The folder of a run that is a stage of a longer training: its checkpoints and logs have folders of their own."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
        self.log = path / "logs" / f"{path.name}_{stamp}.log"
        self.checkpoints = path / "checkpoints"
        self.training_metrics = path / "training_metrics.json"

    def read_training_metrics(self) -> dict[str, Any] | None:
        """Return what the finished stage was and reached, or None while it is not finished.

        Raises:
            UserError: ``training_metrics.json`` is not what dure writes.
        """
        if not self.training_metrics.is_file():
            return None
        return read_json(
            self.training_metrics, what="record of a stage", hint="remove it, and the stage is trained again"
        )


def move_aside(paths: Iterable[Path], folder: Path) -> Path:
    """Move what is there of some paths into a new folder of another one, ``replaced_<time>``, and return that."""
    aside = folder / f"replaced_{datetime.now():%Y%m%d_%H%M%S}"
    aside.mkdir()
    for path in paths:
        if path.exists():
            path.rename(aside / path.name)
    return aside


def vanished(folder: Path) -> RunError:
    """Return the error of a run or study whose folder was removed, or moved away, while it went on."""
    return RunError(
        f"{folder} was removed while this command worked in it, so its record is incomplete; remove what is there and "
        "run again"
    )


def folder_at(path: Path) -> RunFolder:
    """Return the names in a run's folder, whichever kind of run it is of."""
    kinds: tuple[RunFolder, ...] = (UnifiedFolder(path), StageFolder(path))
    return next((each for each in kinds if each.checkpoints.is_dir()), RunFolder(path))
