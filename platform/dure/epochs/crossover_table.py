"""The table of a crossover: every candidate, what it scored, and by how much the winner beat the baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from dure.reporting.columns import FittedTable, column
from dure.reporting.figures import NOTHING, counted, shown_path

_MOST_EPOCHS = 6

Row = Mapping[str, Any]


def crossover_table(record: Mapping[str, Any]) -> FittedTable:
    """Return the candidates of a crossover, fitting itself to the terminal.

    Args:
        record: What ``crossover_final.json`` holds; ``selection`` and ``held_out`` name the rows if they are there,
            ``path`` the file of the model.
    """
    rows: Sequence[Row] = record["candidates"]
    margins: Mapping[str, Row | None] = record["margins"]
    names = [
        Text(_marked(row, record), style="bold green" if row["name"] == record["kept"] else "")
        for row in rows
    ]
    columns = [
        column("candidate", names, is_text=True, shortest=12),
        column("kind", (row["kind"] for row in rows), 4, is_text=True),
        column(
            f"selection {_arrow(record['selection_better'])}", (_figure(row["selection"]) for row in rows)
        ),
        column(f"held-out {_arrow(record['rows_better'])}", (_figure(row["held_out"]) for row in rows)),
        column("margin", (_margin(margins.get(row["name"])) for row in rows), 1),
        column("interval", (_interval(margins.get(row["name"])) for row in rows), 2),
        column("epochs", (epochs_of_modules(row["modules"]) for row in rows), 3, is_text=True, shortest=12),
    ]
    return FittedTable(columns, record["verdict"], _notes(record), elsewhere="crossover_final.json")


def _marked(row: Row, record: Mapping[str, Any]) -> str:
    return f"* {row['name']}" if row["name"] == record["kept"] else row["name"]


def _arrow(direction: str | None) -> str:
    return "↓" if direction == "min" else "↑"


def _figure(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.5g}"


def _margin(margin: Row | None) -> str:
    return NOTHING if margin is None else f"{margin['value']:+.4g}"


def _interval(margin: Row | None) -> str:
    return NOTHING if margin is None else f"{margin['low']:+.4g} to {margin['high']:+.4g}"


def epochs_of_modules(modules: Mapping[str, Mapping[str, float]]) -> str:
    """Return the epochs of modules, once where all have the same: ``encoder 4, head 6+8``."""
    texts = {module: _sources(shares) for module, shares in modules.items()}
    alike = set(texts.values())
    if len(alike) == 1:
        return alike.pop()
    return ", ".join(f"{module} {text}" for module, text in texts.items())


def _sources(shares: Mapping[str, float]) -> str:
    if len(shares) > _MOST_EPOCHS:
        return f"{len(shares)} epochs"
    return "+".join(shares)


def _notes(record: Mapping[str, Any]) -> list[str]:
    known = next((margin for margin in record["margins"].values() if margin is not None), None)
    notes = [f"margin: by how much '{record['winner']}', the best crossover by selection, beats the baseline"]
    if known is not None:
        notes[0] += (
            f", over {counted(known['num_rows'], 'held-out row')} "
            f"({100 * known['level']:g} % interval, paired bootstrap)"
        )
    notes += [
        f"{name}: {record[name]}" for name in ("selection", "held_out") if isinstance(record.get(name), str)
    ]
    if any(row["name"] == record["kept"] and row["kind"] == "crossover" for row in record["candidates"]):
        notes.append(
            "held-out score of the kept crossover: a little flattered, since these rows decided to keep it"
        )
    notes.append(f"models scored on the selection rows: {record['num_evaluations']:,}")
    if record.get("path"):
        notes.append(f"model: {shown_path(record['path'])}")
    return notes
