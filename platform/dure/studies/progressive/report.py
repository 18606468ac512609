"""The tables of a progressive study: the winner stage by stage, and where the other candidates ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dure.metrics.intervals import difference_of_shares
from dure.metrics.metric import Metric, recorded
from dure.reporting.columns import Column, FittedTable, column, state_text
from dure.reporting.figures import (
    NOTHING,
    Figure,
    counted,
    duration,
    memory,
    metric_change,
    metric_figure,
    metric_label,
    metric_phrase,
    number,
    one_line,
    percent,
    setting_text,
    shown_path,
    study_title,
)

_SHORTEST = 16
_LEVEL = 0.95
"""Probability of the interval that says whether candidates are apart."""
_FILE = "progressive_training_summary.txt"
_STOPS = {
    "gain": "stopped early: more data no longer pays",
    "baseline": "stopped early: no candidate beat the trivial baseline",
}

Row = Mapping[str, Any]


def progressive_table(summary: Mapping[str, Any]) -> Group:
    """Return what a progressive study found, fitting itself to the terminal that prints it.

    Args:
        summary: What ``progressive_training_results.json`` holds, of a finished study or of one that runs.
    """
    candidates: Sequence[Row] = summary.get("candidates") or []
    stages: Sequence[Row] = summary.get("stages") or (candidates[0]["stages"] if len(candidates) == 1 else [])
    tables = []
    if stages:
        name = f"winner: {summary['winner']}" if len(candidates) > 1 and summary.get("winner") else ""
        tables.append(FittedTable(_stage_columns(stages, _metric(summary)), name, elsewhere=_FILE))
    if len(candidates) > 1:
        columns = _candidate_columns(summary, candidates)
        tables.append(FittedTable(columns, "candidates" if tables else "", elsewhere=_FILE))
    parts: list[RenderableType] = [Text(_title(summary, stages, candidates), style="bold")]
    for table in tables:
        parts += [Text(), table]
    return Group(*parts, Text(), *map(Text, _notes(summary, stages)))


def verdict_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return why a progressive study ended early, its forecast beside what came, and what its best score is worth."""
    metric, stages = _metric(summary), summary["stages"]
    lines = [_STOPS[summary["stopped"]]] if summary["stopped"] else []
    lines += _forecast_notes(metric, stages)
    best = _best(stages, summary)
    if best is not None and len(stages) > 1:
        lines.append(_worth(best, metric, len(stages)))
    lines += _close_calls(summary)
    return [f"{line[0].upper()}{line[1:]}." for line in lines]


def _title(summary: Mapping[str, Any], stages: Sequence[Row], candidates: Sequence[Row]) -> str:
    parts = [counted(len(stages), "stage")] if stages else []
    if len(candidates) > 1:
        parts.append(counted(len(candidates), "candidate"))
    return study_title(summary["study"], parts or ["no stage yet"], summary["seconds"], summary["state"])


def _stage_columns(stages: Sequence[Row], metric: Metric) -> list[Column]:
    scores = [number(stage.get("score")) for stage in stages]
    gains = map(metric_change, [metric] * len(scores), scores, [None, *scores])
    columns = [
        column("stage", (stage["stage"] for stage in stages)),
        column("data", (percent(stage["ratio"]) for stage in stages), rank=1),
        column("rows", (f"{stage['num_rows']:,}" for stage in stages), rank=3),
        column(metric_label(metric), (metric_figure(metric, score) for score in scores)),
        column("gain", gains, rank=2),
    ]
    if metric.name != "eval_loss":
        losses = [(stage.get("metrics") or {}).get("eval_loss") for stage in stages]
        columns.append(
            column(metric_label("eval_loss"), (metric_figure("", loss) for loss in losses), rank=5)
        )
    columns += [
        column("batch", map(_batch, stages), rank=6),
        column("time", (duration(stage.get("seconds")) for stage in stages), rank=4),
        column("peak memory", (memory(number(stage.get("peak_memory_mb"))) for stage in stages), rank=7),
    ]
    return columns


def _candidate_columns(summary: Mapping[str, Any], candidates: Sequence[Row]) -> list[Column]:
    metric = _metric(summary)
    rows = _ranked(candidates, summary)
    lasts = [_last(row) for row in rows]
    scores = []
    for row, last in zip(rows, lasts, strict=True):
        figure, won = metric_figure(metric, last.get("score")), row["name"] == summary.get("winner")
        scores.append(Text(f"* {figure}", style="bold green") if won else Text(figure))
    columns = [column("candidate", (row["name"] for row in rows), is_text=True, shortest=_SHORTEST)]
    for key in dict.fromkeys(key for row in rows for key in row["values"]):
        columns.append(
            column(key.rpartition(".")[2], (setting_text(row["values"].get(key)) for row in rows), 1)
        )
    columns += [
        column("state", (state_text(row["state"]) for row in rows), 4, is_text=True),
        column("ended at", (percent(last["ratio"]) if last else NOTHING for last in lasts), rank=2),
        column(metric_label(metric), scores),
        column("samples", (_whole(_sum(row["stages"], "samples")) for row in rows), rank=6),
        column("time", (duration(_sum(row["stages"], "seconds")) for row in rows), rank=5),
    ]
    if any(row.get("reason") for row in rows):
        reasons = (one_line(row.get("reason")) for row in rows)
        columns.append(column("why", reasons, 3, is_text=True, shortest=_SHORTEST))
    return columns


def _notes(summary: Mapping[str, Any], stages: Sequence[Row]) -> list[str]:
    """Return the lines beneath the tables: how far it got, and where it lies."""
    metric = _metric(summary)
    notes = [_STOPS[summary["stopped"]]] if summary.get("stopped") else []
    notes += _forecast_notes(metric, stages)
    baseline = number(summary.get("baseline"))
    if baseline is not None:
        notes.append(f"trivial baseline: {metric_phrase(metric, baseline)}")
    if any(number(stage.get("score")) is not None for stage in stages[1:]):
        unit = ", in percentage points" if metric.in_percent else ""
        notes.append(f"gain: over the stage before{unit}; batch: rows per step × accumulated steps")
    notes += [
        f"{row['name']} {row['state']}: {one_line(row['error'])}"
        for row in summary.get("experiments") or []
        if row.get("error")
    ]
    if summary.get("samples_trained") is not None:
        notes.append(f"samples trained: {summary['samples_trained']:,}")
    best = _best(stages, summary)
    if best is not None and best.get("checkpoint"):
        notes.append(f"best checkpoint: {shown_path(best['checkpoint'])} (stage {best['stage']})")
    if best is not None and len(stages) > 1:
        notes.append(_worth(best, metric, len(stages)))
    notes += _close_calls(summary)
    if summary.get("final_model"):
        notes.append(f"final model: {shown_path(summary['final_model'])}")
    notes.append(f"results: {shown_path(summary['path'])}")
    return notes


def _worth(best: Row, metric: Metric, num_stages: int) -> str:
    """Say what the score of the best stage is worth, which was chosen by the rows that it was measured on."""
    told = (
        f"{metric_figure(metric, best['score'])} of stage {best['stage']} is flattered, since it was chosen as the "
        f"best of {num_stages}"
    )
    tested = number(best.get("metrics", {}).get(metric.name.replace("eval_", "test_", 1)))
    if tested is None:
        return f"{told}; no test rows say by how much"
    return f"{told}; on the test rows, which chose nothing, it has {metric_figure(metric, tested)}"


def _close_calls(summary: Mapping[str, Any]) -> list[str]:
    """Say which candidates were beaten by less than the noise of the validation rows."""
    metric = _metric(summary)
    if metric.unit != "share":
        return []
    told: dict[tuple[float, int], list[str]] = {}
    candidates: Sequence[Row] = summary.get("candidates") or []
    for row in candidates:
        last = _last(row)
        score, rows = number(last.get("score")), number(last.get("num_dev_rows"))
        ahead = [
            number(stage.get("score"))
            for other in candidates
            for stage in other["stages"][:-1]
            if last and stage["ratio"] == last["ratio"]
        ]
        scores = {place: each for place, each in enumerate(ahead) if each is not None}
        if row["state"] != "stopped" or score is None or not rows or not scores:
            continue
        weakest = scores[metric.ranked(scores)[-1]]
        low, high = difference_of_shares(weakest, score, int(rows), _LEVEL)
        if low <= 0 <= high:
            told.setdefault((last["ratio"], int(rows)), []).append(row["name"])
    return [
        f"beaten at {percent(ratio)} within the noise of {counted(rows, 'validation row')} (binomial, {100 * _LEVEL:g} %), "
        f"so that other rows might have kept them: {', '.join(names)}"
        for (ratio, rows), names in told.items()
    ]


def _forecast_notes(metric: Metric, stages: Sequence[Row]) -> list[str]:
    """Set the first forecast beside what was measured with as many rows, once it was."""
    stage = next((stage for stage in stages if stage.get("forecast")), None)
    if stage is None:
        return []
    made: Row = stage["forecast"]
    low, high = metric_figure(metric, made["low"]), metric_figure(metric, made["high"])
    line = (
        f"forecast made at {percent(stage['ratio'])} for {made['at_rows']:,} rows: "
        f"{metric_phrase(metric, made['value'])} ({percent(made['level'])} interval {low} to {high})"
    )
    truth = next((number(one.get("score")) for one in stages if one["num_rows"] == made["at_rows"]), None)
    if truth is not None:
        within = "within" if made["low"] <= truth <= made["high"] else "outside"
        line += f"; measured: {metric_phrase(metric, truth)}, {within} it"
    return [line]


def _ranked(candidates: Sequence[Row], summary: Mapping[str, Any]) -> list[Row]:
    """Return the winner first, then who saw the most data, the best score before the others."""
    metric = _metric(summary)

    def rank(row: Row) -> tuple[bool, float, float]:
        last = _last(row)
        score = number(last.get("score"))
        return (
            row["name"] != summary.get("winner"),
            -last.get("ratio", 0.0),
            metric.cost(score),
        )

    return sorted(candidates, key=rank)


def _last(row: Row) -> Row:
    """Return the last stage that a candidate has; an empty one when it has none."""
    return row["stages"][-1] if row["stages"] else {}


def _best(stages: Sequence[Row], summary: Mapping[str, Any]) -> Row | None:
    scored = [stage for stage in stages if number(stage.get("score")) is not None]
    # The later of equals, as the study itself chooses.
    return min(reversed(scored), key=lambda stage: _metric(summary).cost(stage["score"]), default=None)


def _metric(summary: Mapping[str, Any]) -> Metric:
    return recorded(summary, summary["metric"])


def _batch(stage: Row) -> str:
    if stage.get("batch_size") is None:
        return NOTHING
    return f"{stage['batch_size']} × {stage.get('gradient_accumulation_steps') or 1}"


def _whole(value: Figure) -> str:
    found = number(value)
    return NOTHING if found is None else f"{found:,.0f}"


def _sum(stages: Sequence[Row], name: str) -> float | None:
    values = [value for stage in stages if (value := number(stage.get(name))) is not None]
    return sum(values) if values else None
