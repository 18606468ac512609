"""Running out of memory: knowing it, writing down where it happened, and remembering what fitted."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from torch import nn

from dure.config.schema import Experiment, Profile
from dure.data.arrow_files import key_of
from dure.errors import UserError
from dure.family.corpus import cache_folder
from dure.files import json_or_none, write_json
from dure.runs.environment import device_name
from dure.runs.forecast import num_parameters
from dure.training import memory

logger = logging.getLogger(__name__)

Phase = Literal["forward", "backward", "optimizer", "validation"]

_SAID = (
    "out of memory",  # CUDA, MPS, bitsandbytes, and the driver's own "CUDA error: out of memory"
    "can't allocate memory",  # PyTorch's allocator on the CPU, on Linux
    "not enough memory",  # and on Windows
    "failed to allocate",  # XPU, and the CPU's mmap
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cudaerrormemoryallocation",
)
"""What the messages of errors say that have no class of their own, in small letters."""
_MB = 1024 * 1024


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _SAID)


def happened_in(error: BaseException, model: nn.Module) -> tuple[Phase, str | None]:
    """Return what was being computed when an error was raised, and the module that computed it.

    The stack tells: the innermost frame whose ``self`` is a module of the model. A backward pass runs outside
    Python, so its module is known only where activations are computed again.
    """
    names = {id(module): name for name, module in model.named_modules()}
    phase: Phase = "forward"
    found: str | None = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "evaluation_loop":
            phase = "validation"
        elif phase == "forward" and isinstance(frame.f_locals.get("self"), torch.optim.Optimizer):
            phase = "optimizer"
        elif phase == "forward" and frame.f_code.co_name == "backward":
            phase = "backward"
        found = names.get(id(frame.f_locals.get("self")), found)
    return phase, found


def figures(device: str) -> dict[str, float | None]:
    """Return the memory in use in MiB, to be asked before anything is freed.

    ``allocated_mb`` is that of tensors, on the CPU of the process; ``reserved_mb`` is what the allocator keeps.
    """
    if device == "cuda":
        return {
            "allocated_mb": torch.cuda.memory_allocated() / _MB,
            "reserved_mb": torch.cuda.memory_reserved() / _MB,
            "peak_mb": torch.cuda.max_memory_allocated() / _MB,
        }
    if device == "mps":
        return {
            "allocated_mb": torch.mps.current_allocated_memory() / _MB,
            "reserved_mb": torch.mps.driver_allocated_memory() / _MB,
            "peak_mb": None,
        }
    return {"allocated_mb": memory.resident_mb(), "reserved_mb": None, "peak_mb": None}


class FittingRows:
    """The rows at once that are known to fit a model, its longest rows and a device.

    They are kept in the cache folder for the next run, in a file that is named after everything that memory depends
    on, and says it.
    """

    def __init__(self, experiment: Experiment, profile: Profile, model: nn.Module, precision: str) -> None:
        parameters, trained_parameters = num_parameters(model)
        tokenizer, training = experiment.tokenizer, experiment.training
        self._facts: dict[str, Any] = {
            "checkpoint": experiment.model.checkpoint,
            "parameters": parameters,
            "trained_parameters": trained_parameters,
            "packed": bool(getattr(model, "is_quantized", False)),
            "encoder_max_len": tokenizer.encoder_max_len,
            "decoder_max_len": tokenizer.decoder_max_len,
            "precision": precision,
            "gradient_checkpointing": training.gradient_checkpointing,
            "averages": training.ema is not None,
            "r_drop": experiment.objective.r_drop > 0,
            "task": experiment.task,
            "device": device_name(profile.device),
            "memory_mb": profile.memory_mb or psutil.virtual_memory().total // (1024 * 1024),
        }
        if training.batch_tokens is not None:
            self._facts["batch_tokens"] = training.batch_tokens

    @property
    def path(self) -> Path:
        """The file that remembers."""
        return cache_folder() / "fitting_rows" / f"{key_of(self._facts)[:16]}.json"

    def read(self) -> int | None:
        """Return the rows at once that a run before this one came down to, or None when none had to."""
        rows = (json_or_none(self.path) or {}).get("rows_at_once")
        return rows if isinstance(rows, int) else None

    def write(self, rows: int) -> None:
        """Remember the rows at once that a run came down to; it goes on where the cache takes nothing."""
        try:
            write_json(self.path, self._facts | {"rows_at_once": rows})
        except (OSError, UserError) as error:
            logger.warning("the rows that fit are not remembered: %s", error)
