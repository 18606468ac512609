"""Who this process is among those that train one model together."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from dure.events import Notify
from dure.training.stop_request import StopRequest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Worker:
    """One of the processes that train a model together; by default the only one."""

    rank: int = 0
    """Its number among them, from 0."""
    num_workers: int = 1
    """How many these are."""
    stop: StopRequest = field(default_factory=lambda: StopRequest(None))
    """Where it is asked that training end before its time."""
    notify: Notify = logger.info
    """Passes one line to the user; on the main worker only, elsewhere the line goes to the log."""

    @property
    def is_main(self) -> bool:
        """Whether this is the worker that writes what is written once."""
        return self.rank == 0
