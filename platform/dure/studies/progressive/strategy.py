"""The progressive training as a study: candidates that walk one schedule, and what it leaves behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from dure.config.loading import checked
from dure.config.schema import Experiment
from dure.events import SETTLED, TrialStatus
from dure.family import load_family
from dure.metrics.intervals import rows_behind
from dure.metrics.metric import BASELINE, definitions, under
from dure.runs.epochs import epochs_of
from dure.runs.folder import RunFolder, RunResult
from dure.studies.progressive.forecast import forecast
from dure.studies.progressive.plan import ProgressiveStudy
from dure.studies.progressive.race import Candidate
from dure.studies.progressive.results import Forecast, StageRecord
from dure.studies.progressive.scheduler import DATA_RATIO, ProgressiveRatioScheduler
from dure.studies.progressive.stage import (
    SCORE,
    TRAINED,
    TRIVIAL,
    beats_baseline,
    best_place,
    run_stage,
    stage_folders,
)
from dure.studies.proposing import Proposing
from dure.studies.strategy import Strategy, TrialPlan

Stages = Mapping[str, Sequence[StageRecord]]
"""The finished stages of every candidate, by its name."""


class Progressive(Strategy[ProgressiveStudy]):
    """Trains candidates on more and more of the data and keeps the best part of them at every ratio.

    A session runs all candidates through the scheduler, finished stages too: these only report their record, so that a
    resumed study decides what an undisturbed one would have. Experiments are in the order of ``study.candidates``.
    """

    def __init__(self, study: ProgressiveStudy, experiments: Sequence[Experiment], path: Path) -> None:
        super().__init__(study)
        self.path = path
        self.log_file = f"logs/progressive_training_{datetime.now():%Y%m%d_%H%M%S}.log"
        self._experiments = dict(zip(study.names(), experiments, strict=True))
        self._forecasts: dict[tuple[str, int], Forecast | None] = {}
        self._first = experiments[0]
        self._metric = load_family(self._first).best_metric
        self._scheduler: ProgressiveRatioScheduler | None = None
        self._trial_ids: dict[str, str] = {}
        """Tune's id of every candidate that was proposed."""

    def trials(self) -> Sequence[TrialPlan]:
        """Return one trial per candidate; the stages of a lone one lie in the study's own folder."""
        return [
            TrialPlan(name, experiment, folder=self.study.folder_of(name))
            for name, experiment in self._experiments.items()
        ]

    def pending(self, unsettled: Sequence[str]) -> Sequence[str]:
        """Return all candidates as long as one is not settled: who goes on depends on all of them."""
        if not unsettled:
            return []
        for name in self._experiments:
            RunFolder(self._folder(name)).result.unlink(missing_ok=True)
        return list(self._experiments)

    def trainable(self) -> Callable[..., Mapping[str, Any] | None]:
        """Return what runs one stage."""
        return partial(run_stage, study=self.study)

    def tune_settings(self, concurrent_trials: int) -> dict[str, Any]:
        """Return the scheduler, and what proposes the candidates to it."""
        self._scheduler = ProgressiveRatioScheduler(
            self.study.ratios,
            metric=SCORE,
            mode="max" if self._metric.higher_is_better else "min",
            num_candidates=len(self._experiments),
            reduction=self.study.reduction,
            baseline=TRIVIAL,
            min_gain=self.study.min_gain,
            max_running=concurrent_trials,
        )
        search = Proposing(partial(self._next, self._scheduler, concurrent_trials))
        return {"scheduler": self._scheduler, "search_alg": search, "num_samples": -1}

    def stage(self, config: Mapping[str, Any]) -> str:
        """Return which stage a config runs: ``stage 3/10``."""
        ratios = [float(ratio) for ratio in self.study.ratios]
        return f"stage {ratios.index(config[DATA_RATIO]) + 1}/{len(ratios)}"

    def reported(self, trial: TrialStatus, result: Mapping[str, Any]) -> list[str]:
        """Say what to expect of all rows, from the third stage on, after a stage that this session trained."""
        stages = self._stages(trial.name)
        ahead = stages[-1].forecast if stages and result.get(TRAINED) else None
        if ahead is None or len(stages) == len(self.study.ratios):
            return []
        return [
            f"with all {ahead.at_rows:,} rows, {self._metric.name} {ahead.value:.4f} is expected, with "
            f"{ahead.level:.0%} between {ahead.low:.4f} and {ahead.high:.4f}"
        ]

    def stopped(self, trial: TrialStatus) -> RunResult:
        """Return the result of a candidate that the scheduler ended: beaten, or done before the last ratio."""
        candidate, stages = self._candidate(trial.name), self._stages(trial.name)
        last = stages[-1].metrics if stages else {}
        return RunResult(
            trial.name,
            "completed" if candidate is not None and candidate.state == "done" else "stopped",
            metrics={name: figure for name, figure in last.items() if figure is not None},
            seconds=sum(stage.seconds for stage in stages),
            error=None if candidate is None else candidate.reason,
        )

    def ended(self, trials: Sequence[TrialStatus]) -> None:
        """Keep of beaten candidates the best weights of every stage, and no others."""
        for trial in trials:
            if trial.state != "completed" and trial.state in SETTLED:
                for folder in stage_folders(self.study, trial.path):
                    shutil.rmtree(folder.final_model, ignore_errors=True)
                    for file in epochs_of(folder.checkpoints).values():
                        file.unlink()

    def summary(self, trials: Sequence[TrialStatus]) -> Mapping[str, Any]:
        """Return every stage of every candidate, the winner, and what was forecast."""
        stages = {trial.name: self._stages(trial.name) for trial in trials}
        winner = self._winner(trials, stages)
        shown = stages[winner] if winner else max(stages.values(), key=len)
        best = best_place(self._metric, [stage.score for stage in shown])
        every = [stage for each in stages.values() for stage in each]
        return {
            "metric": self._metric.name,
            "direction": self._metric.direction,
            "definitions": definitions([self._metric]),
            "ratios": [float(ratio) for ratio in self.study.ratios],
            "baseline": next((stage.baseline for stage in every if stage.baseline is not None), None),
            "seed": self._first.experiment.seed,
            "epochs_per_stage": self.study.epochs_per_stage,
            "effective_batch_size": self._first.training.effective_batch_size,
            "stopped": self._stopped(trials, stages, winner),
            "winner": winner,
            "best_stage": None if best is None else shown[best].name,
            "samples_trained": sum(stage.samples for stage in every),
            "stages": shown,
            "candidates": [
                {
                    "name": trial.name,
                    "values": values,
                    "state": trial.state,
                    "reason": trial.error,
                    "stages": stages[trial.name],
                }
                for trial, values in zip(trials, self.study.candidates, strict=True)
            ],
        }

    def _winner(self, trials: Sequence[TrialStatus], stages: Stages) -> str | None:
        """Return the completed candidate that got furthest, and there scored best; the first of equals."""
        ended = [trial.name for trial in trials if trial.state == "completed"]
        scored = [name for name in ended if stages[name] and stages[name][-1].score is not None]

        def rank(name: str) -> tuple[int, float]:
            return -len(stages[name]), self._metric.cost(stages[name][-1].score)

        return min(scored, key=rank, default=None)

    def _stopped(self, trials: Sequence[TrialStatus], stages: Stages, winner: str | None) -> str | None:
        """Return why the study ended before all of the data: ``gain``, ``baseline``, or None."""
        if winner is not None:
            return "gain" if len(stages[winner]) < len(self.study.ratios) else None
        firsts = [stage for trial in trials for stage in stages[trial.name][:1]]
        is_beaten = all(trial.state == "stopped" for trial in trials)
        if is_beaten and not any(beats_baseline(self._metric, first.metrics) for first in firsts):
            return "baseline"
        return None

    def _next(
        self, scheduler: ProgressiveRatioScheduler, most: int, trial_id: str
    ) -> dict[str, Any] | str | None:
        """Return the config of the next candidate, None as long as ``most`` run, or that there are no more.

        Tune would propose a plain list of trials too, but hold the search for finished at once, and then end the
        process of a lone candidate at every pause, which costs more than a small stage itself.
        """
        left = [name for name in self._experiments if name not in self._trial_ids]
        if not left:
            return Proposing.FINISHED if scheduler.race.is_over else None
        states = [each.state for each in scheduler.race.candidates.values()]
        if states.count("running") >= most:
            return None
        self._trial_ids[left[0]] = trial_id
        values = self.study.candidates[list(self._experiments).index(left[0])]
        notice = ", ".join(f"{key}={value}" for key, value in values.items())
        return {"trial": left[0], **({"notice": notice} if notice else {})}

    def _folder(self, name: str) -> Path:
        return self.path / self.study.folder_of(name)

    def _candidate(self, name: str) -> Candidate | None:
        if self._scheduler is None:
            return None
        return self._scheduler.race.candidates.get(self._trial_ids.get(name, ""))

    def _stages(self, name: str) -> list[StageRecord]:
        """Return the finished stages of a candidate, up to the first that is not finished, each with its forecast."""
        stages: list[StageRecord] = []
        for folder in stage_folders(self.study, self._folder(name)):
            record = folder.read_training_metrics()
            if record is None:
                break
            values = {key: value for key, value in record.items() if key not in ("records", "batch_limit")}
            values |= {
                "state": "completed",
                "checkpoint": str(self._folder(name) / record["checkpoint"]),
                "baseline": record["metrics"].get(under(self._metric.name, BASELINE)),
                "forecast": None,
            }
            stages.append(checked(StageRecord, values, {}, str(folder.training_metrics)))
            key = (name, len(stages))
            if key not in self._forecasts:  # every summary asks for all of them
                self._forecasts[key] = self._ahead(stages)
            stages[-1] = stages[-1].with_values(forecast=self._forecasts[key])
        return stages

    def _ahead(self, stages: Sequence[StageRecord]) -> Forecast | None:
        scored = [stage for stage in stages if stage.score is not None]
        if not scored or scored[-1].ratio == 1 or not scored[-1].num_dev_rows:
            return None
        return forecast(
            [stage.num_rows for stage in scored],
            [stage.score for stage in scored if stage.score is not None],
            scored[-1].num_rows_in_all,
            metric=self._metric,
            num_dev_rows=rows_behind(self._metric.name, scored[-1].metrics, scored[-1].num_dev_rows),
        )
