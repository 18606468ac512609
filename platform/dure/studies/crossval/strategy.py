"""Cross-validation as a study: one trial per experiment and fold, side by side as resources allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from dure.config.data import FoldConfig
from dure.config.schema import Experiment
from dure.events import TrialStatus
from dure.family import load_family
from dure.metrics.metric import BASELINE, RUN_METRICS, TEST, Metric, definitions, under
from dure.runs.folder import RunFolder, RunResult, finite
from dure.studies.crossval.comparison import is_clearly_worse
from dure.studies.crossval.plan import CrossvalStudy
from dure.studies.crossval.results import held_out, over_folds
from dure.studies.proposing import Proposing
from dure.studies.strategy import Strategy, TrialPlan


class Crossval(Strategy[CrossvalStudy]):
    """Trains every experiment once per fold; a failed fold loses no other.

    All experiments train on a fold before any trains on the next, so that they can be compared, and one that is
    clearly worse be dropped, while most of the work is still to do.
    """

    keeps_predictions = True

    def __init__(self, study: CrossvalStudy, experiments: Sequence[Experiment], path: Path) -> None:
        super().__init__(study)
        self.path = path
        # Names are whole here: those of two experiments may differ in their last letters only.
        self._plans = {
            (each.name, number): TrialPlan(
                f"{each.name}.fold_{number}",
                fold_experiment(study, each, number),
                f"{study.folder_of(each.name)}/fold_{number}",
            )
            for number in range(1, study.folds + 1)
            for each in experiments
        }
        self._dropped: dict[str, str] = {}
        self._metrics = {each.name: each.training.best_metric for each in experiments}
        self._family = load_family(experiments[0])

    def trials(self) -> Sequence[TrialPlan]:
        """Return the trials, fold by fold."""
        return list(self._plans.values())

    def tune_settings(self, concurrent_trials: int) -> dict[str, Any]:
        """Return what proposes the trials in their order, without those that are dropped meanwhile."""
        return {
            "search_alg": Proposing(self._next),
            "num_samples": -1,
            "max_concurrent_trials": concurrent_trials,
        }

    def pending(self, unsettled: Sequence[str]) -> Sequence[str]:
        """Return the trials without a result, and keep them as what is to be proposed."""
        self._left = list(unsettled)
        self._drop()
        return self._left

    def ended(self, trials: Sequence[TrialStatus]) -> None:
        """See which experiments are clearly worse by now."""
        self._drop()

    def summary(self, trials: Sequence[TrialStatus]) -> Mapping[str, Any]:
        """Return every experiment with its folds so far; what predictions say comes at the end."""
        best = self._family.best_metric
        known = (*RUN_METRICS, *self._family.metrics, best)
        metric = _bare(best)
        by_name = {trial.name: trial for trial in trials}
        found = []
        for name in self._metrics:
            plans = [(number, plan) for (owner, number), plan in self._plans.items() if owner == name]
            folds = [_fold(number, by_name[plan.name]) for number, plan in plans]
            begun = [fold for fold in folds if fold["state"] != "pending"]
            mean, std = over_folds([fold["metrics"] for fold in begun if fold["state"] == "completed"])
            trivial = [by_name[plan.name].metrics.get(f"{BASELINE}test_{metric.name}") for _, plan in plans]
            scored = [each for each in trivial if isinstance(each, int | float)]
            baseline = fmean(scored) if scored else None
            found.append({"name": name, "folds": begun, "mean": mean, "std": std, "baseline": baseline})
        return {
            "metric": metric.name,
            "direction": metric.direction,
            "definitions": definitions(_bare(each) for each in known),
            "num_folds": self.study.folds,
            "folds": self.study.folds,
            "seed": self.study.seed,
            "metrics": dict(self._metrics),
            "dropped": dict(self._dropped),
            "experiments": found,
            "comparisons": [],
        }

    def scores(self) -> dict[str, dict[int, float]]:
        """Return the held-out score of every completed fold, by experiment; of all by the metric that compares them."""
        metric = under(self._family.best_metric.name, TEST)
        found: dict[str, dict[int, float]] = {name: {} for name in self._metrics}
        for (name, number), plan in self._plans.items():
            result = RunFolder(plan.path_in(self.path)).read_result()
            if result is None or result.state != "completed":
                continue
            score = result.metrics.get(metric)
            if isinstance(score, int | float):
                found[name][number] = float(score)
        return found

    def clearly_worse(self) -> dict[str, str]:
        """Return the experiments that are clearly worse than the best on the folds that both have, and how."""
        metric = self._family.best_metric
        scored = {name: each for name, each in self.scores().items() if each}
        if len(scored) < 2:
            return {}
        best = min(scored, key=lambda name: (-len(scored[name]), metric.cost(fmean(scored[name].values()))))
        worse = {}
        for name, each in scored.items():
            shared = sorted(each.keys() & scored[best].keys())
            if name != best and is_clearly_worse(
                [each[number] for number in shared],
                [scored[best][number] for number in shared],
                num_folds=self.study.folds,
                metric=metric,
            ):
                worse[name] = f"clearly worse than {best} on {len(shared)} folds"
        return worse

    def _next(self, trial_id: str) -> dict[str, Any] | str:
        return {"trial": self._left.pop(0)} if self._left else Proposing.FINISHED

    def _drop(self) -> None:
        """Leave out what is still to be proposed of experiments that are clearly worse."""
        if not self.study.drop_worse:
            return
        self._dropped |= self.clearly_worse()
        for (name, _), plan in self._plans.items():
            if name in self._dropped and plan.name in self._left:
                self._left.remove(plan.name)
                folder = RunFolder(plan.path_in(self.path))
                folder.write_result(RunResult(plan.name, "stopped", error=f"dropped: {self._dropped[name]}"))


def fold_experiment(study: CrossvalStudy, experiment: Experiment, number: int) -> Experiment:
    """Return what a fold runs: the experiment with that fold of its training table held out."""
    fold = FoldConfig(number=number, of=study.folds, seed=study.seed)
    return experiment.with_(
        {"experiment.name": f"{experiment.name[:85]}.fold_{number}", "data.fold": fold}, "--folds"
    )


def _fold(number: int, trial: TrialStatus) -> dict[str, Any]:
    return {
        "fold": number,
        "path": str(trial.path),
        "state": trial.state,
        "seconds": trial.seconds,
        "error": trial.error,
        "metrics": finite(held_out(trial.metrics)),
    }


def _bare(metric: Metric) -> Metric:
    """Return a metric of validation under the name that figures of folds have."""
    return replace(metric, name=metric.name.removeprefix("eval_"))
