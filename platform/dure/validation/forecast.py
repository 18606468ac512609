"""What a run will take of memory and disk, foretold from the number of its parameters."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from dure.config.schema import Experiment, Profile, TrainingConfig
from dure.errors import UserError
from dure.validation.checks import Note
from dure.validation.environment import amount, existing

_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0}
_BYTES_IN_4BIT = 0.5
_FULL = 4
"""Bytes of an fp32 number: of what is trained, of its gradient, of each of Adam's two moments, of its average."""


@dataclass(frozen=True)
class Forecast:
    """Bytes that one worker's model takes while it trains, and that a run leaves on the disk.

    Attributes:
        weights: The parameters.
        gradients: Their gradients.
        moments: Adam's two moments.
        average: The moving average of the weights, when there is one.
        checkpoint: One checkpoint: the trained weights, the moments, the average.
        num_checkpoints: Most of them at a time; one more than are kept, since one is written before one goes.
        epoch: The weights of one epoch in a file of their own, with their average.
        num_epochs: Such files that are kept.
        final_model: The model at the end, in fp32.
    """

    weights: int
    gradients: int
    moments: int
    average: int
    checkpoint: int
    num_checkpoints: int
    epoch: int
    num_epochs: int
    final_model: int

    @property
    def memory(self) -> int:
        """Bytes of memory, without activations: these depend on the rows."""
        return self.weights + self.gradients + self.moments + self.average

    @property
    def disk(self) -> int:
        """Bytes on the disk."""
        return self.checkpoint * self.num_checkpoints + self.epoch * self.num_epochs + self.final_model


def forecast(
    experiment: Experiment, num_parameters: int, num_trained: int, precision: str, *, in_4bit: bool = False
) -> Forecast:
    """Foretell the bytes of a run.

    Args:
        experiment: What runs.
        num_parameters: Parameters of the model, adapters among them.
        num_trained: How many of them are trained; these are kept in fp32.
        precision: What frozen weights are kept in: ``fp32``, ``bf16`` or ``fp16``.
        in_4bit: Whether frozen weights are packed into 4 bits; embeddings, which are not, count as if they were.
    """
    training = experiment.training
    frozen = num_parameters - num_trained
    weights = num_trained * _FULL + int(frozen * (_BYTES_IN_4BIT if in_4bit else _BYTES[precision]))
    moments = 2 * _FULL * num_trained
    average = 0 if training.ema is None else _FULL * num_trained
    return Forecast(
        weights=weights,
        gradients=_FULL * num_trained,
        moments=moments,
        average=average,
        checkpoint=_FULL * num_trained + moments + average,
        # The best and the last one stay even where only one is asked for.
        num_checkpoints=max(2, training.save_total_limit) + 1,
        epoch=_FULL * num_trained + average,
        num_epochs=_kept_epochs(training),
        final_model=_FULL * num_parameters,
    )


def _kept_epochs(training: TrainingConfig) -> int:
    """Return the files of epochs at a time: those kept, and the last epoch's, which is always among them."""
    if training.keep_epochs is None:
        return 0
    return min(training.keep_epochs_limit, math.ceil(training.epochs / training.keep_epochs)) + 1


def check_memory(note: Note, foretold: Forecast, profile: Profile) -> None:
    """Check that weights, gradients and moments fit into the memory that is free."""
    free, where = _free_memory(profile)
    workers = profile.num_workers if profile.device == "cpu" else 1
    needed = foretold.memory * workers
    parts = [
        f"{amount(size)} of {name}"
        for name, size in (
            ("weights", foretold.weights),
            ("gradients", foretold.gradients),
            ("moments", foretold.moments),
            ("average", foretold.average),
        )
        if size
    ]
    shares = f" for each of {workers} workers" if workers > 1 else ""
    note.found = (
        f"{amount(needed)} of {amount(free)} {where} ({' + '.join(parts)}{shares}); activations come on top"
    )
    if needed <= free:
        return
    if profile.deepspeed is not None:
        note.found += "; DeepSpeed shares this out or offloads it"
        return
    raise UserError(
        note.found,
        hint="a lora section, a smaller model, a profile with a larger device, or one with DeepSpeed offload",
    )


def check_disk(note: Note, foretold: Forecast, folder: Path) -> None:
    """Check that the checkpoints that a run keeps fit onto the disk."""
    free = shutil.disk_usage(existing(folder)).free
    epochs = f"{foretold.num_epochs} epochs of {amount(foretold.epoch)}, " if foretold.num_epochs else ""
    note.found = (
        f"{amount(foretold.disk)} of {amount(free)} free "
        f"({foretold.num_checkpoints} checkpoints of {amount(foretold.checkpoint)} at a time, "
        f"{epochs}and a final model of {amount(foretold.final_model)})"
    )
    if foretold.disk > free:
        raise UserError(
            note.found,
            where=str(folder),
            hint="smaller training.save_total_limit and keep_epochs_limit, or --output elsewhere",
        )


def _free_memory(profile: Profile) -> tuple[int, str]:
    """Return the free bytes of the device of a profile, and in words whose they are."""
    import torch

    free: dict[str, Callable[[], int]] = {"cpu": lambda: int(psutil.virtual_memory().available)}
    if torch.cuda.is_available():
        free["cuda"] = lambda: int(torch.cuda.mem_get_info()[0])
    if torch.backends.mps.is_available():
        free["mps"] = lambda: int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    if profile.device in free:
        return free[profile.device](), f"free on the {profile.device} device"
    return (profile.memory_mb or 0) * 1024**2, f"of profile {profile.name}"
