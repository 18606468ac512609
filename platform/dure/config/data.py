"""Which rows an experiment has, and how they are cut."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from dure.config.ratios import Ratio
from dure.config.scalars import Int, Text
from dure.config.section import Section

SAMPLE = "sample"
"""What ``data.train`` and its like say for the family's embedded corpus."""


class FoldConfig(Section):
    """One fold of a cross-validation: a part of the training table that is held out, and reported on."""

    number: Int = Field(ge=1)
    """Which fold is held out, from 1."""
    of: Int = Field(ge=2)
    """Number of folds that the training table is cut into."""
    seed: Int = Field(default=42, ge=0, lt=2**32)
    """What the folds are drawn by; the same in all experiments that are compared."""
    selection: Ratio = Fraction(1, 10)
    """Part of the rows that are not held out which selects the best checkpoint in place of ``data.dev``."""

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.number > self.of:
            raise ValueError(f"there is no fold {self.number} of {self.of}")
        return self

    @field_validator("selection")
    @classmethod
    def _leaves_rows_to_train(cls, value: Fraction) -> Fraction:
        if value == 1:
            raise ValueError("a ratio below 1: what is left of the rows trains")
        return value


class DataConfig(Section):
    """Where the rows are, and what their columns are called."""

    train: Text = "sample"
    """Training table (.csv, .tsv, .jsonl, .parquet), or ``sample`` for the family's embedded corpus."""
    dev: Text | None = "sample"
    """Validation table: selects the best checkpoint; shares no text with training."""
    test: Text | None = None
    """Table to predict; its targets, when it has them, take no part in any selection."""
    columns: dict[str, Text] = Field(default_factory=dict)
    """Role of the family (``id``, ``text``, ``target`` …) to column name of the tables."""
    encoding: str | None = None
    """Encoding of text tables; UTF-8 (with or without BOM) and CP949 are recognised when it is not given."""
    on_bad_row: Literal["error", "skip"] = "error"
    """What happens to a row with an empty cell or a doubled id: stop with its number, or skip, count and tell."""
    on_overlap: Literal["error", "drop", "warn"] = "drop"
    """What happens to training rows whose text stands in the validation table too."""
    max_train_rows: Int | None = Field(default=None, ge=1)
    """Use only this many training rows, drawn by the seed (``--samples``)."""
    train_ratio: Ratio = Fraction(1)
    """Part of the training rows, the same for every class; a smaller part lies within a larger one."""
    max_dev_rows: Int | None = Field(default=None, ge=1)
    """Use only this many validation rows, drawn by the seed."""
    fold: FoldConfig | None = None
    """Hold out one fold of the training table and report on it; ``dev`` and ``test`` take no part then."""

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        try:
            "a".encode(value or "utf-8")
        except (LookupError, ValueError):
            raise ValueError("an encoding that Python knows, such as utf-8 or cp949") from None
        return value
