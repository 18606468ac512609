"""What a study came to, as a typed record: written as JSON, and read back by tables, pictures and people's scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict

from dure.config.loading import checked
from dure.events import TrialState, TrialStatus
from dure.files import read_json, write_json
from dure.metrics.metric import Metric, recorded
from dure.metrics.targets import Reached
from dure.reporting.figures import Figure
from dure.runs.folder import finite

Definitions = Mapping[str, Mapping[str, str | None]]
"""What a record keeps of metrics: direction and unit by name; see :func:`dure.metrics.metric.definitions`."""


class Record(BaseModel):
    """Base of all that is kept as JSON: unknown keys are errors, values never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, ser_json_inf_nan="null"
    )

    about: ClassVar[str] = "record"
    """What it is, for errors."""

    def with_values(self, **values: Any) -> Self:
        """Return the record with other values, checked."""
        return type(self).model_validate({**dict(self), **values})

    def as_json(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return self.model_dump(mode="json")

    def write(self, file: Path) -> None:
        """Write the record, whole or not at all."""
        write_json(file, self.as_json())

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a record back.

        Raises:
            UserError: The file is broken, or a key of it is not as this class says.
        """
        return checked(cls, read_json(file, what=cls.about), {}, str(file))


class TrialRecord(Record):
    """One trial of a study."""

    name: str
    state: TrialState
    metrics: Mapping[str, Figure]
    """Latest value of every metric."""
    error: str | None
    """What went wrong, in one line."""
    seconds: float
    path: str
    """Folder of its run."""
    forecast: Mapping[str, Any] | None = None
    """What was forecast at its start, as its ``result.json`` has it."""

    @classmethod
    def of(cls, trial: TrialStatus) -> TrialRecord:
        """Return where a trial stands, as a record."""
        return cls(
            name=trial.name,
            state=trial.state,
            metrics=finite(trial.metrics),
            error=trial.error,
            seconds=round(trial.seconds, 1),
            path=str(trial.path),
            forecast=trial.forecast,
        )


class StudyResults(Record):
    """What every study came to; each kind adds its own in its ``results.py``."""

    trials_key: ClassVar[str] = ""
    """Key of the records of its trials; empty of a study that runs none on Ray Tune."""

    study: str
    """Name of the study."""
    kind: str
    path: str
    """Folder of the study."""
    state: str
    """``completed``, ``failed`` or ``interrupted``; of a study that runs, ``interrupted``."""
    targets: tuple[Reached, ...] = ()
    """What was to be reached, beside what the winner or its mean has; empty until the session has ended."""

    @property
    def trial_records(self) -> Sequence[TrialRecord]:
        """The records of its trials, if it runs some."""
        found: Sequence[TrialRecord] = getattr(self, self.trials_key) if self.trials_key else ()
        return found

    def metric_named(self, name: str) -> Metric:
        """Return a metric as the record defines it."""
        return recorded(dict(self), name)


class TrialResults(StudyResults):
    """What a study came to that runs trials on Ray Tune."""

    trials_key: ClassVar[str] = "experiments"

    started: str
    """When its first session began, in UTC."""
    seconds: float
    """How long its sessions took together."""
    experiments: tuple[TrialRecord, ...]
    """Its trials, in its order."""
