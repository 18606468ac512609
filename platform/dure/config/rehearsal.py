"""What the common options make of an experiment: its rehearsal above all, which exercises everything and takes minutes."""

from __future__ import annotations

from dure.config.schema import Experiment
from dure.errors import UserError


def rehearsal_of(experiment: Experiment) -> Experiment:
    """Return the experiment as its rehearsal: a miniature model, few rows and few steps.

    Kept as they are: LoRA rank and targets, special tokens, quantisation, schedule, accumulation, beams,
    penalties, patience, tracking. Shortened: rows, lengths, steps, the steps between validations, and a warm-up
    given in steps, to a tenth of all steps at most. The learning rate is multiplied by
    ``rehearsal.learning_rate_scale``, since random weights need larger steps; the order of learning rates among
    experiments stays. A rehearsal's own rehearsal is itself, so that the ``experiment.yaml`` of its run can be
    rehearsed again.
    """
    if experiment.rehearsal.enabled:
        return experiment
    mini, tokenizer, training = experiment.rehearsal, experiment.tokenizer, experiment.training
    data, generation = experiment.data, experiment.generation
    max_steps = min(training.max_steps or mini.max_steps, mini.max_steps)
    warmup_steps = training.warmup_steps
    eval_every = max(1, max_steps // mini.num_evaluations)
    max_length = min(generation.max_length, mini.max_decoder_len)
    return experiment.with_(
        {
            "rehearsal.enabled": True,
            "tokenizer.encoder_max_len": min(tokenizer.encoder_max_len, mini.max_encoder_len),
            "tokenizer.decoder_max_len": min(tokenizer.decoder_max_len, mini.max_decoder_len),
            # The rehearsal's own tokenizer may know few words of few rows, and is never the wrong one.
            "tokenizer.max_unknown_rate": 1.0,
            "data.max_train_rows": min(data.max_train_rows or mini.max_train_rows, mini.max_train_rows),
            "data.max_dev_rows": min(data.max_dev_rows or mini.max_dev_rows, mini.max_dev_rows),
            "training.max_steps": max_steps,
            "training.eval_every": eval_every
            if training.eval_every == "epoch"
            else min(eval_every, training.eval_every),
            "training.learning_rate": min(1.0, training.learning_rate * mini.learning_rate_scale),
            "training.warmup_steps": None if warmup_steps is None else min(warmup_steps, max_steps // 10),
            "training.evaluate_untrained": True,
            "generation.max_length": max_length,
            "generation.min_length": min(generation.min_length, max_length),
        },
        "--rehearse",
    )


def limited_rows(experiment: Experiment, samples: int) -> dict[str, int]:
    """Return the settings by which an experiment has so many training rows, and validation rows, at most."""
    data = experiment.data
    return {
        "data.max_train_rows": min(samples, data.max_train_rows or samples),
        "data.max_dev_rows": min(samples, data.max_dev_rows or samples),
    }


def with_options(
    experiment: Experiment, *, rehearse: bool = False, one_epoch: bool = False, samples: int | None = None
) -> Experiment:
    """Return the experiment as the common options shape it.

    ``samples`` limits training rows, and validation rows.

    Raises:
        UserError: ``samples`` is not positive.
    """
    if samples is not None and samples < 1:
        raise UserError(f"{samples} is too few rows", where="--samples", expected="1 or more")
    if one_epoch:
        experiment = experiment.with_({"training.epochs": 1}, "--one-epoch")
    if samples is not None:
        experiment = experiment.with_(limited_rows(experiment, samples), "--samples")
    return rehearsal_of(experiment) if rehearse else experiment
