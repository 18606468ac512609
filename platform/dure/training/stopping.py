"""Ending a run when that is asked for, with a checkpoint from which it goes on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback

from dure.training.stop_request import StopRequest


@dataclass(eq=False)
class StopCallback(TrainerCallback):  # type: ignore[misc]
    """Ends training after the next checkpoint once a stop was asked for, and has one made when none is due.

    What is due at a step comes first: a resumed run would not make up for a validation that was left out.
    Comes after every other callback, so that none takes the checkpoint between two validations for one of theirs.
    """

    request: StopRequest
    by_epoch: bool
    """Whether something is due at the end of epochs."""
    is_extra: bool = False
    """Whether the checkpoint that is being made would not have been without the stop."""
    settle: Callable[[], None] = lambda: None
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
