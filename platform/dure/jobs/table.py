"""The table of ``dure jobs``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import RenderableType

from dure.errors import counted
from dure.reporting.columns import FittedTable, column

_STYLES = {"failed": "bold red", "running": "green", "stopped": "yellow"}
_SHORTEST_COMMAND = 20


def jobs_table(jobs: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return jobs as a table that fits itself to the terminal."""
    if not jobs:
        return "no jobs"
    columns = [
        column("job", (job["id"] for job in jobs), is_text=True),
        column("state", (job["state"] for job in jobs), is_text=True, styles=_STYLES),
        column("command", (job["command"] for job in jobs), is_text=True, shortest=_SHORTEST_COMMAND),
        column("started", (_local_time(job["started"]) for job in jobs), rank=2, is_text=True),
        column("seconds", (f"{job['seconds']:,.0f}" for job in jobs), rank=1),
        column("cluster", (job["server"] for job in jobs), rank=3, is_text=True),
    ]
    return FittedTable(columns, counted(len(jobs), "job"))


def _local_time(moment: str | None) -> str:
    return "" if moment is None else f"{datetime.fromisoformat(moment).astimezone():%m-%d %H:%M}"
