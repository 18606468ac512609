"""One experiment as a Ray Train job: in this process for one worker, in worker processes for more."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.constants import RAY_TRAIN_ENABLE_STATE_TRACKING
from ray.train.torch import TorchConfig, TorchTrainer

from dure.config.schema import Profile
from dure.errors import DureError, RunError
from dure.runtime.guard import MARK
from dure.runtime.metrics import RayMetrics
from dure.training.events import RunListener, RunProgress
from dure.training.records import RunResult
from dure.training.run import RunRequest, run


def scaling(profile: Profile, *, in_process: bool) -> ScalingConfig:
    """Return what one trial asks of Ray Train; no worker processes when it trains in this one."""
    if in_process:
        return ScalingConfig(num_workers=0, use_gpu=profile.gpus_per_worker > 0)
    resources = {"CPU": profile.cpus_per_worker}
    if profile.gpus_per_worker:
        resources["GPU"] = profile.gpus_per_worker
    return ScalingConfig(
        num_workers=profile.num_workers, use_gpu=profile.gpus_per_worker > 0, resources_per_worker=resources
    )


def trial_resources(profile: Profile) -> dict[str, float]:
    """Return the resources of one trial over all of its workers, by Ray's names."""
    resources = {"CPU": profile.cpus_per_worker * profile.num_workers}
    if profile.gpus_per_worker:
        resources["GPU"] = profile.gpus_per_worker * profile.num_workers
    return resources


def report_of(progress: RunProgress, told: Sequence[str], *, samples_per_step: int) -> dict[str, Any]:
    """Return a record of a run as the flat dictionary that Ray passes on.

    Args:
        progress: The record.
        told: Lines for the user since the last report.
        samples_per_step: Rows that one optimiser step sees; makes ``samples``, the time by which schedulers
            compare trials whatever their batch sizes.
    """
    return {
        **progress.metrics,
        "kind": progress.kind,
        "step": progress.step,
        "samples": progress.step * samples_per_step,
        "total_steps": progress.total_steps,
        "epoch": progress.epoch,
        "seconds": progress.seconds,
        "told": list(told),
    }


class TrainReporter(RunListener):
    """Reports every record to Ray Train, on every worker, because a report waits for all of them."""

    on_every_worker: ClassVar[bool] = True

    def __init__(self, samples_per_step: int) -> None:
        self._samples_per_step = samples_per_step
        self._told: list[str] = []

    def told(self, message: str) -> None:
        """Keep the line for the next report."""
        self._told.append(message)

    def progressed(self, progress: RunProgress) -> None:
        """Report, with the lines since the last report."""
        from ray import train

        train.report(report_of(progress, self._told, samples_per_step=self._samples_per_step))
        self._told = []


def run_name(request: RunRequest) -> str:
    """Return the name by which Ray knows a run: ``<study>/<experiment>``, or the experiment's outside a study."""
    name = request.experiment.name
    return name if request.group is None else f"{request.group}/{name}"


def fit(request: RunRequest, *, in_process: bool | None = None, callbacks: Sequence[Any] = ()) -> RunResult:
    """Run an experiment as a ``TorchTrainer`` and return its result.

    Args:
        request: What to run; its listeners are called where it trains.
        in_process: Train in this process (one worker only); by default when the profile lets it.
        callbacks: Ray Train callbacks of the driver's side.

    Raises:
        UserError: The experiment, its data or its checkpoint is wrong.
        RunError: Training failed.
    """
    if in_process is None:
        in_process = request.profile.trains_in_process
    if in_process and not request.profile.trains_in_process:
        raise ValueError(f"profile {request.profile.name} needs worker processes")
    request = replace(request, listeners=(RayMetrics.of(request), *request.listeners))
    if in_process:
        # Ray says at every start that local mode is a new feature.
        logging.getLogger("ray.train").setLevel(logging.WARNING)
        trainer = TorchTrainer(
            _run_here,
            train_loop_config={"request": request},
            scaling_config=scaling(request.profile, in_process=True),
        )
        result = trainer.fit().return_value
        if not isinstance(result, RunResult):
            raise RunError(f"Ray Train returned {result!r} instead of a result")
        return result
    folder = request.folder()
    _show_to_train_api()
    trainer = TorchTrainer(
        _run_as_worker,
        train_loop_config={"request": request},
        scaling_config=scaling(request.profile, in_process=False),
        torch_config=TorchConfig(backend="nccl" if request.profile.device == "cuda" else "gloo"),
        run_config=RunConfig(
            name=run_name(request),
            storage_path=str(request.path / ".ray_train"),
            failure_config=FailureConfig(max_failures=0),
            callbacks=list(callbacks),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:
        raise _own_error(error) from error
    finished = folder.read_result()
    if finished is None:
        raise RunError(f"the workers ended without a result (see {folder.log})")
    return finished


def _show_to_train_api() -> None:
    """Let Ray keep what its API for Train runs (``/api/train/v2/runs/v1``) tells of them, unless told otherwise.

    It starts one more process for that, which outlives the run; a cluster that ends with the run does not need it.
    """
    if MARK not in os.environ:
        os.environ.setdefault(RAY_TRAIN_ENABLE_STATE_TRACKING, "1")


def _run_here(config: dict[str, Any]) -> RunResult:
    return run(config["request"])


def _run_as_worker(config: dict[str, Any]) -> None:
    from ray import train

    context = train.get_context()
    run(config["request"], rank=context.get_world_rank(), num_workers=context.get_world_size())


def _own_error(error: BaseException) -> Exception:
    """Find dure's own error in what Ray wraps around a worker's."""
    failures = getattr(error, "worker_failures", None) or {}
    for failure in failures.values():
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, DureError):
                return cause
            cause = getattr(cause, "cause", None) or cause.__cause__
    first = next(iter(failures.values()), error)
    return RunError(" ".join(str(first).split())[:500])
