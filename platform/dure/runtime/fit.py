"""One experiment as a Ray Train job: in this process for one worker, in worker processes for more."""

from __future__ import annotations

import logging
import os
import traceback
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from ray import train
from ray._raylet import PlacementGroupID
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.constants import RAY_TRAIN_ENABLE_STATE_TRACKING
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.placement_group import PlacementGroup, get_current_placement_group, remove_placement_group

from dure.config.schema import Profile
from dure.errors import RunError, counted, one_line, said
from dure.events import RunListener, RunProgress
from dure.files import write_text
from dure.runs.checkpoints import last_checkpoint
from dure.runs.folder import RunResult
from dure.runs.restarts import Restarts
from dure.runtime.cluster import alive_nodes
from dure.runtime.deaths import Death, LostPeerError, death_of, lost_peer, own_error, waits_for_resources
from dure.runtime.guard import MARK
from dure.runtime.metrics import RayMetrics
from dure.runtime.placement import amounts, fitting_workers, worker_counts, worker_resources
from dure.training.run import RunRequest, run


class _WorkersTrainer(TorchTrainer):  # type: ignore[misc]
    """A ``TorchTrainer`` that leaves Ctrl-C to this process: Ray's own answer ends the workers at once."""

    def _register_sigint_handler(self, controller: Any) -> None:
        pass


def scaling(profile: Profile, num_workers: int) -> ScalingConfig:
    """Return what a trial asks of Ray Train for so many workers; for none when it trains in this process."""
    # Not Ray's own elasticity, num_workers=(least, most): it takes any number between them, and a batch can be
    # shared out evenly among some only. The strategy is PACK by default; see dure.runtime.placement.
    return ScalingConfig(
        num_workers=num_workers,
        use_gpu=profile.gpus_per_worker > 0,
        resources_per_worker=worker_resources(profile) if num_workers else None,
    )


@dataclass(frozen=True)
class Reporter(RunListener):
    """Reports every record to Ray, on every worker, because a report to Ray Train waits for all of them.

    ``report`` gets it as a flat dictionary. ``samples``, the training rows that its steps saw, is the time by which
    schedulers compare trials whatever their batch sizes.
    """

    on_every_worker: ClassVar[bool] = True

    samples_per_step: int
    report: Callable[[dict[str, Any]], None] = train.report

    def progressed(self, progress: RunProgress) -> None:
        """Report."""
        self.report(
            {
                **progress.metrics,
                "kind": progress.kind,
                "step": progress.step,
                "samples": progress.step * self.samples_per_step,
                "total_steps": progress.total_steps,
                "epoch": progress.epoch,
                "seconds": progress.seconds,
            }
        )


def run_name(request: RunRequest) -> str:
    """Return the name by which Ray knows a run: ``<study>/<experiment>``, or the experiment's outside a study."""
    name = request.experiment.name
    return name if request.group is None else f"{request.group}/{name}"


def fit(
    request: RunRequest,
    *,
    in_process: bool = True,
    callbacks: Sequence[Any] = (),
) -> RunResult:
    """Run an experiment as a ``TorchTrainer`` and return its result.

    When a worker process dies, all workers are started again from the last whole checkpoint, at most
    ``profile.max_restarts`` times. This is the one place where that is decided, and not Ray Train, which cannot tell a
    process that died from an error that would only come again, nor say where a run goes on. What it does is said in the
    run's stream. Without ``in_process`` a run of one worker gets a process of its own too.

    Raises:
        UserError: The experiment, its data or its checkpoint is wrong.
        RunError: Training failed, or its processes died too often.
    """
    request = replace(request, listeners=(RayMetrics(request), *request.listeners))
    if not (in_process and request.profile.trains_in_process):
        _show_to_train_api()
        return _fit_on_workers(request, callbacks)
    # Ray says at every start that local mode is a new feature.
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    trainer = TorchTrainer(partial(run, request), scaling_config=scaling(request.profile, 0))
    result: RunResult = trainer.fit().return_value
    return result


def _fit_on_workers(request: RunRequest, callbacks: Sequence[Any]) -> RunResult:
    limit, folder = request.profile.max_restarts, request.folder()
    restarts = request.restarts or Restarts(request.path, session=uuid.uuid4().hex)
    request = replace(request, restarts=restarts)
    notify = request.event_log("driver").notified
    held_by(request).unlink(missing_ok=True)  # Of an earlier session, on a cluster that may be gone.
    waits, batch_size = False, request.experiment.training.batch_size
    most = worker_counts(request.profile, batch_size)[0]
    before = request.profile.num_workers
    while True:
        # Also before the first start: a restart of the trial's own process may have been one too many.
        if restarts.num_counted > limit:
            raise _given_up(request, restarts)
        # Where there is room for none, they wait for it.
        nodes = alive_nodes(answering=restarts.num > 0) or alive_nodes()
        num_workers = fitting_workers(request.profile, nodes, batch_size) or most
        if num_workers != before:
            rows = counted(batch_size // num_workers, "row")
            notify(f"trains with {num_workers} of {request.profile.num_workers} workers, {rows} each")
        before = num_workers
        try:
            _trainer(request, num_workers, callbacks).fit()
        except Exception as error:
            # The frames hold the controller, which lives as long as somebody knows it.
            traceback.clear_frames(error.__traceback__)
            free_workers(request)
            if waits_for_resources(error):
                if not waits:
                    each = amounts(worker_resources(request.profile))
                    notify(f"waits for room for {num_workers} worker(s) of {each} each")
                waits = True
                if request.stop_file is not None and request.stop_file.exists():
                    return not_begun(request)
                continue
            death = _death_in(error)
            request.room().write_alone(
                "the death of a worker", partial(restarts.add, death.reason, counts=death.counts)
            )
            if (number := restarts.num_counted) <= limit:
                again = restart_line(death, number, limit, last_checkpoint(folder.checkpoints))
                notify(f"a worker died {again}")
            request, waits = replace(request, resume=True), False
            continue
        finished = folder.read_result()
        if finished is None:
            raise RunError(f"the workers ended without a result (see {folder.log})")
        return finished


def _trainer(request: RunRequest, num_workers: int, callbacks: Sequence[Any]) -> TorchTrainer:
    return _WorkersTrainer(
        partial(_run_as_worker, request),
        scaling_config=scaling(request.profile, num_workers),
        torch_config=TorchConfig(backend="nccl" if request.profile.device == "cuda" else "gloo"),
        run_config=RunConfig(
            name=run_name(request),
            storage_path=str(request.path / ".ray_train"),
            # Every failure comes back to be judged here; see fit.
            failure_config=FailureConfig(
                max_failures=0, controller_failure_limit=0, max_preemption_failures=0
            ),
            callbacks=list(callbacks),
        ),
    )


def free_workers(request: RunRequest) -> None:
    """Give back what the workers of a run held that has ended.

    Ray Train does that itself, also where its controller was killed, but not where that happened while a busy machine
    had not yet started the process that looks after it. Nobody would ever have got those resources again.
    """
    file = held_by(request)
    if file.is_file():
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(file.read_text("ascii")))))
        file.unlink()


def held_by(request: RunRequest) -> Path:
    """Return the file with the id of the placement group that the workers of a run are in."""
    return request.path / ".ray_train" / "placement_group"


def not_begun(request: RunRequest) -> RunResult:
    """Return the result of a run of which a stop was asked before it began, and write it."""
    return _written(request, RunResult(request.experiment.name, "interrupted"))


def _given_up(request: RunRequest, restarts: Restarts) -> RunError:
    """Return the error of a run whose processes died too often, and write it as the run's result."""
    error = RunError(died_too_often(restarts, last_checkpoint(request.folder().checkpoints)))
    _written(request, RunResult(request.experiment.name, "failed", error=one_line(error)))
    return error


def _written(request: RunRequest, result: RunResult) -> RunResult:
    request.room().write_alone("the result", lambda: request.folder().write_result(result))
    return result


def _death_in(error: Exception) -> Death:
    """Return which process died; raise the error when none did, in dure's own words if there are some."""
    own = own_error(error)
    if own is not None:
        raise own from error
    death = death_of(error)
    if death is None:
        raise RunError(said(error, 500)) from error
    return death


def restart_line(death: Death, number: int, limit: int, checkpoint: Path | None) -> str:
    """Return how a process died, how often by now, and where its run goes on, as people read it."""
    again = f"restart {number} of {limit}" if death.counts else "restart, not counted,"
    return f"({death.reason}); {again} from {checkpoint.name if checkpoint else 'the beginning'}"


def died_too_often(restarts: Restarts, checkpoint: Path | None) -> str:
    """Return why a run is not started again, in one line."""
    return (
        f"its processes died {restarts.num_counted} times, the last time after "
        f"{checkpoint.name if checkpoint else 'the beginning'} "
        f"({restarts.last_reason}); the profile's max_restarts allows no more"
    )


def _show_to_train_api() -> None:
    """Let Ray keep what its API for Train runs (``/api/train/v2/runs/v1``) tells of them, unless told otherwise.

    It starts one more process for that, which outlives the run; a cluster that ends with the run does not need it.
    """
    if MARK not in os.environ:
        os.environ.setdefault(RAY_TRAIN_ENABLE_STATE_TRACKING, "1")


def _run_as_worker(request: RunRequest) -> None:
    context, group = train.get_context(), get_current_placement_group()
    if context.get_world_rank() == 0 and group is not None:
        with suppress(OSError):
            write_text(held_by(request), group.id.hex())
    try:
        run(request, rank=context.get_world_rank(), num_workers=context.get_world_size())
    except RunError as error:
        if context.get_world_size() > 1 and lost_peer(error):
            raise LostPeerError(str(error)) from error
        raise
