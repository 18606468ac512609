"""What a metric is: its name, which way it is better, and how it is shown.

Families declare theirs (:attr:`dure.family.Family.metrics`), the engine those of every run (:data:`RUN_METRICS`).
Whatever compares, ranks, stops, draws or prints scores asks the metric; no direction is guessed from a name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from dure.errors import UserError

Direction = Literal["min", "max"]
Unit = Literal["share", "percent", "number", "count", "memory"]
Key = TypeVar("Key")

TEST = "test_"
"""What stands for ``eval_`` in the names of metrics on the rows that a result is reported on."""
UNTRAINED = "untrained_"
"""What stands for ``eval_`` in the names of metrics that were measured before the first step."""
BASELINE = "baseline_"
"""What stands for ``eval_`` in the names of metrics of the family's trivial predictor; before ``test_`` on those rows."""

_ANY_CLASS = "[class]"
_PERCENT_WORDS = re.compile(r"rouge|accuracy|(^|_)(f1|precision|recall)(_|$)")


@dataclass(frozen=True)
class Metric:
    """One figure of a run, and what is to be known to compare and to show it."""

    name: str
    """As records have it: ``eval_accuracy``, ``seconds``; ``eval_f1[class]`` stands for the figures of all classes."""
    direction: Direction | None
    """Whether the smallest or the largest is the best; None for what says nothing about quality, or where it is not
    known.
    """
    unit: Unit = "number"
    """``share`` lies between 0 and 1 and is shown in percent; ``percent`` is shown so without these bounds, as a sum of
    shares; ``count`` is a whole number; ``memory`` is in MiB; everything else is a ``number``.
    """

    @property
    def in_percent(self) -> bool:
        """Whether it is shown in percent."""
        return self.unit in ("share", "percent")

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger score is a better one.

        Raises:
            UserError: Neither is, or it is not known.
        """
        if self.direction is None:
            raise UserError(
                f"'{self.name}' has no direction: it is not declared whether its smallest or its largest value is best",
                where="metric",
                expected="a metric that its family declares with 'min' or 'max'",
                hint="training.higher_is_better=true (or false) for training.best_metric; NAME:min or NAME:max for a sweep",
            )
        return self.direction == "max"

    @property
    def sentence(self) -> str:
        """Which way it is better, in words."""
        return f"{'higher' if self.higher_is_better else 'lower'} is better"

    def cost(self, score: float | None) -> float:
        """Return a score as something to be made small; infinite for None and NaN, so that they rank last."""
        higher_is_better = self.higher_is_better
        if score is None or math.isnan(score):
            return math.inf
        return -float(score) if higher_is_better else float(score)

    def score(self, cost: float) -> float:
        """Return the score that costs so much; the way back from :meth:`cost`."""
        return (-cost if self.higher_is_better else cost) + 0.0  # zero, and not minus zero

    def better(self, score: float | None, than: float | None) -> bool:
        """Return whether a score is better than another; None and NaN are worse than every number."""
        return self.cost(score) < self.cost(than)

    def gain(self, score: float, before: float) -> float:
        """Return by how much a score is better than one before; negative when it is worse."""
        return self.cost(before) - self.cost(score)

    def best(self, scores: Mapping[Key, float | None]) -> Key | None:
        """Return the key of the best score, the first of equals; None when there is no score."""
        scored = {key: cost for key, score in scores.items() if (cost := self.cost(score)) < math.inf}
        return min(scored, key=scored.__getitem__, default=None)

    def ranked(self, scores: Mapping[Key, float | None]) -> list[Key]:
        """Return the keys, best score first; equal ones in their order, and None and NaN last."""
        return sorted(scores, key=lambda key: self.cost(scores[key]))

    def definition(self) -> dict[str, Any]:
        """Return what a record keeps of it beside its name, as JSON-ready data."""
        return {"direction": self.direction, "unit": self.unit}


def directed(metric: Metric, higher_is_better: bool | None) -> Metric:
    """Return what chooses the best checkpoint, with the direction that ``training.higher_is_better`` may give it.

    Raises:
        UserError: It has none and is given none, or is given another than it has.
    """
    if higher_is_better is None:
        if metric.direction is None:
            raise UserError(
                f"'{metric.name}' is declared without a direction, so it cannot choose the best checkpoint",
                where="training.best_metric",
                hint="training.higher_is_better=true or =false says which of its values are better",
            )
        return metric
    given = replace(metric, direction="max" if higher_is_better else "min")
    if metric.direction not in (None, given.direction):
        said = str(higher_is_better).lower()
        raise UserError(
            f"it is {said}, but training.best_metric is '{metric.name}', of which {metric.sentence}",
            where="training.higher_is_better",
            expected=f"{str(not higher_is_better).lower()} or null for '{metric.name}'",
            hint="leave the key out (null): a metric knows its direction",
        )
    return given


RUN_METRICS = (
    Metric("eval_loss", "min"),
    Metric("train_loss", "min"),
    Metric("train_runtime", "min"),
    Metric("seconds", "min"),
    Metric("eval_runtime", "min"),
    Metric("eval_samples_per_second", "max"),
    Metric("eval_steps_per_second", "max"),
    Metric("train_samples_per_second", "max"),
    Metric("train_steps_per_second", "max"),
    Metric("peak_memory_mb", "min", "memory"),
    Metric("unreleased_memory_mb", "min", "memory"),
    Metric("num_oom", "min", "count"),
    Metric("num_restarts", "min", "count"),
)
"""Figures that every run has, of whatever family."""


def known(name: str, metrics: Iterable[Metric]) -> Metric | None:
    """Return the metric of a name, declared or one of every run; None when there is none.

    ``eval_f1[positive]`` is what ``eval_f1[class]`` was declared to be.
    """
    declared = {metric.name: metric for metric in (*RUN_METRICS, *metrics)}
    figure, bracket, _ = name.partition("[")
    found = declared.get(f"{figure}{_ANY_CLASS}" if bracket else name)
    return None if found is None else replace(found, name=name)


def under(name: str, prefix: str) -> str:
    """Return where the figure stands that belongs to one of validation: ``eval_f1`` and ``test_`` → ``test_f1``."""
    return name.replace("eval_", prefix, 1)


def choosable(metrics: Iterable[Metric]) -> list[str]:
    """Return the names by which a checkpoint can be chosen: the validation loss, and what is of all classes."""
    names = ("eval_loss", *(metric.name for metric in metrics if not metric.name.endswith(_ANY_CLASS)))
    return list(dict.fromkeys(names))


def definitions(metrics: Iterable[Metric]) -> dict[str, dict[str, Any]]:
    """Return what a record keeps of metrics, under its key ``definitions``: name to direction and unit."""
    return {metric.name: metric.definition() for metric in metrics}


def recorded(record: Mapping[str, Any], name: str) -> Metric:
    """Return a metric as the record of a study defines it.

    Args:
        record: Of a study: ``definitions``, or what it is ranked by as ``metric`` with ``direction``, or ``metrics``
            with ``directions``.
        name: Name of the metric; one that the record does not define has no direction, as :func:`undeclared`.
    """
    defined = [Metric(key, **values) for key, values in (record.get("definitions") or {}).items()]
    if (found := known(name, defined)) is not None:
        return found
    ranking = dict(zip(record.get("metrics") or (), record.get("directions") or (), strict=False))
    if "metric" in record:
        ranking[record["metric"]] = record.get("direction")
    return replace(undeclared(name), direction=ranking.get(name))


def undeclared(name: str) -> Metric:
    """Return a metric of which nothing but the name is known, to be shown and not to be compared.

    Its unit is guessed from the words of the name, so that tables made of bare records (a run's ``result.json``)
    print accuracy, precision, recall, F1 and ROUGE in percent. Its direction is not guessed: there is none.
    """
    if (found := known(name, ())) is not None:
        return found
    figure = name.partition("[")[0]
    if "num_" in figure:
        return Metric(name, None, "count")
    return Metric(name, None, "percent" if _PERCENT_WORDS.search(figure) else "number")
