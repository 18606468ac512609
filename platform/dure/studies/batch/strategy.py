"""The batch on Ray Tune: one trial per experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dure.config.schema import Experiment
from dure.errors import UserError, nearest
from dure.events import TrialStatus
from dure.metrics.metric import Metric, choosable, definitions, undeclared
from dure.studies.batch.plan import BatchStudy
from dure.studies.batch.seeds import best_setting, comparisons_of, settings_of
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

    A column that no family has stays empty; but the first one ranks. A loss beside it says which is better only where
    it is the same kind of loss in all experiments.

    Raises:
        UserError: No family has the first metric, it says nothing about quality, or two families mean different
            things by one name.
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
    if len({family.loss_kind for family in families}) > 1:
        # Losses of other tokens, or of another objective, are shown, but none of them is the best.
        found[1:] = [
            replace(each, direction=None) if each.name == "eval_loss" else each for each in found[1:]
        ]
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
