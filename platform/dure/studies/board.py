"""Where every trial of a study stands, and what is made of what Tune says."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, cast

import ray
from ray import cloudpickle, tune
from ray.tune.experiment import Trial

from dure.config.schema import Profile
from dure.errors import UserError, one_line
from dure.events import (
    SETTLED,
    Entry,
    Notice,
    RunProgress,
    StudyEnd,
    StudyListener,
    StudyStart,
    TrialStatus,
    following,
)
from dure.files import is_disk_full
from dure.runs.checkpoints import last_checkpoint
from dure.runs.disk import DiskRoom
from dure.runs.folder import RunFolder, RunResult, finite, folder_at
from dure.runs.restarts import Restarts
from dure.runtime.deaths import Death, death_of
from dure.runtime.fit import died_too_often, restart_line
from dure.runtime.relay import Relay
from dure.signals import Interrupted
from dure.storage.mirror import shared_folder
from dure.storage.pushing import StudyMirror
from dure.studies.results import TrialRecord, TrialResults
from dure.studies.strategy import Strategy
from dure.studies.streams import StudyStreams

logger = logging.getLogger(__name__)

_WRITES_APART = 20
"""Times what writing the summary took that pass before it is written again, but for the end."""


def _kept(callback: Callable[..., None]) -> Callable[..., None]:
    """Keep what a callback of the board raises, which Tune would take for the death of a trial, to the step's end."""

    @wraps(callback)
    def called(self: Board, *args: Any, **info: Any) -> None:
        try:
            callback(self, *args, **info)
        except Exception as error:
            self.failure = self.failure or error

    return called


def trial_name(trial: Any) -> str:
    """Return the name of one of Tune's trials, by which dure knows it."""
    return str(trial.config["trial"])


class Board(tune.Callback):  # type: ignore[misc]
    """Where every trial stands, from the folders on disk and from what Tune says."""

    def __init__(
        self, strategy: Strategy[Any], profile: Profile, path: Path, follower: StudyListener
    ) -> None:
        self.session = uuid.uuid4().hex
        self.profile = profile
        self._room = DiskRoom(path, profile.storage, notify=self.notify, check_stop=self.stop_if_asked)
        self.strategy = strategy
        self.plans = {plan.name: plan for plan in strategy.trials()}
        self._kind = strategy.study.kind_of()
        self.path = path
        self.follower = follower
        self.stop_file: Path | None = None
        earlier = self._earlier()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.started = now if earlier is None else earlier.started
        self._began = time.monotonic() - (0.0 if earlier is None else earlier.seconds)
        self._ended: float | None = None
        self.failure: Exception | None = None
        self._finished = False
        self._next_write = 0.0
        self._trials: dict[str, TrialStatus] = {}
        self._heard: set[str] = set()
        self.shared = shared = shared_folder(profile, path)
        self.mirror = None if shared is None else StudyMirror(shared, path, self._running, self.notify)
        if self.mirror is not None:
            strategy.mirrored(self.mirror.pull)
        for plan in self.plans.values():
            fresh = TrialStatus(name=plan.name, state="pending", path=plan.path_in(path))
            status = self._from_folder(fresh)
            # What is not settled is run again.
            self._trials[plan.name] = replace(status, restored=True) if status.state in SETTLED else fresh
        self._streams = StudyStreams(path, {name: each.path for name, each in self._trials.items()})

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        """Leave all of it here: Tune writes its callbacks to disk, and neither threads nor a listener's locks can be."""
        return tune.Callback, ()

    def _earlier(self) -> TrialResults | None:
        """Return the record that the sessions before have left, if there is a readable one."""
        file = self.path / self._kind.results_file
        with suppress(UserError):
            return cast(TrialResults, self._kind.results.read(file)) if file.is_file() else None
        return None

    def statuses(self) -> list[TrialStatus]:
        """Return where all trials stand, in the study's order."""
        return list(self._trials.values())

    def results(self) -> Any:
        """Return the record of the study as it stands, of its kind."""
        trials = self.statuses()
        completed = all(trial.state in SETTLED for trial in trials) and any(
            trial.state == "completed" for trial in trials
        )
        ended = "completed" if completed else "failed" if self._finished else "interrupted"
        values = {
            "study": self.strategy.study.name,
            "kind": self.strategy.study.kind,
            "path": str(self.path),
            "state": ended,
            "started": self.started,
            "seconds": round((self._ended or time.monotonic()) - self._began, 1),
            self._kind.results.trials_key: [TrialRecord.of(trial) for trial in trials],
            **self.strategy.summary(trials),
        }
        return self._kind.results.model_validate(values)

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Pass everything that the study and its trials report to the follower while the body runs."""
        self._streams.log().write(StudyStart(self.strategy.study.name, tuple(self._trials)))
        with following(lambda: self._streams.look(self._hear)):
            try:
                yield
            finally:
                ended = self.results()
                self._streams.log().write(StudyEnd(ended.study, ended.state, ended.seconds))

    def relay_from_others(self) -> Relay | None:
        """Return what trials on other nodes of the cluster send their lines by, and read it from now on; None without such nodes."""
        self._streams.relay = Relay.to_here()
        return self._streams.relay

    def notify(self, message: str, *, trial: str | None = None) -> None:
        """Show one line to the user, by the stream of the study or of one of its trials."""
        logger.info(message if trial is None else f"{trial}: {message}")
        self._streams.log(trial).notified(message)

    @contextmanager
    def summarised(self) -> Iterator[None]:
        """Write the summary before the body, and after it whatever happens."""
        self._write()
        if self.mirror is not None:
            self.mirror.open()
        try:
            yield
            self._finished = True
        finally:
            for name, trial in self._trials.items():
                if trial.state == "running":
                    self._trials[name] = self._from_folder(replace(trial, state="interrupted"))
                elif trial.state == "pending":  # its strategy may have settled it without a run
                    self._trials[name] = self._from_folder(trial)
            self._ended = time.monotonic()
            self._write()
            if self.mirror is not None:
                self.mirror.close()

    def forget_results(self, names: Sequence[str]) -> None:
        """Remove results of trials that run again, which would pass for those of trials on other machines."""
        if self.mirror is not None:
            for name in names:
                if name in self._trials:  # others are made by their strategy while the study runs
                    RunFolder(self._trials[name].path).result.unlink(missing_ok=True)

    def stop_if_asked(self) -> None:
        """End the study once a stop was asked for and something is left to do.

        Raises:
            Interrupted: A stop was asked for.
        """
        left = any(trial.state not in SETTLED for trial in self._trials.values())
        if left and self.stop_file is not None and self.stop_file.exists():
            raise Interrupted

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """End the study when its search failed, or a stop was asked for and every trial has saved and returned.

        The others, waiting or paused, are left as they are, so that nothing is decided about them.
        """
        self.strategy.check()
        if self.failure is not None:
            raise self.failure
        if not any(trial.status == Trial.RUNNING for trial in trials):
            self.stop_if_asked()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has its process."""
        name = trial_name(trial)
        self._streams.open(name)
        if "notice" in trial.config:
            self.notify(trial.config["notice"], trial=name)
        self._change(name, state="running", stage=self.strategy.stage(trial.config))

    @_kept
    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial has new numbers, which its stream has too where it can be seen from here."""
        self._streams.look(self._hear)
        name = trial_name(trial)
        if "step" not in result:
            self._bring(trial)
            for message in self.strategy.reported(self._trials[name], result):
                self.notify(message, trial=name)
            self._write_now_and_then()
        elif name not in self._heard:
            numbers = {key: value for key, value in result.items() if isinstance(value, int | float)}
            kind, step, total = result["kind"], int(result["step"]), int(result["total_steps"])
            self._progress(
                name,
                RunProgress(kind, step, total, float(result["epoch"]), float(result["seconds"]), numbers),
            )

    def _hear(self, trial: str | None, entry: Entry) -> None:
        """Take what a stream says; how a trial ends is what Tune says."""
        match entry.event:
            case Notice(message):
                self.follower.notified(message if trial is None else f"{trial}: {message}")
            case RunProgress() if trial is not None:
                self._heard.add(trial)
                self._progress(trial, entry.event)

    def _progress(self, trial: str, progress: RunProgress) -> None:
        numbers = {
            key: float(value)
            for key, value in progress.metrics.items()
            if key.startswith(("loss", "learning_rate", "grad_norm", "eval_", "untrained_"))
        }
        self._change(
            trial,
            step=progress.step,
            total_steps=progress.total_steps,
            epoch=progress.epoch,
            seconds=progress.seconds,
            metrics={**self._trials[trial].metrics, **numbers},
        )

    @_kept
    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial returned, and its result says how it went; or the study's scheduler stopped it."""
        self._streams.look(self._hear)
        name = trial_name(trial)
        folder = RunFolder(self._trials[name].path)
        if self._result(folder) is None:
            self._bring(trial)
            stopped = self.strategy.stopped(self._trials[name])
            self._room.write_alone("a trial's result", lambda: folder.write_result(stopped))
        self._end(trial, "its process ended without a result")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process died, and it is about to be started again."""
        death, restarts = self._died(trial)
        again = restart_line(
            death, restarts.num_counted, self.profile.max_restarts, _last_checkpoint(restarts.path)
        )
        self.notify(f"its process died {again}", trial=trial_name(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process died once too often."""
        name = trial_name(trial)
        _, restarts = self._died(trial)
        reason = died_too_often(restarts, _last_checkpoint(restarts.path))
        failed = RunResult(name, "failed", metrics=finite(self._trials[name].metrics), error=reason)
        folder = RunFolder(restarts.path)
        before = self._result(folder)
        # It may have died behind its result.
        if before is None or before.state not in SETTLED:
            self._room.write_alone("a trial's result", lambda: folder.write_result(failed))
        self._end(trial, reason)

    def _died(self, trial: Any) -> tuple[Death, Restarts]:
        """Note the death of a trial's process."""
        # Where Tune wrote it just now; in the study's storage it is only later.
        file = trial.pickled_error_file
        error = None if file is None else cloudpickle.loads(Path(file).read_bytes())
        death = (None if error is None else death_of(error)) or Death(
            "it is not known how" if error is None else one_line(error)[:200]
        )
        restarts = Restarts(self._trials[trial_name(trial)].path, self.session)
        self._room.write_alone(
            "the death of a trial", lambda: restarts.add(death.reason, counts=death.counts)
        )
        return death, restarts

    def _write_now_and_then(self) -> None:
        """Write the summary, which has all trials, so seldom that it takes little of the time of a large study."""
        began = time.monotonic()
        if began >= self._next_write:
            self._write()
            self._next_write = time.monotonic() + _WRITES_APART * (time.monotonic() - began)

    def _write(self) -> None:
        try:
            self.results().write(self.path / self._kind.results_file)
        except OSError as error:
            if not is_disk_full(error):
                raise
            # The trials wait for room; the study must not end for a summary that is written again.
            self.notify(f"{self._kind.results_file} is not written: the disk is full")

    def _change(self, trial: str, **values: Any) -> None:
        with self._streams.lock:
            self._put(replace(self._trials[trial], **values))

    def _put(self, now: TrialStatus) -> None:
        with self._streams.lock:
            before, self._trials[now.name] = self._trials[now.name], now
            if now.state != before.state:
                self._streams.log().write(now)
            self.follower.changed(now)

    def _end(self, trial: Any, otherwise: str) -> None:
        name = trial_name(trial)
        self._streams.look(self._hear)
        self._streams.close(name)
        self._put(self._from_folder(replace(self._trials[name], state="failed", error=otherwise)))
        self.strategy.ended(self.statuses())
        self._write_now_and_then()
        if self.mirror is not None:
            self.mirror.push()

    def _result(self, folder: RunFolder) -> RunResult | None:
        """Return the result of a trial, from storage when the trial ran on another machine."""
        result = folder.read_result()
        if result is None and self.mirror is not None:
            self.mirror.pull(folder.path)
            result = folder.read_result()
        return result

    def _bring(self, trial: Any) -> None:
        """Bring what a trial has left so far, when it runs on another machine."""
        node = (trial.last_result or {}).get("node_ip")
        if self.mirror is not None and node not in (None, ray.util.get_node_ip_address()):
            self.mirror.pull(self._trials[trial_name(trial)].path)

    def _running(self) -> list[str]:
        """Return the folders of trials that run, as they lie in the study's."""
        running = [trial for trial in self.statuses() if trial.state == "running"]
        return [trial.path.relative_to(self.path).as_posix() for trial in running]

    def _from_folder(self, status: TrialStatus) -> TrialStatus:
        """Return the status with the result in the trial's folder, when there is one."""
        result = self._result(RunFolder(status.path))
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
            forecast=result.forecast,
        )


def _last_checkpoint(path: Path) -> Path | None:
    """Return a trial's newest checkpoint, which may lie in the folder of a stage."""
    folders = [path, *(each for each in path.iterdir() if each.is_dir())]
    found = [last for each in folders if (last := last_checkpoint(folder_at(each).checkpoints)) is not None]
    return max(found, key=lambda each: each.stat().st_mtime, default=None)
