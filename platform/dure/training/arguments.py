"""From an experiment's training section to the arguments of the Hugging Face trainers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.config.schema import Experiment, Profile, TrainingConfig
from dure.errors import UserError
from dure.metrics.metric import Metric

if TYPE_CHECKING:
    from dure.modeling.tracing import Kernels


def steps_per_epoch(experiment: Experiment, num_rows: int) -> int:
    """Return the optimiser steps of one pass over ``num_rows`` rows; the last one may see fewer rows."""
    return max(1, math.ceil(num_rows / experiment.training.effective_batch_size))


def total_steps(experiment: Experiment, num_rows: int) -> int:
    """Return the optimiser steps of the whole run, unless it stops early."""
    training = experiment.training
    steps = training.epochs * steps_per_epoch(experiment, num_rows)
    return min(steps, training.max_steps or steps)


def warmup_of(training: TrainingConfig, num_steps: int) -> int:
    """Return the optimiser steps of the warm-up of so many steps in all; a ratio of them is rounded up.

    A polynomial schedule has at least one step behind it: transformers divides by their number after the last one.
    """
    given, share = training.warmup_steps, math.ceil(num_steps * training.warmup_ratio)
    steps = share if given is None else given
    return num_steps - 1 if training.scheduler == "polynomial" and steps == num_steps else steps


def check_shares(batch_size: int, num_workers: int, effective_batch_size: int) -> None:
    """Check that workers can share the rows of a forward pass out evenly.

    Raises:
        UserError: They cannot; with the nearest batch that they can, and that computes the same.
    """
    if batch_size % num_workers:
        shared = range(num_workers, effective_batch_size + 1, num_workers)
        same = [rows for rows in shared if effective_batch_size % rows == 0]
        near = min(
            same or (math.ceil(batch_size / num_workers) * num_workers,),
            key=lambda rows: abs(rows - batch_size),
        )
        passes = max(1, round(effective_batch_size / near))
        remedy = f"training.batch_size={near} training.gradient_accumulation_steps={passes}"
        if near * passes != effective_batch_size:
            remedy += f" (steps of {near * passes} rows, where {effective_batch_size} were asked)"
        raise UserError(
            f"{batch_size} rows cannot be shared out evenly among {num_workers} workers",
            where="training.batch_size",
            expected=f"a multiple of {num_workers}",
            hint=f"{remedy}, or a profile with fewer workers",
        )


def loaded_rows(experiment: Experiment, num_workers: int) -> int:
    """Return the rows that one worker loads at once: of one forward pass, or of a step that ``batch_tokens`` cuts.

    Raises:
        UserError: The rows of a forward pass cannot be shared out evenly.
    """
    training = experiment.training
    check_shares(training.batch_size, num_workers, training.effective_batch_size)
    passes = 1 if training.batch_tokens is None else training.gradient_accumulation_steps
    return training.batch_size // num_workers * passes


def tokens_of_pass(experiment: Experiment) -> int | None:
    """Return the most positions of the rows of a forward pass, if ``batch_tokens`` bounds it; R-Drop reads each row twice."""
    budget = experiment.training.batch_tokens
    return None if budget is None else budget // (2 if experiment.objective.r_drop > 0 else 1)


def check_budget(experiment: Experiment, profile: Profile) -> None:
    """Check that the workers of a profile can cut their rows by tokens, when they are to.

    Raises:
        UserError: DeepSpeed sends gradients in every pass, of which its workers need equally many.
    """
    if experiment.training.batch_tokens is not None and profile.deepspeed is not None:
        raise UserError(
            "the workers of DeepSpeed compute equally many passes, and a budget of tokens gives each its own number",
            where="training.batch_tokens",
            expected="a profile without deepspeed, or training.batch_tokens=null",
        )


def kernels_of(experiment: Experiment, profile: Profile) -> Kernels:
    """Return what the layers of a model compute with in the steps of an experiment on a machine."""
    if profile.device == "cpu" and not experiment.training.compile:
        return "cpu"
    return "cuda" if profile.device == "cuda" else "own"


def training_arguments(
    experiment: Experiment,
    profile: Profile,
    folder: Path,
    *,
    num_rows: int,
    precision: str,
    num_workers: int,
    metric: Metric | None,
    deepspeed: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the keyword arguments of ``TrainingArguments``.

    ``precision`` is resolved for model and device already; ``metric`` is None where there is no validation split;
    ``deepspeed`` has the settings by which that shares out the model.
    """
    training = experiment.training
    arguments: dict[str, Any] = {
        "output_dir": str(folder),
        "run_name": experiment.name,
        "num_train_epochs": training.epochs,
        # Given always: by itself the trainer goes on to max_steps, however many epochs that takes.
        "max_steps": total_steps(experiment, num_rows),
        "per_device_train_batch_size": loaded_rows(experiment, num_workers),
        "per_device_eval_batch_size": max(1, training.rows_evaluated // num_workers),
        # The micro-batches of a step that is cut by tokens are in what is loaded at once.
        "gradient_accumulation_steps": training.gradient_accumulation_steps
        if training.batch_tokens is None
        else 1,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.scheduler,
        "lr_scheduler_kwargs": dict(training.scheduler_options),
        "warmup_steps": warmup_of(training, total_steps(experiment, num_rows)),
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "activation_checkpointing": training.gradient_checkpointing,
        # The reentrant kind loses the gradients of adapters, whose inputs need none.
        "activation_checkpointing_kwargs": {"use_reentrant": False}
        if training.gradient_checkpointing
        else None,
        "dataloader_num_workers": training.num_data_workers,
        "dataloader_pin_memory": profile.device == "cuda",
        "seed": experiment.experiment.seed,
        "data_seed": experiment.experiment.seed,
        "use_cpu": profile.device == "cpu",
        "report_to": "none",
        "disable_tqdm": True,
        "label_names": ["labels"],
        # What of a row is read, the family's batches know.
        "remove_unused_columns": False,
        # DeepSpeed's settings say it by themselves.
        "bf16": precision == "bf16" and deepspeed is None,
        "fp16": precision == "fp16",
        **_occasions(experiment, metric),
    }
    if deepspeed is not None:
        arguments["deepspeed"] = dict(deepspeed)
    if profile.device == "cpu" and (num_workers > 1 or deepspeed is not None):
        arguments["ddp_backend"] = "gloo"
    if num_workers > 1:
        # With adapters some parameters may take no part in a pass; that costs nothing when there are none.
        arguments["ddp_find_unused_parameters"] = False
    return arguments


def _occasions(experiment: Experiment, metric: Metric | None) -> dict[str, Any]:
    """Return when a run records, validates and saves, and what the best checkpoint is."""
    training = experiment.training
    by_epoch = training.eval_every == "epoch"
    strategy = "epoch" if by_epoch else "steps"
    occasions: dict[str, Any] = {
        "eval_strategy": "no" if metric is None else strategy,
        "save_strategy": strategy,
        "logging_strategy": "steps",
        "logging_steps": training.log_every,
        "logging_nan_inf_filter": False,
        "load_best_model_at_end": metric is not None,
        "metric_for_best_model": None if metric is None else metric.name,
        "greater_is_better": None if metric is None else metric.higher_is_better,
        "restore_callback_states_from_checkpoint": True,
    }
    return (
        occasions
        if by_epoch
        else occasions | dict.fromkeys(("eval_steps", "save_steps"), training.eval_every)
    )
