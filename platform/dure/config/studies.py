"""What a study is: a strategy over experiments, as data."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from dure.config.scalars import Name, Text
from dure.config.section import Section


class BatchStudy(Section):
    """Several experiments side by side, compared in one table."""

    kind: Literal["batch"] = "batch"
    """Strategy of the study; a file must name it."""
    name: Name
    """Name of the study; also the name of its folder and of its W&B group."""
    description: str = ""
    """One sentence on what the study compares."""
    experiments: tuple[Text, ...] = Field(min_length=1)
    """Experiments by name or file, in the order of the table."""
    metrics: tuple[Text, ...] = Field(
        default=("eval_rouge1", "eval_rouge2", "eval_rougeL", "eval_rouge_sum", "eval_loss"), min_length=1
    )
    """Columns of the table; the first one ranks."""

    @field_validator("experiments")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("each experiment once, since each has one folder")
        return value


Study = BatchStudy
"""Every kind of study: a union whose members differ in ``kind`` (one more is one class and one member here)."""
