"""What a sweep is, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from dure.config.scalars import Int, Name, Text
from dure.config.schema import Experiment
from dure.config.section import Section
from dure.config.spaces import SearchSpace
from dure.errors import UserError, nearest
from dure.metrics.metric import RUN_METRICS, Direction, Metric, choosable

if TYPE_CHECKING:
    from dure.family import Family

if TYPE_CHECKING:
    from dure.family import Family

SamplerName = Literal["tpe", "grid", "random", "qmc", "cmaes", "gp"]
StopperName = Literal["none", "asha", "median"]

_GRID_POINTS = 5
_TRIALS = 20


class SweepMetric(Section):
    """What a sweep looks for."""

    name: Text
    """Validation metric, or ``seconds``."""
    direction: Direction | None = None
    """Whether the smallest or the largest is the best; a metric knows it by itself, and another answer is an error."""

    @property
    def metric(self) -> Metric:
        """The metric by which points are compared."""
        return Metric(self.name, self.direction)


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
    storage: Text | None = None
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


def looked_for(metrics: Sequence[SweepMetric], family: Family, where: str) -> tuple[Metric, ...]:
    """Return what a sweep looks for, each with its direction.

    Args:
        metrics: Of the sweep.
        family: Declares what they are.
        where: The place that errors name before the metric.

    Raises:
        UserError: The family has no such metric, it has no direction and is given none, or is given another one.
    """
    return tuple(_directed(each, family, where) for each in metrics)


def _directed(wanted: SweepMetric, family: Family, where: str) -> Metric:
    name, given = wanted.name, wanted.direction
    is_own = name == family.experiment.training.best_metric
    declared = family.best_metric if is_own else family.metric(name)
    if declared is None and (given is None or name.startswith("eval_")):
        names = [*choosable(family.metrics), *(each.name for each in RUN_METRICS)]
        raise UserError(
            f"'{name}' is no metric of {family.experiment.family}, so which way it is better is not known",
            where=f"{where} {name}",
            expected=f"one of {', '.join(dict.fromkeys(names))}; or NAME:min or NAME:max for a figure of your own",
            hint=nearest(name, names),
        )
    metric = Metric(name, given) if declared is None else declared
    if metric.direction is None and given is None:
        raise UserError(
            f"'{name}' is declared without a direction",
            where=f"{where} {name}",
            expected=f"{name}:min or {name}:max",
        )
    if given is not None and metric.direction not in (None, given):
        raise UserError(
            f"this looks for the {'smallest' if given == 'min' else 'largest'}, but of '{name}' {metric.sentence}",
            where=f"{where} {name}:{given}",
            hint=f"{name}, without a direction: a metric knows it",
        )
    return replace(metric, direction=given or metric.direction)


def judged_by(experiment: Experiment, metric: Metric) -> Experiment:
    """Return the experiment with its best checkpoint chosen by the metric that a sweep looks for."""
    return experiment.with_(
        {"training.best_metric": metric.name, "training.higher_is_better": metric.higher_is_better}
    )
