"""What runs in a trial's process, and how its progress reaches the driver."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray._raylet import setproctitle  # type: ignore[attr-defined]  # its stub leaves it out
from ray.tune.trainable.function_trainable import wrap_function

from dure.config.schema import Experiment, Profile
from dure.errors import DureError, UserError, one_line
from dure.events import EventLog, RunListener
from dure.runs.disk import DiskRoom
from dure.runs.folder import RunFolder, RunResult
from dure.runs.restarts import Restarts
from dure.runtime.fit import Reporter, fit, not_begun, run_name
from dure.runtime.relay import Relay
from dure.storage.mirror import SharedFolder
from dure.storage.pushing import push_end
from dure.storage.remote import StorageError
from dure.studies.divergence import DivergedError
from dure.studies.strategy import TrialPlan
from dure.training.run import RunRequest

logger = logging.getLogger(__name__)

Train = Callable[..., RunResult]
"""Trains what a request says, as :func:`dure.runtime.fit.fit` does."""
Listeners = Callable[[Experiment], Sequence[RunListener]]
"""Makes the listeners of a trial; called in the process that trains it."""


@dataclass(frozen=True)
class TrialRequests:
    """What all trials of a study share; makes the request of each."""

    study: str
    profile: Profile
    path: Path
    plans: Mapping[str, TrialPlan] = field(default_factory=dict)
    """The trials that are known before the study runs, by their names."""
    listeners: Listeners = lambda experiment: ()
    """Makes the listeners of a trial, of its experiment."""
    keeps_predictions: bool = False
    """Whether every trial leaves the predictions of its test rows."""
    keeps_dev_losses: bool = False
    """Whether every trial leaves the loss of each of its validation rows."""
    mlflow_uri: str | None = None
    """Address of the MLflow server of those experiments that a config says, with its password."""
    stop_file: Path | None = None
    """As soon as this file is there, trials save a checkpoint and return, and others do not begin."""
    session: str = ""
    """Names this run of the study among those that went on with it."""
    shared: SharedFolder | None = None
    """The folder of the study, when it is mirrored in storage."""
    relay: Relay | None = None
    """Takes what trials say to the driver from other nodes, if there are some."""
    train: Train = fit
    """What trains in a trial."""

    def path_of(self, name: str) -> Path:
        """Return the folder of a trial."""
        return self.plans.get(name, TrialPlan(name)).path_in(self.path)

    def of(self, config: Mapping[str, Any]) -> RunRequest:
        """Return what the trial of a config runs."""
        name = config["trial"]
        experiment = self.plans[name].experiment if name in self.plans else None
        if experiment is None:
            proposed = Experiment.model_validate_json(config["experiment"])
            experiment = proposed.with_({"mlflow.uri": self.mlflow_uri})
        return RunRequest(
            experiment=experiment,
            profile=self.profile,
            path=self.path_of(name),
            resume=True,
            group=self.study,
            keeps_predictions=self.keeps_predictions,
            keeps_dev_losses=self.keeps_dev_losses,
            stop_file=self.stop_file,
            shared=self.shared,
            listeners=tuple(self.listeners(experiment)),
            restarts=Restarts(self.path_of(name), self.session),
            relay=None if self.relay is None else partial(self.relay.send, name),
        )


def settled(
    config: Mapping[str, Any],
    requests: TrialRequests,
    run: Callable[..., Mapping[str, Any] | None],
) -> None:
    """Run a trial's trainable so that what it raises becomes the trial's result, and report what it returns.

    Tune would start the trial again after an error as it does after the death of its process, and an error would
    only come again. It stops a trial with ``SystemExit``, which passes. A trial that is paused does not come back
    from the last report, and may go on elsewhere: its folder is in storage by then, if there is one.
    """
    path = requests.path_of(config["trial"])
    mirror = None if requests.shared is None else requests.shared.mirror(path)
    last = None
    if mirror is not None:
        try:
            mirror.pull(logger.info)
        except StorageError as error:
            logger.warning("%s; the trial begins with what is here", error)
    try:
        last = run(config, requests=requests)
    except Exception as error:
        if not isinstance(error, DureError):
            logger.exception("the trial failed")
        _write_failure(error, config["trial"], RunFolder(path), requests.profile)
    if mirror is not None:
        push_end(mirror, logger.warning)
    if last is not None:
        tune.report(dict(last))


def _write_failure(error: Exception, name: str, folder: RunFolder, profile: Profile) -> None:
    """Write why a trial failed, if its run has not done so, and wait for room where the disk is full.

    Without a result the trial would be run again.

    Raises:
        RunError: It stayed full for as long as the machine's profile waits.
    """
    result = RunResult(name, "failed", error=one_line(error))
    if isinstance(error, DureError):
        with suppress(UserError):  # a broken one is replaced
            result = folder.read_result() or result
    if isinstance(error, DivergedError):
        result = replace(result, state="diverged")
    room = DiskRoom(folder.path, profile.storage, notify=EventLog(folder.events, "worker 0").notified)
    room.write_alone("the result", lambda: folder.write_result(result))


def run_trial(config: Mapping[str, Any], requests: TrialRequests) -> None:
    """Run the trial of a config; one of which a stop was asked leaves ``interrupted``, which settles nothing."""
    fit_trial(requests.of(config), requests.train)


def fit_trial(request: RunRequest, train: Train) -> RunResult:
    """Run an experiment within a trial and pass its progress on to Tune.

    One worker trains in this process, which goes on to the next trial; more workers get processes of their
    own from Ray Train. After a stop was asked for nothing begins.

    Raises:
        UserError: The experiment, its data or its checkpoint is wrong.
        RunError: Training failed.
    """
    if request.stop_file is not None and request.stop_file.exists():
        return not_begun(request)
    samples_per_step, name = request.experiment.training.effective_batch_size, run_name(request)
    show_as(name)
    if request.profile.trains_in_process:
        reporter, callbacks = Reporter(samples_per_step, partial(_report_to_tune, name=name)), []
    else:
        from ray.tune.integration.ray_train import TuneReportCallback

        reporter, callbacks = Reporter(samples_per_step), [TuneReportCallback()]
    return train(replace(request, listeners=(*request.listeners, reporter)), callbacks=callbacks)


def _report_to_tune(record: dict[str, Any], *, name: str) -> None:
    tune.report(record)
    show_as(name)


def named_trainable(
    function: Callable[..., None], study: str, *, one_trial_each: bool
) -> type[tune.Trainable]:
    """Return a trial function as the class that Tune would make of it, named after its study.

    Ray shows the name as the class of the actors, in their tasks (``seven.train``) and in the titles of their
    processes; Tune's own classes are all named ``ImplicitFunc``.

    Args:
        function: What ``tune.with_resources`` returned.
        study: Name of the study.
        one_trial_each: Whether every trial has a process of its own. It is then shown as ``<study>/<trial>``; one
            that goes on to the next trial is shown as ``<study>``, since Ray asks for this only once.
    """

    class Trial(wrap_function(function, name=study)):  # type: ignore[misc]
        def __repr__(self) -> str:
            return f"{study}/{self.trial_name}" if one_trial_each else study

    Trial.__name__ = Trial.__qualname__ = study
    return Trial


def show_as(name: str) -> None:
    """Let the title of this process, a trial's, say what runs in it: ``ray::seven/kobart_baseline``.

    Ray sets a title of its own whenever Tune asks the trial for its next result, so this is called after each.
    """
    setproctitle(f"ray::{name}")
