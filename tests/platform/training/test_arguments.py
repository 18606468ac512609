"""From the training section to the trainer's arguments."""

from __future__ import annotations

import pytest
import torch
from transformers import TrainingArguments, get_scheduler

from dure.config.schema import TrainingConfig
from dure.errors import UserError
from dure.family import load_family
from dure.training.arguments import (
    check_shares,
    loaded_rows,
    steps_per_epoch,
    total_steps,
    training_arguments,
    warmup_of,
)


def test_steps_and_warm_up_count_optimiser_steps(tiny):
    experiment = tiny("t5", batch_size=6, gradient_accumulation_steps=3, epochs=4, warmup_ratio=0.03)
    free = experiment.model_copy(
        update={"training": experiment.training.model_copy(update={"max_steps": None})}
    )
    assert steps_per_epoch(free, 100) == 6  # 18 rows a step
    assert total_steps(free, 100) == 24
    assert warmup_of(free.training, total_steps(free, 100)) == 1  # 0.72, rounded up
    assert total_steps(experiment, 100) == 6


@pytest.mark.parametrize(
    "scheduler", ["linear", "cosine", "cosine_with_restarts", "polynomial", "constant_with_warmup"]
)
@pytest.mark.parametrize(("warmup", "steps"), [(0, 6), (5, 6), (6, 6), (7, 6), (1, 1)])
def test_a_warm_up_as_long_as_the_run_ends_with_its_last_step(scheduler, warmup, steps):
    training = TrainingConfig(scheduler=scheduler, warmup_steps=warmup)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = get_scheduler(scheduler, optimizer, warmup_of(training, steps), steps)
    rates = []
    for _ in range(steps):
        rates += schedule.get_last_lr()
        optimizer.step()
        schedule.step()
    assert all(0 <= rate <= 1e-3 for rate in rates)
    if warmup >= steps > 1:
        assert rates == sorted(rates)


def test_a_batch_that_cannot_be_shared_out_is_refused_with_the_key(tiny):
    experiment = tiny("t5", batch_size=6)
    assert loaded_rows(experiment, 3) == 2
    with pytest.raises(UserError, match=r"training\.batch_size"):
        loaded_rows(experiment, 4)


@pytest.mark.parametrize("scheduler", ["linear", "cosine", "cosine_with_restarts", "polynomial", "constant"])
def test_every_schedule_gives_arguments_that_transformers_accepts(scheduler, tiny, cpu, tmp_path):
    experiment = tiny(
        "t5",
        scheduler=scheduler,
        weight_decay=0.01,
        gradient_checkpointing=True,
        eval_every=7,
        max_grad_norm=0.5,
    )
    arguments = TrainingArguments(
        **training_arguments(
            experiment,
            cpu,
            tmp_path,
            num_rows=50,
            precision="bf16",
            num_workers=1,
            metric=load_family(experiment).best_metric,
        )
    )
    assert arguments.lr_scheduler_type == scheduler
    assert arguments.bf16
    assert not arguments.fp16
    assert arguments.weight_decay == 0.01
    assert arguments.max_grad_norm == 0.5
    assert arguments.gradient_checkpointing_kwargs == {"use_reentrant": False}
    assert arguments.eval_steps == arguments.save_steps == experiment.training.eval_every
    assert arguments.metric_for_best_model == "eval_rouge_sum"
    assert arguments.report_to == []


@pytest.mark.parametrize(
    ("batch", "effective", "remedy"),
    [
        (4, 16, "training.batch_size=8 training.gradient_accumulation_steps=2, or"),
        (
            6,
            18,
            "training.batch_size=8 training.gradient_accumulation_steps=2 (steps of 16 rows, where 18 were",
        ),
        (
            12,
            12,
            "training.batch_size=16 training.gradient_accumulation_steps=1 (steps of 16 rows, where 12 were",
        ),
    ],
)
def test_rows_that_workers_cannot_share_are_refused_with_the_nearest_that_they_can(batch, effective, remedy):
    with pytest.raises(UserError) as refused:
        check_shares(batch, 8, effective)
    assert remedy in str(refused.value)
