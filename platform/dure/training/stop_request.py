"""Whether a run is to end before its time; known without transformers, to those that only wait for one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch


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
