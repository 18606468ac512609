"""What the loop calls at its steps: the average of weights, the occasions of records, the losses between two, the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from dure.modeling.ema import WeightAverage
from dure.runs import checkpoints
from dure.training.worker import StopRequest


@dataclass(eq=False)
class Averaging(TrainerCallback):  # type: ignore[misc]
    """Takes up the weights of every optimiser step into their average."""

    average: WeightAverage
    was_skipped: Callable[[], bool]
    """Whether the step changed nothing, because its gradients left the range of fp16."""

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the step's weights to the average, before either is validated or saved."""
        if not self.was_skipped():
            self.average.update()


class CheckpointingOfOneStep(TrainerCallback):  # type: ignore[misc]
    """Lets only the first step of a session compute its activations twice.

    For a rehearsal: it should show that a model trains so, but has no memory to save. No number depends on it.
    """

    is_over = False

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        """Keep activations in the steps to come."""
        if not self.is_over:
            model.activation_checkpointing_disable()
            self.is_over = True


class EvalSchedule(TrainerCallback):  # type: ignore[misc]
    """Makes a resumed run record at the same steps, and choose the same best checkpoint, as an undisturbed one."""

    choice: checkpoints.Choice | None = None
    """What the run goes on from."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Name the best checkpoint where it is now: it may have been lost, or the folder moved."""
        if self.choice is not None:
            checkpoints.take_as_best(self.choice.best, state, Path(args.output_dir))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Log when a checkpoint is due, so that no losses before it are left for the record after it."""
        if control.should_save:
            control.should_log = True
        return control

    on_epoch_end = on_step_end


@dataclass(eq=False)
class CheckpointTurns(TrainerCallback):  # type: ignore[misc]
    """Looks after the checkpoint that is being written while the loop goes on."""

    trainer: Any

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Wait until the weights are copied, since the step changes them."""
        self.trainer.wait_for_copy()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give the checkpoint its name if all of it is written by now."""
        self.trainer.settle_checkpoint(wait=False)


@dataclass(eq=False)
class RunningLoss(TrainerCallback):  # type: ignore[misc]
    """Lets a record be the mean over the same steps, whether or not the run was stopped between them."""

    trainer: Any
    checkpoint: Path | None = None
    """What the run goes on from."""

    def sums(self) -> dict[str, Any]:
        """Return what was summed up since the last record, of every worker; collective."""
        trainer = self.trainer
        gather = trainer.accelerator.gather
        losses = gather(trainer._tr_loss.detach().reshape(1)).cpu()
        sums = trainer.parts.objective.take_sums()
        if sums is not None:
            trainer.parts.objective.put_sums(sums)
            sums = gather(sums.reshape(1, -1)).cpu()
        return {"logged": trainer._globalstep_last_logged, "losses": losses, "sums": sums}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Continue from the sums in the checkpoint; another number of workers shares them out evenly."""
        if self.checkpoint is None or not (self.checkpoint / checkpoints.RUNNING_LOSS_FILE).is_file():
            return
        saved = torch.load(self.checkpoint / checkpoints.RUNNING_LOSS_FILE, weights_only=True)
        losses, sums = saved["losses"], saved["sums"]
        rank, num_workers = args.process_index, args.world_size
        is_same = len(losses) == num_workers
        # The record's loss is a mean over workers, and its sums are added up.
        self.trainer._tr_loss += (losses[rank] if is_same else losses.mean()).to(args.device)
        self.trainer._globalstep_last_logged = saved["logged"]
        if sums is not None:
            own = sums[rank] if is_same else sums.sum(dim=0) / num_workers
            self.trainer.parts.objective.put_sums(own.to(args.device))


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
