"""Recording a run: every number to ``metrics.jsonl`` and to the listeners, and what the records say in the end."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from transformers import TrainerCallback

from dure.config.schema import Experiment
from dure.errors import RunError
from dure.events import RunListener, RunProgress
from dure.files import append_json_line, json_lines, written_beside
from dure.metrics.metric import UNTRAINED, under
from dure.metrics.targets import Target
from dure.modeling.precision import Precision
from dure.reporting.targets import target_line
from dure.runs.disk import DiskRoom
from dure.runs.folder import vanished

logger = logging.getLogger(__name__)

_NOT_METRICS = ("epoch", "total_flos", "step", "model_preparation_time")


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Turns the trainer's logs into records and events, on the main worker.

    Other workers only serve listeners that want every worker. Targets are reported after every validation.
    """

    def __init__(
        self,
        path: Path,
        listeners: Sequence[RunListener],
        *,
        is_main: bool,
        room: DiskRoom,
        targets: Sequence[Target] = (),
    ) -> None:
        self._targets = targets
        self.room = room
        self.path = path
        self.listeners = [each for each in listeners if is_main or each.on_every_worker]
        self.is_main = is_main
        self.seconds_before = 0.0
        self._began = time.monotonic()
        self._has_begun = False

    @property
    def seconds(self) -> float:
        """Wall time of the run so far, over all resumptions."""
        return self.seconds_before + time.monotonic() - self._began

    def epochs_to_keep(self) -> set[int]:
        """Return the epochs whose weights a listener still needs."""
        return {epoch for each in self.listeners for epoch in each.epochs_to_keep()}

    def begin(self, resumed_step: int) -> None:
        """Start the clock; records after ``resumed_step`` are dropped, since those steps come again."""
        self.seconds_before = max((float(each["seconds"]) for each in self._kept(resumed_step)), default=0.0)
        self._began = time.monotonic()
        if self.is_main:
            self.room.write_alone("the records", lambda: self._keep(resumed_step))
        self._has_begun = True

    def _kept(self, resumed_step: int) -> Iterator[dict[str, Any]]:
        if resumed_step:
            yield from (record for record in json_lines(self.path) if record["step"] <= resumed_step)

    def _keep(self, resumed_step: int) -> None:
        with written_beside(self.path) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(each, ensure_ascii=False) + "\n" for each in self._kept(resumed_step))

    def record(
        self,
        kind: Literal["train", "eval"],
        metrics: Mapping[str, Any],
        *,
        step: int,
        total_steps: int,
        epoch: float,
    ) -> None:
        """Write one record and pass it to the listeners; numbers that are not finite are written as null.

        Raises:
            RunError: The records before it are gone.
        """
        if self._has_begun and self.is_main and not self.path.is_file():
            raise vanished(self.path.parent)
        numbers = {
            key: float(value)
            for key, value in metrics.items()
            if isinstance(value, int | float) and not key.endswith(_NOT_METRICS)
        }
        logger.debug("step %d of %d: %s %s", step, total_steps, kind, numbers)
        progress = RunProgress(
            kind=kind, step=step, total_steps=total_steps, epoch=epoch, seconds=self.seconds, metrics=numbers
        )
        if self.is_main:
            line = {
                "kind": kind,
                "step": step,
                "total_steps": total_steps,
                "epoch": round(epoch, 6),
                "seconds": round(progress.seconds, 3),
                **{key: value if math.isfinite(value) else None for key, value in numbers.items()},
            }
            self.room.write_alone("a record", lambda: append_json_line(self.path, line))
        for listener in self.listeners:
            listener.progressed(progress)
        if kind == "eval" and self.is_main:
            self._tell_targets(numbers, step)

    def _tell_targets(self, numbers: Mapping[str, float], step: int) -> None:
        """Say of a validation how far its scores are from the targets."""
        told = [target_line(each.reached(numbers)) for each in self._targets if each.metric.name in numbers]
        for listener in self.listeners if told else ():
            listener.notified(f"step {step}: {'; '.join(told)}")

    def saved(self, checkpoint: Path) -> None:
        """Tell of a checkpoint that is whole now, on the main worker."""
        if self.is_main:
            for listener in self.listeners:
                listener.saved(checkpoint)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Record the running training loss or a validation."""
        logs = logs or {}
        kind: Literal["train", "eval"]
        if any(key.startswith("eval_") for key in logs):
            kind = "eval"
            if state.global_step == 0:
                logs = {under(key, UNTRAINED): value for key, value in logs.items()}
        elif "loss" in logs:
            kind = "train"
        else:
            return
        self.record(
            kind, logs, step=state.global_step, total_steps=state.max_steps, epoch=float(state.epoch or 0.0)
        )


def _records(file: Path, kind: Literal["train", "eval"]) -> Iterator[dict[str, Any]]:
    return (record for record in json_lines(file) if record["kind"] == kind)


def recorded_metrics(file: Path, best_step: int | None) -> tuple[dict[str, float], dict[str, float]]:
    """Return the validation metrics of the best step, and those before the first step, by name."""
    metrics: dict[str, float] = {}
    untrained: dict[str, float] = {}
    for record in _records(file, "eval"):
        values = {key: value for key, value in record.items() if value is not None}
        if record["step"] == best_step and record["step"]:
            # Also a test is recorded at this step, by a session that was killed before its result was.
            metrics |= {key: value for key, value in values.items() if key.startswith("eval_")}
        if record["step"] == 0:
            untrained = {key: value for key, value in values.items() if key.startswith("untrained_")}
    return metrics, untrained


def check_last_loss(file: Path, experiment: Experiment, precision: Precision) -> None:
    """Check that the last recorded training loss is a number.

    ``precision`` is what the run was computed in.

    Raises:
        RunError: It is not, so that the model is worth nothing.
    """
    losses = [each["loss"] for each in _records(file, "train") if "loss" in each]
    if losses and losses[-1] is None:
        finer = "" if precision == "fp32" else f" or set training.precision=fp32 (this was {precision})"
        raise RunError(
            "the training loss became NaN or infinite; lower training.learning_rate "
            f"({experiment.training.learning_rate:g}){finer}"
        )


def last_scores(file: Path) -> dict[str, float | int | str]:
    """Return the last validation of a run so far, by name; nothing before the first."""
    return {
        key: value
        for record in _records(file, "eval")
        if record["step"]
        for key, value in record.items()
        if key.startswith("eval_") and value is not None
    }


def mean_training_loss(file: Path) -> float | None:
    """Return the training loss as a mean over all steps, of the records of a run; None before the first.

    A record holds the mean since the one before.
    """
    total, done = 0.0, 0
    for record in _records(file, "train"):
        if record.get("loss") is not None and record["step"] > done:
            total += float(record["loss"]) * (record["step"] - done)
            done = record["step"]
    return total / done if done else None
