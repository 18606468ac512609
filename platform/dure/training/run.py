"""One run from beginning to end, in the process that trains.

The driver of a study knows this file too, and trains nothing: the trainer and transformers are imported by the run.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dure.config.loading import dump_yaml
from dure.config.schema import Experiment, Profile
from dure.errors import DureError, RunError, one_line
from dure.events import EventLog, RunListener
from dure.family import Family, load_family
from dure.family.corpus import Corpus, load_corpus
from dure.family.predicting import Reported, predict_rows, read_answers, write_predictions
from dure.files import is_disk_full, json_lines, write_json, write_text
from dure.imports import collect_as_usual
from dure.modeling.weights import load_weights
from dure.runs.disk import DiskRoom
from dure.runs.environment import describe_environment
from dure.runs.folder import RunFolder, RunResult, vanished
from dure.runs.logs import captured_output
from dure.runs.restarts import Restarts
from dure.storage.mirror import SharedFolder
from dure.storage.pushing import mirrored
from dure.training import memory
from dure.training.completed import completed_result
from dure.training.forecasting import RunForecast, forecast_run
from dure.training.worker import StopRequest, StopRequested, Worker

if TYPE_CHECKING:
    from dure.training.trainer import ModelTrainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunRequest:
    """Everything a process needs to run an experiment; travels to workers."""

    experiment: Experiment
    """What to run, resolved."""
    profile: Profile
    path: Path
    """Folder of the run, reachable from every worker."""
    resume: bool = False
    """Continue from the newest checkpoint in the folder."""
    group: str | None = None
    """Name of the study, if the run belongs to one."""
    listeners: tuple[RunListener, ...] = ()
    """Who is called in the process that trains; they travel there."""
    layout: type[RunFolder] = RunFolder
    """How the run's folder is laid out."""
    warm_start: Path | None = None
    """Weights to begin with in place of the experiment's."""
    keeps_predictions: bool = False
    """Whether the test rows are predicted even where validation does not do that, so that it takes time of its own;
    else ``predictions.csv`` has what validation gives."""
    keeps_dev_losses: bool = False
    """Whether the best model's loss of every validation row is written to ``dev_losses.json``."""
    stop_file: Path | None = None
    """As soon as this file is there, the run saves a checkpoint and ends as ``interrupted``."""
    restarts: Restarts | None = None
    """Counts how often a process of the run died; None where nothing restarts one."""
    shared: SharedFolder | None = None
    """The folder that is mirrored in storage, which ``path`` is or lies in."""
    events: Path | None = None
    """Stream of the run, when it is not that of its folder, because the run is a part of a longer one."""
    relay: Callable[[bytes], None] | None = None
    """Takes the lines of the stream to a driver that may not see the file."""

    def folder(self) -> RunFolder:
        """Return the names in the run's folder."""
        return self.layout(self.path)

    def event_log(self, origin: str) -> EventLog:
        """Return what adds to the run's stream."""
        return EventLog(self.events or self.folder().events, origin, self.relay)

    def room(self) -> DiskRoom:
        """Return what waits in the driver for room on the run's disk, and says so in its stream."""
        return DiskRoom(self.path, self.profile.storage, notify=self.event_log("driver").notified)


def run(request: RunRequest, *, rank: int = 0, num_workers: int = 1) -> RunResult:
    """Run an experiment in this process and leave its whole record in its folder.

    ``rank`` is the number of this process among those that train together.

    Returns:
        The result, also written to ``result.json`` by the main process; ``interrupted`` when a stop was asked for.

    Raises:
        UserError: The experiment, its data or its checkpoint is wrong.
        RunError: Training failed; the result on disk says so.
    """
    import dure.training.trainer  # noqa: F401 - what is heavy comes before the collector works as usual

    collect_as_usual()
    folder = request.folder()
    folder.path.mkdir(parents=True, exist_ok=True)
    if rank == 0:
        request = replace(request, listeners=(request.event_log("worker 0"), *request.listeners))
    worker = _worker(request, rank, num_workers)
    log = folder.log if worker.is_main else folder.path / f"run.worker-{rank}.log"
    with (
        captured_output(log),
        _in_storage(request, folder, worker) as request,
        recorded(request, folder, worker),
        memory.Usage(request.profile.device) as usage,
    ):
        try:
            return _train(request, folder, worker, usage)
        except StopRequested as asked:
            # As of any error, the frames hold the model.
            traceback.clear_frames(asked.__traceback__)
            memory.release()
            return _interrupted(request, folder, worker, asked.step)


def _worker(request: RunRequest, rank: int, num_workers: int) -> Worker:
    """Return who this process is; what the main worker says reaches every listener."""

    def notify(message: str) -> None:
        logger.info(message)
        if rank == 0:
            for listener in request.listeners:
                listener.notified(message)

    stop = StopRequest(request.stop_file, is_main=rank == 0)
    return Worker(rank, num_workers, stop, notify)


def _interrupted(request: RunRequest, folder: RunFolder, worker: Worker, step: int) -> RunResult:
    """Write and pass on the result of a run that a stop was asked of."""
    seconds = [float(each["seconds"]) for each in json_lines(folder.metrics)]
    result = RunResult(
        name=request.experiment.name,
        state="interrupted",
        metrics={"steps": step},
        seconds=seconds[-1] if seconds else 0.0,
    )
    if worker.is_main:
        try:
            folder.write_result(result)
        except OSError as error:
            if not is_disk_full(error):
                raise
            # It says no more than that there is none: the checkpoints are what a resumption needs.
            logger.warning("%s is not written: the disk is full", folder.result)
        worker.notify(
            f"stopped after step {step}, with a checkpoint to continue from"
            if step
            else "stopped before there was anything to save"
        )
        for listener in request.listeners:
            listener.finished(result)
    return result


@contextmanager
def _in_storage(request: RunRequest, folder: RunFolder, worker: Worker) -> Iterator[RunRequest]:
    """Give the request of a run whose folder is mirrored; the others wait until the main worker has its checkpoint."""
    if request.shared is None:
        yield request
        return
    with ExitStack() as stack:
        if worker.is_main:
            mirror = request.shared.mirror(request.path)
            listener = stack.enter_context(
                mirrored(mirror, folder.checkpoints, resume=request.resume, notify=worker.notify)
            )
            request = replace(request, listeners=(*request.listeners, listener))
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        yield request


@contextmanager
def recorded(request: RunRequest, folder: RunFolder, worker: Worker) -> Iterator[None]:
    """Write and pass on a failed result when the body raises, then let the error go on."""
    if worker.is_main:
        folder.result.unlink(missing_ok=True)
    try:
        yield
    except SystemExit as stop:
        # Tune stops a trial by ending its thread at a report. The driver knows the figures and writes the
        # result; what happens here is what a tracker and the next trial in this process need.
        from dure.training.recorder import last_scores

        if worker.is_main:
            ended = RunResult(request.experiment.name, "stopped", last_scores(folder.metrics))
            for listener in request.listeners:
                listener.finished(ended)
        traceback.clear_frames(stop.__traceback__)
        memory.release()
        raise
    except (Exception, KeyboardInterrupt) as error:
        logger.error("the run failed", exc_info=error)
        if isinstance(error, FileNotFoundError) and not folder.experiment.is_file():
            error = vanished(folder.path).with_traceback(error.__traceback__)
        interrupted = isinstance(error, KeyboardInterrupt)
        line = "interrupted" if interrupted else one_line(error)
        result = RunResult(
            name=request.experiment.name, state="interrupted" if interrupted else "failed", error=line
        )
        if worker.is_main:
            try:
                if folder.experiment.is_file():  # else the folder was removed, and is not made again for this
                    folder.write_result(result)
            except OSError as failure:  # on a full disk; what is to be told is why the run failed
                logger.error("the result cannot be written: %s", failure)
            for listener in request.listeners:
                listener.finished(result)
        # The frames hold the model; whoever keeps the error must not keep that alive.
        traceback.clear_frames(error.__traceback__)
        memory.release()
        if interrupted or isinstance(error, DureError):
            raise error
        raise RunError(f"{line} (see {folder.log})") from error


def _train(request: RunRequest, folder: RunFolder, worker: Worker, usage: memory.Usage) -> RunResult:
    from transformers import set_seed

    from dure.training.trainer import ModelTrainer

    experiment, profile = request.experiment, request.profile
    device_before = memory.allocated_mb(profile.device)
    if worker.is_main:
        write_text(folder.experiment, dump_yaml(experiment))
    set_seed(experiment.experiment.seed)
    family = load_family(experiment, worker.notify)
    family.profile = profile
    corpus = load_corpus(family, notify=worker.notify)
    worker.stop.check()
    if worker.is_main:
        leave_environment(request, family, corpus, worker)
    set_seed(experiment.experiment.seed)
    model = family.load_model(corpus.tokenizer, profile)
    ahead = foretold(family, corpus, model, profile, worker)
    if request.warm_start is not None:
        load_weights(model, request.warm_start)
    worker.stop.check()
    trainer = ModelTrainer(
        family,
        model,
        corpus.tokenizer,
        corpus.train,
        corpus.dev,
        profile=profile,
        folder=folder,
        listeners=request.listeners,
        group=request.group,
        worker=worker,
    )
    result, _ = trained(request, trainer, corpus, usage, ahead)
    room = trainer.room
    del model, trainer
    memory.release()
    kept = memory.allocated_mb(profile.device) - device_before
    result = replace(result, metrics={**result.metrics, "unreleased_memory_mb": round(max(0.0, kept), 1)})
    if worker.is_main:
        settle(request, result, room)
    return result


def leave_environment(request: RunRequest, family: Family, corpus: Corpus, worker: Worker) -> None:
    """Write on what, and on which rows, a run trains."""
    environment = describe_environment(
        request.experiment,
        request.profile,
        data=corpus.hashes,
        split=corpus.split,
        recognised=family.recognised(),
        num_workers=worker.num_workers,
    )
    write_json(request.folder().environment, environment)


def trained(
    request: RunRequest,
    trainer: ModelTrainer,
    corpus: Corpus,
    usage: memory.Usage,
    ahead: RunForecast | None,
) -> tuple[RunResult, dict[str, Any]]:
    """Train to the end, and leave what is asked for beside the model, and beside what was forecast.

    Returns:
        The result, which is not written yet, and what :meth:`ModelTrainer.train` returned.

    Raises:
        UserError: As ``ModelTrainer.train``.
        RunError: As ``ModelTrainer.train``.
        StopRequested: A stop was asked for, and a checkpoint was saved.
    """
    folder, worker, family = trainer.folder, trainer.worker, trainer.family
    outcome = trainer.train(resume=request.resume)
    worker.stop.check(outcome["steps"])
    reported = None if corpus.test is None else trainer.test(corpus.test)
    if request.keeps_dev_losses and corpus.dev is not None:
        losses = trainer.dev_losses()
        if worker.is_main:
            write_json(
                folder.dev_losses, {"losses": [loss if math.isfinite(loss) else None for loss in losses]}
            )
    if reported is not None:
        _keep_predictions(request, folder, worker, trainer, corpus, reported)
    tested = {} if reported is None else reported.metrics
    result = completed_result(request, family, corpus, outcome | {"tested": tested}, usage)
    if ahead is None:
        return result, outcome
    if worker.is_main and not request.resume:
        ahead.timing.remember(folder, result.seconds)
    return replace(result, forecast=ahead.as_dict()), outcome


def settle(request: RunRequest, result: RunResult, room: DiskRoom) -> None:
    """Write the result of a run that came to its end, and pass it on.

    Raises:
        RunError: The folder of the run was removed meanwhile.
    """
    folder = request.folder()
    if not all(file.is_file() for file in (folder.experiment, folder.environment, folder.metrics)):
        raise vanished(folder.path)
    room.write_alone("the result", lambda: folder.write_result(result))
    room.keep_to_budget()
    for listener in request.listeners:
        listener.finished(result)


def foretold(
    family: Family, corpus: Corpus, model: Any, profile: Profile, worker: Worker
) -> RunForecast | None:
    """Say on the main worker what the run will take; None on the others, and where the step cannot be traced."""
    if not worker.is_main:
        return None
    try:
        ahead = forecast_run(family, corpus, model, profile, num_workers=worker.num_workers)
    except Exception as error:  # A model that cannot be traced trains all the same.
        logger.warning("the step cannot be traced", exc_info=error)
        worker.notify(f"no forecast: this model's step cannot be traced ({type(error).__name__})")
        return None
    worker.notify(ahead.sentence)
    room = ahead.shortage(profile)
    if room is not None:
        worker.notify(f"it may not fit: {room}; dure forecast says what would")
    return ahead


def _keep_predictions(
    request: RunRequest,
    folder: RunFolder,
    worker: Worker,
    trainer: ModelTrainer,
    corpus: Corpus,
    reported: Reported,
) -> None:
    """Write what the model makes of every test row; all workers call it."""
    family, tokenizer = trainer.family, corpus.tokenizer
    predictions: list[dict[str, Any]] = []
    if reported.answers is not None and family.validates == family.predicts:
        if worker.is_main:
            collate = trainer.hf.parts.batches.collate
            predictions = read_answers(family, tokenizer, corpus.test, collate, reported.answers)
    elif request.keeps_predictions:
        with trainer.whole_model() as model:
            if worker.is_main:
                predictions = predict_rows(family, model, tokenizer, corpus.test)
    if worker.is_main and corpus.tested is not None:
        tested = corpus.tested
        trainer.room.write_alone(
            "the predictions",
            lambda: write_predictions(folder.predictions, family, tested, predictions, reported.losses),
        )
