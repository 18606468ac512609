"""Telling a process that died, which is started again, from an error, which would only come again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ray.exceptions import ActorUnavailableError, RayActorError
from ray.train import ControllerError, PreemptionError, WorkerGroupError
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)

from dure.errors import DureError, RunError, said

_BROKEN_CONNECTION = re.compile(
    "connection (was )?(closed|reset|refused|aborted)|broken pipe|socket timeout|gloo.*timed out",
    re.IGNORECASE,
)
"""What gloo says, as a plain ``RuntimeError``, in a worker whose partner is gone."""


class LostPeerError(RunError):
    """A worker cannot go on because one that it trains with is gone; only a consequence of that one's end."""


@dataclass(frozen=True)
class Death:
    """A process of a run ended without its will."""

    reason: str
    """How, in a few words."""
    counts: bool = True
    """Whether the restart counts against the limit; not when a node was taken away on notice."""


def lost_peer(error: BaseException) -> bool:
    """Return whether a worker's error only says that the connection to another one broke."""
    from torch.distributed import DistError

    return any(
        isinstance(each, DistError)
        or (isinstance(each, RuntimeError) and _BROKEN_CONNECTION.search(str(each)))
        for each in causes(error)
    )


def own_error(error: BaseException) -> DureError | None:
    """Return dure's own error in what Ray wraps around a worker's, which no restart would mend."""
    for failure in (error, *getattr(error, "worker_failures", {}).values()):
        for each in causes(failure):
            if isinstance(each, DureError) and not isinstance(each, LostPeerError):
                return each
    return None


def waits_for_resources(error: BaseException) -> bool:
    """Return whether workers did not start because the cluster had no room for them."""
    return isinstance(error, ControllerError) and isinstance(
        error.controller_failure, WorkerGroupStartupTimeoutError
    )


def death_of(error: BaseException) -> Death | None:
    """Return which process died, from what ``TorchTrainer.fit`` raised or a Tune trial ended with.

    Returns:
        None when nothing died: the error was raised by code, and would be again.
    """
    if isinstance(error, PreemptionError):
        return Death("the node of a worker is taken away", counts=False)
    for each in causes(error):
        if isinstance(each, RayActorError):
            return Death(_how(each), counts=not each.preempted)
    if isinstance(error, ControllerError):
        cause = error.controller_failure
        if isinstance(cause, WorkerGroupStartupFailedError):
            return Death("a worker did not start")
        return death_of(cause)
    if not isinstance(error, WorkerGroupError):
        return None
    found = []
    for rank, failure in error.worker_failures.items():
        if isinstance(failure, WorkerHealthCheckTimeoutError):
            found.append(Death(f"worker {rank} did not answer"))
        cause = getattr(failure, "health_check_failure", failure)
        if isinstance(cause, RayActorError):
            found.append(Death(f"worker {rank}: {_how(cause)}", counts=not cause.preempted))
    if not found and any(isinstance(each, LostPeerError) for each in error.worker_failures.values()):
        # The others noticed before Ray did.
        found.append(Death("the connection to a worker broke"))
    # A node that is taken away takes several workers, whose partners then fail as well: it explains them all.
    return min(found, key=lambda death: death.counts, default=None)


def _how(error: RayActorError) -> str:
    """Return how an actor's process ended, from Ray's text: its fields do not say."""
    text = said(error).lower()
    if error.preempted:
        return "its node is taken away"
    if isinstance(error, ActorUnavailableError):
        return "out of reach: its process or its node is gone"
    if "running low on memory" in text or "out_of_memory" in text:
        return "ended by Ray, because its node ran low on memory"
    if "node has died" in text or "node was terminated" in text or "node is dead" in text:
        return "its node is lost"
    return "killed, crashed or out of memory"


def causes(error: BaseException) -> Iterator[BaseException]:
    """Give an error and what caused it, through Python's and Ray's wrappers."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        wrapped = getattr(cause, "cause", None)
        if isinstance(cause, WorkerHealthCheckFailedError):
            wrapped = cause.health_check_failure
        cause = wrapped if isinstance(wrapped, BaseException) else cause.__cause__
