"""What a run will take of the disk, forecast from the number of its parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dure.config.schema import Experiment
from dure.files import in_bytes

if TYPE_CHECKING:
    from torch import nn

_FULL = 4
"""Bytes of an fp32 number: of what is trained, of each of Adam's two moments, of its average."""


NOTHING_FITS = "a smaller model, or a profile with a larger device"
"""What would fit where no setting and no shipped profile does."""


@dataclass(frozen=True)
class Forecast:
    """Bytes that a run leaves on the disk."""

    checkpoint: int
    """One checkpoint: the trained weights, the moments, the average."""
    num_checkpoints: int
    """Most of them at a time; one more than are kept, since one is written before one goes."""
    epoch: int
    """The weights of one epoch in a file of their own, with their average."""
    num_epochs: int
    """Such files that are kept."""
    final_model: int
    """The model at the end, in fp32."""

    @property
    def disk(self) -> int:
        """Bytes on the disk."""
        return self.checkpoint * self.num_checkpoints + self.epoch * self.num_epochs + self.final_model

    @property
    def words(self) -> str:
        """What the bytes on the disk are."""
        epochs = f"{self.num_epochs} epochs of {in_bytes(self.epoch)}, " if self.num_epochs else ""
        return (
            f"{self.num_checkpoints} checkpoints of {in_bytes(self.checkpoint)} at a time, {epochs}and a final model "
            f"of {in_bytes(self.final_model)}"
        )

    @property
    def least(self) -> int:
        """Bytes on the disk that must be: the best and the last checkpoint, then a third or the final model."""
        return (
            2 * self.checkpoint
            + max(self.checkpoint, self.final_model)
            + min(self.num_epochs, 1) * self.epoch
        )


def forecast(experiment: Experiment, num_parameters: int, num_trained: int) -> Forecast:
    """Forecast the bytes of a run's files.

    Adapters count among the parameters; those that are trained are kept in fp32.
    """
    training = experiment.training
    average = 0 if training.ema is None else _FULL * num_trained
    return Forecast(
        checkpoint=_FULL * num_trained + 2 * _FULL * num_trained + average,
        # The best and the last one stay even where only one is asked for.
        num_checkpoints=max(2, training.save_total_limit) + 1,
        epoch=_FULL * num_trained + average,
        # The last epoch's file is among them beside those that are kept.
        num_epochs=0
        if training.keep_epochs is None
        else min(training.keep_epochs_limit, math.ceil(training.epochs / training.keep_epochs)) + 1,
        final_model=_FULL * num_parameters,
    )


def num_parameters(model: nn.Module) -> tuple[int, int]:
    """Return how many parameters a model has, and how many of them are trained; each of 4 bits counts as one."""
    parameters = list(model.parameters())
    # bitsandbytes packs two into a byte, and keeps the shape that they had.
    packed = [getattr(each, "quant_state", None) for each in parameters]
    total = sum(
        p.numel() if state is None else math.prod(state.shape)
        for p, state in zip(parameters, packed, strict=True)
    )
    return total, sum(p.numel() for p in parameters if p.requires_grad)
