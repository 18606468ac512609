"""The tables of a cross-validation: fold by fold, class by class, and experiment against experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dure.metrics.metric import Metric, recorded
from dure.reporting.columns import Column, FittedTable, column, state_text
from dure.reporting.figures import (
    NOTHING,
    class_figure,
    counted,
    duration,
    is_speed,
    metric_change,
    metric_figure,
    metric_label,
    number,
    one_line,
    shown_path,
    study_title,
)

_SHORTEST = 16
_FILE = "crossval_summary.txt"
_CLASS_FIGURES = ("precision", "recall", "f1")

Row = Mapping[str, Any]


def crossval_table(summary: Mapping[str, Any]) -> Group:
    """Return what a cross-validation found, fitting itself to the terminal that prints it.

    Args:
        summary: As :mod:`dure.studies.crossval.results` says, of a finished study or of one that runs.
    """
    experiments: Sequence[Row] = summary["experiments"]
    several = len(experiments) > 1
    parts: list[RenderableType] = [Text(_title(summary), style="bold")]
    if several:
        parts += [Text(), FittedTable(_overview(summary), elsewhere=_FILE)]
    if summary.get("comparisons"):
        parts += [Text(), FittedTable(_comparison_columns(summary), "comparisons", elsewhere=_FILE)]
    for experiment in experiments:
        title = f"{experiment['name']}: " if several else ""
        parts += [
            Text(),
            FittedTable(_fold_columns(experiment, summary), f"{title}folds", elsewhere=_FILE),
        ]
        if classes := _classes(experiment):
            columns = _class_columns(experiment, classes)
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
        column("folds", (_num_completed(row) for row in experiments), rank=2),
        column(metric_label(metric), scores(metric)),
    ]
    others = [each for each in _metrics(experiments, summary) if each.name != metric.name]
    for place, each in enumerate(others):
        columns.append(column(metric_label(each), scores(each), rank=3 + place))
    return columns


def _fold_columns(experiment: Row, summary: Mapping[str, Any]) -> list[Column]:
    """Return the folds, and beneath them their mean and standard deviation and the figures of all rows together."""
    folds: Sequence[Row] = experiment["folds"]
    overall: Row = experiment.get("overall") or {}
    last = ["mean", "± std", *(["all rows"] if overall else [])]
    empty = [""] * len(last)
    columns = [column("fold", [*(fold["fold"] for fold in folds), *last], is_text=True)]
    if any(fold["state"] != "completed" for fold in folds):
        states = [state_text(fold["state"]) for fold in folds]
        columns.append(column("state", [*states, *empty], 1, is_text=True))
    metrics = sorted(_metrics([experiment], summary), key=lambda each: each.name != summary["metric"])
    for place, each in enumerate(metrics):
        cells = [metric_figure(each, fold["metrics"].get(each.name)) for fold in folds]
        cells += [metric_figure(each, experiment[over].get(each.name)) for over in ("mean", "std")]
        if overall:
            cells.append(metric_figure(each, overall[each.name]) if each.name in overall else "")
        columns.append(column(metric_label(each), cells, rank=3 + place if place else 0))
    times = [duration(fold["seconds"]) for fold in folds]
    columns.append(column("time", [*times, *empty], 2))
    return columns


def _class_columns(experiment: Row, classes: Sequence[str]) -> list[Column]:
    mean, std = experiment["mean"], experiment["std"]
    columns = [column("class", classes, is_text=True)]
    for figure in _CLASS_FIGURES:
        names = [f"{figure}[{label}]" for label in classes]
        cells = (mean_and_std(name, mean.get(name), std.get(name)) for name in names)
        columns.append(column(metric_label(figure), cells, rank=0 if figure == "f1" else 1))
    supports = (_support(experiment, label) for label in classes)
    columns.append(column("rows", supports, rank=2))
    return columns


def _comparison_columns(summary: Mapping[str, Any]) -> list[Column]:
    pairs: Sequence[Row] = summary["comparisons"]
    metric = _metric(summary)
    found = [pair["difference"] or {} for pair in pairs]
    rows = [pair.get("rows") or {} for pair in pairs]
    level = next((one["level"] for one in found if one), 0.95)
    columns = [
        column("a", (pair["a"] for pair in pairs), is_text=True, shortest=_SHORTEST),
        column("b", (pair["b"] for pair in pairs), is_text=True, shortest=_SHORTEST),
        column("folds", (pair["folds"] for pair in pairs), rank=4),
        column(f"a - b: {metric_label(metric)}", (metric_change(metric, one.get("value")) for one in found)),
        column(f"{100 * level:g} % interval", (_interval(metric, one) for one in found)),
        column("p", (_p_value(pair.get("p_holm")) for pair in pairs), rank=1),
    ]
    if any(rows):
        draws = [(row.get("bootstrap") or {}) for row in rows]
        for name in dict.fromkeys(name for draw in draws for name in draw):
            cells = (_interval(name, draw.get(name) or {}) for draw in draws)
            columns.append(column(f"rows: {metric_label(name)}", cells, rank=3))
        columns.append(column("McNemar p", (_p_value(row.get("mcnemar_holm")) for row in rows), rank=2))
    return columns


def _notes(summary: Mapping[str, Any]) -> list[str]:
    notes = []
    if len(summary["experiments"]) > 1:
        notes.append(
            "the first experiment is first on these rows, so that its score is a little flattered: what is certain of "
            "it, the comparisons say"
        )
    if any(experiment["std"] for experiment in summary["experiments"]):
        notes.append("±: sample standard deviation over folds")
    if any(experiment.get("overall") for experiment in summary["experiments"]):
        notes.append("all rows: each predicted by the model that has not seen it")
    pairs: Sequence[Row] = summary.get("comparisons") or []
    if pairs:
        notes.append("interval and p of a - b: corrected resampled t-test (Nadeau & Bengio 2003) over folds")
        if any(pair.get("rows") for pair in pairs):
            notes.append("rows: paired bootstrap intervals over all rows, and McNemar's exact test")
        if len(pairs) > 1:
            notes.append(f"p-values are corrected for {len(pairs)} comparisons (Holm)")
    notes += [
        f"{experiment['name']}, fold {fold['fold']} {fold['state']}: {one_line(fold['error'])}"
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


def _ranked(summary: Mapping[str, Any]) -> list[Row]:
    """Return the experiments best first, those without a score last."""
    metric = _metric(summary)
    return sorted(summary["experiments"], key=lambda row: metric.cost(number(row["mean"].get(metric.name))))


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


def _classes(experiment: Row) -> list[str]:
    known = (experiment.get("confusion") or {}).get("classes") or []
    found = [pair[1] for name in experiment["mean"] if (pair := class_figure(name)) is not None]
    return list(dict.fromkeys([*known, *found]))


def _support(experiment: Row, label: str) -> str:
    name = f"support[{label}]"
    counts = [fold["metrics"][name] for fold in experiment["folds"] if name in fold["metrics"]]
    return f"{sum(counts):,.0f}" if counts else NOTHING


def _num_completed(experiment: Row) -> str:
    return f"{sum(fold['state'] == 'completed' for fold in experiment['folds'])}/{len(experiment['folds'])}"


def _interval(metric: Metric | str, found: Row) -> str:
    return (
        f"{metric_change(metric, found['low'])} to {metric_change(metric, found['high'])}"
        if found
        else NOTHING
    )


def _p_value(value: float | None) -> str:
    if value is None:
        return NOTHING
    return "< 0.001" if value < 1e-3 else f"{value:.3f}"
