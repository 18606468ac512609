"""Running a study on Ray Tune: resources, failures, resumption and records for every strategy."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ray import tune

from dure.config.schema import Experiment, Profile
from dure.errors import UserError
from dure.files import write_json
from dure.runtime.cluster import Cluster, cluster
from dure.runtime.fit import trial_resources
from dure.training.events import RunListener
from dure.training.logs import captured_output
from dure.training.records import RunFolder, finite
from dure.tuning.events import SETTLED, StudyListener, TrialStatus
from dure.tuning.naming import named_trainable
from dure.tuning.strategy import Strategy, TrialPlan
from dure.tuning.trial import TrialRequests

logger = logging.getLogger(__name__)

SUMMARY = Strategy.summary_file
_RESTARTS = 1
"""How often a trial whose process died is started again from its last checkpoint."""


def run_study(
    strategy: Strategy,
    *,
    profile: Profile,
    path: Path,
    listener: StudyListener | None = None,
    trackers: Mapping[str, RunListener] | None = None,
    tracker: Callable[[Experiment], RunListener] | None = None,
    address: str | None = None,
) -> dict[str, Any]:
    """Run a study, or what is left of it, and return its summary.

    A trial that is settled by the result in its folder is not run again; one with a checkpoint continues from it.

    Args:
        strategy: Which trials to run.
        profile: The machine of every trial.
        path: Folder of the study; each trial gets a folder in it.
        listener: Who is told of progress, here in the driver.
        trackers: Listener that travels with a trial, by the trial's name.
        tracker: Makes the listener of a trial that ``trackers`` does not name; travels itself.
        address: Ray cluster to join; an own one is started and ended when not given.

    Returns:
        What ``experiment_summary.json`` holds: ``study``, ``kind``, ``path``, ``started``, ``seconds``,
        ``state`` and ``experiments``, one entry per trial.

    Raises:
        UserError: The cluster does not answer, or cannot ever hold a trial.
        RunError: Ray does not start.
    """
    listener = listener or StudyListener()
    plans = list(strategy.trials())
    board = _Board(strategy, plans, path, listener)
    listener.started(strategy.name, path, board.statuses())
    unsettled = [plan.name for plan in plans if board.status(plan.name).state not in SETTLED]
    pending = strategy.pending(unsettled)
    with captured_output(path / strategy.log_file), board.summarised():
        if pending:
            requests = TrialRequests(
                study=strategy.name,
                profile=profile,
                path=path,
                experiments={plan.name: plan.experiment for plan in plans if plan.experiment is not None},
                trackers=trackers or {},
                tracker=tracker,
                listeners=strategy.listeners(),
                keeps_predictions=strategy.keeps_predictions,
                folders={plan.name: plan.folder for plan in plans if plan.folder is not None},
            )
            with cluster(address, name=strategy.name) as ray_cluster:
                if ray_cluster.dashboard_url:
                    listener.told(f"Ray dashboard: {ray_cluster.dashboard_url}")
                _fit(strategy, pending, requests, ray_cluster, board)
    summary = board.summary()
    listener.finished(summary)
    return summary


def _fit(
    strategy: Strategy,
    pending: Sequence[str],
    requests: TrialRequests,
    ray_cluster: Cluster,
    board: _Board,
) -> None:
    profile = requests.profile
    nested = not profile.trains_in_process
    # A trial that only waits for its workers takes no CPU from them: with a hundredth of one, two workers
    # would never fit on two CPUs. A placement group must ask for something, so it asks for a little memory.
    resources = {"memory": float(1024 * 1024)} if nested else trial_resources(profile)
    function = tune.with_resources(
        tune.with_parameters(strategy.trainable(), requests=requests), tune.PlacementGroupFactory([resources])
    )
    tuner = tune.Tuner(
        named_trainable(function, strategy.name, one_trial_each=nested),
        param_space=strategy.param_space(pending),
        tune_config=tune.TuneConfig(
            reuse_actors=not nested,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
            **strategy.tune_settings(concurrent_trials(profile, ray_cluster)),
        ),
        run_config=tune.RunConfig(
            name=f"{strategy.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}",
            storage_path=str((requests.path / ".ray_tune").resolve()),
            failure_config=tune.FailureConfig(max_failures=_RESTARTS),
            callbacks=[board],
            verbose=0,
        ),
    )
    with _environment(
        RAY_CHDIR_TO_TRIAL_DIR="0",
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
        TUNE_DISABLE_SIGINT_HANDLER="1",
        # Records of training hold no validation metric, which a scheduler would otherwise insist on.
        TUNE_DISABLE_STRICT_METRIC_CHECKING="1",
    ):
        tuner.fit()


def concurrent_trials(profile: Profile, ray_cluster: Cluster) -> int:
    """Return how many trials fit side by side.

    Trials that only wait for their workers hold next to nothing themselves; without this bound all could
    start and then starve each other's workers.

    Raises:
        UserError: Not even one fits.
    """
    needed = trial_resources(profile)
    fitting = []
    for name, amount in needed.items():
        have = ray_cluster.resources.get(name, 0.0)
        if have < amount:
            raise UserError(
                f"one trial needs {amount:g} {name}, and the cluster has {have:g}",
                where=f"profile {profile.name}",
                hint="another --profile, or a cluster with more",
            )
        fitting.append(int(have / amount))
    return min(
        fitting if profile.max_concurrent_trials is None else [*fitting, profile.max_concurrent_trials]
    )


def _trial_name(trial: Any) -> str:
    return str(trial.config["trial"])


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    saved = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Board(tune.Callback):  # type: ignore[misc]
    """Where every trial stands, from the folders on disk and from what Tune says."""

    def __init__(
        self, strategy: Strategy, plans: Sequence[TrialPlan], path: Path, listener: StudyListener
    ) -> None:
        self.strategy = strategy
        self.path = path
        self.listener = listener
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self._began = time.monotonic()
        self._finished = False
        self._trials: dict[str, TrialStatus] = {}
        for plan in plans:
            folder = path / (plan.name if plan.folder is None else plan.folder)
            status = self._from_folder(TrialStatus(name=plan.name, state="pending", path=folder))
            # What is not settled is run again.
            restored = status.state in SETTLED
            self._trials[plan.name] = (
                replace(status, restored=True)
                if restored
                else TrialStatus(name=plan.name, state="pending", path=folder)
            )

    def status(self, name: str) -> TrialStatus:
        """Return where a trial stands."""
        return self._trials[name]

    def statuses(self) -> list[TrialStatus]:
        """Return where all trials stand, in the study's order."""
        return list(self._trials.values())

    def summary(self) -> dict[str, Any]:
        """Return the summary of the study as it stands."""
        trials = self.statuses()
        completed = all(trial.state in SETTLED for trial in trials) and any(
            trial.state == "completed" for trial in trials
        )
        ended = "completed" if completed else "failed" if self._finished else "interrupted"
        return {
            "study": self.strategy.name,
            "kind": self.strategy.kind,
            "path": str(self.path),
            "state": ended,
            "started": self.started,
            "seconds": round(time.monotonic() - self._began, 1),
            **self.strategy.summary(trials),
            "experiments": [
                {
                    "name": trial.name,
                    "state": trial.state,
                    "metrics": finite(trial.metrics),
                    "error": trial.error,
                    "seconds": round(trial.seconds, 1),
                    "path": str(trial.path),
                }
                for trial in trials
            ],
        }

    @contextmanager
    def summarised(self) -> Iterator[None]:
        """Write the summary before the body, and after it whatever happens."""
        self._write()
        try:
            yield
            self._finished = True
        finally:
            for name, trial in self._trials.items():
                if trial.state == "running":
                    self._trials[name] = self._from_folder(replace(trial, state="interrupted"))
                elif trial.state == "pending":  # its strategy may have settled it without a run
                    self._trials[name] = self._from_folder(trial)
            self._write()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has its process."""
        if "told" in trial.config:
            self._tell(f"{_trial_name(trial)}: {trial.config['told']}")
        self._change(trial, state="running", stage=self.strategy.stage(trial.config))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial has new numbers."""
        for message in result.get("told", ()):
            self._tell(f"{_trial_name(trial)}: {message}")
        if "step" not in result:
            for message in self.strategy.reported(self._trials[_trial_name(trial)], result):
                self._tell(f"{_trial_name(trial)}: {message}")
            self._write()
            return
        known = self._trials[_trial_name(trial)].metrics
        numbers = {
            key: float(value)
            for key, value in result.items()
            if key.startswith(("loss", "learning_rate", "grad_norm", "eval_", "untrained_"))
            and isinstance(value, int | float)
        }
        self._change(
            trial,
            state="running",
            step=int(result["step"]),
            total_steps=int(result["total_steps"]),
            epoch=float(result["epoch"]),
            seconds=float(result["seconds"]),
            metrics={**known, **numbers},
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial returned, and its result says how it went; or the study's scheduler stopped it."""
        name = _trial_name(trial)
        folder = RunFolder(self._trials[name].path)
        if folder.read_result() is None:
            folder.write_result(self.strategy.stopped(self._trials[name]))
        self._end(trial, "its process ended without a result")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process died once too often."""
        self._end(trial, f"its process died {_RESTARTS + 1} times (see {self.path / self.strategy.log_file})")

    def _tell(self, message: str) -> None:
        logger.info(message)
        self.listener.told(message)

    def _write(self) -> None:
        write_json(self.path / self.strategy.summary_file, self.summary())

    def _change(self, trial: Any, **values: Any) -> None:
        name = _trial_name(trial)
        self._trials[name] = replace(self._trials[name], **values)
        self.listener.changed(self._trials[name])

    def _end(self, trial: Any, otherwise: str) -> None:
        name = _trial_name(trial)
        before = replace(self._trials[name], state="failed", error=otherwise)
        self._trials[name] = self._from_folder(before)
        self.listener.changed(self._trials[name])
        self.strategy.ended(self.statuses())
        self._write()

    def _from_folder(self, status: TrialStatus) -> TrialStatus:
        """Return the status with the result in the trial's folder, when there is one."""
        result = RunFolder(status.path).read_result()
        if result is None:
            return status
        steps = result.metrics.get("steps", status.step)
        return replace(
            status,
            state=result.state,
            metrics=result.metrics or status.metrics,
            seconds=result.seconds or status.seconds,
            step=int(steps),
            total_steps=status.total_steps or int(steps),
            error=result.error,
        )
