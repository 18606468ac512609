"""What a unified training came to; ``unified_results.json`` of its folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from dure.studies.results import Figure, Record, StudyResults


class RunRecord(Record):
    """How the main run ended; ``result.json`` of its folder."""

    name: str
    state: str
    metrics: Mapping[str, Figure]
    best_checkpoint: str | None
    final_model_path: str | None
    seconds: float
    error: str | None


class UnifiedResults(StudyResults):
    """The steps of the pipeline, one after the other."""

    about: ClassVar[str] = "record of a unified training"

    kind: Literal["unified"]
    learning_rate: float
    sweep: Mapping[str, Any] | None
    """What the sweep found to be the best, by dotted key; None without one."""
    result: RunRecord
    sweet_spots: Mapping[str, Any] | None = None
    """What ``sweet_spot_analysis/`` holds as JSON."""
    crossover: Mapping[str, Any] | None = None
    """What ``checkpoints_final/crossover_final.json`` holds."""
