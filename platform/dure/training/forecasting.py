"""What a run will take of memory, time and money, forecast from a trace of its own training step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dure.config.deepspeed import deepspeed_settings
from dure.config.schema import Experiment, Profile
from dure.data.batching import length_order
from dure.data.collating import cut
from dure.family import Family
from dure.family.corpus import Corpus, cache_folder
from dure.files import read_json_lines
from dure.modeling.precision import resolve
from dure.modeling.tracing import StepTrace, trace_step
from dure.runs.environment import device_name
from dure.runs.folder import RunFolder
from dure.runs.pace import Pace, rates, remember, seconds_a_row, training_pace, validation_pace
from dure.training.arguments import attends_by_rows, loaded_rows, steps_per_epoch, total_steps
from dure.training.compiler import in_lengths
from dure.training.memory import free_memory, resident_mb

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from dure.data.collating import Batches

_MIB = 1024**2
_FRAGMENTS = {"cpu": 1.02, "cuda": 1.15, "mps": 1.15}
"""What an allocator takes for what it is asked for, at most."""
_CONTEXT = {"cpu": (0, 0), "cuda": (300 * _MIB, 900 * _MIB), "mps": (0, 500 * _MIB)}
"""What the device's own software takes beside tensors."""
_MASKS = 0.95
"""Least part of the traced peak that comes: a step with data leaves out attention masks of batches without padding."""
_SLOWER_TEXT = 10
"""How much slower a token is written by one beam than it is trained on, at the most."""
_SHARE_OF_PEAK = (0.03, 0.45)
"""What training reaches of a data sheet's peak, from small models to large ones."""


@dataclass(frozen=True)
class RunForecast:
    """What a run will take; pairs are the least and the most.

    Attributes:
        memory: Bytes of the device that one worker takes.
        parts: What they are made of at the most, by name.
        seconds: Time of training with its validations; None where nothing is known of the machine's pace.
        cost: Money for it; None where the profile has no price.
        steps: Optimiser steps, unless the run stops early.
        flops: Floating-point operations of training, over all workers.
        rows: Rows of a micro-batch of one worker.
        device: Kind of the device.
        pace: Where the pace comes from.
        is_compiled: Whether training compiles layers, which the trace does not.
    """

    memory: tuple[int, int]
    parts: Mapping[str, int]
    seconds: tuple[float, float] | None
    cost: tuple[float, float] | None
    steps: int
    flops: float
    rows: int
    device: str
    pace: str
    is_compiled: bool = False
    _key: str = field(default="", repr=False)
    _precision: str = field(default="fp32", repr=False)
    _validates: str = field(default="", repr=False)

    @property
    def sentence(self) -> str:
        """The forecast in a line."""
        least, most = (size / 1024**3 for size in self.memory)
        memory = f"{'–'.join(dict.fromkeys((f'{least:.1f}', f'{most:.1f}')))} GiB of memory"
        unproven = " (unproven on CUDA: traced on a CPU)" if self.device == "cuda" else ""
        if self.is_compiled:
            unproven += " (traced without training.compile)"
        if self.seconds is None:
            time = f"time unknown ({self.pace})"
        else:
            time = f"{in_time(self.seconds[0])}–{in_time(self.seconds[1])} ({self.pace})"
        cost = "" if self.cost is None else f", costs {self.cost[0]:.2f}–{self.cost[1]:.2f}"
        return f"forecast: {memory} a worker{unproven}, {self.steps:,} steps, {time}{cost}"

    def shortage(self, profile: Profile) -> str | None:
        """Return in words how much memory is lacking at the most; None where it suffices."""
        free, where = free_memory(profile)
        if self.memory[1] <= free:
            return None
        return f"up to {self.memory[1] / 1024**3:.1f} GiB are needed, {free / 1024**3:.1f} GiB are {where}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return {
            "memory_mb": [round(size / _MIB, 1) for size in self.memory],
            "memory_parts_mb": {name: round(size / _MIB, 1) for name, size in self.parts.items()},
            "seconds": None if self.seconds is None else [round(each, 1) for each in self.seconds],
            "cost": None if self.cost is None else [round(each, 2) for each in self.cost],
            "steps": self.steps,
            "flops": self.flops,
            "micro_batch_rows": self.rows,
            "pace": self.pace,
            "proven": self.device == "cpu" and not self.is_compiled,
            "traced_uncompiled": self.is_compiled,
        }

    def remember(self, folder: RunFolder, num_dev_rows: int) -> None:
        """Keep the pace of a run like the one that was forecast, now that it is over."""
        records = read_json_lines(folder.metrics)
        steps, seconds = training_pace(records)
        times, validation = validation_pace(records)
        if steps <= 0 or seconds <= 0:
            return
        done = self.flops * steps / self.steps
        where, rows = device_name(self.device), times * num_dev_rows
        pace = Pace(where, self._key, self._precision, done, seconds, self._validates, rows, validation)
        remember(cache_folder(), pace)


def forecast_run(
    family: Family,
    corpus: Corpus,
    model: PreTrainedModel,
    profile: Profile,
    *,
    num_workers: int | None = None,
) -> RunForecast:
    """Forecast a run from a trace of its step on the longest micro-batch.

    Args:
        family: The model's family.
        corpus: The rows.
        model: The model, ready to train; on the meta device it needs no weights.
        profile: The machine.
        num_workers: Processes that train together; the profile's when not given.
    """
    experiment, training = family.experiment, family.experiment.training
    workers = num_workers or profile.num_workers
    precision = resolve(training.precision, profile, model.config.model_type, lambda message: None)
    lengths = np.asarray(corpus.train["length"])
    batches = in_lengths(family.batches(corpus.tokenizer, model), experiment)
    longest, passes = _longest(experiment, corpus, batches, workers)
    rows = len(longest)
    trace = trace_step(
        model,
        batches,
        family.objective(model, corpus.train),
        batches.collate([corpus.train[int(row)] for row in longest]),
        precision=precision,
        checkpointing=training.gradient_checkpointing,
        accumulates=passes > 1,
        averages=training.ema is not None,
        r_drop=experiment.objective.r_drop,
        in_4bit=_packs(experiment, profile) and not getattr(model, "is_quantized", False),
        by_rows=attends_by_rows(experiment, profile),
    )
    parts = _parts(trace, profile, workers) | {"generation": _generation(family, model, lengths, precision)}
    base = _base(model) if profile.device == "cpu" else 0
    steps = total_steps(experiment, len(corpus.train))
    # The trace is of the longest rows; the others are shorter, and as much is computed less.
    flops = trace.flops * float(lengths.mean() / lengths[longest].mean()) * passes * steps * workers
    key = f"{experiment.family} {sum(p.numel() for p in model.parameters())} x{rows} {round(float(lengths.mean()))}"
    key += " compiled" * training.compile
    found, pace = _rates(profile, workers, key, precision)
    validates = _validates(family)
    seconds = None
    if found is not None:
        a_row = flops / steps / training.effective_batch_size
        rows_validated = num_validations(experiment, steps, len(corpus.train)) * len(corpus.dev or ())
        quick, slow = _validation(family, profile, (key, validates), a_row, found)
        seconds = flops / found[1] + rows_validated * quick, flops / found[0] + rows_validated * slow
    return RunForecast(
        memory=_memory(parts, base, profile),
        parts=parts | {"libraries": base},
        seconds=seconds,
        cost=_cost(seconds, profile),
        steps=steps,
        flops=flops,
        rows=rows,
        device=profile.device,
        pace=pace,
        is_compiled=training.compile,
        _key=key,
        _precision=precision,
        _validates=validates,
    )


def _memory(parts: Mapping[str, int], base: int, profile: Profile) -> tuple[int, int]:
    """Return the least and the most bytes of a worker at its peak."""
    # Gradients and activations are gone when text is generated.
    beside = parts["weights"] + parts["moments"] + parts["average"]
    peak = beside + max(parts["gradients"] + parts["activations"], parts["generation"])
    least, most = _CONTEXT[profile.device]
    return int(peak * _MASKS) + base + least, int(peak * _FRAGMENTS[profile.device]) + base + most


def _packs(experiment: Experiment, profile: Profile) -> bool:
    """Return whether a machine trains an experiment with frozen weights of four bits."""
    return experiment.model.quantization is not None and profile.quantization


def _cost(seconds: tuple[float, float] | None, profile: Profile) -> tuple[float, float] | None:
    """Return what so long a time costs, where both are known."""
    if seconds is None or profile.cost_per_hour is None:
        return None
    return seconds[0] / 3600 * profile.cost_per_hour, seconds[1] / 3600 * profile.cost_per_hour


def _longest(
    experiment: Experiment, corpus: Corpus, batches: Batches, workers: int
) -> tuple[Sequence[int], float]:
    """Return the rows of the longest forward pass of a worker, and how many passes make up its step."""
    training = experiment.training
    of_step = min(loaded_rows(experiment, workers), len(corpus.train))
    longest = length_order(np.asarray(corpus.train["length"]))[:of_step]
    if training.batch_tokens is None:
        return longest, float(training.gradient_accumulation_steps)
    first = cut(batches, [corpus.train[int(row)] for row in longest], training.batch_tokens)[0]
    return longest[: len(first)], of_step / len(first)


def num_validations(experiment: Experiment, steps: int, num_rows: int) -> int:
    """Return how often a run of so many steps validates, unless it stops early."""
    training = experiment.training
    every = steps_per_epoch(experiment, num_rows) if training.eval_every == "epoch" else training.eval_every
    return math.ceil(steps / every) + training.evaluate_untrained


def _validates(family: Family) -> str:
    """Return what the time of a validation depends on, beside the model."""
    experiment, how = family.experiment, family.validates
    rows = experiment.training.eval_batch_size or experiment.training.batch_size
    written = experiment.generation
    text = f" {written.num_beams} beams {written.min_length}-{written.max_length}" if how == "text" else ""
    return f"{how} x{rows}{text}"


def _validation(
    family: Family,
    profile: Profile,
    key: tuple[str, str],
    flops: float,
    found: tuple[float, float],
) -> tuple[float, float]:
    """Return the seconds of a validation for a row, least and most: as measured here, else by the training's pace.

    Args:
        family: The model's family.
        profile: The machine.
        key: What is trained, and how it is validated.
        flops: Of a row of training, whose forward pass takes a third.
        found: Operations a second.
    """
    here = seconds_a_row(cache_folder(), device_name(profile.device), *key) if _is_here(profile) else None
    if here is not None:
        return here
    beams = family.experiment.generation.num_beams if family.validates == "text" else 1
    least, most = (1, _SLOWER_TEXT * beams) if family.validates == "text" else (1, 1)
    return least * flops / 3 / found[1], most * flops / 3 / found[0]


def _parts(trace: StepTrace, profile: Profile, workers: int) -> dict[str, int]:
    """Return what one worker holds on its device, after DeepSpeed has shared it out."""
    parts = {
        "weights": trace.weights,
        "gradients": trace.gradients,
        "moments": trace.moments,
        "average": trace.average,
        "activations": trace.activations,
    }
    if profile.deepspeed is None:
        return parts
    zero = deepspeed_settings(profile.deepspeed)["zero_optimization"]
    shared = {1: ("moments",), 2: ("moments", "gradients"), 3: ("moments", "gradients", "weights")}
    for name in (*shared.get(zero["stage"], ()), *(("average",) if zero["stage"] == 3 else ())):
        parts[name] //= workers
    # What is offloaded passes through buckets on the device.
    buckets = 4 * int(zero.get("reduce_bucket_size", 5e8)) if zero["stage"] else 0
    parts["activations"] += min(2 * buckets, trace.gradients)
    if "offload_optimizer" in zero:
        parts["moments"] = 0
        parts["gradients"] = 0 if zero["stage"] >= 2 else parts["gradients"]
    if "offload_param" in zero:
        parts["weights"] = min(parts["weights"], 2 * buckets)
    return parts


def _generation(family: Family, model: PreTrainedModel, lengths: Any, precision: str) -> int:
    """Return the bytes of keys, values and scores while the longest rows of a validation batch write text."""
    if family.validates != "text":
        return 0
    from dure.modeling.decoder_slots import BATCHES_AT_ONCE

    training, said, config = family.experiment.training, family.experiment.generation, model.config
    rows = training.eval_batch_size or training.batch_size
    rows *= BATCHES_AT_ONCE if config.is_encoder_decoder else 1
    texts = rows * said.num_beams
    layers = getattr(config, "num_decoder_layers", None) or getattr(config, "decoder_layers", None)
    layers = int(layers or config.num_hidden_layers)
    size = 4 if precision == "fp32" else 2
    read = (rows if config.is_encoder_decoder else texts) * int(np.max(lengths))
    scores = texts * int(config.vocab_size) * 4 * 3
    return int((read + texts * said.max_length) * layers * 2 * config.hidden_size * size + scores)


def _base(model: PreTrainedModel) -> int:
    """Return what the process holds beside the model: Python and its libraries."""
    loaded = sum(int(p.numel() * p.element_size()) for p in model.parameters() if not p.is_meta)
    return max(0, int(resident_mb() * _MIB) - loaded)


def _rates(
    profile: Profile, workers: int, key: str, precision: str
) -> tuple[tuple[float, float] | None, str]:
    """Return the operations a second of all workers, least and most, and where they are known from."""
    here = rates(cache_folder(), device_name(profile.device), key, precision) if _is_here(profile) else None
    if here is not None:
        return here, "by earlier runs here"
    if profile.tflops is not None:
        least, most = _SHARE_OF_PEAK
        return (
            profile.tflops * 1e12 * least * workers,
            profile.tflops * 1e12 * most * workers,
        ), f"by the peak of profile {profile.name}"
    return None, "no run was measured here yet"


def _is_here(profile: Profile) -> bool:
    import torch

    found = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return found[profile.device]


def in_time(seconds: float) -> str:
    """Return seconds as people read them: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def smaller_batches(experiment: Experiment, workers: int) -> list[Experiment]:
    """Return an experiment in ever smaller micro-batches whose effective batch is the same, the largest first."""
    training = experiment.training
    if training.batch_tokens is not None:
        budgets = [training.batch_tokens // parts for parts in (2, 4, 8, 16)]
        least = experiment.tokenizer.encoder_max_len + experiment.tokenizer.decoder_max_len
        return [experiment.with_({"training.batch_tokens": each}) for each in budgets if each >= least]
    fitting = [
        rows
        for rows in range(training.batch_size - 1, 0, -1)
        if rows % workers == 0 and training.effective_batch_size % rows == 0
    ]
    return [
        experiment.with_(
            {
                "training.batch_size": rows,
                "training.gradient_accumulation_steps": training.effective_batch_size // rows,
            }
        )
        for rows in fitting
    ]
