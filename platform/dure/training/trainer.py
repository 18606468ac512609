"""``ModelTrainer``: one model trained, validated and saved as an experiment says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import (
    EarlyStoppingCallback,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from dure.config.schema import Experiment, Profile
from dure.data.batching import length_order
from dure.errors import UserError
from dure.events import RunListener, RunStart
from dure.family import Family
from dure.family.predicting import Reported
from dure.family.saved_model import write_model
from dure.modeling.depth import distances_from_head
from dure.modeling.ema import WeightAverage
from dure.modeling.precision import Precision, resolve
from dure.modeling.replaced import replaced
from dure.modeling.shards import whole_weights
from dure.runs import checkpoints
from dure.runs.agreement import by_main
from dure.runs.budget import bytes_of_weights
from dure.runs.disk import DiskRoom
from dure.runs.folder import RunFolder
from dure.runs.forecast import forecast, num_parameters
from dure.training import zero
from dure.training.arguments import total_steps, training_arguments
from dure.training.callbacks import CheckpointingOfOneStep, EvalSchedule, StopCallback
from dure.training.compiler import in_lengths
from dure.training.compiling import layers_of
from dure.training.hf import Loop
from dure.training.oom import is_out_of_memory
from dure.training.parts import (
    Parts,
    Retention,
    batch_tokens_of,
    recovery_of,
    sampler_of,
)
from dure.training.recorder import Recorder, check_last_loss, mean_training_loss, recorded_metrics
from dure.training.snapshots import EpochSnapshots
from dure.training.untrained import UntrainedScores
from dure.training.worker import Worker

if TYPE_CHECKING:
    import datasets
    from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase


class ModelTrainer:
    """Trains one model over the Hugging Face trainers.

    Rows are encoded and have their ``length``; without ``eval_dataset`` nothing is selected and the last weights are
    kept. This process is the only ``worker`` when none is given.
    """

    def __init__(
        self,
        family: Family,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        train_dataset: datasets.Dataset,
        eval_dataset: datasets.Dataset | None,
        *,
        profile: Profile,
        folder: RunFolder,
        listeners: Sequence[RunListener] = (),
        group: str | None = None,
        worker: Worker | None = None,
    ) -> None:
        self.family = family
        self.experiment: Experiment = family.experiment
        self.model = model
        self.tokenizer = tokenizer
        self.folder = folder
        self.group = group
        self.worker = worker = worker or Worker()
        # Longest first: batches pad little, and the most memory is asked for first.
        self.eval_dataset = eval_dataset and eval_dataset.select(length_order(eval_dataset["length"][:]))
        train_dataset = family.training_rows(train_dataset)
        self.total_steps = total_steps(self.experiment, len(train_dataset))
        training = self.experiment.training
        self.room = DiskRoom(
            folder.path,
            profile.storage,
            notify=worker.notify,
            can_repeat=profile.deepspeed is None,
            check_stop=lambda: worker.stop.check(checkpoints.last_step(folder.checkpoints)),
        )
        self.recorder = Recorder(
            folder.metrics, listeners, is_main=worker.is_main, room=self.room, targets=family.targets
        )
        self.metric = family.best_metric
        self.compute_metrics = self._scorer(self.eval_dataset)
        self.precision = resolve(training.precision, profile, model.config.model_type, worker.notify)
        deepspeed = zero.settings_of(self.experiment, profile, self.precision)
        args = self._arguments(profile, len(train_dataset), self.precision, deepspeed)
        if deepspeed is None and not getattr(model, "is_quantized", False):
            model.to(args.device)
        self.foretold = forecast(self.experiment, *num_parameters(model))
        self.schedule = EvalSchedule()
        batches = in_lengths(family.batches(tokenizer, model), self.experiment)
        self.layers = layers_of(self.experiment, profile, model, worker.notify)
        self.batch_tokens = batch_tokens_of(self.experiment, train_dataset, batches, profile)
        self.recovery = recovery_of(family, batches, model, profile, folder, worker, self.precision)
        self.hf = Loop(
            self._parts(train_dataset, zero.written_by(deepspeed, worker.num_workers, self.precision)),
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=self.eval_dataset,
            processing_class=tokenizer,
            compute_metrics=self.compute_metrics,
        )

    def _parts(self, train_dataset: datasets.Dataset, written: zero.Written | None) -> Parts:
        """Make what the loop is made of; the model is on its device."""
        experiment, training, batches = self.experiment, self.experiment.training, self.recovery.batches
        average = None if training.ema is None else WeightAverage(self.model, training.ema)
        decay = training.layer_lr_decay
        return Parts(
            batches=batches,
            objective=self.family.objective(self.model, train_dataset),
            validates=self.family.validates,
            recovery=self.recovery,
            retention=Retention(
                training.save_total_limit,
                self.metric,
                self.room,
                self.foretold.checkpoint,
                self.worker.notify,
                self.recorder.saved,
            ),
            stopping=StopCallback(
                self.worker.stop, by_epoch=training.eval_every == "epoch" or training.keep_epochs is not None
            ),
            sampler=sampler_of(experiment, train_dataset, batches, self.worker.num_workers),
            batch_tokens=self.batch_tokens,
            layers=self.layers,
            r_drop=experiment.objective.r_drop,
            average=average,
            rate_factors=None
            if decay is None
            else {name: decay**each for name, each in distances_from_head(self.model).items()},
            written=written,
            untrained=UntrainedScores.shared_by(self.folder.path, self.family, self.worker.num_workers),
            callbacks=self._callbacks(average),
        )

    def _callbacks(self, average: WeightAverage | None) -> list[TrainerCallback]:
        training = self.experiment.training
        callbacks: list[TrainerCallback] = [self.schedule, self.recorder]
        if self.experiment.rehearsal.enabled and training.gradient_checkpointing:
            callbacks.append(CheckpointingOfOneStep())
        if training.early_stopping_patience is not None and self.eval_dataset is not None:
            callbacks.append(EarlyStoppingCallback(training.early_stopping_patience))
        if training.keep_epochs is not None:
            callbacks.append(
                EpochSnapshots(
                    self.folder,
                    every=training.keep_epochs,
                    limit=training.keep_epochs_limit,
                    needed=self.recorder.epochs_to_keep,
                    is_main=self.worker.is_main,
                    average=average,
                    write=self._write_epoch,
                )
            )
        return callbacks

    def _write_epoch(self, what: str, steps: Sequence[Callable[[], None]]) -> None:
        """Write the weights of an epoch when no checkpoint is being written, so that both do not look for room."""
        self.hf.settle_checkpoint()
        self.room.write(what, self.foretold.epoch, steps)

    def _arguments(
        self, profile: Profile, num_rows: int, precision: Precision, deepspeed: dict[str, Any] | None
    ) -> TrainingArguments:
        set_seed(self.experiment.experiment.seed)
        args = TrainingArguments(
            **training_arguments(
                self.experiment,
                profile,
                self.folder.checkpoints,
                num_rows=num_rows,
                precision=precision,
                num_workers=self.worker.num_workers,
                metric=None if self.eval_dataset is None else self.metric,
                deepspeed=deepspeed,
            )
        )
        # One worker, one GPU: by itself the trainer would spread a worker over every GPU that it sees.
        args._n_gpu = min(args.n_gpu, 1)
        return args

    def _scorer(
        self, dataset: datasets.Dataset | None
    ) -> Callable[[EvalPrediction], dict[str, float]] | None:
        """Return what scores the answers to a dataset; None when nothing but the loss is computed of it."""
        if dataset is None or self.family.validates == "loss":
            return None
        return self.family.compute_metrics(self.model, self.tokenizer, dataset)

    def train(self, *, resume: bool = False) -> dict[str, Any]:
        """Train to the end, load the best checkpoint (its averaged weights with ``ema``) and save the final model.

        To ``resume`` is to go on from the newest whole checkpoint of the folder, when there is one; what is broken is
        told.

        Returns:
            ``final_model_path``, ``best_checkpoint`` (None without validation), ``eval_metrics`` (of it, by name),
            ``untrained_metrics``, ``train_loss`` (mean over all steps), ``speed`` (of this session, validations
            included), ``num_oom`` (times that memory did not suffice) and ``seconds``.

        Raises:
            UserError: What the run will keep does not fit onto the disk.
            RunError: The loss became NaN or infinite, memory did not suffice in the end, or the best checkpoint
                broke and there is none in its place.
            StopRequested: A stop was asked for, and a checkpoint was saved.
        """
        if self.worker.is_main:
            checkpoints.remove_leftovers(self.folder.checkpoints)
        choice = None
        if resume:
            choice = by_main(
                lambda: checkpoints.choose(self.folder.checkpoints, self.metric, self.worker.notify)
            )
        has_trained = choice is not None and choice.is_finished(self.total_steps)
        by_main(
            lambda: self.room.check(self.foretold, bytes_of_weights(self.folder), has_trained=has_trained)
        )
        self.schedule.choice = choice
        checkpoint = None if choice is None else choice.path
        resumed_step = 0 if choice is None else choice.step
        self.recorder.begin(resumed_step)
        start = RunStart(
            name=self.experiment.name,
            path=self.folder.path,
            experiment=self.experiment.model_dump(mode="json"),
            tags=self.experiment.experiment.tags,
            group=self.group,
            total_steps=self.total_steps,
            resumed_step=resumed_step,
        )
        for listener in self.recorder.listeners:
            listener.started(start, self.worker.notify)
        # By the trainer itself and not before it: a model that was evaluated first is never wrapped for
        # several workers, whose gradients would then go apart.
        untrained = self.experiment.training.evaluate_untrained and self.eval_dataset is not None
        self.hf.args.eval_on_start = checkpoint is None and untrained
        speed: dict[str, float] = {}
        if checkpoint is not None:
            self.recovery.load(checkpoint)
        if choice is not None and has_trained:
            self._restore(choice)
        else:
            set_seed(self.experiment.experiment.seed)
            if checkpoint is not None and self.hf.parts.average is not None:
                self.hf.parts.average.load(checkpoint / checkpoints.AVERAGE_FILE)
            self.hf.running_loss.checkpoint = checkpoint
            with self._out_of_memory_recorded(), self._going_on(checkpoint) as path:
                done = self.hf.train(resume_from_checkpoint=path)
            speed = {name: value for name, value in done.metrics.items() if name.endswith("_per_second")}
        if self.hf.parts.average is not None:
            self._take_average(self.hf.parts.average)
        return self._conclude() | {"speed": speed}

    def evaluate(self) -> dict[str, float]:
        """Validate the model as it is and return its metrics by name (``eval_…``).

        Raises:
            UserError: There are no validation rows.
        """
        if self.eval_dataset is None:
            raise UserError(
                "there are no validation rows", where="data.dev", expected="a table to validate on"
            )
        with self._out_of_memory_recorded():
            metrics: dict[str, float] = self.hf.evaluate()
        return metrics

    def dev_losses(self) -> list[float]:
        """Return what each validation row adds to the validation loss of the model as it is, in one order."""
        with self._out_of_memory_recorded():
            losses: list[float] = self.hf.losses_by_row()
        return losses

    def test(self, dataset: datasets.Dataset) -> Reported:
        """Score rows that took no part in training or selection."""
        order = length_order(dataset["length"][:])
        longest_first = dataset.select(order)
        scorer = replaced(self.hf, "compute_metrics", self._scorer(longest_first))
        with scorer, self._out_of_memory_recorded():
            output = self.hf.predict(longest_first, metric_key_prefix="test")
        metrics: dict[str, float] = output.metrics
        self.recorder.record(
            "eval",
            metrics,
            step=self.hf.state.global_step,
            total_steps=self.total_steps,
            epoch=float(self.hf.state.epoch or 0.0),
        )
        back = np.argsort(order)
        losses = self.hf.last_row_losses()
        return Reported(
            {name: float(value) for name, value in metrics.items()},
            None if output.predictions is None else np.asarray(output.predictions)[back],
            [losses[place] for place in back] if losses else None,
        )

    @contextmanager
    def whole_model(self) -> Iterator[PreTrainedModel]:
        """Give the model to the main worker for whatever it alone does with it, after everything else.

        All workers call this; the others only wait.
        """
        self.hf.stop_sharing()
        with whole_weights(self.model, keep=self.worker.is_main, device=self.hf.args.device):
            yield self.model

    @contextmanager
    def _out_of_memory_recorded(self) -> Iterator[None]:
        """Record it when memory does not suffice where nothing can be computed again."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise self.recovery.give_up(error, self.hf.state.global_step + 1) from None

    @contextmanager
    def _going_on(self, checkpoint: Path | None) -> Iterator[str | None]:
        """Give the folder that the trainer goes on from, the checkpoint or one that is made of it."""
        if checkpoint is None:
            yield None
            return
        with zero.continuation(
            checkpoint, self.hf.parts.written, is_main=self.worker.is_main, notify=self.worker.notify
        ) as self.hf.continues:
            yield str(self.hf.continues.path)

    def _restore(self, choice: checkpoints.Choice) -> None:
        """Take up a run that had trained to its end but was killed before its model was saved."""
        self.hf.state = TrainerState.load_from_json(str(choice.path / checkpoints.STATE_FILE))
        checkpoints.take_as_best(choice.best, self.hf.state, self.folder.checkpoints)
        best = self.hf.state.best_model_checkpoint
        folder = choice.path if best is None else Path(best)
        self.hf._load_from_checkpoint(str(folder))
        if self.hf.parts.average is not None:
            self.hf.parts.average.load(folder / checkpoints.AVERAGE_FILE)

    def _take_average(self, average: WeightAverage) -> None:
        """Make the average of the best checkpoint, or the last one, the weights of the model."""
        best = self.hf.state.best_global_step
        if best:
            folder = self.folder.checkpoints / checkpoints.checkpoint_name(best)
            average.load(folder / checkpoints.AVERAGE_FILE)
        average.take()

    def _conclude(self) -> dict[str, Any]:
        best_step = self.hf.state.best_global_step
        metrics, untrained = recorded_metrics(self.folder.metrics, best_step)
        check_last_loss(self.folder.metrics, self.experiment, self.precision)
        with whole_weights(self.model, keep=self.worker.is_main):
            self.room.write("the final model", self.foretold.final_model, [self._write_final_model])
        return {
            "final_model_path": str(self.folder.final_model),
            "best_checkpoint": checkpoints.checkpoint_name(best_step) if best_step else None,
            "best_step": best_step,
            "steps": self.hf.state.global_step,
            "num_oom": self.recovery.num_oom,
            "eval_metrics": metrics,
            "untrained_metrics": untrained,
            "train_loss": mean_training_loss(self.folder.metrics),
            "seconds": self.recorder.seconds,
        }

    def _write_final_model(self) -> None:
        if self.worker.is_main:
            write_model(self.family, self.model, self.tokenizer, self.folder.final_model)
