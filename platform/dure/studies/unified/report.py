"""What a unified training came to, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dure.epochs.crossover_table import crossover_table
from dure.epochs.sweet_spot_table import sweet_spot_table
from dure.reporting.figures import duration, memory, shown_path
from dure.reporting.summary import result_report


def unified_table(results: Mapping[str, Any]) -> Group:
    """Return the main run's result, the sweet spots of its modules, the crossover, and where everything lies.

    Args:
        results: What :class:`dure.studies.unified.results.UnifiedResults` holds, as JSON.
    """
    run = {**results["result"], "path": results["path"]}
    parts: list[RenderableType] = []
    if results["sweep"] is None and results["crossover"] is None:
        parts += [Text(_memory(run["metrics"]), style="bold"), Text()]
    parts.append(result_report(run))
    if results["sweet_spots"] is not None:
        parts.append(sweet_spot_table(results["sweet_spots"]))
    if results["crossover"] is not None:
        parts.append(crossover_table(results["crossover"]))
    verdict = results.get("sweep_verdict")
    if verdict is not None:
        parts += [Text(f"sweep: {sentence}") for sentence in verdict["sentences"]]
    parts.append(
        Text(
            f"learning rate {results['learning_rate']:g}{_origin(results['sweep'], verdict)} · "
            f"{duration(run['seconds'])} of training · results: {shown_path(results['path'])}"
        )
    )
    return Group(*parts)


def _origin(sweep: Mapping[str, Any] | None, verdict: Mapping[str, Any] | None) -> str:
    """Return where the learning rate is from, in brackets; nothing without a sweep."""
    if sweep is None:
        return ""
    is_won = verdict is None or verdict["winner"] is not None
    return " (winner of the sweep)" if is_won else " (as configured: the sweep names no winner)"


def _memory(metrics: Mapping[str, Any]) -> str:
    """Return in one line what a training took of the machine, which is what one on a few rows is for."""
    parts = [f"{memory(float(metrics.get('peak_memory_mb', 0)))} at the most"]
    parts.append(f"{memory(float(metrics.get('unreleased_memory_mb', 0)))} not given back")
    parts.append(f"{int(metrics.get('num_oom', 0))} times out of memory")
    parts.append(f"CPU {float(metrics.get('cpu_percent', 0)):.0f} %")
    return f"memory: {', '.join(parts)}"
