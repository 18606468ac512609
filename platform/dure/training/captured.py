"""What a checkpoint holds: taken at one optimiser step, copied so that training may go on, and written."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only
from transformers import TrainerState
from transformers.trainer_pt_utils import safe_globals

from dure.files import write_json
from dure.modeling.lora import AdaptedModel
from dure.runs.checkpoints import STATE_FILE
from dure.runs.manifest import write_manifest
from dure.training.recovery import STATE_FILE as RECOVERY_FILE

OPTIMIZER_FILE, SCHEDULER_FILE, SCALER_FILE = "optimizer.pt", "scheduler.pt", "scaler.pt"
"""As the trainers of transformers read them."""


@dataclass(frozen=True)
class Captured:
    """Everything of a checkpoint, as it is after one optimiser step.

    Its tensors are those that training changes, until it is :meth:`copied`: they change at the next step.
    """

    weights: Mapping[str, Any]
    """State dict of the model."""
    files: Mapping[str, Any]
    """What ``torch.save`` writes, by the name of its file."""
    recovery: Mapping[str, Any]
    """What is known of memory that did not suffice."""
    state: TrainerState
    frozen: frozenset[int] = frozenset()
    """Addresses of the storages that training never changes."""
    ready: torch.cuda.Event | None = None
    """On CUDA, when the step has been computed."""

    @property
    def num_bytes(self) -> int:
        """Bytes that a copy takes; a weight that several layers share counts once."""
        held = tree_leaves((dict(self.weights), dict(self.files)))
        tensors = [each for each in held if isinstance(each, torch.Tensor) and not self._is_frozen(each)]
        changing = [each.untyped_storage() for each in tensors]
        return sum({each.data_ptr(): each.nbytes() for each in changing}.values())

    def copied(self) -> Captured:
        """Return the same with tensors of its own in the memory of the host; what is frozen stays as it is."""
        made: dict[tuple[Any, ...], torch.Tensor] = {}

        def copy(tensor: torch.Tensor) -> torch.Tensor:
            if self._is_frozen(tensor):
                return tensor
            # Tied weights stay tied.
            key = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
            if key not in made:
                made[key] = _on_host(tensor)
            return made[key]

        with _beside_training(self.ready):
            weights, files = tree_map_only(torch.Tensor, copy, (dict(self.weights), dict(self.files)))
        return replace(self, weights=weights, files=files, ready=None)

    def write(self, folder: Path, write_model: Callable[[str, dict[str, Any]], None]) -> None:
        """Write all of it into a folder, whose manifest comes last.

        ``write_model`` writes a model with these weights, and what belongs to it, into a folder.
        """
        write_model(str(folder), dict(self.weights))
        for name, value in self.files.items():
            # To a path, torch would keep Python's lock for as long as a tensor takes to be written.
            with (folder / name).open("wb") as file:
                torch.save(value, file)
        write_json(folder / RECOVERY_FILE, dict(self.recovery))
        self.state.save_to_json(str(folder / STATE_FILE))
        write_manifest(folder)

    def _is_frozen(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self.frozen


def _on_host(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type != "cuda":
        return tensor.to("cpu", copy=True)
    # Pinned, or the copy would wait for the passes of the next step.
    host = torch.empty_like(tensor, device="cpu", pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


@contextmanager
def _beside_training(ready: torch.cuda.Event | None) -> Iterator[None]:
    """Let CUDA copy beside the kernels of training, and wait until it has."""
    if ready is None:
        yield
        return
    stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_event(ready)
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()


def weights_of(model: nn.Module) -> dict[str, Any]:
    """Return what ``save_pretrained`` takes as the state of a model: of one with adapters each weight once.

    Buffers, which a forward pass may change, are copies already.
    """
    if isinstance(model, AdaptedModel):
        return {name: p.detach() if p.requires_grad else p for name, p in model.named_parameters()}
    buffers = {name for name, _ in model.named_buffers()}
    return {
        name: value.clone() if name in buffers and isinstance(value, torch.Tensor) else value
        for name, value in model.state_dict().items()
    }


def frozen_in(model: nn.Module) -> frozenset[int]:
    """Return the addresses of the storages of the weights that are not trained."""
    found = (each.untyped_storage().data_ptr() for each in model.parameters() if not each.requires_grad)
    return frozenset(found) - {0}


def random_states(rank: int, num_workers: int) -> tuple[str, dict[str, Any]]:
    """Return the name of a worker's file in a checkpoint, and the states of the random generators in it."""
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": numpy.random.get_state(),
        "cpu": torch.random.get_rng_state(),
    }
    if torch.cuda.is_available():
        several = num_workers > 1
        states["cuda"] = (
            torch.cuda.random.get_rng_state_all() if several else torch.cuda.random.get_rng_state()
        )
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return ("rng_state.pth" if num_workers == 1 else f"rng_state_{rank}.pth"), states


def restore_mps(checkpoint: Path) -> None:
    """Let MPS draw on as in a checkpoint; all other generators are restored by the trainer of transformers."""
    file = checkpoint / "rng_state.pth"
    if torch.backends.mps.is_available() and file.is_file():
        with safe_globals():
            states = torch.load(file, weights_only=True)
        if "mps" in states:
            torch.mps.set_rng_state(states["mps"])
