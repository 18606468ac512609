"""The tables of a cross-validation: fold by fold, class by class, and experiment against experiment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from dure.errors import counted, shown_path
from dure.metrics.metric import Metric, undeclared
from dure.pages.shared_sections import foldable
from dure.reporting.columns import STATE_STYLES, Cell, Column, FittedTable, Rows, apart, column
from dure.reporting.figures import (
    class_figure,
    is_speed,
    metric_figure,
    metric_label,
    metric_phrase,
    study_title,
)
from dure.reporting.marks import Source, sentence
from dure.reporting.page import Block, Picture, Section, Table
from dure.reporting.plots import Drawing
from dure.reporting.verdicts import p_value_text, verdict_sentence
from dure.studies.crossval.confusion import plot_confusion
from dure.studies.crossval.results import ComparisonRecord, ConfusionRecord, CrossvalResults, ExperimentRecord
from dure.studies.viewing import View, failures, moved

_SHORTEST = 16
_FILE = "crossval_summary.txt"
_CLASS_FIGURES = ("precision", "recall", "f1")


def crossval_table(results: CrossvalResults) -> Group:
    """Return what a cross-validation found, finished or not, fitting itself to the terminal that prints it."""
    record, several = Source(0, results.as_json()), len(results.experiments) > 1
    facts = Source(0, {"supports": supports(results)})
    parts = [counted(results.num_folds, "fold")]
    parts += [counted(len(results.experiments), "experiment")] if several else []
    title = study_title(results.study, parts, results.seconds, results.state)
    tables = [FittedTable(_overview(results), elsewhere=_FILE)] if several else []
    if results.comparisons:
        tables.append(FittedTable(comparison_columns(results, record), "comparisons", elsewhere=_FILE))
    for place, experiment in enumerate(results.experiments):
        name = f"{experiment.name}: " if several else ""
        tables.append(FittedTable(fold_columns(results, record, place), f"{name}folds", elsewhere=_FILE))
        if columns := class_columns(record, facts, place):
            tables.append(FittedTable(columns, f"{name}classes, mean ± std over folds", elsewhere=_FILE))
    return apart(Text(title, style="bold"), *tables, Group(*map(Text, _notes(results))))


def _overview(results: CrossvalResults) -> list[Column]:
    experiments = _ranked(results)
    columns = [
        column("experiment", (each.name for each in experiments), is_text=True, shortest=_SHORTEST),
        column("folds", (f"{each.num_completed}/{results.num_folds}" for each in experiments), rank=2),
    ]
    for rank, metric in enumerate(_metrics(results, experiments)):
        name = metric.name
        cells = [_mean_and_std(metric, each.mean.get(name), each.std.get(name)) for each in experiments]
        columns.append(column(metric_label(metric), cells, rank=3 + rank if rank else 0))
    return columns


def _mean_and_std(metric: Metric, mean: float | None, std: float | None) -> str:
    """Return a figure over folds as ``81.20 ± 1.35``, in the unit of the metric."""
    spread = f" ± {metric_figure(metric, std)}" if mean is not None and std is not None else ""
    return f"{metric_figure(metric, mean)}{spread}"


def fold_columns(results: CrossvalResults, record: Source, place: int) -> list[Column]:
    """Return the folds of an experiment, and beneath them their mean and standard deviation and the figures of all rows."""
    at, experiment = ("experiments", place), results.experiments[place]
    folds = Rows.of(record, *at, "folds")
    over = ["mean", "std", *(["overall"] if experiment.overall else [])]
    names = ["mean", "± std", "all rows"][: len(over)]
    columns = [folds.column("fold", "fold", more=names, is_text=True)]
    empty = [""] * len(over)
    if experiment.num_completed < len(experiment.folds):
        columns.append(folds.column("state", "state", rank=1, more=empty, is_text=True, styles=STATE_STYLES))
    for rank, each in enumerate(_metrics(results, [experiment])):
        more = [
            "" if part == "overall" and each.name not in (experiment.overall or {})
            else record.figure(*at, part, each.name, metric=each)
            for part in over
        ]  # fmt: skip
        label = record.label(each, *at, "mean", each.name, written="label")
        columns.append(
            folds.column(label, "metrics", each.name, figure=each, rank=3 + rank if rank else 0, more=more)
        )
    return [*columns, folds.column("time", "seconds", written="duration", rank=2, more=empty)]


def class_columns(record: Source, facts: Source, place: int) -> list[Column]:
    """Return the figures of every class over the folds of an experiment; nothing without classes.

    ``facts`` has what :func:`supports` returns under that name.
    """
    at, experiment = ("experiments", place), record.get("experiments", place)
    confused = record.get(*at, "confusion", "classes") or ()
    marks = {
        of[1]: record.mark(*at, "mean", name, written="class")
        for name in experiment["mean"]
        if (of := class_figure(name))
    }
    classes = {label: record.mark(*at, "confusion", "classes", each) for each, label in enumerate(confused)}
    classes |= marks
    if not marks:
        return []

    def over_folds(name: str) -> Cell:
        metric = undeclared(name)
        mean, std = (record.figure(*at, part, name, metric=metric) for part in ("mean", "std"))
        return mean if record.get(*at, "std", name) is None else sentence("{} ± {}", mean, std)

    columns = [column("class", classes.values(), is_text=True)]
    for figure in _CLASS_FIGURES:
        cells = [over_folds(f"{figure}[{label}]") for label in classes]
        columns.append(column(metric_label(figure), cells, rank=0 if figure == "f1" else 1))
    rows = [facts.mark("supports", experiment["name"], label, written="count") for label in classes]
    return [*columns, column("rows", rows, rank=2)]


def supports(results: CrossvalResults) -> dict[str, dict[str, float]]:
    """Return the rows of every class over all folds, by experiment and class."""
    found: dict[str, dict[str, float]] = {}
    for experiment in results.experiments:
        for name, count in chain.from_iterable(fold.metrics.items() for fold in experiment.folds):
            if (of := class_figure(name)) is not None and of[0] == "support":
                counts = found.setdefault(experiment.name, {})
                counts[of[1]] = counts.get(of[1], 0) + float(count or 0)
    return found


def comparison_columns(results: CrossvalResults, record: Source) -> list[Column]:
    """Return every two experiments, over their folds and, of classifiers, over their rows."""
    pairs, metric = results.comparisons, results.metric_named(results.metric)
    level = next((place for place, pair in enumerate(pairs) if pair.difference), None)
    rows = Rows.of(record, "comparisons")
    percent = (
        "" if level is None else record.mark("comparisons", level, "difference", "level", written="ratio")
    )
    columns = [
        *(rows.column(name, name, is_text=True, shortest=_SHORTEST) for name in ("a", "b")),
        rows.column("folds", "folds", rank=4),
        rows.column(
            sentence("a - b: {}", record.label(metric, "metric")), "difference", "value", change=metric
        ),
        rows.column(sentence("{} interval", percent), "difference", change=metric, interval=True),
        rows.column("p", "p_holm", written="p", rank=1),
    ]
    by_rows = [pair.rows for pair in pairs if pair.rows]
    for name in dict.fromkeys(name for each in by_rows for name in each.bootstrap):
        heading, share = f"rows: {metric_label(name)}", undeclared(name)
        columns.append(rows.column(heading, "rows", "bootstrap", name, change=share, interval=True, rank=3))
    if by_rows:
        columns.append(rows.column("McNemar p", "rows", "mcnemar_holm", written="p", rank=2))
    return columns


def _notes(results: CrossvalResults) -> list[str]:
    experiments, pairs = results.experiments, results.comparisons
    notes = [comparison_sentence(pair, results.metric_named(results.metric)) for pair in pairs]
    if len(experiments) > 1:
        notes += [
            f"{each.name} lacks {counted(results.num_folds - each.num_completed, 'fold')}: its means are of other rows, "
            "and it is not ranked with the others"
            for each in experiments
            if each.mean and each not in results.whole
        ]
    if len({each.mean.get(results.metric) for each in results.whole}) > 1:
        notes.append(
            "the first experiment is first on these rows, so that its score is a little flattered; the comparisons say what "
            "is certain"
        )
    if any(each.std for each in experiments):
        notes.append("±: sample standard deviation over folds")
    if any(each.overall for each in experiments):
        notes.append("all rows: each predicted by the model that has not seen it")
    notes += _baseline_notes(results)
    if pairs:
        notes.append("interval and p of a - b: corrected resampled t-test (Nadeau & Bengio 2003) over folds")
        if any(pair.rows for pair in pairs):
            notes.append(
                "rows: paired bootstrap intervals over all rows, and McNemar's exact test; of the models that were "
                "trained, where folds say how others would differ, trained on other rows"
            )
        if len(pairs) > 1:
            notes.append(f"p-values are corrected for {len(pairs)} comparisons (Holm)")
    notes += [
        f"{each.name}, fold {fold.fold} {fold.state}: {fold.error}"
        for each in experiments
        for fold in each.folds
        if fold.error
    ]
    files = [each.oof_predictions for each in experiments if each.oof_predictions]
    return [
        *notes,
        *(f"predictions: {shown_path(file)}" for file in files),
        f"results: {shown_path(results.path)}",
    ]


def _baseline_notes(results: CrossvalResults) -> list[str]:
    """Say what the trivial predictor has, and which experiments are no better."""
    metric = results.metric_named(results.metric)
    known = [(each, each.baseline) for each in results.experiments if each.baseline is not None]
    if not known:
        return []
    figures = {each.name: metric_figure(metric, baseline) for each, baseline in known}
    is_shared = len({*figures.values()}) == 1
    each_of = "" if is_shared else " of " + ", ".join(map(" ".join, figures.items()))
    phrase = metric_phrase(metric, known[0][1]) if is_shared else metric_label(metric)
    notes = [f"trivial baseline on the held-out rows: {phrase}{each_of}"]
    below = [each.name for each, base in known if not metric.better(each.mean.get(metric.name), base)]
    return notes + ([f"no better than that: {', '.join(below)}"] if below else [])


def _ranked(results: CrossvalResults) -> list[ExperimentRecord]:
    """Return the experiments best first, then those that lack folds, and those without a score last."""
    metric, whole = results.metric_named(results.metric), results.whole
    return sorted(
        results.experiments, key=lambda each: (each not in whole, metric.cost(each.mean.get(metric.name)))
    )


def _metrics(results: CrossvalResults, experiments: Iterable[ExperimentRecord]) -> list[Metric]:
    """Return the metrics over all rows of a fold: the one that compares, and those last of which the lowest is best."""
    names = (name for each in experiments for name in each.mean)
    shown = (name for name in names if class_figure(name) is None and not is_speed(f"_{name}"))
    metrics = map(results.metric_named, dict.fromkeys((results.metric, *shown)))
    return sorted(metrics, key=lambda each: (each.name != results.metric, each.direction == "min"))


class CrossvalView(View[CrossvalResults]):
    """A cross-validation: comparisons, folds, classes and confusions."""

    @classmethod
    def run_folders(cls, results: CrossvalResults, path: Path) -> dict[str, Path]:
        """Return the folders of all folds, those of the best experiment first."""
        return {
            f"{each.name} fold {fold.fold}": moved(fold.path, results, path)
            for each in _ranked(results)
            for fold in each.folds
        }

    @classmethod
    def facts_of(cls, results: CrossvalResults, path: Path) -> dict[str, Any]:
        """Return the verdict of a cross-validation: the scores over folds, and who can be told apart."""
        metric = results.metric_named(results.metric)
        told = [_over_folds(each, metric, results.num_folds) for each in results.experiments]
        told += [comparison_sentence(pair, metric) for pair in results.comparisons]
        told += [f"{name} was trained on no further folds: {why}." for name, why in results.dropped.items()]
        told += failures(results.trials)
        return {"metric": f"eval_{results.metric}", "sentences": told, "supports": supports(results)}

    def sections(self) -> Sequence[Section]:
        """Return comparisons, folds, classes and confusions."""
        results, record = self.results, self.record
        sections = []
        if results.comparisons:
            compared = Table(
                "Over folds: the corrected resampled t-test (Nadeau & Bengio), p by Holm; over rows: paired bootstrap, "
                "McNemar's test",
                comparison_columns(results, record),
            )
            sections.append(Section("Experiments compared", [compared]))
        for place, experiment in enumerate(results.experiments):
            folds = Table("Scores on the rows that each fold held out", fold_columns(results, record, place))
            blocks: list[Block] = [folds]
            if experiment.confusion is not None:
                blocks.append(_confusion(experiment.name, experiment.confusion))
            if classes := class_columns(record, self.facts, place):
                blocks.append(foldable(Table("Classes: mean and standard deviation over folds", classes)))
            title = sentence("Folds of {}", record.mark("experiments", place, "name"))
            sections.append(Section(title, blocks))
        return sections


def _over_folds(experiment: ExperimentRecord, metric: Metric, num_folds: int) -> str:
    baseline, folds = experiment.baseline, experiment.num_completed
    mean, std = experiment.mean.get(metric.name), experiment.std.get(metric.name)
    if mean is None:
        return f"{experiment.name}: no fold completed."
    spread = "" if std is None else f", standard deviation {metric_figure(metric, std)}"
    part = "" if folds == num_folds else f" of {num_folds}, and so of other rows,"
    told = f"{experiment.name}: {metric_phrase(metric, mean)} over {counted(folds, 'fold')}{part}{spread}"
    overall = (experiment.overall or {}).get(metric.name)
    if overall is not None:
        told += f"; of all rows together {metric_figure(metric, overall)}"
    if baseline is not None and not metric.better(mean, baseline):
        told += (
            f"; no better than the trivial baseline ({metric_figure(metric, baseline)} on the held-out rows)"
        )
    return f"{told}."


def comparison_sentence(pair: ComparisonRecord, metric: Metric) -> str:
    """Return what can be said of two experiments by their folds."""
    found = pair.difference
    folds = counted(pair.folds, "fold")
    if found is None:
        return f"{pair.a} and {pair.b} cannot be compared: they share {folds}."
    gain = found if metric.higher_is_better else found.reversed()
    is_same = found.low == found.high
    test = "permutation test" if is_same else "corrected resampled t-test"
    verdict = gain.verdict_at(found.p_value if pair.p_holm is None else pair.p_holm)
    if is_same and found.value == 0:
        verdict = "equal"
    how = f"{folds}, {test}, {p_value_text(found.p_value, pair.p_holm)}"
    # Of a tie with the sign that the table has: a minus b.
    shown = found if verdict == "tie" else gain
    return verdict_sentence(pair.a, pair.b, shown, verdict, metric, over=folds, how=how)


def _confusion(name: str, confusion: ConfusionRecord) -> Block:
    right = sum(row[place] for place, row in enumerate(confusion.counts))
    total = sum(map(sum, confusion.counts))
    drawing = Drawing(
        f"Confusions of {name}: {right} of {total} rows of {len(confusion.classes)} classes are right."
    )
    plot_confusion(drawing, confusion, title=name)
    return Picture(
        "Confusions over all folds: true classes downwards, what they were taken for across.", drawing
    )
