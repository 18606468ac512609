"""The progressive training as a study: candidates that walk one schedule, and what it leaves behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from ray.tune.search import Searcher

from dure.config.schema import Experiment
from dure.events import SETTLED, TrialStatus
from dure.family import load_family
from dure.metrics.metric import definitions
from dure.runs.epochs import epochs_of
from dure.runs.folder import RunFolder, RunResult, finite
from dure.studies.progressive.plan import ProgressiveStudy
from dure.studies.progressive.race import Candidate
from dure.studies.progressive.results import ProgressiveResults
from dure.studies.progressive.scheduler import DATA_RATIO, ProgressiveRatioScheduler
from dure.studies.progressive.stage import (
    BASELINE,
    SCORE,
    TRAINED,
    beats_baseline,
    best_place,
    run_stage,
    stage_folders,
)
from dure.studies.strategy import Strategy, TrialPlan

Record = Mapping[str, Any]
Forecaster = Callable[[Sequence[Record]], Mapping[str, Any] | None]
"""Makes the forecast for all rows from the records of the stages so far, or None."""


class Progressive(Strategy[ProgressiveResults]):
    """Trains candidates on more and more of the data and keeps the best part of them at every ratio.

    A session runs all candidates through the scheduler, finished stages too: these only report their record, so
    that a resumed study decides what an undisturbed one would have.

    Args:
        study: The study.
        experiments: The experiment of every candidate, in the order of ``study.candidates``.
        path: Folder of the study.
        log_file: The driver's log within it.
        forecaster: Looks ahead from the stages of one candidate.
    """

    kind = "progressive"
    results = ProgressiveResults
    summary_file: ClassVar[str] = "progressive_training_results.json"

    def __init__(
        self,
        study: ProgressiveStudy,
        experiments: Sequence[Experiment],
        path: Path,
        *,
        log_file: str,
        forecaster: Forecaster,
    ) -> None:
        self.name = study.name
        self.study = study
        self.path = path
        self.log_file = log_file
        self._experiments = dict(zip(study.names(), experiments, strict=True))
        self._forecaster = forecaster
        self._forecasts: dict[tuple[str, int], Mapping[str, Any] | None] = {}
        self._first = experiments[0]
        self._metric = load_family(self._first).best_metric
        self._scheduler: ProgressiveRatioScheduler | None = None
        self._search: _Candidates | None = None

    def trials(self) -> Sequence[TrialPlan]:
        """Return one trial per candidate; the stages of a lone one lie in the study's own folder."""
        is_alone = len(self._experiments) == 1
        return [
            TrialPlan(name, experiment, folder="." if is_alone else None)
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

    def param_space(self, pending: Sequence[str]) -> dict[str, Any]:
        """Return nothing: the candidates are proposed one by one."""
        return {}

    def tune_settings(self, concurrent_trials: int) -> dict[str, Any]:
        """Return the scheduler, and what proposes the candidates to it."""
        self._scheduler = ProgressiveRatioScheduler(
            self.study.ratios,
            metric=SCORE,
            mode="max" if self._metric.higher_is_better else "min",
            num_candidates=len(self._experiments),
            reduction=self.study.reduction,
            baseline=BASELINE,
            min_gain=self.study.min_gain,
            max_running=concurrent_trials,
        )
        told = dict(zip(self._experiments, self.study.candidates, strict=True))
        self._search = _Candidates(told, self._scheduler, concurrent_trials)
        return {"scheduler": self._scheduler, "search_alg": self._search, "num_samples": -1}

    def stage(self, config: Mapping[str, Any]) -> str:
        """Return which stage a config runs: ``stage 3/10``."""
        ratios = [float(ratio) for ratio in self.study.ratios]
        return f"stage {ratios.index(config[DATA_RATIO]) + 1}/{len(ratios)}"

    def reported(self, trial: TrialStatus, result: Mapping[str, Any]) -> list[str]:
        """Say what to expect of all rows, from the third stage on, after a stage that this session trained."""
        records = self._records(trial.name)
        ahead = self._forecast(trial.name, len(records)) if result.get(TRAINED) else None
        if ahead is None or len(records) == len(self.study.ratios):
            return []
        return [
            f"with all {ahead['at_rows']:,} rows, {self._metric.name} {ahead['value']:.4f} is expected, with "
            f"{ahead['level']:.0%} between {ahead['low']:.4f} and {ahead['high']:.4f}"
        ]

    def stopped(self, trial: TrialStatus) -> RunResult:
        """Return the result of a candidate that the scheduler ended: beaten, or done before the last ratio."""
        candidate = self._candidate(trial.name)
        records = self._records(trial.name)
        return RunResult(
            trial.name,
            "completed" if candidate is not None and candidate.state == "done" else "stopped",
            metrics=finite(records[-1]["metrics"]) if records else {},
            seconds=sum(record["seconds"] for record in records),
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

    def winner(self, trials: Sequence[TrialStatus]) -> str | None:
        """Return the completed candidate that got furthest, and there scored best; the first of equals."""
        ranked = []
        for place, trial in enumerate(trials):
            records = self._records(trial.name)
            if trial.state == "completed" and records and records[-1]["score"] is not None:
                ranked.append((-len(records), self._metric.cost(records[-1]["score"]), place, trial.name))
        return min(ranked)[-1] if ranked else None

    def summary(self, trials: Sequence[TrialStatus]) -> Mapping[str, Any]:
        """Return every stage of every candidate, the winner, and what was forecast."""
        winner = self.winner(trials)
        shown = winner or max(trials, key=lambda trial: len(self._records(trial.name))).name
        stages = {trial.name: self._stages(trial.name) for trial in trials}
        training = self._first.training
        every = [stage for each in stages.values() for stage in each]
        baselines = [stage["baseline"] for stage in every if stage["baseline"] is not None]
        return {
            "metric": self._metric.name,
            "direction": self._metric.direction,
            "definitions": definitions([self._metric]),
            "ratios": [float(ratio) for ratio in self.study.ratios],
            "baseline": baselines[0] if baselines else None,
            "seed": self._first.experiment.seed,
            "epochs_per_stage": self.study.epochs_per_stage,
            "effective_batch_size": training.effective_batch_size,
            "stopped": self._stopped(trials, winner),
            "winner": winner,
            "best_stage": self._best_stage(stages[shown]),
            "samples_trained": sum(stage["samples"] for stage in every),
            "stages": stages[shown],
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

    def _stopped(self, trials: Sequence[TrialStatus], winner: str | None) -> str | None:
        """Return why the study ended before all of the data: ``gain``, ``baseline``, or None."""
        if winner is not None:
            return "gain" if len(self._records(winner)) < len(self.study.ratios) else None
        firsts = [self._records(trial.name)[:1] for trial in trials if trial.state == "stopped"]
        if len(firsts) == len(trials) and not any(
            beats_baseline(self._metric, record["metrics"]) for first in firsts for record in first
        ):
            return "baseline"
        return None

    def _best_stage(self, stages: Sequence[Record]) -> str | None:
        scored = [stage for stage in stages if stage["score"] is not None]
        place = best_place(self._metric, [stage["score"] for stage in scored])
        return None if place is None else str(scored[place]["name"])

    def _folder(self, name: str) -> Path:
        return self.path if len(self._experiments) == 1 else self.path / name

    def _candidate(self, name: str) -> Candidate | None:
        if self._search is None or self._scheduler is None:
            return None
        return self._scheduler.race.candidates.get(self._search.trial_ids.get(name, ""))

    def _records(self, name: str) -> list[Record]:
        """Return the records of the finished stages of a candidate, up to the first that is not finished."""
        records: list[Record] = []
        for folder in stage_folders(self.study, self._folder(name)):
            record = folder.read_training_metrics()
            if record is None:
                break
            records.append(record)
        return records

    def _stages(self, name: str) -> list[dict[str, Any]]:
        baseline = self._metric.name.replace("eval_", "baseline_", 1)
        return [
            {
                **{key: value for key, value in record.items() if key not in ("records", "batch_limit")},
                "state": "completed",
                "checkpoint": str(self._folder(name) / record["checkpoint"]),
                "baseline": record["metrics"].get(baseline),
                "forecast": self._forecast(name, place),
            }
            for place, record in enumerate(self._records(name), 1)
        ]

    def _forecast(self, name: str, num_stages: int) -> Mapping[str, Any] | None:
        """Return what the first stages of a candidate foretell; each is computed once."""
        key = (name, num_stages)
        if key not in self._forecasts:
            self._forecasts[key] = self._forecaster(self._records(name)[:num_stages])
        return self._forecasts[key]


class _Candidates(Searcher):  # type: ignore[misc]
    """Proposes the candidates in their order, not more at once than fit, and ends when the scheduler is done.

    Tune would propose a plain list of trials too, but hold the search for finished at once, and then end the
    process of a lone candidate at every pause, which costs more than a small stage itself.
    """

    def __init__(
        self, candidates: Mapping[str, Mapping[str, Any]], scheduler: ProgressiveRatioScheduler, most: int
    ) -> None:
        super().__init__(metric=None, mode=None)
        self.trial_ids: dict[str, str] = {}
        self._candidates = candidates
        self._scheduler = scheduler
        self._most = most

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the config of the next candidate, None to wait, or that there are no more."""
        left = [name for name in self._candidates if name not in self.trial_ids]
        if not left:
            return str(Searcher.FINISHED) if self._scheduler.is_over else None
        states = [each.state for each in self._scheduler.race.candidates.values()]
        if states.count("running") >= self._most:
            return None
        self.trial_ids[left[0]] = trial_id
        values = self._candidates[left[0]]
        notice = ", ".join(f"{key}={value}" for key, value in values.items())
        return {"trial": left[0], **({"notice": notice} if notice else {})}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn nothing: the candidates are given."""

    def save(self, checkpoint_path: str) -> None:
        """Leave a file where Tune wants one; a resumed study proposes all candidates again."""
        Path(checkpoint_path).write_text(self._scheduler.debug_string(), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Start anew."""
