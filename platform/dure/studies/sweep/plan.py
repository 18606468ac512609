"""What a sweep is, as data, and how the options of the command line say it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from dure.config.loading import checked, load_space
from dure.config.scalars import Address, Int, Text
from dure.config.schema import Experiment
from dure.config.section import Section
from dure.config.spaces import Choice, Integer, SearchSpace
from dure.config.tree import given_value
from dure.errors import UserError, nearest
from dure.metrics.metric import RUN_METRICS, Direction, Metric, choosable
from dure.secrets import HIDDEN, without_passwords
from dure.studies.choices import SamplerName, StopperName
from dure.studies.plan import OneExperiment, Point, given

if TYPE_CHECKING:
    from dure.family import Family
    from dure.studies.kind import Kind

_LEARNING_RATE = "training.learning_rate"
DEFAULT_SPACE = "learning_rate"
_GRID_POINTS = 5
_TRIALS = 20
_NEXT_KEY = re.compile(r",(?=[^,=\[\]]+=)")
"""A comma behind which another key stands, and not more of a list."""


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


def _space(value: Any) -> Any:
    return load_space(value) if isinstance(value, str) else value


def _metric(value: Any) -> Any:
    """Read ``NAME``, ``NAME:min`` or ``NAME:max``."""
    if not isinstance(value, str):
        return value
    name, colon, direction = value.partition(":")
    if not name or (colon and direction not in ("min", "max")):
        raise ValueError("NAME, NAME:min or NAME:max")
    return {"name": name, "direction": direction or None}


SweptMetric = Annotated[SweepMetric, BeforeValidator(_metric, json_schema_input_type=SweepMetric | str)]


class SweepStudy(OneExperiment):
    """A search of the values with which one experiment does best."""

    words: ClassVar[str] = "sweep"
    fixed: ClassVar[Mapping[str, str]] = {"space": "--space", "metrics": "--metric", "storage": "--storage"}

    kind: Literal["sweep"] = "sweep"
    """Kind of the study; a file must name it."""
    space: Annotated[SearchSpace, BeforeValidator(_space, json_schema_input_type=SearchSpace | str)] = Field(
        default_factory=partial(load_space, DEFAULT_SPACE)
    )
    """What is searched: a search space, or one by name or file; learning_rate when not given."""
    metrics: tuple[SweptMetric, ...] = ()
    """What is looked for on the validation rows, such as NAME or NAME:min; training.best_metric when not given. With
    several, the best compromises between them."""
    sampler: SamplerName = "tpe"
    """Who proposes the next point."""
    scheduler: StopperName = "none"
    """Who ends trials that do badly before their time."""
    num_trials: Int | None = Field(default=None, ge=1)
    """Points in all, or as many as are to be tried first; of a grid, points along every range. 20, and 5 for a grid, when
    not given."""
    tries: tuple[Point, ...] = ()
    """Points to try first, by dotted key."""
    storage: Address | None = None
    """URL of the database that keeps the search; a file in the study's folder when not given."""
    seed: Int = Field(default=42, ge=0, lt=2**32)
    """Seed of the proposals; that of the experiment when not given."""

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

    def continued(self, before: Self, where: str) -> Self:
        """Return the sweep as it goes on in a folder: new points to try first come after those of before."""
        points = [*before.tries, *(point for point in self.tries if point not in before.tries)]
        storage = before.storage if self.storage is None else self.storage
        study = super().continued(before, where).with_values(tries=tuple(points), storage=storage)
        if storage is not None and HIDDEN in storage:
            raise UserError(
                "the folder keeps no password of its database",
                where=storage,
                hint="--storage URL once more, with the password",
            )
        return study

    def is_same(self, key: str, before: Self) -> bool:
        """Return whether space, metrics or storage are those of before; a metric need not say its direction again."""
        if key == "storage":
            return (self.storage and without_passwords(self.storage)) == before.storage
        if key != "metrics" or len(self.metrics) != len(before.metrics):
            return super().is_same(key, before)
        return all(
            mine.name == other.name and mine.direction in (None, other.direction)
            for mine, other in zip(self.metrics, before.metrics, strict=True)
        )

    def resolved(self, experiments: Sequence[Experiment]) -> Self:
        """Return the sweep with its metrics, their directions, and its seed.

        Raises:
            UserError: A metric is none of the family's, or which way it is better is not known.
        """
        from dure.family import load_family

        (experiment,) = experiments
        family = load_family(experiment)
        wanted = self.metrics or (SweepMetric(name=experiment.training.best_metric),)
        found = [looked_for(each, family) for each in wanted]
        return self.with_values(
            metrics=tuple(SweepMetric(name=each.name, direction=each.direction) for each in found),
            seed=self.seed if "seed" in self.model_fields_set else experiment.experiment.seed,
        )

    def num_trainings(self, experiment: Experiment) -> tuple[float, float]:
        """Return the trials; a scheduler may end most of them early."""
        most = float(self.budget)
        return most if self.scheduler == "none" else 1.0 + (most - 1.0) / 10, most

    @classmethod
    def kind_of(cls) -> type[Kind[Any, Any]]:
        """Return what runs a sweep."""
        from dure.studies.sweep.driver import SweepKind

        return SweepKind

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


def looked_for(wanted: SweepMetric, family: Family) -> Metric:
    """Return what a sweep looks for, with its direction.

    Raises:
        UserError: The family has no such metric, it has no direction and is given none, or is given another one.
    """
    name, given = wanted.name, wanted.direction
    is_own = name == family.experiment.training.best_metric
    declared = family.best_metric if is_own else family.metric(name)
    if declared is None and (given is None or name.startswith("eval_")):
        names = [*choosable(family.metrics), *(each.name for each in RUN_METRICS)]
        raise UserError(
            f"'{name}' is no metric of {family.experiment.family}, so which way it is better is not known",
            where=f"--metric {name}",
            expected=f"one of {', '.join(dict.fromkeys(names))}; or NAME:min or NAME:max for a figure of your own",
            hint=nearest(name, names),
        )
    metric = Metric(name, given) if declared is None else declared
    if metric.direction is None and given is None:
        raise UserError(
            f"'{name}' is declared without a direction",
            where=f"--metric {name}",
            expected=f"{name}:min or {name}:max",
        )
    if given is not None and metric.direction not in (None, given):
        raise UserError(
            f"this looks for the {'smallest' if given == 'min' else 'largest'}, but of '{name}' {metric.sentence}",
            where=f"--metric {name}:{given}",
            hint=f"{name}, without a direction: a metric knows it",
        )
    return replace(metric, direction=given or metric.direction)


def judged_by(experiment: Experiment, metric: Metric) -> Experiment:
    """Return the experiment with its best checkpoint chosen by the metric that a sweep looks for."""
    return experiment.with_(
        {"training.best_metric": metric.name, "training.higher_is_better": metric.higher_is_better}
    )


def plan_sweep(
    experiment: str,
    *,
    space: str | None = None,
    tries: Sequence[str] | None = None,
    before: SweepStudy | None = None,
    **options: Any,
) -> SweepStudy:
    """Return the sweep that the options describe.

    ``tries`` are points to try first, as :func:`parse_point` reads them; those of a sweep that is continued are of the
    space of ``before``.

    Raises:
        UserError: One of them is wrong.
    """
    values = given({"space": None if space is None else load_space(space), **options})
    if tries:
        searched = values.get("space") or (load_space(DEFAULT_SPACE) if before is None else before.space)
        values["tries"] = [parse_point(searched, text) for text in dict.fromkeys(tries)]
    places: dict[tuple[str, ...], str] = {("num_trials",): "--trials", ("metrics",): "--metric"}
    return checked(SweepStudy, {"experiment": experiment, **values}, places, "dure sweep")


def parse_point(space: SearchSpace, text: str) -> dict[str, Any]:
    """Read a point as the command line gives it: ``1e-4``, or ``key=value,key=value``.

    A value alone is the learning rate, or the value of the only parameter.

    Raises:
        UserError: A key is not searched, or a value is none of its kind.
    """
    keys = list(space.parameters)
    if "=" not in text:
        only = _LEARNING_RATE if _LEARNING_RATE in keys else keys[0] if len(keys) == 1 else None
        if only is None:
            raise UserError(
                f"'{text}' does not say of which parameter it is",
                where="--try",
                expected=f"key=value, with a key of: {', '.join(keys)}",
            )
        text = f"{only}={text}"
    point: dict[str, Any] = {}
    for part in _NEXT_KEY.split(text):
        key, _, raw = (piece.strip() for piece in part.partition("="))
        if key not in keys:
            raise UserError(
                f"'{key}' is not searched",
                where="--try",
                expected=f"one of: {', '.join(keys)}",
                hint=nearest(key, keys),
            )
        point[key] = _parsed(space, key, raw)
    return point


def _parsed(space: SearchSpace, key: str, raw: str) -> Any:
    parameter = space.parameters[key]
    if isinstance(parameter, Choice):
        try:
            said = given_value(raw)
        except ValueError:
            said = raw
        found = [
            value for value in parameter.values if raw in (str(value), override_text(value)) or value == said
        ]
    else:
        try:
            number = int(raw) if isinstance(parameter, Integer) else float(raw)
            found = [number] if space.contains(key, number) else []
        except ValueError:
            found = []
    if not found:
        raise UserError(f"{key} cannot be {raw}", where="--try", expected=range_of(space, key))
    return found[0]


def range_of(space: SearchSpace, key: str) -> str:
    """Return what a parameter may be, in words."""
    parameter = space.parameters[key]
    if isinstance(parameter, Choice):
        return f"one of: {', '.join(map(str, parameter.values))}"
    kind = "a whole number" if isinstance(parameter, Integer) else "a number"
    return f"{kind} from {parameter.low:.10g} to {parameter.high:.10g}"


def override_text(value: Any) -> str:
    """Return a value as an override says it."""
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
