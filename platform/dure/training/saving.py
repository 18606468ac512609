"""Checkpoints that do not stop training: a copy in memory, and a thread that writes it.

After a step the weights and the optimizer's moments stay as they are until the next step is taken. So the copy of
them is made by the thread too, beside the forward and backward passes of that step, which is taken when the copy is
complete (CheckFreq: Mohan, Phanishayee and Chidambaram, FAST 2021).
"""

from __future__ import annotations

import copy
import logging
import shutil
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import TrainerState
from transformers.trainer_callback import ExportableState

from dure.files import flush, in_bytes
from dure.runs import checkpoints
from dure.runs.agreement import by_main
from dure.runs.budget import bytes_in
from dure.runs.manifest import write_manifest
from dure.training import memory
from dure.training.captured import (
    OPTIMIZER_FILE,
    SCALER_FILE,
    SCHEDULER_FILE,
    Captured,
    frozen_in,
    random_states,
    weights_of,
)
from dure.training.oom import is_out_of_memory

logger = logging.getLogger(__name__)


@dataclass
class _Saving:
    """A checkpoint that has not its name yet."""

    step: int
    """Its optimiser step."""
    best: int | None
    """Step of the best checkpoint, which may be itself; None before the first validation."""
    captured: Captured | None
    """What it holds; None on other workers than the main one, which write nothing."""
    copied: Future[Captured] | None = None
    """On the main worker, the copy that is written while training goes on."""
    written: Future[str | None] | None = None
    """On the main worker, in words how the disk did not suffice; None when it did."""
    may_change: bool = False
    """Whether the weights may, because they are copied."""


class SavedBehind:
    """How the trainers write checkpoints; mixed in before ``Trainer``.

    A checkpoint is written into a hidden folder and renamed when it is whole: that, not its beginning, is when a
    listener hears of it and when an older one may go. At most one is being written. Training waits for it before a
    validation, which may make another one the best, before the next checkpoint, at its end, when a stop was asked
    for, and when an error ends it.

    What goes wrong in the thread is raised by the loop, on all workers, after the step that is going on. Where the disk
    did not suffice, the loop writes the same copy again, and waits for room as ``DiskRoom`` does.

    The thread writes alone. Other workers hand their random states to the main one beforehand, and the workers agree
    after every step whether it is done. DeepSpeed's workers each write their part, and agree about it by collective
    calls that would meet those of training: under ZeRO training waits. So it does where the host has not twice as much
    free memory as the copy takes, which is reported.
    """

    _saving: _Saving | None = None
    _thread: ThreadPoolExecutor | None = None
    _has_told: bool = False

    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Train; when that ends, in whatever way, no checkpoint is being written any more."""
        try:
            return super().train(*args, **kwargs)  # type: ignore[misc]
        finally:
            self._end_thread()

    def wait_for_copy(self: Any) -> None:
        """Wait until the weights may change; collective, once for a checkpoint."""
        saving: _Saving | None = self._saving
        if saving is None or saving.may_change:
            return
        saving.may_change = True
        # What was captured is still what is in memory, and is written as it is.
        if by_main(lambda: saving.copied is not None and not _has_come(saving.copied)):
            self._tell_that_training_waits("memory ran out while it was made")
            self._saving = None
            self._write_now(saving)

    def settle_checkpoint(self: Any, *, wait: bool = True) -> None:
        """See whether the checkpoint is whole that is being written, or wait until it is; collective.

        Raises:
            RunError: There was no room for as long as the machine's profile waits.
            OSError: It could not be written for another reason.
        """
        saving: _Saving | None = self._saving
        if saving is None:
            return
        is_over, lack = by_main(lambda: _outcome(saving, wait=wait))
        if not is_over:
            return
        self._saving = None
        if lack is not None:
            logger.info("%s; the loop writes it again", lack)
            self._write_now(saving)
        else:
            self._announce(saving)

    def evaluation_loop(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Evaluate when no checkpoint is being written."""
        self.settle_checkpoint()
        return super().evaluation_loop(*args, **kwargs)  # type: ignore[misc]

    def _finalize_training(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.settle_checkpoint()
        return super()._finalize_training(*args, **kwargs)  # type: ignore[misc]

    def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:
        """Begin to write a checkpoint, or write it where that must be waited for."""
        self.settle_checkpoint()
        self.store_flos()
        best = self.state.best_global_step
        if best:
            self.state.best_model_checkpoint = str(self._named(best))
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                self.state.stateful_callbacks[type(callback).__name__] = callback.state()
        if self.parts.written is not None:
            self._write_in_parts(_Saving(self.state.global_step, best, None))
            return
        saving = _Saving(self.state.global_step, best, self._captured())
        lack = by_main(lambda: _lack_of_memory(saving.captured))
        if lack is not None:
            self._tell_that_training_waits(lack)
            self._write_now(saving)
            return
        self._saving = saving
        if saving.captured is not None:
            self._begin(saving, saving.captured)

    def _captured(self: Any) -> Captured | None:
        """Return what a checkpoint of this moment holds, on the main worker; collective."""
        states = gather_object([random_states(self.args.process_index, self.args.world_size)])
        sums = self.running_loss.sums() if self.parts.stopping.is_extra else None
        if not self.args.should_save:
            return None
        files = {OPTIMIZER_FILE: self.optimizer.state_dict(), SCHEDULER_FILE: self.lr_scheduler.state_dict()}
        if self.accelerator.scaler is not None:
            files[SCALER_FILE] = self.accelerator.scaler.state_dict()
        if self.parts.average is not None:
            files[checkpoints.AVERAGE_FILE] = self.parts.average.state()
        if sums is not None:
            files[checkpoints.RUNNING_LOSS_FILE] = sums
        is_cuda = self.args.device.type == "cuda"
        captured = Captured(
            weights=weights_of(self.model),
            files=files | dict(states),
            recovery=self.parts.recovery.state(),
            state=_as_it_is(self.state),
            frozen=frozen_in(self.model),
            ready=torch.cuda.current_stream().record_event() if is_cuda else None,
        )
        return captured

    def _begin(self: Any, saving: _Saving, captured: Captured) -> None:
        """Let the thread copy and write it."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="dure-checkpoint")
        num_bytes = self._expected_bytes()
        saving.copied = self._thread.submit(captured.copied)
        saving.written = self._thread.submit(self._write_behind, saving, saving.copied, num_bytes)
        if self.args.device.type == "mps":
            wait([saving.copied])  # its queue is not for two threads at a time

    def _write_behind(self: Any, saving: _Saving, copied: Future[Captured], num_bytes: int) -> str | None:
        """Write the copy and give it its name; return in words how the disk did not suffice."""
        saving.captured = captured = copied.result()
        failure: str | None = self.parts.retention.room.try_once(
            checkpoints.checkpoint_name(saving.step),
            num_bytes,
            lambda: captured.write(self._staging(saving.step), self._save),
            clean=lambda: self._clean(saving.step),
        )
        if failure is None:
            self._give_name(saving)
        return failure

    def _write_now(self: Any, saving: _Saving) -> None:
        """Write what was captured while training waits, where there is room for it; collective."""

        def write() -> None:
            if saving.captured is not None:
                saving.captured.write(self._staging(saving.step), self._save)

        self._write_by_steps(saving, [write])

    def _write_in_parts(self: Any, saving: _Saving) -> None:
        """Write the parts of all workers, and then what all of it is; collective."""
        folder = self._staging(saving.step)

        def write_state() -> None:
            if self.args.should_save:
                self.state.save_to_json(str(folder / checkpoints.STATE_FILE))
                write_manifest(folder)

        # Every worker has written its part before the main one writes what all of it is.
        self._write_by_steps(saving, [lambda: self._write_parts(folder), write_state])

    def _write_by_steps(self: Any, saving: _Saving, steps: list[Any]) -> None:
        self.parts.retention.room.write(
            checkpoints.checkpoint_name(saving.step),
            self._expected_bytes(),
            steps,
            clean=lambda: self._clean(saving.step),
        )
        if self.args.should_save:
            self._give_name(saving)
        self.accelerator.wait_for_everyone()
        self._announce(saving)

    def _give_name(self: Any, saving: _Saving) -> None:
        """Give a whole checkpoint its name, and let older ones go."""
        final = self._named(saving.step)
        if final.exists():
            shutil.rmtree(final)
        self._staging(saving.step).rename(final)
        # Before older ones go, its name is on the disk too.
        flush(final.parent)
        checkpoints.retain(final.parent, self.parts.retention.limit, [saving.best] if saving.best else [])

    def _announce(self: Any, saving: _Saving) -> None:
        self.parts.retention.saved(self._named(saving.step))

    def _tell_that_training_waits(self: Any, why: str) -> None:
        if not self._has_told:
            self.parts.retention.notify(
                f"training pauses while a checkpoint is written, since no copy of it is made: {why}"
            )
        self._has_told = True

    def _end_thread(self: Any) -> None:
        """Wait for what is being written when an error ends training, which is raised whatever comes of it."""
        saving: _Saving | None = self._saving
        self._saving = None
        if saving is not None and saving.written is not None:
            try:
                lack = saving.written.result()
            except Exception as error:
                logger.error("checkpoint of step %d cannot be written", saving.step, exc_info=error)
            else:
                if lack is None:
                    self._announce(saving)
                else:
                    logger.error("%s: there is no checkpoint of step %d", lack, saving.step)
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def _expected_bytes(self: Any) -> int:
        last = checkpoints.last_checkpoint(Path(self.args.output_dir))
        return self.parts.retention.foretold_bytes if last is None else bytes_in(last)

    def _named(self: Any, step: int) -> Path:
        return Path(self.args.output_dir) / checkpoints.checkpoint_name(step)

    def _staging(self: Any, step: int) -> Path:
        final: Path = self._named(step)
        return final.with_name(f".{final.name}.part")

    def _clean(self: Any, step: int) -> None:
        shutil.rmtree(self._staging(step), ignore_errors=True)


def _as_it_is(state: TrainerState) -> TrainerState:
    """Return a state of its own, that later steps do not change."""
    now = copy.copy(state)
    now.log_history = list(state.log_history)
    now.stateful_callbacks = copy.deepcopy(state.stateful_callbacks)
    return now


def _lack_of_memory(captured: Captured | None) -> str | None:
    """Return in words what is lacking to copy it; None where there is enough."""
    if captured is None:
        return None
    size, free = captured.num_bytes, memory.free_on_host()
    if free >= 2 * size:
        return None
    return f"it has {in_bytes(size)}, and {in_bytes(free)} of memory are free, less than twice as much"


def _has_come(copied: Future[Captured]) -> bool:
    """Wait for a copy, and return whether memory sufficed for it; raise what else went wrong."""
    error = copied.exception()
    if error is not None and not is_out_of_memory(error):
        raise error
    return error is None


def _outcome(saving: _Saving, *, wait: bool) -> tuple[bool, str | None]:
    """Return whether a checkpoint is written, and if so how the disk did not suffice; raise what went wrong."""
    written = saving.written
    if written is None or not (wait or written.done()):
        return False, None
    return True, written.result()
