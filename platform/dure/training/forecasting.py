"""What a run will take of memory, time and money, forecast from a trace of its own training step."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dure.config.deepspeed import deepspeed_settings
from dure.config.schema import Experiment, Profile
from dure.data.batching import length_order
from dure.data.collating import cut
from dure.events import silent
from dure.family import Family
from dure.family.corpus import Corpus, cache_folder
from dure.modeling.known_traces import known_step
from dure.modeling.precision import resolve
from dure.modeling.tracing import StepTrace
from dure.reporting.figures import memory
from dure.runs.environment import device_name
from dure.training.arguments import kernels_of, loaded_rows, tokens_of_pass
from dure.training.compiler import in_lengths
from dure.training.memory import free_memory, has_device, read_kernels, resident_mb
from dure.training.timing import Timing, padded_positions, timing_of

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedModel

    from dure.data.collating import Batches

_MIB = 1024**2
_HEAP = 2.5
"""Bytes that the heap of a process takes at most for a byte of a step: batches of many lengths leave gaps in it, more and more
over the first thousand steps."""
_MAPPED = 32 * _MIB
"""Larger tensors leave none: glibc takes each from the system by itself, and gives it back."""
_FRAGMENTS = 1.15
"""What an allocator takes for what it is asked for, at most, where no model of it says."""
_CONTEXT = {"cpu": (0, 0), "cuda": (300 * _MIB, 900 * _MIB), "mps": (0, 500 * _MIB)}
"""What the device's own software takes beside tensors."""
_MASKS = 0.95
"""Least part of the traced peak that comes: a step with data leaves out attention masks of batches without padding."""


@dataclass(frozen=True)
class RunForecast:
    """What a run will take; pairs are the least and the most."""

    memory: tuple[int, int]
    """Bytes of the device that one worker takes."""
    parts: Mapping[str, int]
    """What they are made of at the most, by name."""
    seconds: tuple[float, float] | None
    """Time of training with its validations; None where nothing is known of the machine's pace."""
    earliest: float | None
    """Least time where the run stops as early as it may; None where that is not known, or not before its end."""
    cost: tuple[float, float] | None
    """Money for it; None where the profile has no price."""
    steps: int
    """Optimiser steps, unless the run stops early."""
    flops: float
    """Floating-point operations of training, over all workers."""
    rows: int
    """Rows of a micro-batch of one worker."""
    device: str
    """Kind of the device."""
    pace: str
    """Where the pace comes from."""
    is_compiled: bool = False
    """Whether training compiles layers, which the trace does not."""
    timing: Timing = field(kw_only=True, repr=False)
    """What decides how long it takes."""

    @property
    def sentence(self) -> str:
        """The forecast in a line."""
        needed = "–".join(dict.fromkeys(memory(size / _MIB) for size in self.memory))
        unproven = " (unproven on CUDA: traced on a CPU)" if self.device == "cuda" else ""
        if self.is_compiled:
            unproven += " (traced without training.compile)"
        if self.seconds is None:
            time = f"time unknown ({self.pace})"
        else:
            early = "" if self.earliest is None else f", from {in_time(self.earliest)} if it stops early"
            time = f"{in_time(self.seconds[0])}–{in_time(self.seconds[1])}{early} ({self.pace})"
        cost = "" if self.cost is None else f", costs {self.cost[0]:.2f}–{self.cost[1]:.2f}"
        return f"forecast: {needed} of memory a worker{unproven}, {self.steps:,} steps, {time}{cost}"

    def shortage(self, profile: Profile) -> str | None:
        """Return in words how much memory is lacking at the most; None where it suffices."""
        free, where = free_memory(profile)
        if self.memory[1] <= free:
            return None
        return f"up to {memory(self.memory[1] / _MIB)} are needed, {memory(free / _MIB)} are {where}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return {
            "memory_mb": [round(size / _MIB, 1) for size in self.memory],
            "memory_parts_mb": {name: round(size / _MIB, 1) for name, size in self.parts.items()},
            "seconds": None if self.seconds is None else [round(each, 1) for each in self.seconds],
            "earliest_seconds": None if self.earliest is None else round(self.earliest, 1),
            "cost": None if self.cost is None else [round(each, 2) for each in self.cost],
            "steps": self.steps,
            "flops": self.flops,
            "micro_batch_rows": self.rows,
            "pace": self.pace,
            "proven": self.device == "cpu" and not self.is_compiled,
            "traced_uncompiled": self.is_compiled,
        }


def forecast_run(
    family: Family,
    corpus: Corpus,
    model: PreTrainedModel,
    profile: Profile,
    *,
    num_workers: int | None = None,
) -> RunForecast:
    """Forecast a run from a trace of its step on the longest micro-batch, and from the times of runs before it.

    The model is ready to train; on the meta device it needs no weights. ``num_workers`` are the profile's when not
    given.
    """
    experiment, training = family.experiment, family.experiment.training
    workers = num_workers or profile.num_workers
    precision = resolve(training.precision, profile, model.config.model_type, silent)
    batches, rows = in_lengths(family.batches(corpus.tokenizer, model), experiment), _trained(family, corpus)
    longest, passes = _longest(experiment, rows, batches, workers)
    chosen, packs = rows.select(longest), profile.quantization and not getattr(model, "is_quantized", False)
    trace = known_step(
        cache_folder(),
        model,
        batches,
        family.objective(model, rows),
        batches.collate(list(chosen)),
        precision=precision,
        # A rehearsal recomputes its first step only.
        checkpointing=training.gradient_checkpointing and not experiment.rehearsal.enabled,
        accumulates=passes > 1,
        averages=training.ema is not None,
        r_drop=experiment.objective.r_drop,
        packing=experiment.model.quantization if packs else None,
        kernels=kernels_of(experiment, profile),
    )
    generation = _generation(family, model, np.asarray(rows["length"][:]), precision)
    parts = _parts(trace, profile, workers) | {"generation": generation}
    if profile.device == "cpu":
        family.load_scorer()  # It is in the memory that is counted here.
    base = _base(model) if profile.device == "cpu" else 0
    timing = timing_of(
        family,
        rows,
        len(corpus.dev or ()),
        model,
        batches,
        precision=precision,
        device=device_name(profile.device) if has_device(profile.device) else profile.device,
        workers=workers,
        flops=trace.flops / padded_positions(chosen, batches),
    )
    seconds, earliest, pace = timing.seconds(profile, is_here=has_device(profile.device))
    return RunForecast(
        memory=_memory(parts, base, profile, trace, _mapped(model)),
        parts=parts | {"libraries": base},
        seconds=seconds,
        earliest=earliest,
        cost=cost_of(seconds, profile),
        steps=timing.work.steps,
        flops=timing.flops * timing.work.steps,
        rows=len(longest),
        device=profile.device,
        pace=pace,
        is_compiled=training.compile,
        timing=timing,
    )


def _trained(family: Family, corpus: Corpus) -> datasets.Dataset:
    """Return the rows as training takes them; what the family says of them, training says too."""
    quiet = copy.copy(family)
    quiet.notify = silent
    return quiet.training_rows(corpus.train)


def _memory(
    parts: Mapping[str, int], base: int, profile: Profile, trace: StepTrace, mapped: int
) -> tuple[int, int]:
    """Return the least and the most bytes of a worker at its peak; ``mapped`` of them leave no gaps in its heap.

    At the most a checkpoint's copy comes on top of a step: the next steps are taken while it is written, and after the last
    one a process keeps what the step gave back. Where memory is scarce no copy is made. Gradients and activations are
    gone when text is generated. The report, which ``dure train`` draws once the model is gone, is not counted: it takes up
    to 60 MiB beside the libraries, which is more than a miniature's training.
    """
    stays = parts["weights"] + parts["moments"] + parts["average"]
    step = parts["gradients"] + parts["activations"]
    plain = stays + max(step, parts["generation"])
    least, most = _CONTEXT[profile.device]
    if profile.device == "cpu":
        mapped = min(mapped, parts["gradients"])
        peak = stays + max(parts["checkpoint"] + mapped + _HEAP * (step - mapped), parts["generation"])
    else:
        fragments = trace.reserved / trace.peak if profile.device == "cuda" else _FRAGMENTS
        peak = fragments * plain
    return int(plain * _MASKS) + base + least, int(peak) + base + most


def cost_of(seconds: Sequence[float] | None, profile: Profile) -> tuple[float, float] | None:
    """Return what a machine costs for so long, at the least and at the most, where time and price are known."""
    if seconds is None or profile.cost_per_hour is None:
        return None
    least, most = (each / 3600 * profile.cost_per_hour for each in seconds)
    return least, most


def _longest(
    experiment: Experiment, rows: datasets.Dataset, batches: Batches, workers: int
) -> tuple[Sequence[int], float]:
    """Return the rows of the longest forward pass of a worker, and how many passes make up its step."""
    training = experiment.training
    of_step = min(loaded_rows(experiment, workers), len(rows))
    longest = length_order(rows["length"][:])[:of_step]
    budget = tokens_of_pass(experiment)
    if budget is None:
        return longest, float(training.gradient_accumulation_steps)
    first = cut(batches, list(rows.select(longest)), budget)[0]
    return longest[: len(first)], of_step / len(first)


def _parts(trace: StepTrace, profile: Profile, workers: int) -> dict[str, int]:
    """Return what one worker holds on its device, after DeepSpeed has shared it out."""
    parts = {
        "weights": trace.weights,
        "gradients": trace.gradients,
        "moments": trace.moments,
        "average": trace.average,
        "activations": trace.activations,
    }
    # Checkpoints are written from a copy in the host's memory; those of DeepSpeed are written at once.
    on_host = profile.device == "cpu" and profile.deepspeed is None
    parts["checkpoint"] = trace.gradients + trace.moments + trace.average if on_host else 0
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

    rows, said, config = family.experiment.training.rows_evaluated, family.experiment.generation, model.config
    rows *= BATCHES_AT_ONCE if config.is_encoder_decoder else 1
    texts = rows * said.num_beams
    layers = getattr(config, "num_decoder_layers", None) or getattr(config, "decoder_layers", None)
    layers = int(layers or config.num_hidden_layers)
    size = 4 if precision == "fp32" else 2
    # Heads of queries may share keys and values.
    heads, each = (getattr(config, name, None) for name in ("num_key_value_heads", "head_dim"))
    width = int(heads * each if heads and each else config.hidden_size)
    read = (rows if config.is_encoder_decoder else texts) * int(np.max(lengths))
    scores = texts * int(config.vocab_size) * 4 * 3
    return int((read + texts * said.max_length) * layers * 2 * width * size + scores)


def _mapped(model: PreTrainedModel) -> int:
    """Return the bytes of gradients that are too large for the heap."""
    sizes = (each.numel() * each.element_size() for each in model.parameters() if each.requires_grad)
    return sum(size for size in sizes if size > _MAPPED)


def _base(model: PreTrainedModel) -> int:
    """Return what the process holds beside the model once it trains: Python and its libraries."""
    read_kernels()
    loaded = sum(int(p.numel() * p.element_size()) for p in model.parameters() if not p.is_meta)
    return max(0, int(resident_mb() * _MIB) - loaded)


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
        smaller = [experiment.with_({"training.batch_tokens": each}) for each in budgets]
        return [each for each in smaller if (tokens_of_pass(each) or 0) >= least]
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
