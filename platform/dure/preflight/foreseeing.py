"""The forecast of an experiment that has not started: without its weights, and of what would fit in its place."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from dure.config import library
from dure.config.loading import load_profile
from dure.config.schema import Experiment, Profile
from dure.events import silent
from dure.family import Family
from dure.family.corpus import Corpus, load_corpus
from dure.modeling.loading import structure_only
from dure.preflight.model import offline
from dure.reporting.figures import memory
from dure.training.forecasting import RunForecast, forecast_run, smaller_batches
from dure.training.memory import free_memory

_NF4 = {"model.quantization.type": "nf4", "model.quantization.double": True}
_MOST_TRIED = 4
"""Micro-batches that are traced in search of one that fits."""


@dataclass(frozen=True)
class Foreseen:
    """An experiment with its forecast."""

    family: Family
    corpus: Corpus
    forecast: RunForecast


def foresee(family: Family, profile: Profile) -> Foreseen:
    """Forecast a run from its rows and the structure of its model; nothing is downloaded and no weights are read.

    Raises:
        UserError: The rows or the model are wrong.
        CannotTellError: Tokenizer or configuration of the checkpoint are not on this machine.
    """
    family.computes_ahead = False
    with offline(family.experiment.model):
        corpus = load_corpus(family, notify=silent)
        return Foreseen(family, corpus, _forecast(family, corpus, profile))


def _forecast(family: Family, corpus: Corpus, profile: Profile) -> RunForecast:
    """Forecast a run by its model without weights; a miniature's are few, and made."""
    is_small = family.experiment.rehearsal.enabled
    # A family with a model of its own builds it from random weights, which the meta device has none of.
    with structure_only(), torch.device("cpu" if is_small else "meta"):
        model = family.load_model(corpus.tokenizer, profile)
    return forecast_run(family, corpus, model, profile)


def what_fits(foreseen: Foreseen, profile: Profile, free: int) -> list[str]:
    """Return what would fit into so many bytes, each in the words of the command line.

    The effective batch stays what it is, and so do the numbers, but for rounding; 4-bit weights change them.
    """
    found = []
    experiment = foreseen.family.experiment
    parts = foreseen.forecast.parts
    stays = sum(parts[name] for name in ("weights", "gradients", "moments", "average", "libraries"))
    for words, changed in _changes(experiment, profile, parts):
        if stays > free and changed.model == experiment.model:
            continue  # No batch is small enough for weights that do not fit themselves.
        if _memory(foreseen, changed, profile)[1] <= free:
            found.append(words)
            if "training.batch_" in words:
                break  # Smaller ones only take longer.
    for name in library.available("profile"):
        other = load_profile(name)
        shares = other.deepspeed is not None and experiment.training.batch_size % other.num_workers == 0
        if not shares or other.device != profile.device or other.name == profile.name:
            continue
        # One card is this one, if there is one here; of several nothing is known but what the profile says.
        room = free_memory(other)[0] if other.num_workers == 1 else (other.memory_mb or 0) * 1024**2
        least, most = _memory(foreseen, experiment, other)
        if most <= room:
            found.append(f"--profile {name}")
        elif least <= room:
            found.append(
                f"--profile {name}, which may fit ({memory(least / 1024**2)} to {memory(most / 1024**2)})"
            )
    return found


def _changes(
    experiment: Experiment, profile: Profile, parts: Mapping[str, int]
) -> Iterator[tuple[str, Experiment]]:
    """Give other settings with the same effective batch, those that cost least time first."""
    training = experiment.training
    step, written = parts["gradients"] + parts["activations"], parts["generation"]
    rows = training.rows_evaluated
    if written > step and rows > 1:
        # While validation takes most, nothing of training makes a difference.
        fewer = max(1, rows * step // written)
        less, words = {"training.eval_batch_size": fewer}, f"training.eval_batch_size={fewer}"
        yield words, experiment.with_(less)
        for more, changed in _changes(experiment.with_(less), profile, {**parts, "generation": 0}):
            yield f"{words} {more}", changed
        return
    if experiment.lora is not None and experiment.model.quantization is None and profile.quantization:
        yield "model.quantization.type=nf4", experiment.with_(_NF4)
    checkpointing = {"training.gradient_checkpointing": True}
    if not training.gradient_checkpointing:
        yield "training.gradient_checkpointing=true", experiment.with_(checkpointing)
    for smaller in smaller_batches(experiment, profile.num_workers)[:_MOST_TRIED]:
        words = (
            f"training.batch_size={smaller.training.batch_size} "
            f"training.gradient_accumulation_steps={smaller.training.gradient_accumulation_steps}"
            if training.batch_tokens is None
            else f"training.batch_tokens={smaller.training.batch_tokens}"
        )
        yield words, smaller
        if not training.gradient_checkpointing:
            yield f"{words} training.gradient_checkpointing=true", smaller.with_(checkpointing)


def _memory(foreseen: Foreseen, experiment: Experiment, profile: Profile) -> tuple[int, int]:
    """Return the least and the most bytes that an experiment of the same rows takes."""
    family = copy.copy(foreseen.family)
    family.experiment = experiment
    changed = _forecast(family, foreseen.corpus, profile)
    # What this process has taken up meanwhile is none of the experiment's.
    grown = changed.parts["libraries"] - foreseen.forecast.parts["libraries"]
    least, most = changed.memory
    return least - grown, most - grown
