"""What a comparison of runs came to, as a typed record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict, computed_field

from dure.metrics.metric import Unit
from dure.metrics.paired import PairedDifference, Verdict
from dure.studies.results import Record

Value = bool | int | float | str | list[object] | dict[str, object] | None


class Signature(Record):
    """What a score was measured on, and how: scores are ranked together only where all of it is equal."""

    split: Literal["test", "dev"]
    """``dev`` where a run was reported on no test rows: the rows that chose its checkpoint, which flatter it."""
    rows: str
    """Hash of the rows: of those of the table that were scored, or of the whole table where only that is known."""
    num_rows: int | None
    """How many, where the runs say it."""
    how: Mapping[str, str]
    """How the metric was computed, such as ROUGE's tokeniser and its version."""


class SettingRecord(Record):
    """Runs that differ only in seed, or in the fold that they held out."""

    name: str
    runs: tuple[str, ...]
    """Their folders."""
    seeds: tuple[int, ...]
    values: Mapping[str, Value]
    """The settings in which the compared ones differ."""
    score: float | None
    """Mean over seeds; None where the metric was not measured."""
    deviation: float | None
    """Sample standard deviation over seeds; None of one seed."""
    by_seed: Mapping[int, float]
    signature: Signature
    baseline: float | None
    """Score of the trivial predictor."""
    baseline_split: Literal["test", "dev"] = "dev"
    """The rows that it was scored on."""
    beats_baseline: bool | None
    """Whether the setting is better than that on these rows; None where one of the two is not known."""
    seconds: float
    """Mean wall time of a run."""
    peak_memory_mb: float | None
    """Largest of its runs."""


@dataclass(frozen=True, kw_only=True)
class PairRecord(PairedDifference):
    """Two settings on the same test rows, and by how much a is better than b."""

    __pydantic_config__: ClassVar = ConfigDict(extra="ignore")  # the verdict, which is made anew

    a: str
    b: str
    metric: str
    """What rows were scored by: the metric, or another where that is no mean over rows."""
    unit: Unit

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """What can be said of a."""
        return super().verdict


class ExampleRecord(Record):
    """A row on which settings differ much; long texts are cut."""

    row: int
    """Its number in the table, from 0."""
    columns: Mapping[str, str]
    """What stands in the table: ids, inputs and targets."""
    scores: Mapping[str, float]
    """Setting → its score of the row, a mean over seeds."""
    predictions: Mapping[str, Mapping[str, str]]
    """Setting → what its first seed predicted, by column."""


class GroupRecord(Record):
    """Settings whose scores may be ranked together."""

    settings: tuple[str, ...]
    """Best first; those without a score last."""
    best: str | None
    """The one with the best score; None where there is no score, or it is no better than the trivial predictor."""
    ties: tuple[str, ...]
    """Those that are not told apart from the best."""


class Comparison(Record):
    """Runs compared; ``comparison.json``."""

    about: ClassVar[str] = "record of a comparison"

    metric: str
    """Name without ``eval_`` or ``test_``."""
    direction: Literal["min", "max"]
    unit: Unit
    settings: tuple[SettingRecord, ...]
    groups: tuple[GroupRecord, ...]
    pairs: tuple[PairRecord, ...]
    examples: tuple[ExampleRecord, ...]
    sentences: tuple[str, ...]
    """The verdict in plain English."""
    notes: tuple[str, ...]
    """What is to be known: runs that were left out, and why scores are not ranked together."""
