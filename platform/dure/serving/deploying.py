"""Replicas on Ray Serve: deployed, asked, counted, and taken away again with whatever was started for them."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dure.config.schema import Profile
from dure.errors import RunError, UserError, said
from dure.runtime.cluster import Cluster
from dure.runtime.placement import amounts, room_for, worker_resources
from dure.serving.predictor import Answer, Replica, Row

_DEPLOYMENT = "model"
_CONTROLLER = "SERVE_CONTROLLER_ACTOR"
_NAMESPACE = "serve"
_MOST_ASKED = 20
"""So often each replica is asked on average: one is missed once in e²⁰, which is 500 million, starts."""
_SECONDS_BETWEEN_LOOKS = 2.0
"""How often Ray Serve looks whether a replica is well."""


@dataclass(frozen=True)
class Models:
    """Replicas that run."""

    name: str
    handle: Any
    num_replicas: int

    async def send(self, requests: list[Sequence[Row]]) -> list[Answer | UserError]:
        """Have a free replica predict the rows of requests."""
        answers: list[Answer | UserError] = await self.handle.predict.remote(requests)
        return answers

    def num_running(self) -> int:
        """Return how many are ready."""
        from ray import serve

        states = serve.status().applications[self.name].deployments[_DEPLOYMENT].replica_states
        return int(states.get("RUNNING", 0))


@contextmanager
def deployed(
    runs: Sequence[Path],
    num_replicas: int | None,
    profile: Profile,
    cluster: Cluster,
    *,
    batch_size: int,
    trust_code: bool,
    seconds: float,
) -> Iterator[Models]:
    """Start replicas on a cluster, and end them afterwards; Ray Serve too where it was not there before.

    There are as many as the profile has workers when no number is given. Each has ``seconds`` to finish its batch at
    the end.

    Raises:
        UserError: There is no room for them, or the models cannot be loaded.
        RunError: They do not start.
    """
    from ray import serve
    from ray.serve.config import ProxyLocation

    count = num_replicas or profile.num_workers
    resources = _resources(profile, count, cluster)
    was_there = _serve_is_there()
    name = f"dure-{uuid.uuid4().hex[:8]}"
    for each in ("ray", "ray.serve"):
        logging.getLogger(each).setLevel(logging.ERROR)
    try:
        # The front of this process is all that listens: Ray Serve's own would answer 500 for a replica that dies.
        serve.start(proxy_location=ProxyLocation.Disabled)
        deployment = serve.deployment(
            Replica,
            name=_DEPLOYMENT,
            num_replicas=count,
            max_ongoing_requests=count + 1,  # one that is full makes Ray Serve wait before it looks again
            ray_actor_options=resources,
            health_check_period_s=_SECONDS_BETWEEN_LOOKS,
            graceful_shutdown_timeout_s=seconds,
            logging_config={"log_level": "ERROR", "enable_access_log": False},
        )
        folders = [str(run.resolve()) for run in runs]
        bound = deployment.bind(folders, profile, batch_size, trust_code, str(Path.cwd()))
        try:
            handle = serve.run(bound, name=name, route_prefix=None)
        except RuntimeError as error:
            raise RunError(f"the replicas do not start: {said(error, 400)}") from error
        require_loaded(handle, count)
        yield Models(name, handle, count)
    finally:
        with contextlib.suppress(Exception):  # of a cluster that is gone nothing is left to end
            serve.delete(name)
            if not was_there:
                serve.shutdown()


def require_loaded(handle: Any, count: int) -> None:
    """Check that all replicas have their models; Ray Serve draws the one that answers, so that they are asked often.

    Raises:
        DureError: What the first of them that has not lacks, such as a folder that its node does not see.
    """
    answered: set[str] = set()
    for _ in range(_MOST_ASKED * count):
        replica, lacking = handle.loaded.remote().result()
        if lacking is not None:
            raise lacking
        answered.add(replica)
        if len(answered) == count:
            return


def _resources(profile: Profile, count: int, cluster: Cluster) -> dict[str, Any]:
    """Return what a replica asks of Ray; on CPUs of an own cluster all cores are shared out."""
    needed = worker_resources(profile)
    room = room_for(profile, cluster.nodes)
    if room < count:
        raise UserError(
            f"each replica needs {amounts(needed)}, and there is room for {room}",
            where=f"--replicas {count}",
            expected=f"at most {room}" if room else "a cluster with more",
            hint="another --profile" if room == 0 else None,
        )
    cores = needed["CPU"]
    if cluster.is_own and profile.device == "cpu":
        cores = max(cores, cluster.nodes[0].get("CPU", 0.0) // count)
    return {"num_cpus": cores, "num_gpus": needed.get("GPU", 0.0)}


def _serve_is_there() -> bool:
    """Return whether the connected cluster has Ray Serve already, which others may use."""
    import ray

    try:
        ray.get_actor(_CONTROLLER, namespace=_NAMESPACE)
    except ValueError:
        return False
    return True
