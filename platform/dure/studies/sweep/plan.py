"""What a sweep is, as data."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from dure.config.scalars import Address, Int, Name, Text
from dure.config.schema import Experiment
from dure.config.section import Section
from dure.config.spaces import SearchSpace

SamplerName = Literal["tpe", "grid", "random", "qmc", "cmaes", "gp"]
StopperName = Literal["none", "asha", "median"]

_GRID_POINTS = 5
_TRIALS = 20


class SweepMetric(Section):
    """What a sweep looks for."""

    name: Text
    """Validation metric, or ``seconds``."""
    direction: Literal["min", "max"]
    """Whether the smallest or the largest is the best."""


class SweepStudy(Section):
    """A search of the values with which one experiment does best; ``study.yaml`` of its folder."""

    kind: Literal["sweep"] = "sweep"
    """Strategy of the study."""
    name: Name
    """Name of the study; also the name of its folder and of its W&B group."""
    space: SearchSpace
    """What is searched."""
    metrics: tuple[SweepMetric, ...] = Field(min_length=1)
    """What is looked for on the validation rows; with several, the best compromises between them."""
    sampler: SamplerName = "tpe"
    """Who proposes the next point."""
    scheduler: StopperName = "none"
    """Who ends trials that do badly before their time."""
    num_trials: Int | None = Field(default=None, ge=1)
    """Points in all; of a grid, points along every range. 20, and 5 for a grid, when not given."""
    tries: tuple[dict[str, Any], ...] = ()
    """Points to try first."""
    storage: Address | None = None
    """URL of the database that keeps the search; a file in the study's folder when not given."""
    seed: Int = Field(default=42, ge=0, lt=2**32)
    """Seed of the proposals."""

    @field_validator("metrics")
    @classmethod
    def _each_once(cls, value: tuple[SweepMetric, ...]) -> tuple[SweepMetric, ...]:
        if len({metric.name for metric in value}) < len(value):
            raise ValueError("each metric once")
        return value

    @model_validator(mode="after")
    def _grid_ends(self) -> Self:
        if self.sampler == "grid":
            self.space.grid(self.num_trials or _GRID_POINTS)
        return self

    @property
    def budget(self) -> int:
        """Points that the sweep tries in all."""
        if self.sampler == "grid":
            return len(self.grid())
        return self.num_trials or _TRIALS

    def grid(self) -> list[dict[str, Any]]:
        """Return the points of a grid: those to try first, then the evenly spaced ones."""
        points = [dict(point) for point in self.tries]
        points += [point for point in self.space.grid(self.num_trials or _GRID_POINTS) if point not in points]
        return points


def judged_by(experiment: Experiment, metric: SweepMetric) -> Experiment:
    """Return the experiment with its best checkpoint chosen by the metric that a sweep looks for."""
    training = experiment.training.model_copy(
        update={"best_metric": metric.name, "higher_is_better": metric.direction == "max"}
    )
    return experiment.model_copy(update={"training": training})
