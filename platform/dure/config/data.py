"""Which rows an experiment has, how their tables are read, and how they are cut."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from dure.config.ratios import Ratio, as_number, as_ratio
from dure.config.scalars import Bool, Int, Text
from dure.config.section import Section

SAMPLE = "sample"
"""What ``data.train`` and its like say for the family's embedded corpus."""

Source = Text | Annotated[list[Text], Field(min_length=1)]
"""A file, a pattern such as ``data/*.csv``, a folder of a data set, or several of these."""


def _column_name(value: Any) -> Any:
    """Turn the number of a column, but no truth value, into its name."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


ColumnName = Annotated[Text, BeforeValidator(_column_name, json_schema_input_type=Text | int)]
"""Name of a column, or its number from 0 in a table without column names."""
Columns = ColumnName | Annotated[list[ColumnName], Field(min_length=1)]
"""A column, or several whose texts are joined."""


def source_name(source: str | Sequence[str]) -> str:
    """Return a source in words."""
    return source if isinstance(source, str) else ", ".join(source)


_EXAMPLE = "10%"
_PART = re.compile(r"\s*[0-9.]+(e[-+]?[0-9]+)?\s*%\s*", re.IGNORECASE)


def _part_or_source(value: Any) -> Any:
    """Bring a part of the training table to percent, and leave names of files as they are."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"a file, or a part of the training table in percent, such as {_EXAMPLE}")
    if not (isinstance(value, str) and _PART.fullmatch(value)):
        return value
    try:
        part = as_ratio(value)
    except ValueError:
        part = Fraction(1)
    if part == 1:
        raise ValueError(f"a part below 100 % of the training table, such as {_EXAMPLE}, or a file")
    return f"{as_number(100 * part)}%"


PartOrSource = Annotated[Source, BeforeValidator(_part_or_source, json_schema_input_type=str | list[str])]
"""A table, or a part of the training table that is held out: ``10%``."""


def part_of(source: Source | None) -> Fraction | None:
    """Return the part of the training table that a split is, or None where it has a table of its own."""
    return as_ratio(source) if isinstance(source, str) and _PART.fullmatch(source) else None


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


class ReadingConfig(Section):
    """How tables are read."""

    columns_separator: str = " "
    """What stands between the texts of several columns that are read as one."""
    encoding: str | None = None
    """Encoding of text tables; UTF-8 (with or without BOM) and CP949 are recognised when it is not given."""
    quoting: Literal["auto", "minimal", "none"] = "auto"
    """Whether cells in quotes may hold separators (``minimal``), or a quote is a letter like any other (``none``)."""
    header: Bool = True
    """Whether the first line names the columns; without it they are called 0, 1, 2 … by their place."""
    normalize: Literal["NFC", "none"] = "NFC"
    """Unicode form in which a tokenizer gets texts; macOS writes NFD, whose letters most vocabularies lack."""
    on_bad_row: Literal["error", "skip"] = "error"
    """What happens to a row with an empty cell or a doubled id: stop with its number, or skip, count and report it."""

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        try:
            "a".encode(value or "utf-8")
        except (LookupError, ValueError):
            raise ValueError("an encoding that Python knows, such as utf-8 or cp949") from None
        return value


USUAL = ReadingConfig()
"""How tables are read when nothing is said."""


class DataConfig(ReadingConfig):
    """Where the rows are, what their columns are called and how their tables are read."""

    train: Source = SAMPLE
    """Training table (.csv, .tsv, .txt, .json, .jsonl, .parquet, .xlsx), or ``sample`` for the family's embedded corpus."""
    dev: PartOrSource | None = SAMPLE
    """Validation table, or a part of the training table (``10%``): selects the best checkpoint; shares no text with
    training."""
    test: PartOrSource | None = None
    """Table to report on, or a part of the training table (``10%``); its targets take no part in any selection."""
    split_seed: Int = Field(default=42, ge=0, lt=2**32)
    """What such parts are drawn by; apart from ``experiment.seed``, so that all seeds have the same split."""
    columns: dict[str, Columns] = Field(default_factory=dict)
    """Role of the family (``id``, ``text``, ``target`` …) to column name of the tables; a text may be of several columns."""
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

    @property
    def parts(self) -> Mapping[str, Fraction]:
        """The splits that are parts of the training table; none where a fold decides."""
        found = {"dev": part_of(self.dev), "test": part_of(self.test)}
        return {} if self.fold is not None else {split: part for split, part in found.items() if part}

    @model_validator(mode="after")
    def _some_rows_train(self) -> Self:
        if sum(self.parts.values()) >= 1:
            raise ValueError("dev and test together are the whole training table, so that no row trains")
        return self
