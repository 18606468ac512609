"""The losses since the last record, which a checkpoint between two records has to hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from dure.runs.checkpoints import RUNNING_LOSS_FILE


class RunningLoss(TrainerCallback):  # type: ignore[misc]
    """Lets a record be the mean over the same steps, whether or not the run was stopped between them.

    Args:
        trainer: The trainer, whose sums these are.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.checkpoint: Path | None = None
        """What the run goes on from."""

    def save(self, folder: Path) -> None:
        """Write what was summed up since the last record, of every worker, into a checkpoint."""
        trainer = self.trainer
        gather = trainer.accelerator.gather
        losses = gather(trainer._tr_loss.detach().reshape(1)).cpu()
        sums = trainer.compute_loss_func.take_sums()
        if sums is not None:
            trainer.compute_loss_func.put_sums(sums)
            sums = gather(sums.reshape(1, -1)).cpu()
        if trainer.args.should_save:
            values = {"logged": trainer._globalstep_last_logged, "losses": losses, "sums": sums}
            torch.save(values, folder / RUNNING_LOSS_FILE)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take up what the checkpoint holds; other workers than then share it out evenly."""
        if self.checkpoint is None or not (self.checkpoint / RUNNING_LOSS_FILE).is_file():
            return
        saved = torch.load(self.checkpoint / RUNNING_LOSS_FILE, weights_only=True)
        losses, sums = saved["losses"], saved["sums"]
        rank, num_workers = args.process_index, args.world_size
        is_same = len(losses) == num_workers
        # The record's loss is a mean over workers, and its sums are added up.
        self.trainer._tr_loss += (losses[rank] if is_same else losses.mean()).to(args.device)
        self.trainer._globalstep_last_logged = saved["logged"]
        if sums is not None:
            own = sums[rank] if is_same else sums.sum(dim=0) / num_workers
            self.trainer.compute_loss_func.put_sums(own.to(args.device))
