"""``OptunaSearch`` of dure: Ray Tune asks it for points, and it keeps everything in Optuna's storage.

Ray's own ``OptunaSearch`` reports a trial's *last* result, makes a failure of a diverged trial (which TPE then
ignores, and goes there again), forgets which trials a killed driver had running, and cannot tell a trial that
a scheduler stopped from one that finished. Hence this one, over Optuna's ask and tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from dure.config.spaces import Values
from dure.errors import RunError, UserError, named
from dure.metrics.metric import Metric
from dure.modeling.replaced import replaced
from dure.reporting import figures
from dure.runs.folder import RunResult
from dure.secrets import redacted, without_passwords
from dure.signals import STOP_FILE, Interrupted
from dure.studies.sweep.optuna_study import JOURNAL, open_study, proposed, queued, sampler
from dure.studies.sweep.plan import SweepStudy

_NAME, _OUTCOME = "trial", "state"
_TRAINED = "trained"
"""Beside a point of the storage: the values that its trial trained with, where a rehearsal scaled them."""


Judge = Callable[[str], RunResult | None]
"""Says from what the trial of a name left how it ended, with its final metrics if it has some; None when it left nothing."""


class SweepSearch(Searcher):  # type: ignore[misc]
    """Proposes points to Tune and tells Optuna how they did.

    Trials are named ``trial_000`` on. A trial that was running when a driver was killed is proposed again under
    its name, and so is one that failed, so that it continues in its folder. A diverged trial counts as
    infinitely bad, and a stopped one as pruned, with the curve that it had shown.

    A point depends on the seed, its place and the results told before, and not on the session that draws it. So a
    sweep of one trial at a time that was interrupted, killed or continued with more trials tries exactly the
    points that it would have tried at one go. With several side by side the order in which they end decides as
    well, and that is another every time. A kill in the milliseconds in which a point is being written can cost
    ``qmc`` that place of its sequence, and ``cmaes`` the random numbers of that point.

    Tune takes what is raised while a trial reports or ends for the death of the trial. So an error of the storage is
    kept as ``failure``, and nothing more is proposed; how the trials ended stands in their folders.

    Usable by itself with any trainable that reports the metrics, and ``samples`` for the curve of a trial.

    Args:
        sweep: What is searched.
        path: Folder of the study.
        metrics: What is looked for; as the sweep gives it, with directions, when not given.
        configured: Makes Tune's config of a trial from its name and values.
        judge: Says how a trial ended, from the trace it left; Tune's word is taken when not given.
    """

    def __init__(
        self,
        sweep: SweepStudy,
        path: Path,
        *,
        metrics: Sequence[Metric] | None = None,
        configured: Callable[[str, Values], dict[str, Any]] = lambda name, values: {"trial": name, **values},
        judge: Judge | None = None,
    ) -> None:
        super().__init__(metric=None, mode=None)
        self.sweep = sweep
        self.metrics = tuple(each.metric for each in sweep.metrics) if metrics is None else tuple(metrics)
        self.path = path
        self._configured = configured
        self._judge = judge
        self._running: dict[str, int] = {}
        self._best: dict[int, Mapping[str, Any]] = {}
        self.failure: RunError | None = None
        self._seen: list[FrozenTrial] = []
        points = sweep.grid() if sweep.sampler == "grid" else sweep.tries
        self._first = [queued(sweep.space, point) for point in points]
        self.study = open_study(sweep, path, self.metrics)
        self._reconcile()
        self._resumed = [trial.number for trial in self._trials() if trial.state == TrialState.RUNNING]

    def trials(self) -> dict[str, FrozenTrial]:
        """Return the latest trial of every name."""
        return {_name(trial): trial for trial in self._trials() if _name(trial) is not None}  # type: ignore[misc]

    @property
    def num_points(self) -> int:
        """Points in all: those of the sweep, and as many more as are still to be tried first or are new in its grid."""
        new = sum(_name(each) is None for each in self._trials() if self._waits(each))
        return max(self.sweep.budget, len(self.trials()) + new)

    def points(self) -> dict[str, dict[str, Any]]:
        """Return the values of every trial that has them, by its name."""
        return {
            # One that is tried again and was killed while it got its values has the others from its queue.
            name: proposed(
                optuna.trial.FixedTrial({**trial.system_attrs.get("fixed_params", {}), **trial.params}),
                self.sweep.space,
            )
            for name, trial in self.trials().items()
            if trial.params
        }

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the config of a trial, or say that all points were tried.

        Nothing is proposed once a stop was asked for: what others are about to reach would not be known to it.

        Raises:
            Interrupted: A stop was asked for, and no trial runs. Tune would wait for a point.
            RunError: The storage failed, and no trial runs.
            UserError: The experiment is impossible at the point.
        """
        if self.failure is not None:
            if self._running:
                return None
            raise self.failure
        names = self.trials()
        if not self._resumed and self._is_spent(names):
            return str(Searcher.FINISHED)
        if (self.path / STOP_FILE).exists():
            if self._running:
                return None
            raise Interrupted
        place = next(place for place in count() if trial_name(place) not in names)
        with replaced(self.study, "sampler", sampler(self.sweep, place=place)):
            if self._resumed:
                number = self._resumed.pop(0)
                trial = optuna.Trial(self.study, self._trial(number)._trial_id)
            else:
                trial = self.study.ask()
            values = proposed(trial, self.sweep.space)
        name = trial.user_attrs.get(_NAME)
        if name is None:
            name = trial_name(place)
            # Last, so that a trial that has a name has its values.
            trial.set_user_attr(_NAME, name)
        self._running[trial_id] = trial.number
        try:
            config = self._configured(name, values)
            trained = config.get("trained", values)
            if trained != values:
                trial.set_user_attr(_TRAINED, trained)
            return config
        except UserError:
            self.study.tell(trial.number, state=TrialState.FAIL)
            raise

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep the metrics of the best validation, and the curve of the first metric."""
        with self._kept("what a trial reported"):
            self._report(trial_id, result)

    def _report(self, trial_id: str, result: Mapping[str, Any]) -> None:
        number = self._running.get(trial_id)
        value = figures.number(result.get(self.metrics[0].name))
        if number is None or value is None:
            return
        first = self.metrics[0]
        best = self._best.get(number)
        if best is None or first.better(value, float(best[first.name])):
            self._best[number] = dict(result)
        if len(self.metrics) == 1:  # Optuna keeps curves of one metric only
            trial = self._trial(number)
            step = int(result.get("samples", result.get("training_iteration", 0)))
            if step not in trial.intermediate_values:
                self.study._storage.set_trial_intermediate_value(trial._trial_id, step, value)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna how a trial ended."""
        with self._kept("how a trial ended"):
            # Tune does not pass the result on which a scheduler stopped it to on_trial_result.
            if result is not None:
                self._report(trial_id, result)
            if (number := self._running.get(trial_id)) is not None:
                name = _name(self._trial(number)) or trial_name(number)
                if self._judge is None:
                    ended = RunResult(name, "failed" if error else "completed")
                else:
                    ended = self._judge(name) or RunResult(name, "failed" if error else "stopped")
                self._tell(number, ended)
        self._running.pop(trial_id, None)

    @contextmanager
    def _kept(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            words = redacted(named(error, 300))
            place = (
                self.path / JOURNAL if self.sweep.storage is None else without_passwords(self.sweep.storage)
            )
            self.failure = self.failure or RunError(
                f"{place}: the search cannot keep {what} ({words}). What the trials came to is in their folders: once "
                "its storage is back, --resume tells the search and goes on"
            )

    def save(self, checkpoint_path: str) -> None:
        """Leave a file where Tune wants one; the search itself is in its storage already."""
        Path(checkpoint_path).write_text(self.sweep.name, encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Take up the search from its storage."""
        self.study = open_study(self.sweep, self.path, self.metrics)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its settings; a database connection does not travel, and is opened again."""
        return {
            key: value
            for key, value in self.__dict__.items()
            if key not in ("study", "_configured", "_judge")
        }

    def _trials(self) -> list[FrozenTrial]:
        """Return the trials of the storage; those that it last told of once it fails."""
        if self.failure is None:
            with self._kept("its trials"):
                self._seen = self.study.get_trials(deepcopy=False)
        return self._seen

    def _trial(self, number: int) -> FrozenTrial:
        """Return a trial as its storage has it now; ``study.trials`` would copy all of them."""
        return self.study.get_trials(deepcopy=False)[number]

    def _is_spent(self, names: Collection[str]) -> bool:
        waiting = {_name(trial) for trial in self._trials() if trial.state == TrialState.WAITING}
        tried = sum(name not in waiting for name in names)
        return tried >= self.sweep.budget and not any(map(self._waits, self._trials()))

    def _waits(self, trial: FrozenTrial) -> bool:
        """Return whether a trial waits to be tried: first, as a point of the grid, or again."""
        return trial.state == TrialState.WAITING and (
            _name(trial) is not None or trial.system_attrs.get("fixed_params") in self._first
        )

    def _reconcile(self) -> None:
        """Bring the storage up to what the folders say, and queue what is to be tried first or again."""
        for trial in self._trials():
            name = _name(trial)
            if trial.state == TrialState.RUNNING and name is None:
                # Killed while it got its values. One that has some would draw the others otherwise than at one
                # go, so another takes its place; a queued one has them from its queue.
                if trial.params and "fixed_params" not in trial.system_attrs:
                    self.study.tell(trial.number, state=TrialState.FAIL)
            elif trial.state == TrialState.RUNNING and name is not None:
                ended = None if self._judge is None else self._judge(name)
                if ended is not None and ended.state != "interrupted":
                    self._tell(trial.number, ended)
        for name, trial in self.trials().items():
            if trial.state == TrialState.FAIL and len(trial.params) > 0:
                self.study.enqueue_trial(trial.params, user_attrs={_NAME: name})
        known = [trial.system_attrs.get("fixed_params", trial.params) for trial in self._trials()]
        for params in self._first:
            if params not in known:
                self.study.enqueue_trial(params)

    def _tell(self, number: int, ended: RunResult) -> None:
        trial = self._trial(number)
        live = optuna.Trial(self.study, trial._trial_id)
        best = ended.metrics or self._best.get(number, {})  # else those at its best validation
        values = [best.get(metric.name) for metric in self.metrics]
        is_scored = all(isinstance(value, int | float) and math.isfinite(value) for value in values)
        state = "failed" if ended.state == "completed" and not is_scored else ended.state
        live.set_user_attr(_OUTCOME, state)
        match state:
            case "completed":
                self.study.tell(number, [float(value) for value in values])  # type: ignore[arg-type]
            case "diverged":
                self.study.tell(
                    number,
                    [metric.score(math.inf) for metric in self.metrics],
                )
            case "stopped":
                self.study.tell(number, state=TrialState.PRUNED)
            case "failed":
                self.study.tell(number, state=TrialState.FAIL)
            case "interrupted":
                pass  # stays RUNNING, and is continued by the next session


def trial_name(place: int) -> str:
    """Return the name of a trial, which is also its folder: ``trial_007``."""
    return f"trial_{place:03d}"


def _name(trial: FrozenTrial) -> str | None:
    name = trial.user_attrs.get(_NAME)
    return None if name is None else str(name)
