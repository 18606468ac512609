"""A whole kind of study in one file: the same experiment with other seeds, to see by how much its score varies."""

from __future__ import annotations

from statistics import stdev
from typing import ClassVar, Literal

from rich.text import Text

from dure.config.scalars import Int
from dure.config.scalars import Text as Line
from dure.studies.kind import TrialKind
from dure.studies.plan import StudyPlan
from dure.studies.results import TrialResults
from dure.studies.strategy import Strategy, TrialPlan


class SeedsStudy(StudyPlan):
    """One experiment with several seeds."""

    words: ClassVar[str] = "study of seeds"

    kind: Literal["seeds"] = "seeds"
    """Kind of the study; a file must name it."""
    experiment: Line
    """What is trained, by name or file."""
    seeds: tuple[Int, ...] = (1, 2, 3)
    """Its seeds."""

    @property
    def sources(self):
        return (self.experiment,)

    @classmethod
    def kind_of(cls):
        return SeedsKind


class SeedsResults(TrialResults):
    """How far the scores lie apart."""

    kind: Literal["seeds"]
    spread: float | None
    """Standard deviation of the scores."""


class Seeds(Strategy[SeedsStudy]):
    def __init__(self, study, experiment):
        super().__init__(study)
        self.metric = experiment.training.best_metric
        self.plans = [
            TrialPlan(f"seed_{seed}", experiment.with_({"experiment.seed": seed, "experiment.name": f"seed_{seed}"}))
            for seed in study.seeds
        ]  # fmt: skip

    def trials(self):
        return self.plans

    def summary(self, trials):
        scores = [trial.metrics[self.metric] for trial in trials if trial.state == "completed"]
        return {"spread": stdev(scores) if len(scores) > 1 else None}


class SeedsKind(TrialKind[SeedsStudy, SeedsResults]):
    results = SeedsResults
    results_file = "seeds.json"

    def strategy(self, session):
        return Seeds(self.study, self.shown()[0])

    @staticmethod
    def table(results):
        return Text(f"{results.study}: spread {results.spread}")
