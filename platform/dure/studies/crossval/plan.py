"""What a cross-validation is, as data."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from dure.config.scalars import Bool, Int, Name, Text
from dure.config.section import Section


class CrossvalStudy(Section):
    """Experiments trained once per fold of their training table, each judged on rows that it never saw."""

    kind: Literal["crossval"] = "crossval"
    """Strategy of the study."""
    name: Name
    """Name of the study; also the name of its folder and of its W&B group."""
    experiments: tuple[Text, ...] = Field(min_length=1)
    """Names of the experiments, in the order of the table; the first is what the others are compared with."""
    folds: Int = Field(default=5, ge=2)
    """Parts that the training table is cut into; every experiment gets the same ones."""
    seed: Int = Field(default=42, ge=0, lt=2**32)
    """Seed of the cut."""
    drop_worse: Bool = False
    """Train an experiment on no further folds once it is clearly worse than the best."""

    @field_validator("experiments")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("each experiment once, since each has one folder")
        return value
