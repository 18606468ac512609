"""What a unified training came to; ``unified_results.json`` of its folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from dure.runs.folder import RunResult
from dure.studies.results import StudyResults
from dure.studies.sweep.verdict import SweepVerdict

SWEEP = "lr_sweep"
"""Folder of the sweep, in that of the training."""


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
    result: RunResult
    sweet_spots: Mapping[str, Any] | None = None
    """What ``sweet_spot_analysis/`` holds as JSON."""
    crossover: Mapping[str, Any] | None = None
    """What ``checkpoints_final/crossover_final.json`` holds."""
