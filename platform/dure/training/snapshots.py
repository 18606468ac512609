"""The weights of every epoch as a file of their own, beside the checkpoints that a resumption needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from dure.modeling.ema import WeightAverage
from dure.modeling.shards import whole_weights
from dure.modeling.weights import save_weights, trained_state, write_weights
from dure.runs.epochs import RAW, epoch_of, epochs_of
from dure.runs.folder import RunFolder

_ROUNDING = 1e-6
"""By how much the trainer's own count of epochs may be off."""


@dataclass(eq=False)
class EpochSnapshots(TrainerCallback):  # type: ignore[misc]
    """Keeps the weights of epochs as files, each written before the checkpoint of its step is whole.

    So a run that is killed between the two goes through the epoch again and writes the same file.
    """

    folder: RunFolder
    """Names the files."""
    _: KW_ONLY
    every: int
    """Epochs from one file to the next; the last epoch has one too."""
    limit: int
    """Files kept."""
    needed: Callable[[], set[int]]
    """Says which epochs must not be removed, beside the best and the newest."""
    is_main: bool
    """Whether this is the main worker; the others write nothing, and send what only they hold."""
    average: WeightAverage | None = None
    """Average of the weights, when it is what is validated: the file holds both then."""
    write: Callable[..., None]
    """Writes a file, named in words, by the steps that it is given."""
    rate: float | None = field(default=None, init=False)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remove what a kill left half written."""
        if self.is_main:
            for path in self.folder.checkpoints.glob(".*.pt.*.part"):
                path.unlink()

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **kwargs: Any
    ) -> None:
        """Note the learning rate that the step is taken with; after it the schedule is at the next one's."""
        self.rate = max(lr_scheduler.get_last_lr())

    def on_epoch_end(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: Any = None,
        lr_scheduler: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Write the weights with the epoch and step that they are of, and remove what is too much.

        The step is logged as well, so that the records hold the learning rate that the file is named after.
        """
        # A run that ends within an epoch comes here too: that epoch's own number, not that of the whole one before it.
        epoch = math.ceil(state.epoch - _ROUNDING)
        if epoch % self.every and state.global_step < state.max_steps:
            return control
        path = self.folder.epoch_file(epoch, self._last_rate(state, lr_scheduler))
        self.write(f"epoch {epoch}", steps=[lambda: self._write(model, path, epoch, state.global_step)])
        if self.is_main:
            self._remove_what_is_too_much(path, epoch, state)
        control.should_log = True
        return control

    def _last_rate(self, state: Any, lr_scheduler: Any) -> float:
        """Return the learning rate of the last step; a resumed run may have to look it up in its records."""
        if self.rate is not None:
            return self.rate
        logged = [entry["learning_rate"] for entry in state.log_history if "learning_rate" in entry]
        return float(logged[-1]) if logged else float(max(lr_scheduler.get_last_lr()))

    def _write(self, model: Any, path: Path, epoch: int, step: int) -> None:
        about: dict[str, Any] = {"epoch": epoch, "step": step}
        if self.average is None:
            save_weights(model, path, about, is_main=self.is_main)
        else:
            with whole_weights(model, keep=self.is_main):
                if self.is_main:
                    about[RAW] = trained_state(model)
            with self.average.in_place_of_weights(keep=self.is_main):
                if self.is_main:
                    write_weights(model, path, about)

    def _remove_what_is_too_much(self, path: Path, epoch: int, state: Any) -> None:
        for other in path.parent.glob("*.pt"):
            if epoch_of(other) == epoch and other != path:
                other.unlink()  # of a session that was cut before its checkpoint
        best = round(state.epoch * (state.best_global_step or 0) / state.global_step)
        kept = epochs_of(path.parent)
        removable = [each for each in kept if each not in self.needed() | {best, epoch}]
        for each in removable[: max(0, len(kept) - self.limit)]:
            kept[each].unlink()
