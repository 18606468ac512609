"""Optimiser steps that survive running out of memory.

The unit that is computed again is the optimiser step. A backward pass that fails has added part of its gradients
already, so what earlier micro-batches gave cannot be kept without a copy of all gradients. Since the loss is
divided by the items of the whole step, a micro-batch in pieces has the gradients of the whole one, and the step
that of a run which had smaller micro-batches from its start, to rounding. How a batch is halved, the family says. The state of the random generators is
put back too: a step that is computed again as it was has the dropout of the step that failed.

Workers that train together agree once a step. Until then none may wait for another, so each computes its
gradients alone and they are averaged after the step is known to be whole, in place of during its last backward
pass: less overlap of computing and sending is the price.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import torch
from torch import distributed, nn

from dure.data.collating import Batch, Batches, pieces
from dure.errors import RunError, said
from dure.files import read_json, write_json
from dure.secrets import redacted
from dure.training import memory, oom
from dure.training.worker import Worker

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 4
"""Times that one step is computed at the same size before the run fails."""
STATE_FILE = "recovery.json"
ALL = sys.maxsize
"""Rows at once while memory has sufficed."""

Compute = Callable[[Batch], torch.Tensor]


@dataclass
class _Step:
    """An optimiser step while it is computed."""

    random: dict[str, torch.Tensor]
    """State of the random generators at its beginning."""
    batches: list[Batch] = field(default_factory=list)
    """Its micro-batches so far."""
    losses: list[torch.Tensor] = field(default_factory=list)
    has_failed: bool = False
    """Whether memory did not suffice in this process."""


class Recovery:
    """What happens when memory does not suffice, and how often it did not.

    ``remember`` gets the rows at a time whenever they become fewer. Where DeepSpeed ``shares_out`` the model it sends
    gradients while it computes them, so a pass cannot be taken back and nothing is computed again, whatever the policy.
    """

    def __init__(
        self,
        policy: Literal["retry", "shrink", "error"],
        batches: Batches,
        model: nn.Module,
        device: str,
        *,
        folder: Path,
        worker: Worker,
        remember: Callable[[int], None] = lambda rows: None,
        shares_out: bool = False,
    ) -> None:
        self.policy = "error" if shares_out else policy
        self.batches = batches
        self.model = model
        self.device = device
        self.rows_at_once = ALL
        self.num_oom = 0
        self._folder = folder
        self._worker = worker
        self._remember = remember
        self._shares_out = shares_out
        self._has_agreed = worker.num_workers == 1
        self._step: _Step | None = None
        self._stats: dict[str, Any] = {}

    def micro_batch(
        self, compute: Compute, batch: Batch, *, step: int, is_last: bool
    ) -> list[torch.Tensor] | None:
        """Add the gradients of a micro-batch.

        ``compute`` computes the loss of a batch and its gradients, and touches no other worker. Of the last micro-batch
        the step is whole when this returns, with the losses of all of it.

        Raises:
            RunError: Memory did not suffice in the end.
        """
        if self._step is None:
            if not self._has_agreed:
                self.rows_at_once = self._agreed(self.rows_at_once, distributed.ReduceOp.MIN)
                self._has_agreed = True
            self._step = _Step(_random_state(self.device))
        now = self._step
        now.batches.append(batch)
        if not now.has_failed:
            self._attempt(compute, now, len(now.batches) - 1, step)
        if not is_last:
            return None
        attempts = 1
        while self._agreed(int(now.has_failed), distributed.ReduceOp.MAX):  # on any worker
            attempts = self._settle(now, step, attempts)
            self.model.zero_grad(set_to_none=True)
            _set_random_state(now.random)
            now.losses, now.has_failed = [], False
            for place in range(len(now.batches)):
                if not now.has_failed:
                    self._attempt(compute, now, place, step)
        self._average_gradients()
        self._step = None
        return now.losses

    def give_up(self, error: BaseException, step: int) -> RunError:
        """Record a failure that nothing can be done about, and return the error that ends the run."""
        self.num_oom += 1
        stats = self._stats_of(error, {}, step)
        traceback.clear_frames(error.__traceback__)
        self._write(stats | {"action": "error"})
        where = stats["phase"]
        smaller = "training.eval_batch_size" if where == "validation" else "training.batch_size"
        advice = f"a smaller {smaller} needs less"
        if where == "optimizer":
            advice = "weights, gradients and moments do not fit, whatever the batch: a lora section trains fewer weights"
        if self._shares_out:
            advice += ", or DeepSpeed settings that offload"
        elif where not in ("validation", "optimizer") and self.policy != "shrink":
            advice += ", or let training.on_oom=shrink find one that fits"
        return RunError(
            f"out of memory at step {step} ({where}); {advice} (see {self._folder / 'oom_stats'})"
        )

    def state(self) -> dict[str, Any]:
        """Return what a resumed run goes on with; it is in every checkpoint as :data:`STATE_FILE`."""
        return {
            "rows_at_once": None if self.rows_at_once == ALL else self.rows_at_once,
            "num_oom": self.num_oom,
        }

    def load(self, folder: Path) -> None:
        """Go on as :meth:`state` found it: the same pieces have the same dropout."""
        saved = read_json(folder / STATE_FILE, what="state of a trainer")
        self.rows_at_once = saved["rows_at_once"] or ALL
        self.num_oom = saved["num_oom"]

    def _attempt(self, compute: Compute, now: _Step, place: int, step: int) -> None:
        """Compute one micro-batch in pieces; when memory does not suffice, free it and say so."""
        losses: list[torch.Tensor] = []
        piece = whole = now.batches[place]
        try:
            for piece in pieces(self.batches, whole, self.rows_at_once):
                losses.append(compute(piece))
        except Exception as error:
            if not oom.is_out_of_memory(error):
                raise
            self._stats = self._stats_of(error, piece, step) | {"micro_batch": place + 1}
            traceback.clear_frames(error.__traceback__)  # They hold the activations of the pass that failed.
            now.has_failed = True
        else:
            now.losses.append(torch.stack(losses).sum() if len(losses) > 1 else losses[0])
            return
        self.model.zero_grad(set_to_none=True)
        memory.release()

    def _settle(self, now: _Step, step: int, attempts: int) -> int:
        """Decide how the step is computed again, and return the number of the attempt at its size.

        All workers decide the same, since they know the same numbers.
        """
        rows = min(self.rows_at_once, max(self.batches.num_rows(each) for each in now.batches))
        rows = self._agreed(rows, distributed.ReduceOp.MAX)
        self.num_oom += 1
        stats, self._stats = self._stats, {}
        memory.release()
        where = (
            f"out of memory at step {step} ({stats['phase']}, {stats['module'] or 'module not known'}, "
            f"{stats['rows']} rows)"
            if stats
            else f"out of memory at step {step} on another worker"
        )
        if self.policy == "shrink" and rows > 1:
            self.rows_at_once = rows // 2
            passes = max(len([*pieces(self.batches, each, self.rows_at_once)]) for each in now.batches)
            action = f"{self.rows_at_once} rows at once from here on, {passes} passes for each before"
            self._remember(self.rows_at_once)
            attempts = 0
        elif attempts < MAX_ATTEMPTS:
            action = f"the same step once more (attempt {attempts + 1} of {MAX_ATTEMPTS})"
        else:
            action = "error"
        if stats:
            self._write(stats | {"action": action})
        if action == "error":
            advice = (
                "; a single row is too much: shorten tokenizer.encoder_max_len, or set gradient_checkpointing"
                if self.policy == "shrink"
                else "; set training.on_oom=shrink, or a smaller training.batch_size"
            )
            raise RunError(f"{where} in {attempts} attempts{advice} (see {self._folder / 'oom_stats'})")
        self._worker.notify(f"{where}: {action}")
        return attempts + 1

    def _stats_of(self, error: BaseException, batch: Batch, step: int) -> dict[str, Any]:
        numbers = oom.figures(self.device)
        phase, module = oom.happened_in(error, self.model)
        return {
            "step": step,
            "phase": phase,
            "module": module,
            "rows": self.batches.num_rows(batch) if batch else None,
            "shapes": {
                name: list(each.shape) for name, each in batch.items() if isinstance(each, torch.Tensor)
            },
            "device": self.device,
            "worker": self._worker.rank,
            **numbers,
            "policy": self.policy,
            "error": redacted(said(error, 500)) or type(error).__name__,
        }

    def _write(self, stats: dict[str, Any]) -> None:
        stamp = datetime.now().strftime("%Y%m%d_%H%M%S_%f")
        worker = f"_worker-{self._worker.rank}" if self._worker.rank else ""
        path = self._folder / "oom_stats" / f"oom_stats_{stamp}{worker}.json"
        write_json(path, stats)
        logger.info("memory figures are in %s", path)

    def _agreed(self, value: int, by: distributed.ReduceOp.RedOpType) -> int:
        if self._worker.num_workers == 1:
            return value
        number = torch.tensor(value, device=next(self.model.parameters()).device)
        distributed.all_reduce(number, by)
        return int(number)

    def _average_gradients(self) -> None:
        """Average the gradients over the workers; a parameter that took no part here gives zeros."""
        if self._worker.num_workers == 1:
            return
        waiting = []
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad /= self._worker.num_workers
                waiting.append(distributed.all_reduce(parameter.grad, async_op=True))
        for work in waiting:
            work.wait()


def _random_state(device: str) -> dict[str, torch.Tensor]:
    """Return the states of the random generators by the device that they are of."""
    of_device = {} if device == "cpu" else {device: torch.get_device_module(device).get_rng_state()}
    return {"cpu": torch.get_rng_state(), **of_device}


def _set_random_state(state: dict[str, torch.Tensor]) -> None:
    for device, each in state.items():
        (torch if device == "cpu" else torch.get_device_module(device)).set_rng_state(each)
