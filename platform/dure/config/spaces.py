"""What a search may vary: dotted keys of an experiment, each with its range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from dure.config.scalars import Bool, Float, Int, Text
from dure.config.section import Section

MAX_POINTS = 10_000
"""Most points of a grid; nobody has the time for them."""

When = dict[str, tuple[Any, ...]]


class _Parameter(Section):
    """What every kind of parameter has."""

    when: When = Field(default_factory=dict)
    """Only searched when these choices have one of these values, by key; the experiment's own value otherwise."""


class _Range(_Parameter):
    """A range of numbers."""

    low: Float
    """Smallest value."""
    high: Float
    """Largest value."""

    @model_validator(mode="after")
    def _goes_up(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        return self


class LogUniform(_Range):
    """A positive number whose order of magnitude matters, such as a learning rate."""

    type: Literal["log_uniform"] = "log_uniform"
    """Kind of the range."""

    @model_validator(mode="after")
    def _is_positive(self) -> Self:
        if self.low <= 0:
            raise ValueError(f"low is {self.low:g}, but a logarithm needs more than 0")
        return self


class Uniform(_Range):
    """A number, all of the range alike."""

    type: Literal["uniform"] = "uniform"
    """Kind of the range."""


class Integer(_Range):
    """A whole number."""

    type: Literal["int"] = "int"
    """Kind of the range."""
    low: Int
    """Smallest value."""
    high: Int
    """Largest value."""
    log: Bool = False
    """Whether its order of magnitude matters, as for a rank or a batch size."""

    @model_validator(mode="after")
    def _is_positive(self) -> Self:
        if self.log and self.low < 1:
            raise ValueError(f"low is {self.low}, but a logarithm needs at least 1")
        return self


class Choice(_Parameter):
    """One of some values: text, numbers, truth values, lists."""

    type: Literal["choice"] = "choice"
    """Kind of the range."""
    values: tuple[Any, ...] = Field(min_length=2)
    """The values."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if any(value in self.values[:place] for place, value in enumerate(self.values)):
            raise ValueError("values holds one twice")
        return self


Parameter = Annotated[LogUniform | Uniform | Integer | Choice, Field(discriminator="type")]
Value = Any
Values = Mapping[str, Value]
"""One point of a space: dotted key of the experiment to value."""


class SearchSpace(Section):
    """What a search may vary."""

    description: str = ""
    """One sentence on what is searched."""
    parameters: dict[Text, Parameter] = Field(min_length=1)
    """Dotted key of the experiment, such as ``training.learning_rate``, to its range."""

    @model_validator(mode="after")
    def _can_be_searched(self) -> Self:
        for key in self.parameters:
            if key.startswith(("experiment.", "rehearsal.", "wandb.", "mlflow.")) or "." not in key:
                raise ValueError(
                    f"'{key}' cannot be searched; all trials share name, seed, data order and starting weights"
                )
        for key, parameter in self.parameters.items():
            for other, wanted in parameter.when.items():
                choice = self.parameters.get(other)
                if not isinstance(choice, Choice):
                    raise ValueError(f"'{key}' depends on '{other}', which is no choice of this space")
                for value in wanted:
                    if value not in choice.values:
                        raise ValueError(f"'{key}' depends on {other}={value}, which is never chosen")
        self.ordered()
        return self

    def ordered(self) -> list[str]:
        """Return the keys, each after those that it depends on.

        Raises:
            ValueError: They depend on each other in a circle.
        """
        keys: list[str] = []
        while len(keys) < len(self.parameters):
            ready = [
                key
                for key, parameter in self.parameters.items()
                if key not in keys and all(other in keys for other in parameter.when)
            ]
            if not ready:
                circle = ", ".join(key for key in self.parameters if key not in keys)
                raise ValueError(f"these depend on each other in a circle: {circle}")
            keys.append(ready[0])
        return keys

    def is_logarithmic(self, key: str) -> bool:
        """Return whether a parameter is drawn on a logarithmic scale."""
        parameter = self.parameters[key]
        return isinstance(parameter, LogUniform) or (isinstance(parameter, Integer) and parameter.log)

    def is_active(self, key: str, values: Values) -> bool:
        """Return whether a parameter is searched at this point of the space."""
        return all(
            other in values and values[other] in wanted for other, wanted in self.parameters[key].when.items()
        )

    def contains(self, key: str, value: Value) -> bool:
        """Return whether the parameter of this key may have this value."""
        match self.parameters[key]:
            case Choice(values=values):
                return value in values
            case Integer(low=low, high=high):
                return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
            case LogUniform(low=low, high=high) | Uniform(low=low, high=high):
                return isinstance(value, int | float) and low <= value <= high

    def grid(self, num_points: int) -> list[dict[str, Value]]:
        """Return every combination of ``num_points`` evenly spaced numbers of each range and of all choices.

        Ends of ranges are included; logarithmic ranges are spaced evenly in their logarithm. With twice as
        many intervals, all earlier points come again.

        Raises:
            ValueError: These are more than ``MAX_POINTS``.
        """
        points: list[dict[str, Value]] = [{}]
        beyond = ValueError(
            f"{num_points:,} points along every range make a grid of more than {MAX_POINTS:,}"
        )
        if num_points > MAX_POINTS:
            raise beyond
        for key in self.ordered():
            steps = spaced(self.parameters[key], num_points)
            points = [
                longer
                for point in points
                for longer in (
                    [point | {key: step} for step in steps] if self.is_active(key, point) else [point]
                )
            ]
            if len(points) > MAX_POINTS:
                raise beyond
        return points


def spaced(parameter: LogUniform | Uniform | Integer | Choice, num_points: int) -> list[Value]:
    """Return evenly spaced values of one parameter from its lowest to its highest, or all of its choices."""
    if isinstance(parameter, Choice):
        return list(parameter.values)
    logarithmic = isinstance(parameter, LogUniform) or (isinstance(parameter, Integer) and parameter.log)
    low, high = (math.log(end) if logarithmic else end for end in (parameter.low, parameter.high))
    if num_points == 1:
        numbers = [(low + high) / 2]
    else:
        numbers = [low + (high - low) * place / (num_points - 1) for place in range(num_points)]
    numbers = [math.exp(number) if logarithmic else number for number in numbers]
    if isinstance(parameter, Integer):
        return list(dict.fromkeys(round(number) for number in numbers))
    # Twelve digits: exp(log(x)) is not x, and a point must equal itself in a later, longer grid.
    return [min(parameter.high, max(parameter.low, float(f"{number:.12g}"))) for number in numbers]
