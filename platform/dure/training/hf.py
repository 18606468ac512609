"""The Hugging Face trainers with dure's data order, whole checkpoints and retention."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import Seq2SeqTrainer, Trainer, TrainerCallback
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_callback import ExportableState

from dure.data.batching import LengthGroupedSampler, Lengths
from dure.files import flush
from dure.metrics.metric import Metric
from dure.modeling.ema import WeightAverage
from dure.modeling.objectives import Objective
from dure.modeling.r_drop import r_drop_loss, twice
from dure.runs import checkpoints
from dure.runs.agreement import by_main
from dure.runs.budget import bytes_in
from dure.runs.disk import DiskRoom
from dure.runs.manifest import write_manifest
from dure.training.recovery import Recovery
from dure.training.running_loss import RunningLoss
from dure.training.stopping import Stopping
from dure.training.zero import SharedOutTraining


class _DureTrainer(SharedOutTraining):
    """What both trainers share; mixed in before ``Trainer``.

    Checkpoints are written into a hidden folder and renamed when they are whole. Retention is dure's own:
    the best and the newest stay.

    The training loss is divided by the items of the whole optimiser step as the objective counts them, over all
    micro-batches and workers. The trainers of transformers count labels, which is not the sum of their weights.

    The validation loss is the plain one, without smoothing and weights: the mean over all target tokens, or over
    all rows of a classifier. The trainers of transformers take a mean of the batches' means, which changes with
    the batch size and the number of workers, and count the rows twice that fill up the workers' last round.
    """

    compute_loss_func: Objective
    length_sampler: LengthGroupedSampler | None = None
    r_drop: float = 0.0
    """Weight of the disagreement of two passes over every row; 0 makes one pass."""
    recovery: Recovery | None = None
    """Computes a step again when memory did not suffice."""
    stopping: Stopping | None = None
    """Asks for a checkpoint that is not due, when the run has to stop."""
    running_loss: RunningLoss
    """What such a checkpoint holds beside that of others."""
    rate_factors: Mapping[str, float] | None = None
    """Factor on the learning rate of every parameter, by its name; all are 1 when not given."""

    def group_lengths(self, lengths: Lengths, *, group_size: int, seed: int) -> None:
        """Let training batches hold rows of similar length; call before training."""
        self.length_sampler = LengthGroupedSampler(lengths, group_size, seed)

    def keep_checkpoints(
        self,
        limit: int,
        metric: Metric,
        room: DiskRoom,
        foretold_bytes: int,
        notify: Callable[[str], None],
    ) -> None:
        """Say how many checkpoints stay, by what they are compared, and where; call before training."""
        self.checkpoint_limit = limit
        self.metric = metric
        self.room = room
        self.foretold_bytes = foretold_bytes
        self.notify = notify

    def evaluation_loop(self: Any, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """Predict and score all rows, and put the exact loss among the metrics."""
        self._row_losses: list[torch.Tensor] = []
        is_averaged = self.average is not None and self.is_in_train
        with self.average.applied() if is_averaged else contextlib.nullcontext():
            output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if self._row_losses:
            sums = torch.cat(self._row_losses).double().sum(dim=0)
            for name, value in self.compute_loss_func.mean_losses(sums).items():
                output.metrics[f"{metric_key_prefix}_{name}"] = value
        return output

    def log(self: Any, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Put the training losses of single tasks, such as ``loss_emotion``, beside the training loss."""
        sums = self.compute_loss_func.take_sums() if "loss" in logs else None
        if sums is not None:
            everywhere = self.accelerator.gather(sums).reshape(-1, *sums.shape).sum(dim=0)
            means = self.compute_loss_func.mean_losses(everywhere.cpu())
            logs |= {name: value for name, value in means.items() if name != "loss"}
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def _get_num_items_in_batch(self: Any, batch_samples: list[Any], device: Any) -> torch.Tensor | None:
        """Count the items of an optimiser step: over its micro-batches, and over all workers.

        ``compute_loss`` multiplies by the number of workers, over which gradients are averaged.
        """
        if not batch_samples or "labels" not in batch_samples[0]:
            return None
        counts = [self.compute_loss_func.count(batch["labels"]) for batch in batch_samples]
        items = torch.stack(counts).sum(dim=0).to(device)
        everywhere: torch.Tensor = self.accelerator.gather(items).reshape(-1, *items.shape).sum(dim=0)
        return everywhere

    def training_step(
        self: Any, model: Any, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Add the gradients of a micro-batch, and return its loss: all losses of a step after its last one."""
        step: Callable[..., Any] = super().training_step  # type: ignore[misc]
        if self.recovery is None or self.recovery.policy == "error":
            loss: torch.Tensor = step(model, inputs, num_items_in_batch)
            return loss
        # Several workers average their gradients after all of them have some: not through the wrapped model.
        own = self.model if self.accelerator.num_processes > 1 else model
        losses: list[torch.Tensor] | None = self.recovery.micro_batch(
            lambda piece: step(own, piece, num_items_in_batch),
            inputs,
            step=self.state.global_step + 1,
            is_last=self.accelerator.sync_gradients,
        )
        if losses is None:
            return torch.zeros_like(self._tr_loss)
        for loss in losses[:-1]:
            self._tr_loss += loss
        return losses[-1]

    def compute_loss(
        self: Any,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the loss of a micro-batch, with R-Drop when it is on."""
        if not self.r_drop:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        labels = inputs["labels"]
        rest = {name: value for name, value in inputs.items() if name != "labels"}
        outputs = model(**twice(rest, len(labels)))
        loss = r_drop_loss(self.compute_loss_func, self.r_drop, outputs, labels, num_items_in_batch)
        if num_items_in_batch is not None:
            # The items are those of all workers, over which gradients are averaged.
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _keep_losses(self: Any, losses: torch.Tensor) -> None:
        """Take the losses of a batch's rows, of shape (rows, …), as the objective gives them."""
        self._row_losses.append(self.accelerator.gather_for_metrics(losses).cpu())

    def create_optimizer(self: Any, model: Any = None) -> torch.optim.Optimizer:
        """Make the optimizer, whose groups are parted by the factors on their rates; the largest comes first."""
        is_made = self.optimizer is not None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)  # type: ignore[misc]
        if self.rate_factors is None or is_made:
            return optimizer
        factors = {id(p): self.rate_factors[name] for name, p in self.model.named_parameters()}
        optimizer.param_groups[:] = [
            {**group, "params": chosen, "lr": group["lr"] * factor, "rate_factor": factor}
            for factor in sorted(set(factors.values()), reverse=True)
            for group in optimizer.param_groups
            if (chosen := [p for p in group["params"] if factors[id(p)] == factor])
        ]
        return optimizer

    def _get_learning_rate(self: Any) -> float:
        """Return the rate before any factor, which is what records show."""
        rate: float = super()._get_learning_rate()  # type: ignore[misc]
        return rate if self.rate_factors is None else rate / self.optimizer.param_groups[0]["rate_factor"]

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int] | None:
        if self.length_sampler is not None:
            return self.length_sampler
        sampler: torch.utils.data.Sampler[int] | None = super()._get_train_sampler(train_dataset)  # type: ignore[misc]
        return sampler

    def _run_epoch(self: Any, *args: Any, **kwargs: Any) -> None:
        """Pass over the rows once, in the order of this epoch.

        In the middle of an epoch the run goes on with a loader that leaves out the first batches. With several
        workers the samplers are nested so deep in it that the trainer does not reach the one whose order it is,
        which would give the rows of the first epoch.
        """
        sampler = kwargs["train_dataloader"].batch_sampler
        while hasattr(sampler, "batch_sampler"):
            sampler = sampler.batch_sampler
        if hasattr(sampler.sampler, "set_epoch"):
            sampler.sampler.set_epoch(kwargs["epoch"])
        super()._run_epoch(*args, **kwargs)  # type: ignore[misc]

    def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:
        """Write a checkpoint beside, where there is room for it, and give it its name when it is whole."""
        folder = Path(self.args.output_dir)
        step = self.state.global_step
        final = folder / checkpoints.checkpoint_name(step)
        staging = folder / f".{final.name}.part"
        self.store_flos()
        best = self.state.best_global_step
        if best:
            self.state.best_model_checkpoint = str(folder / checkpoints.checkpoint_name(best))
        last = checkpoints.last_checkpoint(folder)
        self.room.write(
            final.name,
            self.foretold_bytes if last is None else bytes_in(last),
            # Every worker has written its part before the main one writes what all of it is.
            [lambda: self._write_parts(staging), lambda: self._write_state(staging)],
            clean=lambda: shutil.rmtree(staging, ignore_errors=True),
        )
        if self.args.should_save:
            if final.exists():
                shutil.rmtree(final)
            staging.rename(final)
            # Before older ones go, its name is on the disk too.
            flush(folder)
            checkpoints.retain(folder, self.checkpoint_limit, [best] if best else [])
        self.accelerator.wait_for_everyone()

    def _write_parts(self: Any, folder: Path) -> None:
        self.save_model(str(folder), _internal_call=True)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        self._save_rng_state(str(folder))
        if self.average is not None:
            self.average.save(folder / checkpoints.AVERAGE_FILE, is_main=self.args.should_save)
        if self.recovery is not None and self.args.should_save:
            self.recovery.save(folder)
        if self.stopping is not None and self.stopping.is_extra:
            self.running_loss.save(folder)

    def _write_state(self: Any, folder: Path) -> None:
        if not self.args.should_save:
            return
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                self.state.stateful_callbacks[type(callback).__name__] = callback.state()
        self.state.save_to_json(str(folder / checkpoints.STATE_FILE))
        write_manifest(folder)

    def _load_best_model(self: Any) -> None:
        """Load the best checkpoint that is whole, so that its score never stands for other weights."""
        best = checkpoints.Best(self.state.best_global_step, self.state.best_metric)
        folder = Path(self.args.output_dir)
        checkpoints.take_as_best(
            by_main(
                lambda: checkpoints.best_whole(folder, best, self.state.log_history, self.metric, self.notify)
            ),
            self.state,
            folder,
        )
        super()._load_best_model()


class ClassicTrainer(_DureTrainer, Trainer):  # type: ignore[misc]
    """Trainer of models that say a class for every row."""

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Return no loss (it is kept by row), the logits and the labels of a batch."""
        inputs = self._prepare_inputs(inputs)
        labels = inputs.pop("labels", None)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = model(**inputs)["logits"].float()
        if labels is not None:
            self._keep_losses(self.compute_loss_func.row_losses(logits, labels))
        return None, logits, labels


class GeneratingTrainer(_DureTrainer, Seq2SeqTrainer):  # type: ignore[misc]
    """Trainer of models that generate text at validation."""

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Return no loss (it is kept by row), the generated ids and the labels of a batch."""
        inputs = self._prepare_inputs(inputs)
        labels = inputs.pop("labels", None)
        with torch.no_grad(), self.compute_loss_context_manager():
            if labels is not None:
                logits = model(**inputs)["logits"]
                self._keep_losses(self.compute_loss_func.row_losses(logits, labels))
            ids = self.model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                synced_gpus=is_deepspeed_zero3_enabled(),
            )
        return None, ids, labels

    @property
    def gather_function(self) -> Callable[[Any], Any]:
        """Gather from all workers without the rows that fill up the last round twice.

        ``Seq2SeqTrainer`` keeps those, so that predictions would outnumber rows; what it sets is ignored.
        """
        gather: Callable[[Any], Any] = self.accelerator.gather_for_metrics
        return gather

    @gather_function.setter
    def gather_function(self, value: Callable[[Any], Any]) -> None:
        pass


class Averaging(TrainerCallback):  # type: ignore[misc]
    """Takes up the weights of every optimiser step into their average.

    Args:
        average: The average.
        was_skipped: Whether the step changed nothing, because its gradients left the range of fp16.
    """

    def __init__(self, average: WeightAverage, was_skipped: Callable[[], bool]) -> None:
        self.average = average
        self.was_skipped = was_skipped

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take up the step, before it is validated or saved."""
        if not self.was_skipped():
            self.average.update()


class Rhythm(TrainerCallback):  # type: ignore[misc]
    """Keeps the records of a resumed run those of an undisturbed one."""

    choice: checkpoints.Choice | None = None
    """What the run goes on from."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Name the best checkpoint where it is now: it may have been lost, or the folder moved."""
        if self.choice is not None:
            checkpoints.take_as_best(self.choice.best, state, Path(args.output_dir))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Log whenever a checkpoint is due, so that the losses up to it are in the record and not in it."""
        if control.should_save:
            control.should_log = True
        return control

    on_epoch_end = on_step_end
