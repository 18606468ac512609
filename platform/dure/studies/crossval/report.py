"""The tables of a cross-validation: fold by fold, class by class, and experiment against experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dure.errors import counted
from dure.metrics.metric import Metric, recorded, undeclared
from dure.pages.shared_sections import foldable
from dure.reporting.columns import STATE_STYLES, Cell, Column, FittedTable, Rows, column
from dure.reporting.figures import (
    class_figure,
    is_speed,
    metric_figure,
    metric_label,
    metric_phrase,
    number,
    shown_path,
    study_title,
)
from dure.reporting.inline import Drawing
from dure.reporting.marks import Source, sentence
from dure.reporting.page import Block, Picture, Section, Table
from dure.reporting.verdicts import p_value_text, verdict_sentence
from dure.studies.crossval.confusion import plot_confusion
from dure.studies.crossval.results import ComparisonRecord, CrossvalResults, ExperimentRecord
from dure.studies.viewing import View, failures, moved

_SHORTEST = 16
_FILE = "crossval_summary.txt"
_CLASS_FIGURES = ("precision", "recall", "f1")

Row = Mapping[str, Any]


def crossval_table(summary: Mapping[str, Any]) -> Group:
    """Return what a cross-validation found, fitting itself to the terminal that prints it.

    ``summary`` is as :mod:`dure.studies.crossval.results` says, of a finished study or of one that runs.
    """
    experiments: Sequence[Row] = summary["experiments"]
    record, several = Source(0, summary), len(experiments) > 1
    parts: list[RenderableType] = [Text(_title(summary), style="bold")]
    if several:
        parts += [Text(), FittedTable(_overview(summary), elsewhere=_FILE)]
    if summary.get("comparisons"):
        parts += [Text(), FittedTable(comparison_columns(record), "comparisons", elsewhere=_FILE)]
    for place, experiment in enumerate(experiments):
        title = f"{experiment['name']}: " if several else ""
        parts += [Text(), FittedTable(fold_columns(record, place), f"{title}folds", elsewhere=_FILE)]
        if columns := class_columns(record, Source(0, {"supports": supports(summary)}), place):
            parts += [Text(), FittedTable(columns, f"{title}classes, mean ± std over folds", elsewhere=_FILE)]
    return Group(*parts, Text(), *map(Text, _notes(summary)))


def mean_and_std(metric: Metric | str, mean: float | None, std: float | None) -> str:
    """Return a figure over folds as ``81.20 ± 1.35``, in the unit of the metric."""
    spread = f" ± {metric_figure(metric, std)}" if mean is not None and std is not None else ""
    return f"{metric_figure(metric, mean)}{spread}"


def _title(summary: Mapping[str, Any]) -> str:
    parts = [counted(summary["num_folds"], "fold")]
    if len(summary["experiments"]) > 1:
        parts.append(counted(len(summary["experiments"]), "experiment"))
    return study_title(summary["study"], parts, summary["seconds"], summary["state"])


def _overview(summary: Mapping[str, Any]) -> list[Column]:
    metric, experiments = _metric(summary), _ranked(summary)

    def scores(each: Metric) -> list[str]:
        return [
            mean_and_std(each, row["mean"].get(each.name), row["std"].get(each.name)) for row in experiments
        ]

    columns = [
        column("experiment", (row["name"] for row in experiments), is_text=True, shortest=_SHORTEST),
        column("folds", (f"{_num_completed(row)}/{summary['num_folds']}" for row in experiments), rank=2),
        column(metric_label(metric), scores(metric)),
    ]
    others = [each for each in _metrics(experiments, summary) if each.name != metric.name]
    for place, each in enumerate(others):
        columns.append(column(metric_label(each), scores(each), rank=3 + place))
    return columns


def fold_columns(record: Source, place: int) -> list[Column]:
    """Return the folds of an experiment, and beneath them their mean and standard deviation and the figures of all rows."""
    at = ("experiments", place)
    experiment: Row = record.get(*at)
    folds = Rows.of(record, *at, "folds")
    over = ["mean", "std", *(["overall"] if experiment.get("overall") else [])]
    names = ["mean", "± std", "all rows"][: len(over)]
    columns = [folds.column("fold", "fold", more=names, is_text=True)]
    empty = [""] * len(over)
    if any(fold["state"] != "completed" for fold in experiment["folds"]):
        columns.append(folds.column("state", "state", rank=1, more=empty, is_text=True, styles=STATE_STYLES))
    metrics = _metrics([experiment], record.data)
    metrics.sort(key=lambda each: each.name != record.get("metric"))
    for rank, each in enumerate(metrics):
        more = [
            "" if part == "overall" and each.name not in experiment[part]
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


def supports(summary: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the rows of every class over all folds, by experiment and class."""
    found: dict[str, dict[str, float]] = {}
    for experiment in summary["experiments"]:
        for fold in experiment["folds"]:
            for name, count in fold["metrics"].items():
                if (of := class_figure(name)) is not None and of[0] == "support":
                    counts = found.setdefault(experiment["name"], {})
                    counts[of[1]] = counts.get(of[1], 0) + count
    return found


def comparison_columns(record: Source) -> list[Column]:
    """Return every two experiments, over their folds and, of classifiers, over their rows."""
    summary = record.data
    pairs: Sequence[Row] = summary["comparisons"]
    metric = _metric(summary)
    level = next((place for place, pair in enumerate(pairs) if pair["difference"]), None)
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
    if any(pair.get("rows") for pair in pairs):
        draws = [(pair.get("rows") or {}).get("bootstrap") or {} for pair in pairs]
        for name in dict.fromkeys(name for draw in draws for name in draw):
            heading, share = f"rows: {metric_label(name)}", undeclared(name)
            columns.append(
                rows.column(heading, "rows", "bootstrap", name, change=share, interval=True, rank=3)
            )
        columns.append(rows.column("McNemar p", "rows", "mcnemar_holm", written="p", rank=2))
    return columns


def _notes(summary: Mapping[str, Any]) -> list[str]:
    notes = []
    num_folds, whole = summary["num_folds"], _whole(summary)
    if len(summary["experiments"]) > 1:
        notes += [
            f"{each['name']} lacks {counted(num_folds - _num_completed(each), 'fold')}: its means are of other rows, and "
            "it is not ranked with the others"
            for each in summary["experiments"]
            if each["mean"] and each not in whole
        ]
    if len({each["mean"].get(summary["metric"]) for each in whole}) > 1:
        notes.append(
            "the first experiment is first on these rows, so that its score is a little flattered: what is certain of "
            "it, the comparisons say"
        )
    if any(experiment["std"] for experiment in summary["experiments"]):
        notes.append("±: sample standard deviation over folds")
    if any(experiment.get("overall") for experiment in summary["experiments"]):
        notes.append("all rows: each predicted by the model that has not seen it")
    metric, known = (
        _metric(summary),
        [each for each in summary["experiments"] if each.get("baseline") is not None],
    )
    if known:
        below = [
            each["name"]
            for each in known
            if not metric.better(each["mean"].get(metric.name), each["baseline"])
        ]
        figures = {each["name"]: metric_figure(metric, each["baseline"]) for each in known}
        is_shared = len({*figures.values()}) == 1
        each_of = "" if is_shared else " of " + ", ".join(map(" ".join, figures.items()))
        phrase = metric_phrase(metric, known[0]["baseline"]) if is_shared else metric_label(metric)
        notes.append(f"trivial baseline on the held-out rows: {phrase}{each_of}")
        notes += [f"no better than that: {', '.join(below)}"] if below else []
    pairs: Sequence[Row] = summary.get("comparisons") or []
    if pairs:
        notes.append("interval and p of a - b: corrected resampled t-test (Nadeau & Bengio 2003) over folds")
        if any(pair.get("rows") for pair in pairs):
            notes.append("rows: paired bootstrap intervals over all rows, and McNemar's exact test")
        if len(pairs) > 1:
            notes.append(f"p-values are corrected for {len(pairs)} comparisons (Holm)")
    notes += [
        f"{experiment['name']}, fold {fold['fold']} {fold['state']}: {fold['error']}"
        for experiment in summary["experiments"]
        for fold in experiment["folds"]
        if fold.get("error")
    ]
    notes += [
        f"predictions: {shown_path(experiment['oof_predictions'])}"
        for experiment in summary["experiments"]
        if experiment.get("oof_predictions")
    ]
    notes.append(f"results: {shown_path(summary['path'])}")
    return notes


def _whole(summary: Mapping[str, Any]) -> list[Row]:
    """Return the experiments that have all folds; the means of others are of other rows."""
    return [row for row in summary["experiments"] if _num_completed(row) == summary["num_folds"]]


def _ranked(summary: Mapping[str, Any]) -> list[Row]:
    """Return the experiments best first, then those that lack folds, and those without a score last."""
    metric, whole = _metric(summary), _whole(summary)

    def rank(row: Row) -> tuple[bool, float]:
        return row not in whole, metric.cost(number(row["mean"].get(metric.name)))

    return sorted(summary["experiments"], key=rank)


def _metric(summary: Mapping[str, Any]) -> Metric:
    return recorded(summary, summary["metric"])


def _metrics(experiments: Sequence[Row], summary: Mapping[str, Any]) -> list[Metric]:
    """Return the metrics over all rows of a fold, those last of which the lowest is best."""
    names = dict.fromkeys(
        name
        for row in experiments
        for name in row["mean"]
        if class_figure(name) is None and not is_speed(f"_{name}")
    )
    return sorted((recorded(summary, name) for name in names), key=lambda each: each.direction == "min")


def _num_completed(experiment: Row) -> int:
    return sum(fold["state"] == "completed" for fold in experiment["folds"])


class CrossvalView(View[CrossvalResults]):
    """A cross-validation: comparisons, folds, classes and confusions."""

    @classmethod
    def run_folders(cls, results: CrossvalResults, path: Path) -> dict[str, Path]:
        """Return the folders of all folds, those of the best experiment first."""
        return {
            f"{each['name']} fold {fold['fold']}": moved(fold["path"], results, path)
            for each in _ranked(results.as_json())
            for fold in each["folds"]
        }

    @classmethod
    def facts_of(cls, results: CrossvalResults, path: Path) -> dict[str, Any]:
        """Return the verdict of a cross-validation: the scores over folds, and who can be told apart."""
        metric = recorded(results.as_json(), results.metric)
        told = [_over_folds(each, metric, results.num_folds) for each in results.experiments]
        told += [comparison_sentence(pair, metric) for pair in results.comparisons]
        told += [f"{name} was trained on no further folds: {why}." for name, why in results.dropped.items()]
        told += failures(results.trials)
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
