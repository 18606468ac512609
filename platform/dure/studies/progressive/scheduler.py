"""The progressive schedule: a Tune scheduler that grows every trial's data and keeps the best trials.

:class:`ProgressiveRatioScheduler` works with any Tune trainable, without the rest of dure.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.result import SHOULD_CHECKPOINT
from ray.tune.schedulers import TrialScheduler
from ray.tune.utils import flatten_dict

from dure.config.ratios import as_ratio, percent_label
from dure.files import read_json, write_json
from dure.metrics.metric import Direction, Metric
from dure.studies.progressive.race import Candidate, Race

logger = logging.getLogger(__name__)

DATA_RATIO = "data_ratio"
"""Key of a trial's config that says how much of the data it trains on, and of the result that ends a ratio."""
INTERRUPTED = "interrupted"
"""Key of the last result of a trial that ends before its ratio does, to go on in another session."""

_FAILED = "it failed"


class ProgressiveRatioScheduler(TrialScheduler):  # type: ignore[misc]
    """Walks every trial through a schedule of data ratios, and keeps the best part of them at each.

    Nine learning rates at 10 % of the data, the best three of them at 30 %, the best one at 100 %::

        def train(config):
            checkpoint = tune.get_checkpoint()  # of the ratio before; None at the first
            ...  # start from the checkpoint; train on the first config["data_ratio"] of the data
            tune.report(
                {"accuracy": accuracy, "data_ratio": config["data_ratio"]},
                checkpoint=tune.Checkpoint.from_directory(folder),
            )

        scheduler = ProgressiveRatioScheduler(
            [0.1, 0.3, 1.0], metric="accuracy", mode="max", num_candidates=9, reduction=3
        )
        tuner = tune.Tuner(
            train,
            param_space={"learning_rate": tune.grid_search(nine_rates)},
            tune_config=tune.TuneConfig(scheduler=scheduler, reuse_actors=True),
            run_config=tune.RunConfig(callbacks=[KeepProgress(scheduler)]),
        )
        tuner.fit()
        winner = scheduler.race.ranking()[0]  # a trial's id

    What a trainable has to do:

    - It is called again for every ratio, in a new process or (``reuse_actors``) in one that served another trial.
      What it keeps from one ratio to the next is in its checkpoint. A ratio is of the whole data, not of what
      comes on top of the ratio before; that the larger part contains the smaller one is up to the trainable.
    - The result that ends a ratio holds ``data_ratio``, the metric and the checkpoint, and is reported once.
      The call does not return from that report: the trial is paused until all have come that far, then goes on
      with the next ratio or is stopped. A class returns that result from ``step``; with ``reuse_actors`` its
      ``reset_config`` must take the new ratio.
    - Results without ``data_ratio`` are progress. They may come at any time, with a checkpoint or without, need
      not hold the metric and change nothing. After a failure that Tune recovers from (``FailureConfig``), the
      ratio is run again from the last checkpoint.
    - A metric that is missing, NaN or infinite stops the trial. A trial that returns or fails is out as well; the
      others go on without it. One that reports ``interrupted`` and returns is not: nothing is decided without it.

    What the study has to leave alone:

    - ``metric`` of ``TuneConfig``: Tune would insist on it in results of progress too.
    - ``max_concurrent_trials``: Tune counts paused trials among them, so that those which the paused ones wait for
      would never start. Resources say how many run at once, or ``max_running``.

    To go on after an interruption with ``tune.Tuner.restore(path, train)``, give the study
    :class:`KeepProgress` as in the example; then Tune's own snapshots hold the scheduler's state. Who keeps it
    elsewhere calls ``save`` and ``restore``; ``tune.run(..., resume=True)`` takes the new scheduler. The state may
    be older by a result than Tune's snapshot, or newer: what Tune lost is run again, what it has is not.

    Args:
        ratios: The schedule: parts of the data, rising, in (0, 1].
        metric: Metric of the result that ranks.
        mode: Whether the smallest or the largest is the best.
        num_candidates: Trials that take part. Those that come later are held against what is decided already.
        reduction: η: of ``n`` trials at a ratio the best ``n // η`` go on, at least one; 1 keeps all.
        baseline: What can be had without learning, as a number or as the key of the result that holds it
            (None there: nothing is known); a trial that is not better at the first ratio is stopped.
        min_gain: Stop all when the best trial of a ratio is not better by so much than that of the ratio before.
        max_running: Trials at once, for trials that hold no resources themselves, such as those that only wait
            for a nested ``TorchTrainer``.

    Raises:
        ValueError: The ratios do not rise within (0, 1], or a number is impossible.
    """

    # A trial must not run on behind the result that ends its ratio.
    _supports_buffered_results = False

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
            metric=Metric(metric, mode),
            min_gain=min_gain,
        )
        self.ranked_by = metric
        self._baseline = baseline
        self._starting: set[str] = set()

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Accept any metric of Tune's config: trials are ranked by this scheduler's own.

        Nor does it tell Tune its metric, which would then insist on it in every result, of progress too.
        """
        return True

    def candidate(self, trial: Trial) -> Candidate:
        """Return where a trial stands."""
        return self.race.candidates[trial.trial_id]

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Let a trial begin with the first ratio; a restored one where Tune's record of it ends."""
        candidate = self.race.join(trial.trial_id)
        if trial.status == Trial.PENDING:
            finished = self._num_finished(trial)
            if finished < len(candidate.scores) or candidate.reason == _FAILED:
                self.race.take_back(trial.trial_id, min(finished, len(candidate.scores)))
            elif finished > len(candidate.scores) and DATA_RATIO in trial.last_result:
                self._take(trial, flatten_dict(trial.last_result))
        self._follow(tune_controller)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide what a trial does after a result: go on, wait for the others, or stop.

        Raises:
            ValueError: The result's ``data_ratio`` is none of the schedule.
        """
        candidate = self.candidate(trial)
        ends = result.get(DATA_RATIO) is not None and self._take(trial, result)
        if ends:
            self._follow(tune_controller)
        if candidate.is_over:
            return str(self.STOP)
        return str(self.PAUSE if ends or candidate.state == "waiting" else self.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Take the last result of a trial that ended by itself; it runs no further ratio.

        One that was interrupted keeps its place, and nothing is decided without it.
        """
        if result and result.get(INTERRUPTED):
            return
        reason = "it ended by itself"
        if result and result.get(DATA_RATIO) is not None and self._take(trial, result, leaves=reason):
            self._follow(tune_controller)
        self._leave(tune_controller, trial, reason)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Take a trial out that failed for good; one that Tune starts again keeps its place."""
        if not trial.should_recover():
            self._leave(tune_controller, trial, _FAILED)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Take a paused trial out that was ended from outside."""
        self._leave(tune_controller, trial, "it was removed")

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return a paused trial that goes on with its next ratio, or else one that has not started.

        Tune calls this in every step, before it starts all that are pending. So those that must not start yet
        are paused here, and paused ones that are out are stopped.
        """
        trials = list(tune_controller.get_trials())
        pending = {trial.trial_id for trial in trials if trial.status == Trial.PENDING}
        self._starting &= pending
        for trial in trials:
            # A restored trial may wait or be over. Restarted, as Tune would, it would run its ratio again.
            if trial.trial_id in pending - self._starting and (
                self.max_running is not None or self.candidate(trial).state != "running"
            ):
                tune_controller._set_trial_status(trial, Trial.PAUSED)
            # Here and not where it is decided: there the trial may still be on its way into its pause.
            if trial.status == Trial.PAUSED and self.candidate(trial).is_over:
                tune_controller.stop_trial(trial)
        running = sum(each.status in (Trial.RUNNING, Trial.PENDING) for each in tune_controller.get_trials())
        if self.max_running is not None and running >= self.max_running:
            return None
        if (
            not any(self.candidate(trial).state == "running" for trial in trials)
            and len(trials) < self.race.num_candidates
            and tune_controller.search_alg.is_finished()
        ):
            self.race.close()
            self._follow(tune_controller)
        ready = [
            trial
            for trial in trials
            if trial.status == Trial.PAUSED and self.candidate(trial).state == "running"
        ]
        if not ready:
            return next((trial for trial in trials if trial.status == Trial.PENDING), None)
        # First the one that most others wait for.
        chosen = min(ready, key=lambda trial: (self.candidate(trial).rung, self.candidate(trial).place))
        self._starting.add(chosen.trial_id)
        return chosen

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
        state: Mapping[str, Any] = read_json(Path(checkpoint_path), what="state of a schedule")
        if state["ratios"] != self.ratios:
            raise ValueError(f"{checkpoint_path} is of the ratios {state['ratios']}, not {self.ratios}")
        self.race.restore(state)

    def _take(self, trial: Trial, result: Mapping[str, Any], *, leaves: str | None = None) -> bool:
        """Pass a result on to the race; return False when it is a late one of a ratio that is over."""
        candidate, rung = self.candidate(trial), self._rung(trial, result[DATA_RATIO])
        if candidate.state != "running" or rung != candidate.rung:
            return False
        score = result.get(self.ranked_by)
        if score is None:
            logger.warning(
                "trial %s is out: its result at %s %s has no %r, only %s",
                trial, DATA_RATIO, result[DATA_RATIO], self.ranked_by, sorted(result),
            )  # fmt: skip
        self.race.report(
            trial.trial_id,
            rung,
            None if score is None else float(score),
            baseline=self._baseline_of(result) if rung == 0 else None,
            leaves=leaves,
        )
        return True

    def _rung(self, trial: Trial, ratio: Any) -> int:
        if float(ratio) not in self.ratios:
            raise ValueError(f"trial {trial} reported {DATA_RATIO} {ratio}, which is none of {self.ratios}")
        return self.ratios.index(float(ratio))

    def _baseline_of(self, result: Mapping[str, Any]) -> float | None:
        if not isinstance(self._baseline, str):
            return self._baseline
        if self._baseline not in result:
            raise ValueError(
                f"the result of the first ratio has no {self._baseline!r} as the baseline, only {sorted(result)}"
            )
        value = result[self._baseline]
        return None if value is None else float(value)

    def _num_finished(self, trial: Trial) -> int:
        """Return how many ratios a trial has behind it by Tune's own record, with their checkpoint."""
        result = trial.last_result or {}
        ratio = result.get(DATA_RATIO)
        if ratio is None:
            ratio = result.get("config", {}).get(DATA_RATIO)
            return 0 if ratio is None else self._rung(trial, ratio)
        kept = trial.latest_checkpoint_result
        # Tune notes a result before the checkpoint that came with it. A function says whether one came; a class
        # is asked for one in every pause.
        is_lost = result.get(SHOULD_CHECKPOINT, True) and (
            kept is None or kept.checkpoint is None or kept.metrics.get(DATA_RATIO) != ratio
        )
        return self._rung(trial, ratio) + (not is_lost)

    def _leave(self, controller: Any, trial: Trial, reason: str) -> None:
        if not self.candidate(trial).is_over:
            self.race.leave(trial.trial_id, reason)
            self._follow(controller)

    def _follow(self, controller: Any) -> None:
        """Give every trial the ratio that it runs next."""
        for trial in controller.get_trials():
            candidate = self.race.candidates.get(trial.trial_id)
            if candidate is not None:
                ratio = self.ratios[candidate.rung]
                if trial.config.get(DATA_RATIO) != ratio:
                    trial.set_config({**trial.config, DATA_RATIO: ratio})


class KeepProgress(Callback):  # type: ignore[misc]
    """Keeps a scheduler's state in the snapshots of a study, for ``tune.Tuner.restore``."""

    def __init__(self, scheduler: ProgressiveRatioScheduler) -> None:
        self.scheduler = scheduler

    def get_state(self) -> dict[str, Any]:
        """Return the state that Tune writes with its own."""
        return self.scheduler.race.as_dict()

    def set_state(self, state: dict[str, Any]) -> None:
        """Take up a state before Tune adds the restored trials."""
        self.scheduler.race.restore(state)
