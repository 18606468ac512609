"""Forecasts in words, and beside what came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dure.files import in_bytes
from dure.reporting.columns import Cell, Column, FittedTable, column
from dure.reporting.marks import Source, sentence
from dure.runs.forecast import NOTHING_FITS

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
        if each["verdict"] != "fits":
            lines += [f"  would fit: {words}" for words in each["would_fit"] or [NOTHING_FITS]]
        lines.append(f"  disk: {in_bytes(each['disk'])}")
    if record["study"] is not None:
        disk = "unknown" if record["disk"] is None else in_bytes(record["disk"])
        cost = "" if record["cost"] is None else ", costs {:.2f}–{:.2f}".format(*record["cost"])
        lines.append(f"the {record['study']}: {_range(record['seconds'])}{cost}, disk {disk}")
    return "\n".join(lines)


def beside_table(runs: Sequence[Mapping[str, Any]]) -> FittedTable | None:
    """Return what was forecast of runs beside what came; None where nothing was forecast of any.

    Of each run it needs ``name``, ``seconds``, ``metrics`` and ``forecast``, as ``result.json`` holds them, or the
    record of a study of a trial.
    """
    told = [Source(0, run) for run in runs if run.get("forecast")]
    columns = beside_columns([run.mark("name") for run in told], told)
    return FittedTable(columns, "What was forecast, and what came") if told else None


def beside_columns(names: Sequence[Cell], told: Sequence[Source]) -> list[Column]:
    """Return what was forecast of runs beside what came, by the records of how they ended."""
    return [
        column("run", names, is_text=True, shortest=_SHORTEST_NAME),
        column("time forecast", (_between(each, "seconds", "duration") for each in told), rank=2),
        column("time", (each.mark("seconds", written="duration") for each in told)),
        column("memory forecast", (_between(each, "memory_mb", "memory") for each in told), rank=1),
        column("peak memory", (each.mark("metrics", "peak_memory_mb", written="memory") for each in told)),
    ]


def _between(run: Source, what: str, written: str) -> Cell:
    ends = [run.mark("forecast", what, end, written=written) for end in (0, 1)]
    return ends[0] if run.get("forecast", what) is None else sentence("{}–{}", *ends)


def _range(seconds: Sequence[float] | None) -> str:
    if seconds is None:
        return "time unknown"
    return " to ".join(f"{each / 3600:.1f} h" if each >= 5400 else f"{each / 60:.1f} min" for each in seconds)
