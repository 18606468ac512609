"""The page of a cross-validation: folds, confusions, classes, and every two experiments compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dure.metrics.metric import Metric, recorded
from dure.pages.shared_sections import foldable
from dure.reporting.figures import (
    bare_label,
    counted,
    metric_figure,
    metric_phrase,
)
from dure.reporting.inline import Drawing
from dure.reporting.marks import p_value, sentence
from dure.reporting.page import Block, Picture, Section, Table
from dure.reporting.verdicts import signed_figure
from dure.studies.crossval.confusion import plot_confusion
from dure.studies.crossval.report import class_columns, comparison_columns, fold_columns, supports
from dure.studies.crossval.results import ComparisonRecord, CrossvalResults, ExperimentRecord
from dure.studies.viewing import View, failures, moved


class CrossvalView(View[CrossvalResults]):
    """A cross-validation: comparisons, folds, classes and confusions."""

    @classmethod
    def run_folders(cls, results: CrossvalResults, path: Path) -> dict[str, Path]:
        """Return the folders of all folds, those of the best experiment first."""
        metric = recorded(results.as_json(), results.metric)
        ranked = sorted(results.experiments, key=lambda each: metric.cost(each.mean.get(metric.name)))
        return {
            f"{each.name} fold {fold.fold}": moved(fold.path, results, path)
            for each in ranked
            for fold in each.folds
        }

    @classmethod
    def facts_of(cls, results: CrossvalResults, path: Path) -> dict[str, Any]:
        """Return the verdict of a cross-validation: the scores over folds, and who can be told apart."""
        metric = recorded(results.as_json(), results.metric)
        told = [_over_folds(each, metric) for each in results.experiments]
        told += [_compared(pair, metric) for pair in results.comparisons]
        told += [f"{name} was trained on no further folds: {why}." for name, why in results.dropped.items()]
        told += failures({trial.name: trial.state for trial in results.trials})
        return {
            "metric": f"eval_{results.metric}",
            "sentences": told,
            "supports": supports(results.as_json()),
        }

    def sections(self) -> Sequence[Section]:
        """Return comparisons, folds, classes and confusions."""
        results, record = self.results, self.record
        sections = []
        if results.comparisons:
            compared = Table(
                "Over folds: the corrected resampled t-test (Nadeau & Bengio), p by Holm; over rows: paired bootstrap, "
                "McNemar's test",
                comparison_columns(record),
            )
            sections.append(Section("Experiments compared", [compared]))
        for place, experiment in enumerate(results.experiments):
            folds = Table("Scores on the rows that each fold held out", fold_columns(record, place))
            blocks: list[Block] = [folds]
            if experiment.confusion is not None:
                blocks.append(_confusion(experiment))
            if classes := class_columns(record, self.facts, place):
                blocks.append(foldable(Table("Classes: mean and standard deviation over folds", classes)))
            title = sentence("Folds of {}", record.mark("experiments", place, "name"))
            sections.append(Section(title, blocks))
        return sections


def _over_folds(experiment: ExperimentRecord, metric: Metric) -> str:
    folds = sum(fold.state == "completed" for fold in experiment.folds)
    mean, std = experiment.mean.get(metric.name), experiment.std.get(metric.name)
    if mean is None:
        return f"{experiment.name}: no fold completed."
    spread = "" if std is None else f", standard deviation {metric_figure(metric, std)}"
    told = f"{experiment.name}: {metric_phrase(metric, mean)} over {counted(folds, 'fold')}{spread}"
    overall = (experiment.overall or {}).get(metric.name)
    return (
        f"{told}." if overall is None else f"{told}; of all rows together {metric_figure(metric, overall)}."
    )


def _compared(pair: ComparisonRecord, metric: Metric) -> str:
    found = pair.difference
    label = bare_label(metric)
    if found is None:
        return f"{pair.a} and {pair.b} cannot be compared: they share {counted(pair.folds, 'fold')}."
    p = pair.p_holm if pair.p_holm is not None else found.p_value
    ends = f"{100 * found.level:g} % between {signed_figure(metric, found.low)} and {signed_figure(metric, found.high)}"
    by = "" if p is None else f", p {p_value(p) if p < 1e-3 else '= ' + p_value(p)} by Holm"
    how = f"{counted(pair.folds, 'fold')}, corrected resampled t-test{by}"
    points = " points" if metric.in_percent else ""
    if found.low == found.high == 0:
        return f"{pair.a} and {pair.b} have the same {label} on every one of {counted(pair.folds, 'fold')}."
    if p is None or p >= 1 - found.level or found.value == 0:
        return (
            f"{pair.a} and {pair.b} cannot be told apart by {label}: {signed_figure(metric, found.value)}{points}, {ends} "
            f"({how})."
        )
    is_first = metric.better(found.value, 0.0)
    better, worse = (pair.a, pair.b) if is_first else (pair.b, pair.a)
    return (
        f"{better} is better than {worse} by {metric_figure(metric, abs(found.value))}{points} of {label}; {pair.a} "
        f"minus {pair.b} lies {ends} ({how})."
    )


def _confusion(experiment: ExperimentRecord) -> Block:
    assert experiment.confusion is not None, "asked only where there is one"
    confusion = experiment.confusion
    right = sum(row[place] for place, row in enumerate(confusion.counts))
    total = sum(map(sum, confusion.counts))
    drawing = Drawing(
        f"Confusions of {experiment.name}: {right} of {total} rows of {len(confusion.classes)} classes are right."
    )
    plot_confusion(drawing, confusion.as_json(), title=experiment.name)
    return Picture(
        "Confusions over all folds: true classes downwards, what they were taken for across.", drawing
    )
