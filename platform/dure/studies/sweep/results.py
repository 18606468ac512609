"""What a sweep leaves behind: every point with its curve, its figures and what became of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

from dure.config.schema import Experiment
from dure.events import TrialState
from dure.files import read_json_lines
from dure.metrics.metric import Direction
from dure.reporting.figures import Figure
from dure.runs.folder import RunFolder
from dure.studies.results import Definitions, Record, TrialResults
from dure.studies.sweep.verdict import SweepVerdict


class SweepResults(TrialResults):
    """What was searched, the point of every trial, and the best; ``experiment_summary.json`` of a sweep's folder."""

    about: ClassVar[str] = "summary of a sweep"

    kind: Literal["sweep"]
    metrics: tuple[str, ...]
    """What was looked for; the first one ranks."""
    directions: tuple[Direction, ...]
    """Whether the smallest or the largest of each is the best."""
    definitions: Definitions
    """Direction and unit of every metric, by its name."""
    sampler: str
    scheduler: str
    parameters: tuple[str, ...]
    """Dotted keys that were searched."""
    values: Mapping[str, Mapping[str, Any]]
    """The values that every trial trained with, by its name; those of its miniature in a rehearsal."""
    proposed: Mapping[str, Mapping[str, Any]] = {}
    """The point of the space that every trial is, by its name: what a rehearsal scaled learning rates from. None in a
    record of an older dure, whose ``values`` they are."""
    is_rehearsal: bool = False
    """Whether miniatures trained."""
    best: str | None
    """The trial that is best by the first metric; whether that says anything, the verdict knows."""
    best_values: Mapping[str, Any] | None
    """The values that it trained with."""
    front: tuple[str, ...]
    """With several metrics, the trials that no other beats; best by the first metric first."""
    record: str | None = None
    """File with all points and their curves; None until the session has ended."""
    plot: str | None = None
    """Their picture."""
    winner: str | None = None
    """The experiment with the winner's values; None without a winner. That of a rehearsal is a rehearsal."""
    verdict: SweepVerdict | None = None
    """What the sweep measured; None until the session has ended."""

    def points(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the point of the space that every trial is, by its name."""
        return self.proposed or self.values

    def winning_values(self) -> dict[str, Any]:
        """Return the winner's point of the space, to be laid over an experiment; nothing without a winner."""
        winner = self.best if self.verdict is None else self.verdict.winner
        return {} if winner is None else dict(self.points()[winner])


class SweepPoint(Record):
    """One tried point, with its curves."""

    trial: str
    state: TrialState
    params: Mapping[str, Any]
    """The values that it trained with."""
    proposed: Mapping[str, Any]
    """The point of the space that it is."""
    peak_rate: float | None
    """The highest learning rate that was recorded; None where none was."""
    in_warmup: bool
    """Whether it ended within its warm-up, so that its learning rate was never reached."""
    metrics: Mapping[str, Figure]
    """The sweep's metrics, at the best validation."""
    loss: float | None
    """The last training loss."""
    eval_loss: float | None
    losses: tuple[Mapping[str, Figure], ...]
    """Training loss by ``step`` and ``samples``."""
    validations: tuple[Mapping[str, Figure], ...]
    """Validations by ``step`` and ``samples``."""
    stability: float | None
    """See :func:`stability`."""
    samples_per_second: float | None
    seconds: float
    error: str | None


class SweepRecord(Record):
    """All points of a sweep; ``lr_sweep_results/lr_sweep_<time>.json``."""

    about: ClassVar[str] = "record of a sweep"

    study: str
    state: str
    sampler: str
    scheduler: str
    metrics: tuple[str, ...]
    directions: tuple[Direction, ...]
    definitions: Definitions
    best: str | None
    best_values: Mapping[str, Any] | None
    front: tuple[str, ...]
    is_rehearsal: bool
    verdict: SweepVerdict | None
    points: tuple[SweepPoint, ...]

    @classmethod
    def of(cls, results: SweepResults, points: Sequence[SweepPoint]) -> SweepRecord:
        """Return the points of a sweep with what is to be known of it."""
        about = {key: getattr(results, key) for key in cls.model_fields if key != "points"}
        return cls(points=tuple(points), **about)


def sweep_points(results: SweepResults, experiments: Mapping[str, Experiment]) -> list[SweepPoint]:
    """Return the tried points of a sweep in the order of their trials."""
    from dure.training.arguments import warmup_of

    points = []
    for entry in results.experiments:
        values = results.values.get(entry.name)
        if values is None:
            continue
        records = read_json_lines(RunFolder(Path(entry.path)).metrics)
        training = experiments[entry.name].training
        rows = training.effective_batch_size
        train = [record for record in records if record["kind"] == "train"]
        evals = [record for record in records if record["kind"] == "eval" and "eval_loss" in record]
        steps = max((record["step"] for record in records), default=0)
        warmup = warmup_of(training, max((record["total_steps"] for record in records), default=0))
        figures = {**entry.metrics, "seconds": entry.seconds}
        points.append(
            SweepPoint(
                trial=entry.name,
                state=entry.state,
                params=values,
                proposed=results.points()[entry.name],
                peak_rate=_peak_rate(train, steps, warmup),
                in_warmup=0 < steps <= warmup,
                metrics={metric: figures.get(metric) for metric in results.metrics},
                loss=train[-1].get("loss") if train else None,
                eval_loss=figures.get("eval_loss", evals[-1]["eval_loss"] if evals else None),
                losses=tuple(_at(record, rows, ("loss",)) for record in train if "loss" in record),
                validations=tuple(_at(record, rows, ("eval_loss", *results.metrics)) for record in evals),
                stability=stability([record.get("loss") for record in train]),
                samples_per_second=_speed(records, rows),
                seconds=entry.seconds,
                error=entry.error,
            )
        )
    return points


def reports_of(
    records: Sequence[Mapping[str, Any]], samples_per_step: int, *, last_step: int | None = None
) -> list[dict[str, Any]]:
    """Return the records of a trial as it reported them to Tune, for the stopper of a later session.

    What came after ``last_step`` is left out.
    """
    return [
        # The file has null for what was not finite.
        {key: math.nan if value is None else value for key, value in record.items()}
        | {"samples": record["step"] * samples_per_step}
        for record in records
        if last_step is None or record["step"] <= last_step
    ]


def stability(losses: Sequence[float | None]) -> float | None:
    """Return how much a training loss jumps, as a share of itself; smaller is steadier.

    The standard deviation of the changes from record to record over the second half of the run, divided by the
    mean loss there: a steady descent has none. None with fewer than three records there, or when one is not
    finite.
    """
    half = losses[len(losses) // 2 :]
    numbers = [loss for loss in half if loss is not None]
    if len(numbers) < 3 or len(numbers) < len(half):
        return None
    changes = [after - before for before, after in pairwise(numbers)]
    mean = statistics.fmean(numbers)
    return statistics.stdev(changes) / abs(mean) if mean else None


def _peak_rate(train: Sequence[Mapping[str, Any]], steps: int, warmup: int) -> float | None:
    """Return the highest recorded rate. The first step of a warm-up is at 0, also where it was not recorded."""
    rates = [float(rate) for record in train if (rate := record.get("learning_rate")) is not None]
    return max(rates) if rates else 0.0 if steps == 1 <= warmup else None


def _at(record: Mapping[str, Any], samples_per_step: int, names: Sequence[str]) -> dict[str, Any]:
    position = {"step": record["step"], "samples": record["step"] * samples_per_step}
    return position | {name: record[name] for name in dict.fromkeys(names) if name in record}


def _speed(records: Sequence[Mapping[str, Any]], samples_per_step: int) -> float | None:
    if not records or not records[-1]["seconds"]:
        return None
    return round(float(records[-1]["step"] * samples_per_step / records[-1]["seconds"]), 3)
