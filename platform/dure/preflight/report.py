"""The report of ``dure validate``: what is as it must be, what is not, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dure.errors import counted
from dure.reporting.columns import FittedTable, column

_STYLES = {"ok": "green", "failed": "bold red", "skipped": "yellow"}
_SHORTEST_SENTENCE = 40
_LONGEST_SENTENCE = 150
"""Cells at which what was found goes on in another line, in windows that are wider than the table."""

Row = Mapping[str, Any]


def validation_table(record: Mapping[str, Any]) -> Group:
    """Return the checks as a table that fits itself to the terminal, and beneath it every failure in full."""
    rows: Sequence[Row] = record["checks"]
    areas = [row["area"] for row in rows]
    columns = [
        column(
            "", (area if area not in areas[:place] else "" for place, area in enumerate(areas)), is_text=True
        ),
        column("check", (row["name"] for row in rows), is_text=True),
        column("state", (row["state"] for row in rows), is_text=True, styles=_STYLES),
        column(
            "found",
            (row["found"] for row in rows),
            is_text=True,
            shortest=_SHORTEST_SENTENCE,
            wraps_at=_LONGEST_SENTENCE,
        ),
    ]
    shown: list[RenderableType] = [FittedTable(columns, _title(record))]
    for row in rows:
        if row["state"] == "failed":
            shown += [
                Text(),
                Text(f"{row['area']}, {row['name']}", style="bold red"),
                Text(f"  {row['found']}"),
            ]
            if row["remedy"]:
                shown.append(Text(f"  try: {row['remedy']}"))
    hints = [f"{row['name']}: {row['remedy']}" for row in rows if row["remedy"] and row["state"] != "failed"]
    if hints:
        shown += [Text(), *map(Text, hints)]
    return Group(*shown)


def _title(record: Mapping[str, Any]) -> str:
    parts = [f"{counted(record['num_ok'], 'check')} ok"]
    parts += [
        f"{record[f'num_{state}']} {state}" for state in ("failed", "skipped") if record[f"num_{state}"]
    ]
    return ", ".join(parts)
