"""What a progressive training is, as data."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from dure.config.ratios import Ratio, percent_label, schedule
from dure.config.scalars import Float, Int, Name
from dure.config.section import Section

OnBaseline = Literal["stop", "warn"]


class ProgressiveStudy(Section):
    """One experiment trained on more and more of its data, each stage from the best model of the stage before."""

    kind: Literal["progressive"] = "progressive"
    """Strategy of the study."""
    name: Name
    """Name of the study; also the name of its folder and of its W&B group."""
    ratios: tuple[Ratio, ...] = Field(default=schedule("0.1", "0.1"), min_length=1)
    """Part of the training rows of every stage, rising; each part lies within the next."""
    start_ratio: Ratio | None = None
    """Ratio at which training was told to begin, or to begin again."""
    epochs_per_stage: Int = Field(default=2, ge=1)
    """Passes over the rows of a stage."""
    candidates: tuple[dict[str, Any], ...] = Field(default=({},), min_length=1)
    """Settings to try side by side, by dotted key; at every ratio only the best part of them goes on."""
    reduction: Int = Field(default=3, ge=1)
    """Of n candidates at a ratio the best n // reduction go on, at least one; 1 keeps all."""
    min_gain: Float | None = Field(default=None, ge=0.0)
    """Stop when the best candidate gains less than this from a ratio to the next."""
    on_baseline: OnBaseline = "stop"
    """What happens to a candidate that is no better than the trivial baseline at the first ratio."""
    max_memory_mb: Int | None = Field(default=None, ge=1)
    """Above this, a warning is told and the next stage takes a smaller batch at a time."""

    @model_validator(mode="after")
    def _ratios_rise(self) -> Self:
        for before, after in pairwise(self.ratios):
            if after <= before:
                raise ValueError(f"ratios fall from {before} to {after}")
        return self

    @model_validator(mode="after")
    def _each_candidate_once(self) -> Self:
        if any(each in self.candidates[:place] for place, each in enumerate(self.candidates)):
            raise ValueError("candidates holds one twice")
        return self

    def names(self) -> list[str]:
        """Return the names of the candidates; a lone one bears the study's."""
        if len(self.candidates) == 1:
            return [self.name]
        return [f"candidate_{place}" for place in range(1, len(self.candidates) + 1)]


def stage_name(number: int, ratio: Fraction) -> str:
    """Return the name of a stage, counted from 1, which is also its folder: ``stage_3_30pct``."""
    return f"stage_{number}_{percent_label(ratio)}pct"
