"""What a progressive training came to; ``progressive_training_results.json`` of its folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from dure.events import TrialState
from dure.metrics.metric import Direction
from dure.reporting.figures import Figure
from dure.studies.results import Definitions, Record, TrialResults


class Forecast(Record):
    """A score that is expected with more training rows."""

    at_rows: int
    """Training rows that it is for."""
    value: float
    """The score: as likely too high as too low."""
    low: float
    high: float
    level: float
    """Probability that the score will be measured from ``low`` to ``high``."""


class StageRecord(Record):
    """One finished stage."""

    stage: int
    """Its number, from 1."""
    name: str
    """Its folder in the candidate's."""
    ratio: float
    """Part of the training rows."""
    num_rows: int
    num_rows_in_all: int
    num_dev_rows: int | None
    state: str
    score: float | None
    """What stages are compared by."""
    metrics: Mapping[str, Figure]
    best_epoch: int
    checkpoint: str
    """The best weights of the stage."""
    warm_start: str | None
    """What it began from, in the candidate's folder; None for random weights or the checkpoint's."""
    seconds: float
    peak_memory_mb: float
    cpu_percent: float
    batch_size: int
    """Rows of one forward pass."""
    gradient_accumulation_steps: int
    samples: int
    """Rows that it trained on, epochs multiplied."""
    baseline: float | None
    """What the score is without learning."""
    forecast: Forecast | None


class CandidateRecord(Record):
    """One of the settings that were tried side by side."""

    name: str
    values: Mapping[str, Any]
    """Its settings, by dotted key."""
    state: TrialState
    reason: str | None
    """Why it ended before the last stage."""
    stages: tuple[StageRecord, ...]


class ProgressiveResults(TrialResults):
    """Every stage of every candidate, the winner, and what was forecast."""

    about: ClassVar[str] = "record of a progressive training"

    kind: Literal["progressive"]
    metric: str
    """What stages are compared by."""
    direction: Direction
    definitions: Definitions
    """Direction and unit of every metric, by its name."""
    ratios: tuple[float, ...]
    baseline: float | None
    """What the metric is without learning, at the first stage."""
    seed: int
    epochs_per_stage: int
    effective_batch_size: int
    stopped: Literal["gain", "baseline"] | None
    """Why it ended before all of the data."""
    winner: str | None
    best_stage: str | None
    samples_trained: int
    stages: tuple[StageRecord, ...]
    """Those of the winner; as long as there is none, of the candidate that is furthest."""
    candidates: tuple[CandidateRecord, ...]
    final_model: str | None = None
    """The model of the winner's best stage; None until the session has ended."""

    @property
    def shown(self) -> CandidateRecord:
        """The candidate whose stages these are."""
        return max(self.candidates, key=lambda each: (each.name == self.winner, len(each.stages)))
