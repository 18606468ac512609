"""How long a run will take, by what its parts took in runs before it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dure.config.schema import Experiment, Profile, TrainingConfig
from dure.errors import UserError
from dure.family import Family
from dure.family.corpus import cache_folder
from dure.files import read_json_lines
from dure.runs.folder import RunFolder
from dure.runs.forecast import num_parameters
from dure.runs.pace import Pace, Times, Work, alike, known, remember, times_of
from dure.training.arguments import steps_per_epoch, total_steps

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedModel

    from dure.data.collating import Batches

logger = logging.getLogger(__name__)

_SAME = (0.78, 1.22)
"""How far a run may be from those before it of the same model and lengths. Of another model nothing is said: its
operations a second put rehearsals of a minute between two minutes and eleven hours.

At an even load runs came within a tenth of the forecast; what else a machine begins or ends takes more.
"""
_SLOWER_TEXT = 10
"""How much slower a token is written by one beam than it is trained on, at the most."""
_SHARE_OF_PEAK = (0.03, 0.45)
"""What training reaches of a data sheet's peak, from small models to large ones."""
_MOST_STEPS = 2000
"""Steps whose rows are looked up."""


@dataclass(frozen=True)
class Timing:
    """What decides how long a run takes."""

    device: str
    model: str
    """What trains: family, parameters, batch and how it is trained."""
    precision: str
    validates: str
    """What the time of a validation depends on, beside the model."""
    flops: float
    """Floating-point operations of an optimiser step of all workers."""
    slower: float
    """How much longer the forward pass of a row may take in validation than in training."""
    rows: int
    """Rows of an optimiser step."""
    work: Work
    earliest: Work | None
    """What is done where the run stops as early as it may; None where it does not stop early."""

    def seconds(
        self, profile: Profile, *, is_here: bool
    ) -> tuple[tuple[float, float] | None, float | None, str]:
        """Return how long the run takes.

        Returns:
            The least and the most seconds, the least where it stops early, and where they are known from; None for what
            is not known.
        """
        paces = known(cache_folder()) if is_here else []
        kind = "by earlier runs here"
        if same := alike(paces, (self.device, self.model, self.precision, self.validates)):
            ends = partial(_by_times, [each.times for each in same])
        elif profile.tflops is not None:
            kind = f"by the peak of profile {profile.name}"
            least, most = (profile.tflops * 1e12 * share * profile.num_workers for share in _SHARE_OF_PEAK)
            ends = partial(self._by_rates, least, most)
        else:
            return None, None, "no run like it was measured here yet"
        return ends(self.work), None if self.earliest is None else ends(self.earliest)[0], kind

    def _by_rates(self, least: float, most: float, work: Work) -> tuple[float, float]:
        """Return the least and the most seconds by operations a second; start and end are not in it."""
        steps = self.flops * work.steps
        validated = self.flops / 3 / self.rows * work.rows * work.validations
        return (steps + validated) / most, (steps + self.slower * validated) / least

    def remember(self, folder: RunFolder, seconds: float) -> None:
        """Keep how long the parts of a run like this took, now that it is over; it does not fail for a full cache."""
        records = read_json_lines(folder.metrics)
        done = max((int(each["step"]) for each in records if each["kind"] == "train"), default=0)
        times = times_of(records, seconds, self.work.of_first(done), self.work.rows)
        if times is not None and times.step + times.position > 0:
            pace = Pace(self.device, self.model, self.precision, self.validates, times)
            try:
                remember(cache_folder(), pace)
            except (OSError, UserError) as error:
                logger.warning("the next run is forecast without this one: %s", error)


def _by_times(found: Sequence[Times], work: Work) -> tuple[float, float]:
    """Return the least and the most seconds by what runs of the same kind took.

    A process that has scored before need not make that ready again.
    """
    least, most = _SAME
    ready = [work.seconds(replace(each, first_validation=0.0)) for each in found]
    return min(ready) * least, max(map(work.seconds, found)) * most


def timing_of(
    family: Family,
    rows: datasets.Dataset,
    num_dev_rows: int,
    model: PreTrainedModel,
    batches: Batches,
    *,
    precision: str,
    device: str,
    workers: int,
    flops: float,
) -> Timing:
    """Return what decides how long a run takes.

    ``flops`` are those of a position of a step, as a trace counts them; a device that is not here is named by its kind.
    """
    experiment, training, how = family.experiment, family.experiment.training, family.validates
    positions, steps = step_positions(experiment, rows, batches, workers), total_steps(experiment, len(rows))
    written = experiment.generation
    beams = written.num_beams if how == "text" else 1
    text = f" {beams} beams {written.min_length}-{written.max_length}" if how == "text" else ""
    return Timing(
        device=device,
        model=_model(experiment, model, workers),
        precision=precision,
        validates=f"{how} x{training.rows_evaluated}{text}",
        flops=flops * float(positions.mean()),
        slower=_SLOWER_TEXT * beams if how == "text" else 1.0,
        rows=training.effective_batch_size,
        work=_work(experiment, steps, positions, len(rows), num_dev_rows),
        earliest=_earliest(experiment, steps, positions, len(rows), num_dev_rows),
    )


def _model(experiment: Experiment, model: PreTrainedModel, workers: int) -> str:
    """Return all of a model and its training that the time of a step depends on, beside the lengths of its rows."""
    training, tokenizer = experiment.training, experiment.tokenizer
    parameters, trained = num_parameters(model)
    ways = {
        "compiled": training.compile,
        "recomputed": training.gradient_checkpointing,
        "averaged": training.ema is not None,
        "twice": experiment.objective.r_drop > 0,
        "packed": experiment.model.quantization is not None,
    }
    return " ".join(
        [
            f"{experiment.family} {parameters}/{trained}",
            f"x{training.batch_size}x{training.gradient_accumulation_steps} {training.batch_tokens or ''}",
            f"of {workers} {tokenizer.encoder_max_len}+{tokenizer.decoder_max_len}",
            *(way for way, applies in ways.items() if applies),
        ]
    )


def _every(experiment: Experiment, num_rows: int) -> int:
    every = experiment.training.eval_every
    return steps_per_epoch(experiment, num_rows) if every == "epoch" else every


def _work(
    experiment: Experiment, steps: int, positions: NDArray[np.float64], num_rows: int, num_dev_rows: int
) -> Work:
    times = math.ceil(steps / _every(experiment, num_rows))
    validations = times + experiment.training.evaluate_untrained if num_dev_rows else 0
    return Work(steps, positions[:steps], validations, num_dev_rows, saves=times - 1)


def _earliest(
    experiment: Experiment, steps: int, positions: NDArray[np.float64], num_rows: int, num_dev_rows: int
) -> Work | None:
    """Return what is done where no validation is better than the first one, and patience ends."""
    patience = experiment.training.early_stopping_patience
    if patience is None or not num_dev_rows:
        return None
    least = (patience + 1) * _every(experiment, num_rows)
    return None if least >= steps else _work(experiment, least, positions, num_rows, num_dev_rows)


def padded_positions(rows: datasets.Dataset, batches: Batches) -> float:
    """Return the positions of some rows as one micro-batch; those of targets count as :func:`step_positions` says."""
    targets = batches.targets_of(rows)
    written = 0.0 if targets is None else targets.cost * float(np.max(targets.lengths))
    return len(rows) * (float(np.max(rows["length"][:])) + written)


def step_positions(
    experiment: Experiment, rows: datasets.Dataset, batches: Batches, workers: int
) -> NDArray[np.float64]:
    """Return the positions that the first optimiser steps of a run compute, padding included, shape (steps,).

    Those of targets count as much as they cost beside those of inputs. The order of the rows is that of training where
    lengths are grouped, and another by chance where they are not.
    """
    # It knows the trainer, which the driver of a study does not import.
    from dure.training.parts import sampler_of

    training = experiment.training
    lengths, targets = np.asarray(rows["length"][:], dtype=np.int64), batches.targets_of(rows)
    written = None if targets is None else np.asarray(targets.lengths, dtype=np.int64)
    cost = 0.0 if targets is None else targets.cost
    size, most = training.effective_batch_size, min(total_steps(experiment, len(rows)), _MOST_STEPS)
    sampler = sampler_of(experiment, rows, batches, workers)
    random = np.random.default_rng(experiment.experiment.seed)
    starts, found = range(0, len(rows), size), list[float]()
    for epoch in range(math.ceil(most / len(starts))):
        if sampler is not None:
            sampler.set_epoch(epoch)
        order = random.permutation(len(rows)) if sampler is None else np.fromiter(sampler, np.int64)
        for start in starts[: most - len(found)]:
            step = order[start : start + size]
            inputs = _padded(lengths[step], training)
            found.append(inputs + (0.0 if written is None else cost * _padded(written[step], training)))
    return np.array(found)


def _padded(lengths: NDArray[np.int64], training: TrainingConfig) -> float:
    """Return the positions of a step's micro-batches, each as long as its longest row; a budget of tokens pads little."""
    if training.batch_tokens is not None:
        return float(lengths.sum())
    rows = training.batch_size
    return float(sum(len(part) * part.max() for part in np.split(lengths, range(rows, len(lengths), rows))))
