"""The page of a cross-validation: folds, confusions, classes, and every two experiments compared."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dure.metrics.metric import Metric, recorded, undeclared
from dure.pages.shared_sections import foldable, text_head
from dure.reporting.figures import (
    BASELINE,
    bare_label,
    class_figure,
    counted,
    metric_figure,
    metric_label,
    metric_phrase,
    number,
)
from dure.reporting.inline import Drawing
from dure.reporting.marks import Shown, p_value, sentence
from dure.reporting.page import Block, Head, Inline, Picture, Section, Table
from dure.reporting.verdicts import signed_figure
from dure.runs.folder import RunFolder
from dure.studies.crossval.confusion import plot_confusion
from dure.studies.crossval.results import ComparisonRecord, CrossvalResults, ExperimentRecord
from dure.studies.viewing import View, failures, moved

_CLASS_FIGURES = ("precision", "recall", "f1")


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
        folders = cls.run_folders(results, path)
        told = [_over_folds(each, metric, _baseline(each, metric, folders)) for each in results.experiments]
        told += [_compared(pair, metric) for pair in results.comparisons]
        told += [f"{name} was trained on no further folds: {why}." for name, why in results.dropped.items()]
        told += failures({trial.name: trial.state for trial in results.trials})
        return {"metric": f"eval_{results.metric}", "sentences": told}

    def sections(self) -> Sequence[Section]:
        """Return comparisons, folds, classes and confusions."""
        results = self.results
        sections = []
        if results.comparisons:
            sections.append(Section("Experiments compared", [_comparisons(self)]))
        for place, experiment in enumerate(results.experiments):
            blocks: list[Block] = [_folds(self, place)]
            if experiment.confusion is not None:
                blocks.append(_confusion(experiment))
            if classes := _classes(self, place):
                blocks.append(classes)
            title = sentence("Folds of {}", self.record.mark("experiments", place, "name"))
            sections.append(Section(title, blocks))
        return sections


def _baseline(experiment: ExperimentRecord, metric: Metric, folders: Mapping[str, Path]) -> float | None:
    """Return what the trivial predictor has on the validation rows of the folds, as a mean; None where none was scored."""
    results = [
        RunFolder(folders[f"{experiment.name} fold {fold.fold}"]).read_result() for fold in experiment.folds
    ]
    found = [number(each.metrics.get(f"{BASELINE}{metric.name}")) for each in results if each is not None]
    known = [each for each in found if each is not None]
    return statistics.fmean(known) if known else None


def _over_folds(experiment: ExperimentRecord, metric: Metric, baseline: float | None) -> str:
    folds = sum(fold.state == "completed" for fold in experiment.folds)
    mean, std = experiment.mean.get(metric.name), experiment.std.get(metric.name)
    if mean is None:
        return f"{experiment.name}: no fold completed."
    spread = "" if std is None else f", standard deviation {metric_figure(metric, std)}"
    told = f"{experiment.name}: {metric_phrase(metric, mean)} over {counted(folds, 'fold')}{spread}"
    overall = (experiment.overall or {}).get(metric.name)
    if overall is not None:
        told += f"; of all rows together {metric_figure(metric, overall)}"
    if baseline is not None and not metric.better(mean, baseline):
        told += f"; no better than the trivial baseline ({metric_figure(metric, baseline)} on the folds' validation rows)"
    return f"{told}."


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


def _comparisons(view: View[CrossvalResults]) -> Block:
    record, metric = view.record, recorded(view.results.as_json(), view.results.metric)
    rows: list[list[Inline]] = []
    for place, pair in enumerate(view.results.comparisons):
        at = ("comparisons", place)
        shares = {name: Metric(name, "max", "share") for name in (pair.rows.bootstrap if pair.rows else ())}
        rows.append(
            [
                sentence("{} minus {}", record.mark(*at, "a"), record.mark(*at, "b")),
                record.mark(*at, "folds"),
                record.change(*at, "difference", "value", metric=metric),
                _interval(view, *at, "difference", metric=metric),
                record.mark(*at, "p_holm", written="p"),
                *(
                    _interval(view, *at, "rows", "bootstrap", name, metric=share)
                    for name, share in shares.items()
                ),
                *([record.mark(*at, "rows", "mcnemar_holm", written="p")] if shares else []),
            ]
        )
    most = max((len(row) for row in rows), default=5)
    rows = [[*row, *["–"] * (most - len(row))] for row in rows]
    first = next((pair.rows for pair in view.results.comparisons if pair.rows), None)
    heads = [text_head("pair"), Head("folds"), Head(view.label(metric, "metric"))]
    heads += [Head("interval"), Head("p by Holm")]
    if first is not None:
        heads += [Head(f"rows: {metric_label(name)}") for name in first.bootstrap]
        heads.append(Head("McNemar p by Holm"))
    return Table(
        "Over folds: the corrected resampled t-test (Nadeau & Bengio); over rows: paired bootstrap, McNemar's test",
        heads, rows,
    )  # fmt: skip


def _interval(view: View[CrossvalResults], *keys: str | int, metric: Metric) -> Inline:
    record = view.record
    return sentence(
        "{} to {}", record.change(*keys, "low", metric=metric), record.change(*keys, "high", metric=metric)
    )


def _folds(view: View[CrossvalResults], place: int) -> Block:
    record, results = view.record, view.results
    experiment = results.experiments[place]
    metrics = _metrics(results, experiment)
    at = ("experiments", place)
    rows: list[list[Inline]] = []
    for index, _ in enumerate(experiment.folds):
        fold = (*at, "folds", index)
        rows.append(
            [
                sentence("fold {}", record.mark(*fold, "fold")),
                record.mark(*fold, "state"),
                *(record.figure(*fold, "metrics", each.name, metric=each) for each in metrics),
                record.mark(*fold, "seconds", written="duration"),
            ]
        )
    for name, over in (("mean", "mean"), ("standard deviation", "std"), ("all rows", "overall")):
        if getattr(experiment, over):
            cells = [record.figure(*at, over, each.name, metric=each) for each in metrics]
            rows.append([name, "", *cells, ""])
    heads = [text_head("fold"), text_head("state")]
    for each in metrics:
        holder = next(number for number, fold in enumerate(experiment.folds) if each.name in fold.metrics)
        label: Shown = record.mark(*at, "folds", holder, "metrics", each.name, written="label")
        heads.append(Head(sentence("{}{}", label, " %" if each.in_percent else "")))
    return Table("Scores on the rows that each fold held out", [*heads, Head("time")], rows)


def _metrics(results: CrossvalResults, experiment: ExperimentRecord) -> list[Metric]:
    shown = [
        recorded(results.as_json(), name)
        for name in experiment.mean
        if class_figure(name) is None and not name.endswith(("runtime", "_per_second", "preparation_time"))
    ]
    return sorted(shown, key=lambda each: (each.name != results.metric, each.direction == "min"))


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


def _classes(view: View[CrossvalResults], place: int) -> Block | None:
    experiment, record = view.results.experiments[place], view.record
    labels = list(
        dict.fromkeys(pair[1] for name in experiment.mean if (pair := class_figure(name)) is not None)
    )
    rows: list[list[Inline]] = []
    for label in labels:
        cells: list[Inline] = []
        for figure in _CLASS_FIGURES:
            name = f"{figure}[{label}]"
            at = ("experiments", place)
            spread = record.figure(*at, "std", name, metric=undeclared(name))
            cells.append(
                sentence("{} ± {}", record.figure(*at, "mean", name, metric=undeclared(name)), spread)
            )
        first = next(name for name in experiment.mean if (class_figure(name) or ("", ""))[1] == label)
        rows.append([record.mark("experiments", place, "mean", first, written="class"), *cells])
    if not rows:
        return None
    # What has a digit in its name is a word here, as F1 is.
    heads = [Head("precision %"), Head("recall %"), Head("F1 %")]
    return foldable(
        Table("Classes: mean and standard deviation over folds", [text_head("class"), *heads], rows)
    )
