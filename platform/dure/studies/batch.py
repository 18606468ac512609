"""The batch: several experiments side by side, one trial each, compared in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, field_validator

from dure.config.scalars import Name, Text
from dure.config.schema import Experiment
from dure.config.section import Section
from dure.errors import UserError, nearest
from dure.events import TrialStatus
from dure.studies.strategy import Strategy, TrialPlan


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


class Batch(Strategy):
    """Runs every experiment once.

    Args:
        study: The study as its YAML says it.
        experiments: Its experiments, resolved, in its order.

    Raises:
        UserError: Two experiments bear the same name.
    """

    kind = "batch"

    def __init__(self, study: BatchStudy, experiments: Sequence[Experiment]) -> None:
        self.name = study.name
        self.study = study
        names = [experiment.name for experiment in experiments]
        for name in names:
            if names.count(name) > 1:
                raise UserError(
                    f"two experiments are named '{name}'",
                    where=f"study {study.name}",
                    expected="distinct experiment.name, since each has a folder of its own",
                )
        self._trials = tuple(TrialPlan(experiment.name, experiment) for experiment in experiments)

    def trials(self) -> Sequence[TrialPlan]:
        """Return one trial per experiment."""
        return self._trials

    def summary(self, trials: Sequence[TrialStatus]) -> Mapping[str, Any]:
        """Return the columns of the table and the best experiment by the first of them."""
        metric = self.study.metrics[0]
        scores = {
            trial.name: value
            for trial in trials
            if trial.state == "completed" and isinstance(value := trial.metrics.get(metric), int | float)
        }
        lower_is_better = metric.endswith("loss")
        best = (min if lower_is_better else max)(scores, key=lambda name: scores[name]) if scores else None
        return {"metrics": list(self.study.metrics), "best": best}


def only(names: Sequence[str], wanted: str) -> list[str]:
    """Return those of ``names`` that ``--only`` asks for, by number from 1 or by name, in their own order.

    Raises:
        UserError: There is no such number or name.
    """
    chosen = set()
    for word in (part.strip() for part in wanted.split(",")):
        if word.isdecimal() and 1 <= int(word) <= len(names):
            chosen.add(names[int(word) - 1])
        elif word in names:
            chosen.add(word)
        else:
            raise UserError(
                f"'{word}' is no experiment of the study",
                where="--only",
                expected=f"numbers from 1 to {len(names)}, or names: {', '.join(names)}",
                hint=nearest(word, names),
            )
    return [name for name in names if name in chosen]
