"""What a unified training came to; ``unified_results.json`` of its folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from dure.studies.results import Figure, Record, StudyResults
from dure.studies.sweep.verdict import SweepVerdict


class RunRecord(Record):
    """How the main run ended; ``result.json`` of its folder."""

    name: str
    state: str
    metrics: Mapping[str, Figure]
    best_checkpoint: str | None
    final_model_path: str | None
    seconds: float
    error: str | None
    best_metric: str | None = None
    """What chose the best checkpoint."""
    definitions: Mapping[str, Mapping[str, str | None]] = {}
    """Direction and unit of every metric of its family, by name."""


class UnifiedResults(StudyResults):
    """The steps of the pipeline, one after the other."""

    about: ClassVar[str] = "record of a unified training"

    kind: Literal["unified"]
    learning_rate: float
    sweep: Mapping[str, Any] | None
    """What the main run trained with after the sweep, by dotted key: the winner's values, the configured ones where it
    names no winner; None without a sweep."""
    sweep_verdict: SweepVerdict | None = None
    """What the sweep measured; None without one."""
    result: RunRecord
    sweet_spots: Mapping[str, Any] | None = None
    """What ``sweet_spot_analysis/`` holds as JSON."""
    crossover: Mapping[str, Any] | None = None
    """What ``checkpoints_final/crossover_final.json`` holds."""
