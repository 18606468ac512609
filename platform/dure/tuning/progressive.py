"""The progressive schedule: a Tune scheduler that grows every trial's data and keeps the best trials.

It works with any Tune trainable, without the rest of dure::

    def train(config):
        checkpoint = tune.get_checkpoint()  # of the ratio before; None at the first
        model = ...  # start from the checkpoint, and train on the first config["data_ratio"] of the data
        tune.report(
            {"accuracy": accuracy, "data_ratio": config["data_ratio"]},
            checkpoint=tune.Checkpoint.from_directory(folder),
        )

    scheduler = ProgressiveRatioScheduler(
        [0.1, 0.3, 1.0], metric="accuracy", mode="max", num_candidates=9, reduction=3
    )
    tune.Tuner(
        train,
        param_space={"learning_rate": tune.grid_search(nine_rates)},
        tune_config=tune.TuneConfig(scheduler=scheduler, reuse_actors=True),
    ).fit()
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from dure.config.ratios import as_ratio, percent_label
from dure.files import write_json
from dure.tuning.halving import Candidate, Direction, Race

DATA_RATIO = "data_ratio"
"""Key of a trial's config that says how much of the data it trains on, and of the result that ends a ratio."""


class ProgressiveRatioScheduler(TrialScheduler):  # type: ignore[misc]
    """Walks every trial through a schedule of data ratios, and keeps the best part of them at each.

    A trial runs one ratio at a time: with ``config["data_ratio"]`` and, after the first, from the checkpoint
    that it reported with the ratio before. A result that holds ``data_ratio`` ends that ratio and must hold
    the metric; every other result is progress and changes nothing. The trial is then paused until all have
    come that far, and goes on with the next ratio or is stopped.

    Leave ``max_concurrent_trials`` of Tune's config unset: Tune counts paused trials among them, so that those
    which the paused ones wait for would never start. Resources say how many run at once, or ``max_running``.

    Args:
        ratios: The schedule: parts of the data, rising, in (0, 1].
        metric: Metric of the result that ranks.
        mode: Whether the smallest or the largest is the best.
        num_candidates: Trials that take part. Those that come later are held against what is decided already.
        reduction: η: of ``n`` trials at a ratio the best ``n // η`` go on, at least one; 1 keeps all.
        baseline: What can be had without learning, as a number or as the key of the result that holds it; a
            trial that is not better at the first ratio is stopped.
        min_gain: Stop all when the best trial of a ratio is not better by so much than that of the ratio before.
        max_running: Trials at once, for trials that hold no resources themselves.

    Raises:
        ValueError: The ratios do not rise within (0, 1], or a number is impossible.
    """

    def __init__(
        self,
        ratios: Sequence[float | Fraction],
        *,
        metric: str,
        mode: Direction,
        num_candidates: int = 1,
        reduction: int = 3,
        baseline: float | str | None = None,
        min_gain: float | None = None,
        max_running: int | None = None,
    ) -> None:
        super().__init__()
        exact = [as_ratio(ratio) for ratio in ratios]
        self.ratios = [float(ratio) for ratio in exact]
        if sorted(set(self.ratios)) != self.ratios:
            raise ValueError(f"the ratios do not rise: {self.ratios}")
        self.max_running = max_running
        self.race = Race(
            [f"{percent_label(ratio)} %" for ratio in exact],
            num_candidates=num_candidates,
            reduction=reduction,
            direction=mode,
            min_gain=min_gain,
        )
        self.ranked_by = metric
        self._baseline = baseline

    @property
    def is_over(self) -> bool:
        """Whether all candidates came and none will run again."""
        return self.race.is_over

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Accept any metric of Tune's config: trials are ranked by this scheduler's own.

        Nor does it tell Tune its metric, which would then insist on it in every result, of progress too.
        """
        return True

    def candidate(self, trial: Trial) -> Candidate:
        """Return where a trial stands."""
        return self.race.candidates[trial.trial_id]

    def may_start(self, controller: Any) -> bool:
        """Return whether one more trial may run beside those that do."""
        return self.max_running is None or self.max_running > sum(
            trial.status in (Trial.RUNNING, Trial.PENDING) for trial in controller.get_trials()
        )

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Let a trial begin with the first ratio; a restored one where it was."""
        candidate = self.race.join(trial.trial_id)
        self._set_ratio(trial, candidate)
        if candidate.state == "waiting" and trial.status == Trial.PENDING:
            # It has this ratio behind it. Started anew, as Tune would, it would run the ratio again.
            tune_controller._set_trial_status(trial, Trial.PAUSED)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide what a trial does after a result: go on, wait for the others, or stop.

        Raises:
            ValueError: The result's ``data_ratio`` is none of the schedule.
        """
        candidate = self.candidate(trial)
        if candidate.is_over:
            return str(self.STOP)
        if result.get(DATA_RATIO) is None or not self._take(trial, result):
            return str(self.CONTINUE)
        self._follow(tune_controller)
        return str(self.STOP if candidate.is_over else self.PAUSE)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Take the last result of a trial that ended by itself; it runs no further ratio."""
        if result and result.get(DATA_RATIO) is not None:
            self._take(trial, result)
        self._leave(tune_controller, trial, "it ended by itself")

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Take a trial out that failed for good; one that Tune starts again keeps its place."""
        if not trial.should_recover():
            self._leave(tune_controller, trial, "it failed")

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Take a paused trial out that was ended from outside."""
        self._leave(tune_controller, trial, "it was removed")

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return a trial that has not started, or else a paused one that goes on with its next ratio.

        Paused trials that are out are stopped.
        """
        trials = list(tune_controller.get_trials())
        for trial in trials:
            # Here and not where it is decided: there the trial may still be on its way into its pause.
            if trial.status == Trial.PAUSED and self.candidate(trial).is_over:
                tune_controller.stop_trial(trial)
        for trial in trials:
            if trial.status == Trial.PENDING:
                return trial
        if not self.may_start(tune_controller):
            return None
        promoted = [
            trial
            for trial in trials
            if trial.status == Trial.PAUSED and self.candidate(trial).state == "running"
        ]
        return min(promoted, key=lambda trial: self.candidate(trial).place, default=None)

    def debug_string(self) -> str:
        """Return how many trials do what, in a line."""
        states = [each.state for each in self.race.candidates.values()]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        return (
            f"progressive: {self.race.decided} of {len(self.ratios)} ratios decided; {counts or 'no trials'}"
        )

    def save(self, checkpoint_path: str) -> None:
        """Write the state as JSON."""
        write_json(Path(checkpoint_path), {"ratios": self.ratios, **self.race.as_dict()})

    def restore(self, checkpoint_path: str) -> None:
        """Take up a state that :meth:`save` wrote, for ``tune.Tuner.restore`` of the same study.

        Raises:
            ValueError: It is the state of another schedule.
        """
        state: Mapping[str, Any] = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
        if state["ratios"] != self.ratios:
            raise ValueError(f"{checkpoint_path} is of the ratios {state['ratios']}, not {self.ratios}")
        self.race.restore(state)

    def _take(self, trial: Trial, result: Mapping[str, Any]) -> bool:
        """Pass a result on to the race; return False when it is a late one of a ratio that is over."""
        ratio = float(result[DATA_RATIO])
        if ratio not in self.ratios:
            raise ValueError(f"trial {trial} reported {DATA_RATIO} {ratio}, which is none of {self.ratios}")
        candidate, rung = self.candidate(trial), self.ratios.index(ratio)
        if candidate.state != "running" or rung != candidate.rung:
            return False
        baseline = result.get(self._baseline) if isinstance(self._baseline, str) else self._baseline
        score = result.get(self.ranked_by)
        self.race.report(
            trial.trial_id,
            rung,
            None if score is None else float(score),
            baseline=None if baseline is None else float(baseline),
        )
        return True

    def _leave(self, controller: Any, trial: Trial, reason: str) -> None:
        if not self.candidate(trial).is_over:
            self.race.leave(trial.trial_id, reason)
            self._follow(controller)

    def _follow(self, controller: Any) -> None:
        """Give every trial the ratio that it runs next."""
        for trial in controller.get_trials():
            candidate = self.race.candidates.get(trial.trial_id)
            if candidate is not None:
                self._set_ratio(trial, candidate)

    def _set_ratio(self, trial: Trial, candidate: Candidate) -> None:
        ratio = self.ratios[candidate.rung]
        if trial.config.get(DATA_RATIO) != ratio:
            trial.set_config({**trial.config, DATA_RATIO: ratio})
