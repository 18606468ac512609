"""The batch on Ray Tune: one trial per experiment and seed, and what the seeds say together."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from dure.config.schema import Experiment
from dure.errors import UserError, nearest
from dure.events import TrialStatus
from dure.metrics.metric import BASELINE, Metric, choosable, definitions, undeclared, under
from dure.metrics.paired import Floats, PairedDifference, corrected, paired_difference, paired_gains
from dure.reporting.verdicts import difference_sentence
from dure.studies.batch.plan import BatchStudy
from dure.studies.batch.results import SeedsComparison, Setting
from dure.studies.comparable import compares, require_comparable
from dure.studies.strategy import Strategy, TrialPlan
from dure.training.arguments import total_steps

_ROWS = 10_000
"""Rows of a table whose number nobody limits: experiments of a batch mostly share their table."""
_OVERHEAD = 8_000
"""Positions whose computing takes as long as what every pass costs whatever its size; of a miniature on one core."""


class Batch(Strategy[BatchStudy]):
    """Runs every experiment once, or once for each of several seeds.

    Raises:
        UserError: The first metric cannot rank them.
    """

    def __init__(self, study: BatchStudy, experiments: Sequence[Experiment]) -> None:
        super().__init__(study)
        self.metrics = column_metrics(study, experiments)
        self.experiments = tuple(experiments)
        runs = [run for experiment in experiments for run in study.runs_of(experiment)]
        self._trials = tuple(TrialPlan(run.name, run) for run in runs)

    def trials(self) -> Sequence[TrialPlan]:
        """Return one trial per experiment and seed."""
        return self._trials

    def longest_first(self, pending: Sequence[str]) -> Sequence[str]:
        """Return the trials by what they will compute, the most first; equal ones in their order."""
        work = {trial.name: training_work(trial.experiment) for trial in self._trials if trial.experiment}
        return sorted(pending, key=lambda name: -work[name])

    def summary(self, trials: Sequence[TrialStatus]) -> Mapping[str, Any]:
        """Return the columns of the table and the best experiment by the first of them."""
        metric = self.metrics[0]
        shared = {"metrics": list(self.study.metrics), "definitions": definitions(self.metrics)}
        if self.study.seeds is not None:
            settings = settings_of(self.study, self.experiments, trials, self.metrics)
            return {
                **shared,
                "best": best_setting(settings, metric),
                "settings": settings,
                "comparisons": comparisons_of(settings, trials, metric),
            }
        scores = {
            trial.name: value
            for trial in trials
            if trial.state == "completed" and isinstance(value := trial.metrics.get(metric.name), int | float)
        }
        return {**shared, "best": metric.best(scores)}


def column_metrics(study: BatchStudy, experiments: Sequence[Experiment]) -> tuple[Metric, ...]:
    """Return the metrics of the table's columns, as the families of the experiments declare them.

    A column that no family has stays empty; but the first one ranks. A column beside it says which is better only where
    all experiments measure it alike, such as a loss by the same tokens.

    Raises:
        UserError: No family has the first metric, it says nothing about quality, the experiments do not measure it
            alike, or two families mean different things by one name.
    """
    from dure.family import load_family

    families = [load_family(each) for each in experiments]
    found = []
    for name in study.metrics:
        declared = {metric: each for each in families if (metric := each.metric(name)) is not None}
        if len(declared) > 1:
            owners = " and ".join(sorted({each.experiment.family for each in declared.values()}))
            raise UserError(
                f"'{name}' is declared differently by {owners}",
                where=f"study {study.name}: metrics",
                hint="compare these experiments in studies of their own",
            )
        found.append(next(iter(declared), undeclared(name)))
    require_comparable(found[0].name, families, where=f"study {study.name}: metrics")
    # Losses of other tokens, or of another objective, are shown, but none of them is the best.
    found = [each if compares(each.name, families) else replace(each, direction=None) for each in found]
    if found[0].direction is None:
        names = dict.fromkeys(
            name
            for each in families
            for name in choosable(each.metrics)
            if (metric := each.metric(name)) is not None and metric.direction is not None
        )
        raise UserError(
            f"'{found[0].name}' cannot rank: no family of these experiments declares which way it is better",
            where=f"study {study.name}: metrics",
            expected=f"first one of {', '.join(names)}",
            hint=nearest(found[0].name, list(names)),
        )
    return tuple(found)


def training_work(experiment: Experiment) -> float:
    """Return the work of training, in positions that are computed; only the order of experiments is meant.

    Sizes of models are not known before they are loaded, and rows are taken to be as long as they may be.
    """
    training, tokenizer = experiment.training, experiment.tokenizer
    rows = experiment.data.max_train_rows or _ROWS
    passes = total_steps(experiment, rows) * training.gradient_accumulation_steps
    length = tokenizer.encoder_max_len + tokenizer.decoder_max_len
    return float(passes * (training.batch_size * length + _OVERHEAD))


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
                num_scored=len(values[metrics[0].name]),
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
