"""How many rows at once fitted into a device's memory before, kept in the cache folder for the next run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import psutil
from torch import nn

from dure.config.schema import Experiment, Profile
from dure.family.corpus import cache_folder
from dure.files import read_json, write_json
from dure.runs.environment import device_name


class FittingRows:
    """The rows at once that are known to fit a model, its longest rows and a device.

    The file is named after everything that memory depends on, and says it.

    Args:
        experiment: What runs.
        profile: The machine.
        model: The model, ready to train.
        precision: What it computes in.
    """

    def __init__(self, experiment: Experiment, profile: Profile, model: nn.Module, precision: str) -> None:
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
        tokenizer, training = experiment.tokenizer, experiment.training
        self._facts: dict[str, Any] = {
            "checkpoint": experiment.model.checkpoint,
            "parameters": sum(size for size, _ in sizes),
            "trained_parameters": sum(size for size, is_trained in sizes if is_trained),
            "encoder_max_len": tokenizer.encoder_max_len,
            "decoder_max_len": tokenizer.decoder_max_len,
            "precision": precision,
            "gradient_checkpointing": training.gradient_checkpointing,
            "r_drop": experiment.objective.r_drop > 0,
            "device": device_name(profile.device),
            "memory_mb": profile.memory_mb or psutil.virtual_memory().total // (1024 * 1024),
        }

    @property
    def path(self) -> Path:
        """The file that remembers."""
        name = hashlib.sha256(json.dumps(self._facts, sort_keys=True).encode()).hexdigest()[:16]
        return cache_folder() / "fitting_rows" / f"{name}.json"

    def read(self) -> int | None:
        """Return the rows at once that a run before this one came down to, or None when none had to."""
        if not self.path.is_file():
            return None
        return int(read_json(self.path, what="record of rows that fit")["rows_at_once"])

    def write(self, rows: int) -> None:
        """Remember the rows at once that a run came down to."""
        write_json(self.path, self._facts | {"rows_at_once": rows})
