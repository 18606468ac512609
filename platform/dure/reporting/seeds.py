"""The table of settings that ran with several seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from dure.metrics.metric import Metric, recorded
from dure.reporting.columns import FittedTable, column
from dure.reporting.figures import NOTHING, bare_label, metric_figure, metric_label

_SHORTEST_NAME = 24


def seeds_table(record: Mapping[str, Any]) -> FittedTable:
    """Return the mean of every setting over its seeds with the deviation between them, best mean first.

    Args:
        record: What ``experiment_summary.json`` of a batch with seeds holds.
    """
    metrics = [recorded(record, name) for name in record["metrics"]]
    rows = sorted(record["settings"], key=lambda row: metrics[0].cost(row["mean"].get(metrics[0].name)))
    columns = [
        column("setting", (row["name"] for row in rows), is_text=True, shortest=_SHORTEST_NAME),
        column("seeds", (f"{row['num_scored']}/{len(row['runs'])}" for row in rows), rank=5),
        *(
            column(metric_label(metric), (_mean(metric, row) for row in rows), 10 + place if place else 0)
            for place, metric in enumerate(metrics)
        ),
    ]
    label = bare_label(metrics[0])
    title = f"{record['study']} · mean ± standard deviation over seeds, ranked by {label}"
    notes = [row["sentence"] for row in record["comparisons"]]
    baselines = [row["baseline"] for row in rows if row["baseline"] is not None]
    if baselines:
        beaten = "" if record["best"] else ", which no setting is better than"
        notes.append(f"trivial baseline: {metric_figure(metrics[0], baselines[0])}{beaten}")
    return FittedTable(columns, title, notes, elsewhere="experiment_summary.txt")


def _mean(metric: Metric, row: Mapping[str, Any]) -> Text:
    mean, deviation = row["mean"].get(metric.name), row["deviation"].get(metric.name)
    if mean is None:
        return Text(NOTHING)
    return Text(f"{metric_figure(metric, mean)} ± {metric_figure(metric, deviation)}")
