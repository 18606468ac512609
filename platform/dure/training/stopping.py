"""Ending a run when that is asked for, with a checkpoint from which it goes on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback


class StopRequested(Exception):  # noqa: N818 - nothing is wrong
    """A run ends here because a stop was asked for.

    Attributes:
        step: Optimiser steps whose result is in a checkpoint; 0 when none was made.
    """

    def __init__(self, step: int = 0) -> None:
        super().__init__(f"stopped at step {step}")
        self.step = step


class StopRequest:
    """Whether a stop was asked for, as all workers of a run see it alike.

    Args:
        file: The file that asks by being there; None when nobody can ask.
        is_main: Whether this is the main worker, which alone looks: on a shared file system the others may see
            the file later.
    """

    def __init__(self, file: Path | None, *, is_main: bool) -> None:
        self._file = file
        self._is_main = is_main
        self._is_asked = False

    def is_asked(self) -> bool:
        """Look, and agree with the other workers; all of them call this at the same place."""
        if self._file is not None and not self._is_asked:
            self._is_asked = self._agreed(self._is_main and self._file.exists())
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


class StopCallback(TrainerCallback):  # type: ignore[misc]
    """Ends training after the next checkpoint once a stop was asked for, and has one made when none is due.

    What is due at a step comes first: a resumed run would not make up for a validation that was left out.
    Comes after every other callback, so that none takes the checkpoint between two validations for one of theirs.

    Args:
        request: Where it is asked.
        by_epoch: Whether something is due at the end of epochs.
    """

    def __init__(self, request: StopRequest, *, by_epoch: bool) -> None:
        self.request = request
        self.by_epoch = by_epoch
        self.is_extra = False
        """Whether the checkpoint that is being made would not have been without the stop."""
        self.settle: Callable[[], None] = lambda: None
        """Waits until that checkpoint is whole; the loop that writes it says how."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Have a checkpoint made of this step when a stop was asked for."""
        is_end_of_epoch = self.by_epoch and float(state.epoch).is_integer()
        is_due = control.should_save or control.should_evaluate or control.should_training_stop
        if not is_due and not is_end_of_epoch and self.request.is_asked():
            control.should_save = self.is_extra = True
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End here, outside of the trainer's own way to its end, which would validate and load the best weights.

        Raises:
            StopRequested: A stop was asked for.
        """
        if self.request.is_asked():
            self.settle()
        self.request.check(state.global_step)
