"""Checks of one experiment that read no table: its metric, its sources, its batch, and what its files will take."""

from __future__ import annotations

import logging

from dure.config.data import Source, source_name
from dure.config.schema import Experiment, Profile
from dure.errors import counted
from dure.family import Family
from dure.preflight.checks import CannotTellError, Note
from dure.preflight.model import ModelFacts, model_facts, offline
from dure.reporting.tracker import check_trackers
from dure.runs.forecast import Forecast, forecast

logger = logging.getLogger(__name__)


def best_metric(note: Note, family: Family) -> None:
    """Check that the family has the metric that chooses the best checkpoint, and knows which way it is better."""
    metric = family.best_metric
    note.found = f"{metric.name}, {metric.sentence}"


def targets(note: Note, family: Family) -> None:
    """Check that the family has the metrics that targets are of."""
    note.found = ", ".join(f"{target.metric.name} {target.value:g}" for target in family.targets) or "none"


def tracking(note: Note, experiment: Experiment) -> None:
    """Check that the packages of the trackers are here."""
    check_trackers(experiment)
    note.found = ", ".join(experiment.trackers)


def sources(note: Note, family: Family) -> dict[str, Source]:
    """Return the table that each split is read from, when all are there and belong together."""
    from dure.family.corpus import check_sources
    from dure.family.splits import sources_of

    check_sources(family.experiment)
    found = sources_of(family)
    parts = [
        f"{split}: {getattr(family.experiment.data, split)} of train"
        for split in family.experiment.data.parts
    ]
    note.found = ", ".join((*(f"{split}: {source_name(source)}" for split, source in found.items()), *parts))
    return found


def batch(note: Note, experiment: Experiment, profile: Profile) -> None:
    """Check that the workers of a profile can share the batch out."""
    from dure.training.arguments import check_budget, loaded_rows
    from dure.training.compiler import check_compile

    check_budget(experiment, profile)
    check_compile(experiment, profile)
    rows, training = loaded_rows(experiment, profile.num_workers), experiment.training
    num_passes = training.gradient_accumulation_steps
    passes = (
        f" × {num_passes} {'pass' if num_passes == 1 else 'passes'}"
        if training.batch_tokens is None
        else f", in passes of at most {training.batch_tokens:,} tokens"
    )
    workers = counted(profile.num_workers, "worker")
    note.found = (
        f"{counted(training.effective_batch_size, 'row')} a step: {workers} × {counted(rows, 'row')}{passes}"
    )


def foretold(family: Family, facts: ModelFacts | None = None) -> Forecast:
    """Return what a run will take of the disk.

    Raises:
        UserError: The model is none of the family, or its checkpoint is wrong.
        CannotTellError: The checkpoint is not on this machine.
    """
    facts = facts or _facts(family)
    return forecast(family.experiment, facts.num_parameters, facts.num_trained)


def _facts(family: Family) -> ModelFacts:
    """Count the model, by its configuration where there is one, since rows would have to be encoded otherwise."""
    from dure.family.corpus import load_corpus

    try:
        return model_facts(Note(), family, None)
    except CannotTellError:
        # A model from random weights is as large as the vocabulary of its rows.
        family.computes_ahead = False
        with offline(family.experiment.model):
            tokenizer = load_corpus(family, notify=logger.info).tokenizer
        return model_facts(Note(), family, tokenizer)
