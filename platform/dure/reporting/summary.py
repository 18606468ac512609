"""Tables of results: the comparison of a study's experiments, and the figures of one run."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.text import Text

from dure.errors import counted, shown_path
from dure.metrics.intervals import rows_behind, share_interval
from dure.metrics.metric import BASELINE, TEST, UNTRAINED, Metric, recorded, undeclared, under
from dure.metrics.paired import LEVEL
from dure.metrics.targets import Reached
from dure.reporting.columns import STATE_STYLES, Column, FittedTable, Rows, apart, column
from dure.reporting.figures import (
    NOTHING,
    Figure,
    bare_label,
    class_figure,
    duration,
    error_notes,
    gains_of,
    is_speed,
    metric_change,
    metric_figure,
    metric_label,
    metric_phrase,
    number,
)
from dure.reporting.forecasts import beside_table
from dure.reporting.marks import Key, Source
from dure.reporting.targets import target_sentence
from dure.runs.folder import PROBABILITY

_SHORTEST_NAME = 24
_SHORTEST_SENTENCE = 20
_SHORTEST_TEXT = 20
_LONGEST_SENTENCE = 150
_TOKENIZER = "rouge_tokenizer"
_KIND = "_kind"

Row = Mapping[str, Any]


def summary_table(summary: Mapping[str, Any]) -> FittedTable:
    """Return the comparison of a study's experiments, fitting itself to the terminal that prints it.

    Args:
        summary: What ``experiment_summary.json`` holds: ``study``, ``path``, ``seconds``, ``metrics`` (the
            columns), ``definitions`` of them, and ``experiments`` with ``name``, ``state``, ``metrics``, ``error``,
            ``seconds``.

    Raises:
        UserError: The summary does not define which way the first metric, which ranks, is better.
    """
    experiments, first = summary["experiments"], _metrics(summary)[0]
    title = (
        f"{summary['study']} · {counted(len(experiments), 'experiment')} "
        f"in {duration(summary['seconds'])}, ranked by {bare_label(first)}"
    )
    gains = [gains_of(row["metrics"]).get(first.name, {}) for row in experiments]
    order, facts = ranked(experiments, first), Source(0, {"gains": gains})
    scores = [_score(experiments[at], first.name) for at in order]
    places = [NOTHING if score is None else str(place) for place, score in enumerate(scores, 1)]
    columns = [column("#", places, rank=4), *experiment_columns(Source(0, summary), facts, order)]
    return FittedTable(columns, title, _notes(summary), elsewhere="experiment_summary.txt")


def result_report(result: Mapping[str, Any], sentences: Sequence[str] = ()) -> Group:
    """Return all that a terminal shows of one run: its figures and what they are worth, and those of its classes."""
    return apart(result_table(result, sentences), beside_table([result]), class_table(result))


def evaluation_report(found: Mapping[str, Any]) -> Group:
    """Return what a terminal shows of a model's scores on a table; ``found`` is what ``dure evaluate`` found."""
    metrics: Mapping[str, Figure] = found["metrics"]
    keys = [key for key in metrics if class_figure(key) is None and not is_speed(key)]
    known = {key: recorded(found, key) for key in keys}
    columns = _figures({known[key]: metrics[key] for key in keys})
    if any(map(class_figure, metrics)):
        told = (_interval_text(known[key], metrics, found["rows"]) for key in keys)
        columns.append(column(f"{100 * LEVEL:g} % interval", told))
    notes = [
        f"model: {shown_path(found['model'])}",
        f"rows: {found['rows']:,} of {found['table']}, SHA-256 {found['data'][:12]}…",
        *(f"{key.replace('_', ' ')}: {value}" for key, value in found["notes"].items() if "[" not in key),
    ]
    title = f"{found['experiment']} on {found['table']}"
    return apart(FittedTable(columns, title, notes), class_table(found))


def _interval_text(metric: Metric, figures: Mapping[str, Figure], num_rows: int) -> str:
    """Return what the rows leave open of a share; a dash for everything else."""
    share = number(figures[metric.name])
    if metric.unit != "share" or share is None:
        return NOTHING
    ends = share_interval(share, rows_behind(metric.name, figures, num_rows), LEVEL)
    return " to ".join(metric_figure(metric, end) for end in ends)


def _figures(values: Mapping[Metric, Figure] | Mapping[str, Figure]) -> list[Column]:
    """Return metrics with their values, a row each."""
    return [
        column("metric", map(metric_label, values), is_text=True),
        column("value", itertools.starmap(metric_figure, values.items())),
    ]


def class_table(result: Mapping[str, Any]) -> FittedTable | None:
    """Return the validation figures of every class, or None when there are no classes."""
    columns = class_columns(Source(0, result), "metrics")
    return FittedTable(columns, "classes") if columns else None


def class_columns(record: Source, *keys: Key) -> list[Column]:
    """Return the figures of every class among the metrics that stand at keys; nothing without classes."""
    measures: dict[str, str] = {}
    classes: dict[str, str] = {}
    for name, value in (record.get(*keys) or {}).items():
        found = class_figure(name)
        if value is not None and found is not None and found[0].startswith(("eval_", "class_weight")):
            # What a class has depends on what it is a class of: of an emotion precision, of a scale its error.
            measures.setdefault(found[0], name)
            classes.setdefault(found[1], name)
    if not classes:
        return []
    labels = (record.mark(*keys, name, written="class") for name in classes.values())
    columns = [column("class", labels, is_text=True, shortest=_SHORTEST_NAME)]
    for measure, name in measures.items():
        metric = Metric("", None, "count") if measure.endswith("support") else undeclared(measure)
        cells = (record.figure(*keys, f"{measure}[{label}]", metric=metric) for label in classes)
        columns.append(column(record.label(metric, *keys, name, written="measure"), cells))
    return columns


def result_table(result: Mapping[str, Any], sentences: Sequence[str] = ()) -> FittedTable:
    """Return the figures of one run for a terminal, without those of its classes, and what they are worth beneath.

    ``result.json`` has ``name``, ``state``, ``metrics``, ``seconds``, ``error``, ``best_checkpoint`` and
    ``final_model_path``.
    """
    metrics: Mapping[str, Figure] = result["metrics"]
    shown = [
        key
        for key in metrics
        if not key.startswith((UNTRAINED, BASELINE, _TOKENIZER))
        and not key.endswith(_KIND)
        and not is_speed(key)
        and class_figure(key) is None
    ]
    keys = sorted(shown, key=lambda key: not key.startswith("eval_"))
    trivial, untrained = (
        {key: metrics.get(prefix + key.removeprefix("eval_")) for key in keys}
        for prefix in (BASELINE, UNTRAINED)
    )
    columns = _figures({key: metrics[key] for key in keys})
    before = {"baseline": trivial, "untrained": untrained}
    known = {
        name: values for name, values in before.items() if any(each is not None for each in values.values())
    }
    for place, (name, values) in enumerate(known.items()):
        columns.append(column(name, (metric_figure(key, values[key]) for key in keys), rank=2))
        if place == 0:  # the trivial predictor, where there is one: it is the harder to beat
            gains = (metric_change(key, metrics[key], values[key]) for key in keys)
            columns.append(column(f"above {name}", gains, rank=1))
    notes = [*sentences]
    notes += [target_sentence(Reached(**each)) for each in result.get("targets") or ()]
    notes += _tokenizer_notes([result])
    notes += [
        f"{label}: {result[key]}"
        for key, label in (
            ("best_checkpoint", "best checkpoint"),
            ("final_model_path", "final model"),
            ("error", "error"),
        )
        if result.get(key)
    ]
    title = f"{result['name']} · {result['state']} in {duration(result['seconds'])}"
    return FittedTable(columns, title, notes)


def score_table(scores: Mapping[str, Any]) -> FittedTable:
    """Return the scores of a table of predictions: ROUGE, the classes' figures, or those of numbers."""
    known = scores["columns"]
    joined = "paired by their order" if known["id"] is None else f"joined by {known['id']}"
    compared = [f"{known['prediction']} against {', '.join(known['references'])}, {joined}"]
    library = scores.get("library", {})
    compared += [f"{name}: {NOTHING if value is None else f'{value:.4f}'}" for name, value in library.items()]
    told = [*scores.get("notes", ())]
    if empty := scores.get("num_empty_predictions"):
        what = "of no class" if scores["task"] == "classification" else "without a token"
        told.append(f"{counted(empty, 'prediction')} {what}, scored 0")
    if skipped := scores.get("num_skipped"):
        told.append(f"{counted(skipped, 'row')} skipped as bad, so not scored")
    size, notes = counted(scores.get("num_rows", 0), "row"), []
    if scores["task"] == "classification":
        overall = ("accuracy", "macro_f1", "weighted_f1", "subset_accuracy", "micro_f1")
        notes = [metric_phrase(key, scores[key]) for key in overall if key in scores]
        figures = {
            f"eval_{name}[{label}]": value
            for label, values in scores["per_class"].items()
            for name, value in values.items()
        }
        columns = class_columns(Source(0, figures))
    elif scores["task"] == "number":
        measures = ("pearson", "spearman", "mse")
        columns = [column(metric_label(each), [metric_figure(each, scores[each])]) for each in measures]
    else:
        size = counted(scores["num_pairs"], "pair")
        names = ("rouge1", "rouge2", "rougeL", "rougeLsum")
        columns = [column("", map(bare_label, names), is_text=True)]
        for heading, suffix in (("F1 %", ""), ("precision %", "_precision"), ("recall %", "_recall")):
            columns.append(
                column(heading, (metric_figure(name, scores[f"{name}{suffix}"]) for name in names))
            )
        notes = [
            f"{metric_phrase('rouge_sum', scores['rouge_sum'])} (F1 of ROUGE-1, 2 and L)",
            f"ROUGE tokeniser: {scores['tokenizer']} ({scores['tokenizer_version']})",
        ]
    return FittedTable(columns, size, [*notes, *told, *compared])


def catalogue_table(catalogue: Mapping[str, Mapping[str, str]]) -> FittedTable:
    """Return what can be run: kind → name → sentence."""
    rows = [
        (kind if place == 0 else "", name, sentence)
        for kind, entries in catalogue.items()
        for place, (name, sentence) in enumerate(entries.items())
    ]
    sentences = (sentence for _, _, sentence in rows)
    return FittedTable(
        [
            column("", (Text(kind, style="bold") for kind, _, _ in rows), is_text=True),
            column("name", (name for _, name, _ in rows), is_text=True),
            column("", sentences, is_text=True, shortest=_SHORTEST_SENTENCE, wraps_at=_LONGEST_SENTENCE),
        ]
    )


def ranked(experiments: Sequence[Row], metric: Metric) -> list[int]:
    """Return the places of experiments best first by a metric; those that did not complete or have no score come last."""

    def cost(place: int) -> tuple[bool, float]:
        row = experiments[place]
        return row["state"] != "completed", metric.cost(number(row["metrics"].get(metric.name)))

    return sorted(range(len(experiments)), key=cost)


def experiment_columns(record: Source, facts: Source, order: Sequence[int]) -> list[Column]:
    """Return the experiments of a study in an order.

    ``gains`` among the facts are theirs in the first metric, over the trivial baseline and the untrained model.
    """
    metrics, experiments = _metrics(record.data), record.get("experiments")
    rows, gains = Rows.of(record, "experiments", order=order), Rows.of(facts, "gains", order=order)
    columns = [
        rows.column("experiment", "name", is_text=True, shortest=_SHORTEST_NAME),
        rows.column("state", "state", rank=2, is_text=True, styles=STATE_STYLES),
    ]
    for place, metric in enumerate(metrics):
        best = _best(experiments, metric)
        starred = [
            at
            for at, each in enumerate(order)
            if best is not None and _score(experiments[each], metric.name) == best
        ]
        label, rank = record.label(metric, "metrics", place), 10 + place if place else 1
        columns.append(rows.column(label, "metrics", metric.name, figure=metric, rank=rank, starred=starred))
        for before, dropped in (("baseline", 3), ("untrained", 6)) if place == 0 else ():
            if any(before in each for each in facts.get("gains")):
                columns.append(gains.column(f"above {before}", before, change=metric, rank=dropped))
        tested = under(metric.name, TEST)
        if place == 0 and any(tested in each["metrics"] for each in experiments):
            columns.append(rows.column("on test rows", "metrics", tested, figure=metric, rank=4))
    return [*columns, rows.column("time", "seconds", written="duration", rank=5)]


def _notes(summary: Mapping[str, Any]) -> list[str]:
    """Return the lines beneath the table: how to read it, what failed, where the results are."""
    experiments: Sequence[Row] = summary["experiments"]
    metrics = _metrics(summary)
    notes = [*summary.get("sentences", ())]
    if any(_best(experiments, metric) is not None for metric in metrics):
        notes.append("*: best of its column")
    if metrics[0].in_percent and any(gains_of(row["metrics"]).get(metrics[0].name) for row in experiments):
        notes.append("above …: in percentage points")
    notes += _tokenizer_notes(experiments)
    notes += error_notes(experiments)
    notes.append(f"results: {shown_path(summary['path'])}")
    return notes


def _tokenizer_notes(rows: Sequence[Row]) -> list[str]:
    """Name the tokeniser of the ROUGE scores, and say so when the rows do not share one."""
    users: dict[str, list[str]] = {}
    for row in rows:
        tokenizer = row["metrics"].get(_TOKENIZER)
        if tokenizer is not None:
            version = row["metrics"].get(f"{_TOKENIZER}_version")
            users.setdefault(f"{tokenizer}" + (f" ({version})" if version else ""), []).append(row["name"])
    if len(users) < 2:
        return [f"ROUGE tokeniser: {tokenizer}" for tokenizer in users]
    each = "; ".join(f"{tokenizer}: {', '.join(names)}" for tokenizer, names in users.items())
    return [f"ROUGE tokenisers differ, so these scores cannot be compared: {each}"]


def _metrics(summary: Mapping[str, Any]) -> tuple[Metric, ...]:
    return tuple(recorded(summary, name) for name in summary["metrics"])


def _score(row: Row, metric: str) -> float | None:
    """Return what an experiment is ranked by; None of one that did not come to its end, whatever it had reached."""
    return number(row["metrics"].get(metric)) if row["state"] == "completed" else None


def _best(experiments: Sequence[Row], metric: Metric) -> float | None:
    """Return the best score of a metric, or None when there are not two to compare or no way to do it."""
    scores = [score for row in experiments if (score := _score(row, metric.name)) is not None]
    if len(scores) < 2 or metric.direction is None:
        return None
    return min(scores, key=metric.cost)


def predictions_table(rows: Sequence[Mapping[str, Any]]) -> FittedTable:
    """Return texts with their predictions, and of the probabilities of classes the largest."""
    shares = [name for name in rows[0] if name.startswith(PROBABILITY)]
    said = [name for name in rows[0] if name not in shares and name != "text"]
    columns = [
        column(
            name, (" ".join(str(row[name]).split()) for row in rows), is_text=True, shortest=_SHORTEST_TEXT
        )
        for name in ("text", *said)
    ]
    if shares:
        largest = (f"{100 * max(float(row[name]) for name in shares):.1f}" for row in rows)
        columns.append(column("probability %", largest, rank=1))
    return FittedTable(columns, elsewhere="--json")
