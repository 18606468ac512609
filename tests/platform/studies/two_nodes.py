"""A cluster of several nodes on this machine, one of which can be lost, and what a trial notes on the way.

For any test that loses a node::

    with several_nodes({"CPU": 1}, {"CPU": 1}) as nodes:
        lost = Loses(nodes, after_step=6)
        summary = run_study(…, address=nodes.address, follower=lost, listeners=lambda experiment: [Steps()])
    print(recovery(path / lost.trial, lost.at))
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from dure.events import RunListener, StudyListener, TrialStatus
from dure.files import append_json_line, read_json_lines

STEPS = "steps.jsonl"


class SeveralNodes:
    """Nodes of one cluster; the first is the head, which the driver is connected to."""

    def __init__(self, cluster) -> None:
        self.address: str = cluster.address
        """Address of the cluster."""
        nodes = cluster.list_all_nodes()
        self.ids = [node.node_id for node in nodes]
        self._raylets = {node.node_id: node.all_processes["raylet"][0].process.pid for node in nodes}

    def kill(self, node_id: str) -> None:
        """End a node at once: its raylet with SIGKILL, and all processes that it started."""
        if node_id == self.ids[0]:
            raise ValueError("the head node cannot be lost: the driver would be lost with it")
        raylet = psutil.Process(self._raylets[node_id])
        for process in (raylet, *raylet.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        os.waitpid(raylet.pid, 0)  # for Ray's processes, a dead raylet that nobody asked for still lives

    def take_away(self, node_id: str, *, seconds: int) -> None:
        """Announce that a node is reclaimed after so many seconds, as a cloud does, and then kill it."""
        from ray._raylet import GcsClient
        from ray.core.generated.autoscaler_pb2 import DrainNodeReason

        deadline_ms = time.time_ns() // 1_000_000 + seconds * 1000
        reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        accepted, why_not = GcsClient(address=self.address).drain_node(node_id, reason, "test", deadline_ms)
        if not accepted:
            raise RuntimeError(why_not)
        threading.Timer(seconds, self.kill, [node_id]).start()


@contextmanager
def several_nodes(*sizes: dict[str, int], **head: object) -> Iterator[SeveralNodes]:
    """Start nodes of these sizes (``CPU`` and ``GPU``), and end them afterwards; ``head`` goes to the head node.

    Nested trainers need ``include_dashboard=True``. GPUs exist for the scheduler only.
    """
    import ray
    from ray.cluster_utils import Cluster

    first, *others = ({"num_cpus": size["CPU"], "num_gpus": size.get("GPU", 0)} for size in sizes)
    cluster = Cluster(initialize_head=True, head_node_args={**first, "dashboard_port": 0, **head})
    try:
        for each in others:
            cluster.add_node(**each)
        yield SeveralNodes(cluster)
    finally:
        ray.shutdown()
        cluster.shutdown()


class Steps(RunListener):
    """Notes every training step of a trial with its process, its node and the time, and makes steps slow enough to interfere."""

    def __init__(self, seconds: float = 0.1) -> None:
        self.seconds = seconds
        self.path: Path | None = None

    def started(self, start, notify):
        self.path = start.path

    def progressed(self, progress):
        import ray

        if progress.kind == "train":
            node = ray.get_runtime_context().get_node_id()
            now = {"step": progress.step, "node": node, "pid": os.getpid(), "at": time.time()}
            append_json_line(self.path / STEPS, now)
            time.sleep(self.seconds)


class Loses(StudyListener):
    """Kills the node that is not the head once a trial on it has come far enough, from the driver."""

    def __init__(self, nodes: SeveralNodes, *, after_step: int) -> None:
        self.nodes, self.after_step = nodes, after_step
        self.lines: list[str] = []
        self.trial: str | None = None
        self.at = 0.0

    def notified(self, message):
        self.lines.append(message)

    def changed(self, trial: TrialStatus) -> None:
        if self.trial is None and trial.state == "running" and trial.step >= self.after_step:
            noted = read_json_lines(trial.path / STEPS)
            if noted and noted[-1]["node"] in self.nodes.ids[1:]:
                self.trial, self.at = trial.name, time.time()
                self.nodes.kill(noted[-1]["node"])


@dataclass(frozen=True)
class Recovery:
    """What a lost process cost a trial."""

    seconds: float
    """From the loss to the first step after it."""
    steps_repeated: int
    """Steps that were computed twice."""


def recovery(path: Path, lost_at: float) -> Recovery:
    """Return what a loss cost the trial in a folder, from what :class:`Steps` noted."""
    noted = read_json_lines(path / STEPS)
    died = [each["pid"] for each in noted if each["at"] <= lost_at][-1]
    last = max(place for place, each in enumerate(noted) if each["pid"] == died)
    steps = [each["step"] for each in noted]
    return Recovery(noted[last + 1]["at"] - lost_at, len(steps) - len(set(steps)))


def nodes_of(path: Path) -> list[str]:
    """Return the nodes that a trial was on, in their order."""
    return list(dict.fromkeys(each["node"] for each in read_json_lines(path / STEPS)))
