"""The Hugging Face trainer with dure's data order, batches, whole checkpoints and retention."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from accelerate import data_loader
from accelerate.data_loader import DataLoaderShard
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_outputs import BaseModelOutput

from dure.data.collating import Batch, collate_runs
from dure.family.predicting import generated, generated_all
from dure.modeling.attention import no_cache
from dure.modeling.decoding import encoded
from dure.modeling.output_layer import deferred
from dure.modeling.r_drop import r_drop_loss
from dure.modeling.replaced import replaced
from dure.runs import checkpoints
from dure.runs.agreement import by_main
from dure.training.callbacks import Averaging, CheckpointTurns, RunningLoss
from dure.training.captured import restore_mps
from dure.training.parts import Parts
from dure.training.saving import SavedBehind
from dure.training.shares import EvenShares, stands_in
from dure.training.zero import SharedOutTraining

_WRITTEN, _ENCODED = "dure_written", "dure_encoded"
"""In a batch of a validation: the ids that were written for it, and what the encoder made of it."""
_STANDS_IN = "dure_stands_in"
"""In a batch of training whose row is another worker's, and counts nothing here."""


_Write = Callable[[Iterator[Batch]], Iterator[Batch]]
"""Gives batches with what was written for them; it may take some more than it gave back."""


class Loop(SavedBehind, SharedOutTraining, Trainer):  # type: ignore[misc]
    """The training loop of any family.

    Retention is dure's own: the best and the newest checkpoint stay.

    The training loss is divided by the items of the whole optimiser step as the objective counts them, over all
    micro-batches and workers. The trainer of transformers counts labels, which is not the sum of their weights.

    The validation loss is the plain one, without smoothing and weights: the mean over all target tokens, or over
    all rows of a classifier. The trainer of transformers takes a mean of the batches' means, which changes with
    the batch size and the number of workers.

    What it takes beside its parts is as ``transformers.Trainer`` has it.
    """

    def __init__(self, parts: Parts, **more: Any) -> None:
        self.parts = parts
        super().__init__(
            **more,
            data_collator=parts.batches.collate,
            compute_loss_func=parts.objective,
            callbacks=[CheckpointTurns(self), *parts.callbacks],
        )
        # Nothing was trained here before. To look through all objects for what it left takes a third of a second.
        self.accelerator.free_memory = lambda: None
        if parts.average is not None:
            self.add_callback(Averaging(parts.average, lambda: self.accelerator.optimizer_step_was_skipped))
        self.running_loss = RunningLoss(self)
        self.add_callback(self.running_loss)
        parts.stopping.settle = self.settle_checkpoint
        self.add_callback(parts.stopping)

    def evaluation_loop(self: Any, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """Predict and score all rows; before the first step, as another trial of the study may have done already."""
        self._row_losses: list[torch.Tensor] = []
        compute = partial(self._validated, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        is_trained = self.state.global_step > 0 or not self.is_in_train
        return compute() if is_trained or not self.parts.untrained else self.parts.untrained.of(self, compute)

    def _validated(self: Any, loader: Any, *args: Any, metric_key_prefix: str, **kwargs: Any) -> Any:
        """Predict and score all rows, and put the exact loss among the metrics."""
        self._row_losses = []
        is_averaged = self.parts.average is not None and self.is_in_train
        writes = (
            self.parts.validates == "text"
            and not kwargs.get("prediction_loss_only")
            # Then loss and text can be computed from what the encoder makes of a batch once.
            and self.model.config.is_encoder_decoder
            and not is_deepspeed_zero3_enabled()
        )
        with contextlib.ExitStack() as during:
            if is_averaged:
                during.enter_context(self.parts.average.applied())
            if writes:
                during.enter_context(_texts_ahead(loader, self._with_texts))
            output = super().evaluation_loop(loader, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        if self._row_losses:
            sums = torch.cat(self._row_losses).double().sum(dim=0)
            for name, value in self.parts.objective.mean_losses(sums).items():
                output.metrics[f"{metric_key_prefix}_{name}"] = value
        return output

    def losses_by_row(self: Any) -> list[float]:
        """Return what each validation row adds to the validation loss, which is the mean of them; in one order."""
        self.evaluation_loop(self.get_eval_dataloader(), "losses by row", prediction_loss_only=True)
        losses: list[float] = self.last_row_losses()
        return losses

    def last_row_losses(self: Any) -> list[float]:
        """Return the same of the rows that were evaluated last, in their order; nothing of rows without targets."""
        return self.parts.objective.shares(torch.cat(self._row_losses)) if self._row_losses else []

    def prediction_step(
        self: Any, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Return no loss (it is kept by row), and the answers and targets of a batch unless it is the loss alone."""
        batch = self._prepare_inputs(inputs)
        written, states = batch.pop(_WRITTEN, None), batch.pop(_ENCODED, None)
        targets = self.parts.batches.targets(batch)
        answers, shared = None, {} if states is None else {"encoder_outputs": BaseModelOutput(states)}
        with torch.no_grad(), self.compute_loss_context_manager():
            if targets is not None or self.parts.validates == "logits":
                read = self.parts.batches.inputs(batch)
                outputs = self._outputs(model, read | shared, self.parts.validates != "logits")
                answers = outputs["logits"].float()
            if targets is not None:
                losses = self.parts.objective.row_losses(answers, targets)
                self._row_losses.append(self.accelerator.gather_for_metrics(losses).cpu())
            if self.parts.validates == "loss" or prediction_loss_only:
                return None, None, None
            if self.parts.validates == "text":
                answers = written  # Logits over a whole vocabulary need not stay while text is generated.
                if written is None:
                    prompts = self.parts.batches.prompts(batch)
                    answers = generated(self.model, prompts, synced_gpus=is_deepspeed_zero3_enabled())
        return None, answers, targets

    def log(self: Any, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Put the training losses of single tasks, such as ``loss_emotion``, beside the training loss."""
        sums = self.parts.objective.take_sums() if "loss" in logs else None
        if sums is not None:
            everywhere = self.accelerator.gather(sums).reshape(-1, *sums.shape).sum(dim=0)
            means = self.parts.objective.mean_losses(everywhere.cpu())
            logs |= {name: value for name, value in means.items() if name != "loss"}
        super().log(logs, *args, **kwargs)

    def _get_num_items_in_batch(self: Any, batch_samples: list[Any], device: Any) -> torch.Tensor | None:
        """Count the items of an optimiser step: over its micro-batches, and over all workers.

        ``compute_loss`` multiplies by the number of workers, over which gradients are averaged.
        """
        batches = [batch for each in batch_samples for batch in _runs(each)]
        targets = [self.parts.batches.targets(batch) for batch in batches]
        if not targets or targets[0] is None:
            return None
        if stands_in(self.args, len(self.train_dataset), self.state.global_step):
            batches[-1][_STANDS_IN] = True
        counts = [
            self.parts.objective.count(each) * (_STANDS_IN not in batch)
            for each, batch in zip(targets, batches, strict=True)
        ]
        items = torch.stack(counts).sum(dim=0).to(device)
        everywhere: torch.Tensor = self.accelerator.gather(items).reshape(-1, *items.shape).sum(dim=0)
        return everywhere

    def training_step(
        self: Any, model: Any, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Add the gradients of what was loaded, one micro-batch or all of a step, and return their loss."""
        *before, last = _runs(inputs)
        layers = self.parts.layers
        apart = contextlib.nullcontext if self.parts.written else partial(self.accelerator.no_sync, model)
        with contextlib.nullcontext() if layers is None else layers.applied():
            for batch in before:
                with apart():
                    self._tr_loss += self._add_gradients(model, batch, num_items_in_batch, is_last=False)
            is_last = self.accelerator.sync_gradients
            loss: torch.Tensor = self._add_gradients(model, last, num_items_in_batch, is_last=is_last)
        return loss

    def _add_gradients(
        self: Any, model: Any, inputs: dict[str, Any], num_items_in_batch: Any, *, is_last: bool
    ) -> torch.Tensor:
        """Add the gradients of a micro-batch, and return its loss: all losses of a step after its last one."""
        step: Callable[..., Any] = super().training_step
        if self.parts.recovery.policy == "error":
            loss: torch.Tensor = step(model, inputs, num_items_in_batch)
            return loss
        # Several workers average their gradients after all of them have some: not through the wrapped model.
        own = self.model if self.accelerator.num_processes > 1 else model
        losses: list[torch.Tensor] | None = self.parts.recovery.micro_batch(
            lambda piece: step(own, piece, num_items_in_batch),
            inputs,
            step=self.state.global_step + 1,
            is_last=is_last,
        )
        if losses is None:
            return torch.zeros_like(self._tr_loss)
        for loss in losses[:-1]:
            self._tr_loss += loss
        return losses[-1]

    def get_train_dataloader(self: Any) -> Any:
        """Return what loads micro-batches, or all rows of a step at once where a budget of tokens cuts them."""
        budget = self.parts.batch_tokens
        collate = self.data_collator if budget is None else partial(collate_runs, self.parts.batches, budget)
        with (
            replaced(self, "data_collator", collate),
            replaced(data_loader, "BatchSamplerShard", EvenShares),
        ):
            return super().get_train_dataloader()

    def floating_point_ops(self: Any, inputs: Any) -> int:
        """Return the operations of what was loaded, as the trainer of transformers counts them."""
        name = getattr(self.model, "main_input_name", "input_ids")
        return sum(6 * batch[name].numel() * self._num_weights for batch in _runs(inputs) if name in batch)

    @cached_property
    def _num_weights(self: Any) -> int:
        """Weights beside embeddings; their number stays the same."""
        model = self.model
        return model.num_parameters(exclude_embeddings=True) if hasattr(model, "num_parameters") else 0

    def compute_loss(
        self: Any,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the loss of a micro-batch, with R-Drop when it is on."""
        batches, objective, r_drop = self.parts.batches, self.parts.objective, self.parts.r_drop
        counts = not inputs.pop(_STANDS_IN, False)
        targets = batches.targets(inputs)
        read = batches.inputs(batches.twice(inputs) if r_drop else inputs)
        outputs = self._outputs(model, read, needs_loss_only=not return_outputs)
        if r_drop:
            loss = r_drop_loss(objective, r_drop, outputs, targets, num_items_in_batch)
        else:
            loss = objective(outputs, targets, num_items_in_batch)
        if num_items_in_batch is not None:
            # The items are those of all workers, over which gradients are averaged.
            loss = loss * (self.accelerator.num_processes * counts)
        return (loss, outputs) if return_outputs else loss

    def _with_texts(self: Any, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Give batches with what the encoder makes of them, and with the texts that follow from it."""

        def encoded_batches() -> Iterator[Batch]:
            for batch in map(self._prepare_inputs, batches):
                with self.accelerator.autocast():
                    states = encoded(self.model, self.parts.batches.prompts(batch)).last_hidden_state
                yield batch | {_ENCODED: states}

        def asks(batch: Batch) -> Batch:
            return {**self.parts.batches.prompts(batch), "encoder_outputs": BaseModelOutput(batch[_ENCODED])}

        @contextlib.contextmanager
        def within() -> Iterator[None]:
            with torch.no_grad(), self.compute_loss_context_manager():
                yield

        for batch, ids in generated_all(self.model, encoded_batches(), asks, within):
            yield batch | {_WRITTEN: ids}

    def _outputs(self: Any, model: Any, inputs: dict[str, Any], needs_loss_only: bool) -> Any:
        """Run the model; where only the loss is needed of its logits, they need not exist all at once.

        Under ZeRO 3 the output layer is whole only while the model runs, so that they must.
        """
        inputs = no_cache(self.model) | inputs
        defers = self.parts.objective.takes_projected and needs_loss_only
        if defers and not is_deepspeed_zero3_enabled():
            with deferred(self.model):
                return model(**inputs)
        return model(**inputs)

    def create_optimizer(self: Any, model: Any = None) -> torch.optim.Optimizer:
        """Make the optimizer, whose groups are parted by the factors on their rates; the largest comes first."""
        is_made = self.optimizer is not None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if self.parts.rate_factors is None or is_made:
            return optimizer
        factors = {id(p): self.parts.rate_factors[name] for name, p in self.model.named_parameters()}
        optimizer.param_groups[:] = [
            {**group, "params": chosen, "lr": group["lr"] * factor, "rate_factor": factor}
            for factor in sorted(set(factors.values()), reverse=True)
            for group in optimizer.param_groups
            if (chosen := [p for p in group["params"] if factors[id(p)] == factor])
        ]
        return optimizer

    def _load_optimizer_and_scheduler(self: Any, checkpoint: str | None) -> None:
        """Load both, and take the rate from the schedule: it is another one where the run became longer."""
        super()._load_optimizer_and_scheduler(checkpoint)
        schedule = self.lr_scheduler
        if checkpoint is None or not isinstance(schedule, LambdaLR):
            return
        rates = [
            base * factor(schedule.last_epoch)
            for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
        ]
        for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        schedule._last_lr = rates

    def _get_learning_rate(self: Any) -> float:
        """Return the rate before any factor, which is what records show."""
        rate: float = super()._get_learning_rate()
        return (
            rate if self.parts.rate_factors is None else rate / self.optimizer.param_groups[0]["rate_factor"]
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int] | None:
        if self.parts.sampler is not None:
            return self.parts.sampler
        sampler: torch.utils.data.Sampler[int] | None = super()._get_train_sampler(train_dataset)
        return sampler

    def _load_rng_state(self: Any, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None:
            restore_mps(Path(checkpoint))

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
        super()._run_epoch(*args, **kwargs)

    def _load_best_model(self: Any) -> None:
        """Load the best checkpoint that is whole, so that its score never stands for other weights."""
        best = checkpoints.Best(self.state.best_global_step, self.state.best_metric)
        folder, kept = Path(self.args.output_dir), self.parts.retention
        checkpoints.take_as_best(
            by_main(
                lambda: checkpoints.best_whole(folder, best, self.state.log_history, kept.metric, kept.notify)
            ),
            self.state,
            folder,
        )
        super()._load_best_model()


def _runs(loaded: Batch | list[Batch]) -> list[Batch]:
    return loaded if isinstance(loaded, list) else [loaded]


def _texts_ahead(loader: Any, write: _Write) -> contextlib.AbstractContextManager[None]:
    """Let what a loader loads pass through ``write`` before accelerate sees which batch is the last.

    So the last one is known for what it is when its rows are gathered, however many batches were taken before.
    """
    if not isinstance(loader, DataLoaderShard):
        return contextlib.nullcontext()
    return replaced(loader, "base_dataloader", _Loader(loader.base_dataloader, write))


class _Loader:
    """A loader whose batches pass through something; all else is the loader's."""

    def __init__(self, loader: Any, write: _Write) -> None:
        self._loader, self._write = loader, write

    def __iter__(self) -> Iterator[Batch]:
        return self._write(iter(self._loader))

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
