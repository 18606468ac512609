"""What a unified training came to, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dure.epochs.crossover_table import crossover_table
from dure.epochs.sweet_spot_table import sweet_spot_table
from dure.reporting.figures import duration, shown_path
from dure.reporting.summary import result_report


def unified_table(results: Mapping[str, Any]) -> Group:
    """Return the main run's result, the sweet spots of its modules, the crossover, and where everything lies.

    Args:
        results: What :class:`dure.studies.unified.results.UnifiedResults` holds, as JSON.
    """
    run = {**results["result"], "path": results["path"]}
    parts: list[RenderableType] = [result_report(run)]
    if results["sweet_spots"] is not None:
        parts.append(sweet_spot_table(results["sweet_spots"]))
    if results["crossover"] is not None:
        parts.append(crossover_table(results["crossover"]))
    parts.append(
        Text(
            f"learning rate {results['learning_rate']:g}"
            f"{' (winner of the sweep)' if results['sweep'] else ''} · "
            f"{duration(run['seconds'])} of training · results: {shown_path(results['path'])}"
        )
    )
    return Group(*parts)
