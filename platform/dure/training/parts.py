"""The parts of the training loop, each made before the loop is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from transformers import TrainerCallback

from dure.config.schema import Experiment, Profile
from dure.data.batching import LengthGroupedSampler
from dure.data.collating import Batches
from dure.errors import UserError
from dure.events import Notify
from dure.family import Family
from dure.metrics.metric import Metric
from dure.modeling.cpu_layers import CpuLayers
from dure.modeling.ema import WeightAverage
from dure.modeling.objectives import Objective
from dure.modeling.precision import Precision
from dure.runs.disk import DiskRoom
from dure.runs.folder import RunFolder
from dure.training.arguments import check_budget, tokens_of_pass
from dure.training.callbacks import StopCallback
from dure.training.compiling import CompiledLayers
from dure.training.oom import FittingRows
from dure.training.recovery import Recovery
from dure.training.untrained import UntrainedScores
from dure.training.worker import Worker
from dure.training.zero import Written

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Retention:
    """How checkpoints are kept."""

    limit: int
    """How many stay."""
    metric: Metric
    room: DiskRoom
    """Writes them where there is room."""
    foretold_bytes: int
    """Size of the first one."""
    notify: Notify
    """Passes one line to the user, such as that the best one is not what it was."""
    saved: Callable[[Path], None]
    """Gets every checkpoint as soon as it is whole."""


@dataclass(frozen=True)
class Parts:
    """What a loop is made of beside its model, rows and arguments."""

    batches: Batches
    objective: Objective
    validates: Literal["logits", "text", "loss"]
    """What validation computes beside the loss."""
    recovery: Recovery
    """Computes a step again when memory did not suffice."""
    retention: Retention
    stopping: StopCallback
    """Asks for a checkpoint that is not due, when the run has to stop."""
    sampler: LengthGroupedSampler | None = None
    """Order of the training rows; reshuffled in every epoch when not given."""
    batch_tokens: int | None = None
    """Most positions of a micro-batch, when the rows of a step are cut by that."""
    layers: CompiledLayers | CpuLayers | None = None
    """What the layers of the model compute by in a step, where not by themselves: their graphs, or faster ways of a CPU."""
    r_drop: float = 0.0
    """Weight of the disagreement of two passes over every row; 0 makes one pass."""
    average: WeightAverage | None = None
    """What validation during training is made with, in place of the weights that are trained."""
    rate_factors: Mapping[str, float] | None = None
    """Factor on the learning rate of every parameter, by its name; all are 1 when not given."""
    written: Written | None = None
    """How DeepSpeed shares out the weights, when it does."""
    untrained: UntrainedScores | None = None
    """Scores of untrained models, of those who share them."""
    callbacks: Sequence[TrainerCallback] = ()
    """Who is called as well, in this order; ``stopping`` comes after all of them."""


def recovery_of(
    family: Family,
    batches: Batches,
    model: PreTrainedModel,
    profile: Profile,
    folder: RunFolder,
    worker: Worker,
    precision: Precision,
) -> Recovery:
    """Return what computes a step again when memory did not suffice.

    It begins with the rows at once that a run before this one came down to.
    """
    experiment = family.experiment
    on_oom = experiment.training.on_oom
    fitting = FittingRows(experiment, profile, model, precision)
    recovery = Recovery(
        on_oom,
        batches,
        model,
        profile.device,
        folder=folder.path,
        worker=worker,
        remember=fitting.write if worker.is_main else lambda rows: None,
        shares_out=profile.deepspeed is not None,
    )
    if recovery.policy != on_oom:
        worker.notify(
            f"training.on_oom={on_oom} does nothing under DeepSpeed, which cannot take back a pass: "
            "out of memory ends the run"
        )
    rows = fitting.read() if recovery.policy == "shrink" else None
    if rows is not None:
        recovery.rows_at_once = rows
        worker.notify(
            f"more than {rows} rows at once ran out of memory here before: computing {rows} at once "
            f"({fitting.path} remembers it)"
        )
    return recovery


def sampler_of(
    experiment: Experiment, train_dataset: datasets.Dataset, batches: Batches, num_workers: int
) -> LengthGroupedSampler | None:
    """Return the order of the training rows that groups similar lengths, when the experiment wants that."""
    training = experiment.training
    if not training.group_by_length:
        return None
    lengths = np.asarray(train_dataset["length"][:])
    return LengthGroupedSampler(
        lengths,
        training.effective_batch_size,
        experiment.experiment.seed,
        batches.targets_of(train_dataset),
        num_hands=1 if training.batch_tokens is None else num_workers,
    )


def batch_tokens_of(
    experiment: Experiment, train_dataset: datasets.Dataset, batches: Batches, profile: Profile
) -> int | None:
    """Return the most positions of a micro-batch, when the experiment has such a budget.

    Raises:
        UserError: A row alone has more, or as :func:`check_budget`.
    """
    budget = tokens_of_pass(experiment)
    if budget is None:
        return None
    check_budget(experiment, profile)
    targets, unit = batches.targets_of(train_dataset), batches.multiple_of
    units = -(-np.asarray(train_dataset["length"][:]) // unit)
    units += 0 if targets is None else -(-np.asarray(targets.lengths) // unit)
    tokens = sum(batches.positions(train_dataset[int(np.argmax(units))]))
    if tokens > budget:
        twice = experiment.objective.r_drop > 0
        raise UserError(
            f"the longest row has {tokens:,} tokens with its target{' and R-Drop reads it twice' if twice else ''}, more than "
            f"a batch of {experiment.training.batch_tokens:,}",
            where="training.batch_tokens",
            expected=f"{2 * tokens if twice else tokens} or more",
            hint="or a smaller tokenizer.encoder_max_len, which cuts long rows",
        )
    return budget
