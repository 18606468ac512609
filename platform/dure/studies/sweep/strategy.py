"""The sweep: one experiment tried with many values of its settings, proposed by Optuna."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import count, islice
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from dure.config.schema import Experiment
from dure.config.spaces import Values, spaced
from dure.errors import UserError
from dure.events import SETTLED, RunListener, TrialStatus
from dure.family import load_family
from dure.files import read_json_lines
from dure.metrics.metric import definitions
from dure.reporting.figures import number
from dure.runs import checkpoints
from dure.runs.folder import RunFolder, RunResult
from dure.studies.comparable import require_comparable
from dure.studies.divergence import DivergenceGuard
from dure.studies.strategy import Strategy, TrialPlan
from dure.studies.sweep.plan import SweepStudy, judged_by, looked_for
from dure.studies.sweep.results import reports_of
from dure.studies.sweep.search import SweepSearch, trial_name
from dure.studies.sweep.stoppers import AshaStopper, EarlyStopper, MedianStopper

_REDUCTION = 3
"""ASHA keeps the best third of the trials at every rung (Li et al. 2020, "A System for Massively Parallel
Hyperparameter Tuning", uses 4 and finds 3 and 4 alike)."""
SPACE = "the search space"


class Sweep(Strategy[SweepStudy]):
    """Tries points of a space on one experiment, each from the same weights and in the same data order.

    Only the weights of the best trial are kept (of all best compromises, with several metrics): a sweep of
    twenty points would otherwise fill the disk with nineteen models that nobody wants.

    With one trial at a time an interrupted and resumed sweep tries the points, and stops the trials, of one that was
    left alone: the search is kept in its storage, and the stopper reads again what the trials recorded. Where a trial
    trains in several workers its records reach the stopper a little later than the trial goes on, so that one which is
    killed just then may go on to its next validation before it is stopped. ``samples_between_validations`` and
    ``total_samples``, of a whole trial, are training rows, for the scheduler.

    Raises:
        UserError: The space does not fit the experiment, or the search cannot be opened.
    """

    def __init__(
        self,
        study: SweepStudy,
        experiment: Experiment,
        path: Path,
        *,
        shape: Callable[[Experiment], Experiment] = lambda experiment: experiment,
        samples_between_validations: int = 1,
        total_samples: int = 1,
    ) -> None:
        super().__init__(study)
        self.path = path
        self._samples = (samples_between_validations, total_samples)
        self._shape = shape
        self._trained: dict[str, dict[str, Any]] = {}
        self._cleared: set[str] = set()
        self._bring: Callable[[Path], None] = lambda folder: None
        family = load_family(experiment)
        self.metrics = tuple(looked_for(each, family) for each in study.metrics)
        self.keeps_dev_losses = self.metrics[0].name == "eval_loss"
        self._experiment = judged_by(experiment, self.metrics[0])
        self.mlflow_uri = experiment.mlflow.uri
        self._check_space()
        self._scheduler = self._stopper()
        self.search = SweepSearch(
            study, path, metrics=self.metrics, configured=self._config, judge=self._ended
        )
        self._catch_up()

    def trials(self) -> Sequence[TrialPlan]:
        """Return the trials so far, and those that the search will propose."""
        names = list(self.search.trials())
        free = (name for place in count() if (name := trial_name(place)) not in names)
        further = islice(free, max(0, self.search.num_points - len(names)))
        return [TrialPlan(name) for name in (*names, *further)]

    def experiment(self, values: Values) -> Experiment:
        """Return the experiment at a point of the space.

        Raises:
            UserError: It is impossible there.
        """
        return self._experiment.with_(values, SPACE)

    def trained(self, values: Values) -> dict[str, Any]:
        """Return the values that a trial at a point of the space trains with, as the common options make them."""
        point = json.dumps(values, sort_keys=True)
        if point not in self._trained:  # every summary asks for all of them
            shaped = self._shape(self.experiment(values)).model_dump(mode="json")
            self._trained[point] = {
                key: reduce(lambda section, part: section[part], key.split("."), shaped) for key in values
            }
        return self._trained[point]

    def tune_settings(self, concurrent_trials: int) -> dict[str, Any]:
        """Return the search and the scheduler."""
        return {
            "search_alg": self.search,
            "scheduler": self._scheduler,
            "num_samples": max(1, self.search.num_points),
            "max_concurrent_trials": concurrent_trials,
        }

    def mirrored(self, bring: Callable[[Path], None]) -> None:
        """Keep what brings the result of a trial that the search is to be told of."""
        self._bring = bring

    def listeners(self) -> tuple[RunListener, ...]:
        """Return the guard that ends diverged trials."""
        return (DivergenceGuard(),)

    def ended(self, trials: Sequence[TrialStatus]) -> None:
        """Remove the weights of trials that were beaten."""
        # One that was beaten stays so, and beats no other that its better does not.
        left = [trial for trial in trials if trial.state in SETTLED and trial.name not in self._cleared]
        kept = set(self.best_trials(left))
        for trial in left:
            if trial.name not in kept:
                checkpoints.remove_weights(trial.path)
                self._cleared.add(trial.name)

    def check(self) -> None:
        """Raise what the search's storage failed with."""
        if self.search.failure is not None:
            raise self.search.failure

    def best_trials(self, trials: Sequence[TrialStatus]) -> list[str]:
        """Return the best trials, the one that is best by the first metric first.

        With one metric that is one trial; with several, all that no other trial beats.
        """
        costs: dict[str, list[float]] = {}
        for trial in trials:
            figures = {**trial.metrics, "seconds": trial.seconds}
            values = [number(figures.get(metric.name)) for metric in self.metrics]
            if trial.state == "completed" and None not in values:
                costs[trial.name] = [
                    metric.cost(value) for metric, value in zip(self.metrics, values, strict=True)
                ]
        ranked = dict(sorted(costs.items(), key=lambda each: each[1][0]))
        return list(ranked)[:1] if len(self.metrics) == 1 else unbeaten(ranked)

    def summary(self, trials: Sequence[TrialStatus]) -> Mapping[str, Any]:
        """Return what was searched, the point of every trial, and the best."""
        points = self.search.points()
        values = {name: self.trained(point) for name, point in points.items()}
        best = self.best_trials(trials)
        return {
            "metrics": [metric.name for metric in self.metrics],
            "directions": [metric.direction for metric in self.metrics],
            "definitions": definitions(self.metrics),
            "sampler": self.study.sampler,
            "scheduler": self.study.scheduler,
            "parameters": self.study.space.ordered(),
            "values": values,
            "proposed": points,
            "is_rehearsal": self._shape(self._experiment).rehearsal.enabled,
            "best": best[0] if best else None,
            "best_values": values.get(best[0]) if best else None,
            "front": best if len(self.study.metrics) > 1 else [],
        }

    def _config(self, name: str, values: Values) -> dict[str, Any]:
        experiment = self._shape(self.experiment(values))
        named = experiment.with_({"experiment.name": f"{experiment.name[:80]}.{name}"})
        trained = self.trained(values)
        return {
            "trial": name,
            "trained": trained,
            "notice": ", ".join(f"{key}={_shown(value)}" for key, value in trained.items()),
            "experiment": named.model_dump_json(),
        }

    def _ended(self, name: str) -> RunResult | None:
        folder = RunFolder(self.path / name)
        result = folder.read_result()
        if result is None:  # Tune asks the search before the board
            self._bring(folder.path)
            result = folder.read_result()
        if result is None:
            return None
        is_whole = result.state == "completed"
        return replace(result, metrics={**result.metrics, "seconds": result.seconds} if is_whole else {})

    def _catch_up(self) -> None:
        """Bring the folders and the stopper up to what the sessions before left."""
        values = self.search.points()
        for name, trial in self.search.trials().items():
            folder = RunFolder(self.path / name)
            records = read_json_lines(folder.metrics)
            if trial.state == TrialState.PRUNED and folder.read_result() is None:
                # Killed after it was told to the search and before the result was written.
                folder.write_result(_stopped(name, records))
            if self._scheduler is None or name not in values:
                continue
            result = folder.read_result()
            is_over = result is not None and result.state in SETTLED
            # What comes after the checkpoint comes again, and with it the decision.
            last = None if is_over else checkpoints.last_step(folder.checkpoints)
            rows = self._shape(self.experiment(values[name])).training.effective_batch_size
            reports = reports_of(records, rows, last_step=last)
            self._scheduler.remember(name, reports, is_over=is_over)

    def _check_space(self) -> None:
        """Try the ends of every range and every choice, so that what cannot be is known before Ray starts."""
        space = self.study.space
        first: dict[str, Any] = {}
        tried = []
        for key in space.ordered():
            if space.is_active(key, first):
                first[key] = spaced(space.parameters[key], 2)[0]
        for key, parameter in space.parameters.items():
            for value in spaced(parameter, 2):
                point = {**first, key: value}
                values = {k: v for k, v in point.items() if space.is_active(k, point)} | {key: value}
                tried.append(load_family(self.experiment(values)))
        for metric in self.metrics:
            require_comparable(metric.name, tried, where=f"--metric {metric.name}")

    def _stopper(self) -> EarlyStopper | None:
        if self.study.scheduler == "none":
            return None
        metric = self.metrics[0]
        between, total = self._samples
        if len(self.study.metrics) > 1:
            raise UserError(
                f"a trial cannot be stopped early by {len(self.study.metrics)} metrics",
                where=f"--scheduler {self.study.scheduler}",
                expected="one metric",
            )
        if between >= total:
            raise UserError(
                "trials validate at their end only, when there is nothing left to stop",
                where=f"--scheduler {self.study.scheduler}",
                hint=f"training.eval_every={max(1, self._experiment.training.log_every)}, or more epochs",
            )
        if self.study.scheduler == "median":
            return MedianStopper(
                time_attr="samples",
                metric=metric.name,
                mode=metric.direction,
                grace_period=between,
                min_samples_required=3,
                # Tune would pause a trial for others that wait, and a pause costs a start and a checkpoint.
                min_time_slice=math.inf,
            )
        return AshaStopper(
            time_attr="samples",
            metric=metric.name,
            mode=metric.direction,
            grace_period=between,
            reduction_factor=_REDUCTION,
            # ASHA ends every trial that reaches max_t, also a good one; a run ends by itself.
            max_t=2 * total,
        )


def unbeaten(costs: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the points that no other point beats in one metric without losing in another."""
    return [
        name
        for name, mine in costs.items()
        if not any(
            other != mine and all(a <= b for a, b in zip(other, mine, strict=True))
            for other in costs.values()
        )
    ]


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _stopped(name: str, records: Sequence[Mapping[str, Any]]) -> RunResult:
    """Return the result of a stopped trial from its records, as the driver would have written it."""
    metrics = {key: value for record in records for key, value in record.items() if value is not None}
    seconds = float(metrics.get("seconds", 0.0))
    for key in ("kind", "step", "total_steps", "epoch", "seconds"):
        metrics.pop(key, None)
    return RunResult(name, "stopped", metrics=metrics, seconds=seconds)
