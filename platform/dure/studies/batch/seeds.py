"""Repeated runs: the mean of every experiment over its seeds, and how far the seeds lie apart."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from dure.config.schema import Experiment
from dure.events import TrialStatus
from dure.metrics.metric import Metric
from dure.studies.batch.plan import BatchStudy
from dure.studies.batch.results import Setting


def settings_of(
    study: BatchStudy,
    experiments: Sequence[Experiment],
    trials: Sequence[TrialStatus],
    metrics: Sequence[Metric],
) -> tuple[Setting, ...]:
    """Return every experiment over its seeds.

    Args:
        study: The batch.
        experiments: Its experiments, each once.
        trials: Where its runs stand.
        metrics: What is averaged.
    """
    by_name = {trial.name: trial for trial in trials}
    found = []
    for experiment in experiments:
        runs = [by_name[run.name] for run in study.runs_of(experiment) if run.name in by_name]
        done = [run for run in runs if run.state == "completed"]
        values = {metric.name: scores_of(done, metric.name) for metric in metrics}
        means = {name: statistics.fmean(each) for name, each in values.items() if each}
        spread = {name: statistics.stdev(each) for name, each in values.items() if len(each) > 1}
        names = tuple(run.name for run in runs)
        found.append(
            Setting(name=experiment.name, runs=names, num_scored=len(done), mean=means, deviation=spread)
        )
    return tuple(found)


def scores_of(trials: Sequence[TrialStatus], metric: str) -> list[float]:
    """Return the scores of runs, of those that have one."""
    values = [trial.metrics.get(metric) for trial in trials]
    return [float(value) for value in values if isinstance(value, int | float)]


def best_setting(settings: Sequence[Setting], metric: Metric) -> str | None:
    """Return the setting of the best mean, among those none of whose runs lacks a score."""
    means: Mapping[str, float | None] = {
        each.name: each.mean.get(metric.name) for each in settings if each.num_scored == len(each.runs)
    }
    return metric.best(means)
