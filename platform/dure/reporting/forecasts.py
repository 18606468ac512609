"""Forecasts in words, and beside what came."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.text import Text

from dure.files import in_bytes
from dure.reporting.columns import Column, FittedTable, column
from dure.reporting.figures import NOTHING, duration, memory, number

_SHORTEST_NAME = 24


def forecast_text(record: Mapping[str, Any]) -> str:
    """Return the forecast of an experiment or a study for people."""
    lines = []
    for each in record["experiments"]:
        lines.append(each["name"])
        if "unknown" in each:
            lines.append(f"  unknown: {each['unknown']}")
            continue
        lines.append(f"  {each['sentence']}")
        parts = {name: size for name, size in each["memory_parts_mb"].items() if size >= 1}
        lines.append(f"  memory: {', '.join(f'{name} {size:,.0f} MiB' for name, size in parts.items())}")
        lines.append(f"  of {each['free_mb']:,.0f} MiB {each['where']}: {each['verdict']}")
        lines += [f"  would fit: {words}" for words in each["would_fit"]]
        lines.append(f"  disk: {in_bytes(each['disk'])}")
    if record["study"] is not None:
        disk = "unknown" if record["disk"] is None else in_bytes(record["disk"])
        cost = "" if record["cost"] is None else ", costs {:.2f}–{:.2f}".format(*record["cost"])
        lines.append(f"the {record['study']}: {_range(record['seconds'])}{cost}, disk {disk}")
    return "\n".join(lines)


def beside_table(runs: Sequence[Mapping[str, Any]]) -> FittedTable | None:
    """Return what was forecast of runs beside what came; None where nothing was forecast of any.

    Args:
        runs: What ``result.json`` holds of each, or what the record of a study holds of a trial: ``name``,
            ``seconds``, ``metrics``, ``forecast``.
    """
    told = [run for run in runs if run.get("forecast")]
    if not told:
        return None
    columns = [
        column("run", (run["name"] for run in told), is_text=True, shortest=_SHORTEST_NAME),
        Column("time forecast", [_between(run["forecast"]["seconds"], duration) for run in told], rank=2),
        column("time", (duration(run["seconds"]) for run in told)),
        Column("memory forecast", [_between(run["forecast"]["memory_mb"], memory) for run in told], rank=1),
        column("peak memory", (memory(number(run["metrics"].get("peak_memory_mb"))) for run in told)),
    ]
    return FittedTable(columns, "What was forecast, and what came")


def _between(ends: Sequence[float] | None, written: Callable[[float], str]) -> Text:
    return Text(NOTHING if ends is None else "–".join(written(end) for end in ends))


def _range(seconds: Sequence[float] | None) -> str:
    if seconds is None:
        return "time unknown"
    return " to ".join(f"{each / 3600:.1f} h" if each >= 5400 else f"{each / 60:.1f} min" for each in seconds)
