"""Who this process is among those that train one model together, and whether they are to end before their time.

Known without transformers, to those that only wait for a run.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch

from dure.events import Notify

logger = logging.getLogger(__name__)


class StopRequested(Exception):  # noqa: N818 - nothing is wrong
    """A run ends here because a stop was asked for."""

    def __init__(self, step: int = 0) -> None:
        super().__init__(f"stopped at step {step}")
        self.step = step
        """Optimiser steps whose result is in a checkpoint; 0 when none was made."""


@dataclass
class StopRequest:
    """Whether a stop was asked for, as all workers of a run see it alike."""

    file: Path | None
    """The file that asks by being there; None when nobody can ask."""
    is_main: bool = True
    """Whether this is the main worker, which alone looks: on a shared file system the others may see the file later."""
    _is_asked: bool = field(default=False, init=False)

    def is_asked(self) -> bool:
        """Look, and agree with the other workers; all of them call this at the same place."""
        if self.file is not None and not self._is_asked:
            self._is_asked = self._agreed(self.is_main and self.file.exists())
        return self._is_asked

    def check(self, step: int = 0) -> None:
        """Look where nothing has to be saved.

        Raises:
            StopRequested: A stop was asked for.
        """
        if self.is_asked():
            raise StopRequested(step)

    @staticmethod
    def _agreed(seen: bool) -> bool:
        if not torch.distributed.is_available() or not torch.distributed.is_initialized():
            return seen
        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        flag = torch.tensor([float(seen)], device=device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return bool(flag.item())


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
