"""Lines of streams from nodes whose files the driver may not see, by the store of keys that every cluster has."""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import dataclass

import ray
from ray.experimental import internal_kv

logger = logging.getLogger(__name__)

_NAMESPACE = b"dure-events"


@dataclass(frozen=True)
class Relay:
    """Brings lines to the driver from other nodes; travels to the processes that write them.

    Nodes need not share a file system while a run is mirrored in storage. What is sent here stands in the file as
    well, and who follows that takes each line once.
    """

    session: str
    """Names the run or study in this session, among all that the cluster runs."""
    node: str
    """Node of the driver; lines from there are not sent, since their file is at hand."""

    @classmethod
    def to_here(cls) -> Relay | None:
        """Return the relay to this process, or None where the cluster has no other node."""
        if sum(node["Alive"] for node in ray.nodes()) < 2:
            return None
        return cls(uuid.uuid4().hex, ray.get_runtime_context().get_node_id())

    def send(self, name: str, line: bytes) -> None:
        """Send a line of a stream.

        The name is that of the trial; a run of its own has none.
        """
        try:
            if not ray.is_initialized() or ray.get_runtime_context().get_node_id() == self.node:
                return
            key = f"{self.session}/{time.time_ns():020d}/{uuid.uuid4().hex[:8]}/{name}"
            internal_kv._internal_kv_put(key.encode(), line, namespace=_NAMESPACE)
        except Exception:  # whatever fails here, the line is in the file
            logger.exception("a line is not relayed")

    def received(self) -> list[tuple[str, bytes]]:
        """Return the name and the line of everything new, in its order, and forget it; in the driver."""
        if not ray.is_initialized():
            return []
        found = []
        for key in sorted(
            internal_kv._internal_kv_list(f"{self.session}/".encode(), namespace=_NAMESPACE) or ()
        ):
            line = internal_kv._internal_kv_get(key, namespace=_NAMESPACE)
            internal_kv._internal_kv_del(key, namespace=_NAMESPACE)
            if line is not None:
                found.append((key.decode().split("/", 3)[3], line))
        return found
