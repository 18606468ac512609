"""Repeated runs: the mean of every experiment over its seeds, and how far the seeds lie apart."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from dure.config.schema import Experiment
from dure.events import TrialStatus
from dure.metrics.metric import BASELINE, Metric, under
from dure.metrics.paired import Floats, PairedDifference, corrected, paired_difference, paired_gains
from dure.reporting.verdicts import difference_sentence
from dure.studies.batch.plan import BatchStudy
from dure.studies.batch.results import SeedsComparison, Setting


def settings_of(
    study: BatchStudy,
    experiments: Sequence[Experiment],
    trials: Sequence[TrialStatus],
    metrics: Sequence[Metric],
) -> tuple[Setting, ...]:
    """Return every experiment over its seeds."""
    by_name = {trial.name: trial for trial in trials}
    found = []
    for experiment in experiments:
        runs = [by_name[run.name] for run in study.runs_of(experiment) if run.name in by_name]
        done = [run for run in runs if run.state == "completed"]
        values = {metric.name: scores_of(done, metric.name) for metric in metrics}
        means = {name: statistics.fmean(each) for name, each in values.items() if each}
        spread = {name: statistics.stdev(each) for name, each in values.items() if len(each) > 1}
        baselines = scores_of(done, under(metrics[0].name, BASELINE))
        found.append(
            Setting(
                name=experiment.name,
                runs=tuple(run.name for run in runs),
                num_scored=len(done),
                mean=means,
                baseline=statistics.fmean(baselines) if baselines else None,
                deviation=spread,
            )
        )
    return tuple(found)


def comparisons_of(
    settings: Sequence[Setting], trials: Sequence[TrialStatus], metric: Metric
) -> tuple[SeedsComparison, ...]:
    """Compare every two settings by the seeds that both have a score of, at least two of them.

    Runs of one seed are pairs: they share split, order of rows and all else that a seed decides for both.
    """
    scores = {trial.name: scores_of([trial], metric.name) for trial in trials if trial.state == "completed"}
    pairs = []
    for first, second in combinations(settings, 2):
        both = [
            (scores[one][0], scores[other][0])
            for one, other in zip(first.runs, second.runs, strict=True)
            if scores.get(one) and scores.get(other)
        ]
        if len(both) > 1:
            pairs.append((first.name, second.name, np.array(both)))
    found = corrected([paired_difference(both[:, :1], both[:, 1:], metric=metric) for _, _, both in pairs])
    return tuple(
        _comparison(first, second, paired_gains(both[:, 0], both[:, 1], metric), difference, metric)
        for (first, second, both), difference in zip(pairs, found, strict=True)
    )


def _comparison(
    first: str, second: str, gains: Floats, difference: PairedDifference, metric: Metric
) -> SeedsComparison:
    # A row stands for all rows of a seed here, and a mean of 0 over seeds that differ is no equality.
    difference = replace(difference, ties=int(not gains.any()))
    return SeedsComparison(
        first=first,
        second=second,
        difference=difference.value,
        low=difference.low,
        high=difference.high,
        p_value=difference.p_value,
        p_holm=difference.p_holm,
        num_seeds=difference.num_seeds,
        wins=int((gains > 0).sum()),
        losses=int((gains < 0).sum()),
        verdict=difference.verdict,
        sentence=difference_sentence(first, second, difference, metric),
    )


def scores_of(trials: Sequence[TrialStatus], metric: str) -> list[float]:
    """Return the scores of runs, of those that have one."""
    values = [trial.metrics.get(metric) for trial in trials]
    return [float(value) for value in values if isinstance(value, int | float)]


def best_setting(settings: Sequence[Setting], metric: Metric) -> str | None:
    """Return the setting of the best mean, among those that lack no score and are better than the trivial baseline."""
    means = {each.name: each.mean.get(metric.name) for each in settings if each.num_scored == len(each.runs)}
    learned = {each.name for each in settings if metric.better(means.get(each.name), each.baseline)}
    return metric.best({name: mean for name, mean in means.items() if name in learned})
