"""The table of a sweep: every point, best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from dure.metrics.metric import Metric, recorded
from dure.reporting.columns import Column, FittedTable, column, state_text
from dure.reporting.figures import (
    NOTHING,
    counted,
    duration,
    metric_figure,
    metric_label,
    number,
    one_line,
    setting_text,
    shown_path,
)

Row = Mapping[str, Any]


def sweep_table(summary: Mapping[str, Any]) -> FittedTable:
    """Return the points of a sweep, fitting themselves to the terminal that prints them.

    Args:
        summary: What :func:`dure.studies.sweep.driver.sweep` returns.
    """
    metrics = [recorded(summary, name) for name in summary["metrics"]]
    rows = _ranked(summary["experiments"], metrics[0])
    verdict = summary.get("verdict")
    best = _marked(summary)
    places = [
        str(place) if row["state"] == "completed" and _score(row, metrics[0].name) is not None else NOTHING
        for place, row in enumerate(rows, 1)
    ]
    columns = [
        column("#", places, rank=4),
        column("trial", (row["name"] for row in rows), is_text=True),
        column("state", (state_text(row["state"]) for row in rows), 2, is_text=True),
    ]
    for place, key in enumerate(summary["parameters"]):
        values = [summary["values"].get(row["name"], {}).get(key) for row in rows]
        columns.append(column(key.rpartition(".")[2], (setting_text(value) for value in values), place))
    for place, metric in enumerate(metrics):
        cells = []
        for row in rows:
            figure = metric_figure(metric, _figures(row).get(metric.name))
            marked = row["name"] in best and place == 0
            cells.append(Text(f"* {figure}", style="bold green") if marked else Text(figure))
        columns.append(Column(metric_label(metric), cells, 10 + place if place else 1))
    if "eval_loss" not in summary["metrics"]:
        losses = [metric_figure("eval_loss", row["metrics"].get("eval_loss")) for row in rows]
        columns.append(column(metric_label("eval_loss"), losses, rank=6))
    if verdict is not None:
        columns.append(column("it is", (standing(row["name"], verdict) for row in rows), 3, is_text=True))
    columns.append(column("time", (duration(row["seconds"]) for row in rows), rank=5))
    title = f"{summary['study']} · {counted(len(rows), 'point')} in {duration(summary['seconds'])}"
    return FittedTable(columns, title, _notes(summary), elsewhere="experiment_summary.txt")


def _notes(summary: Mapping[str, Any]) -> list[str]:
    verdict = summary.get("verdict")
    notes = [] if verdict is None else list(verdict["sentences"])
    if _marked(summary):
        several = len(summary["metrics"]) > 1
        notes.append(
            "*: best compromises" if several else "*: the winner" if verdict else "*: the best so far"
        )
    notes += [
        f"{row['name']} {row['state']}: {one_line(row['error'])}"
        for row in summary["experiments"]
        if row.get("error")
    ]
    for label in ("winner", "plot", "record"):
        if summary.get(label):
            notes.append(f"{label}: {shown_path(summary[label])}")
    return notes


def _marked(summary: Mapping[str, Any]) -> set[str]:
    """Return the trials with a star: the winner, or the best so far of a sweep that still runs; all best compromises."""
    verdict = summary.get("verdict")
    first = summary["best"] if verdict is None else verdict["winner"]
    return {name for name in (first, *summary["front"]) if name is not None}


def standing(name: str, verdict: Mapping[str, Any]) -> str:
    """Return what the verdict says of a point, in a few words."""
    told = []
    if name == verdict["winner"]:
        told.append("the winner")
    elif name == verdict["best"]:
        told.append("the best score, no winner")
    if name in verdict["equals"]:
        told.append(
            "not told apart from the best" if verdict["gaps"][name]["value"] else "tied with the best"
        )
    elif name in verdict["gaps"]:
        told.append("worse than the best")
    if name in verdict["below_baseline"]:
        told.append("no better than the baseline")
    if name in verdict["never_rose"]:
        told.append("trained at rate 0")
    if name in verdict["in_warmup"]:
        told.append("ended in its warm-up")
    return ", ".join(told) or NOTHING


def _ranked(rows: Sequence[Row], metric: Metric) -> list[Row]:
    """Return completed points best first, then stopped ones, then the others."""
    order = ("completed", "stopped", "diverged")

    def rank(row: Row) -> tuple[int, float]:
        state = order.index(row["state"]) if row["state"] in order else len(order)
        return state, metric.cost(_score(row, metric.name))

    return sorted(rows, key=rank)


def _figures(row: Row) -> dict[str, Any]:
    return {**row["metrics"], "seconds": row["seconds"]}


def _score(row: Row, metric: str) -> float | None:
    return number(_figures(row).get(metric))
