"""The table of a crossover: every candidate, what it scored, and by how much the winner beat the baselines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dure.errors import counted, shown_path
from dure.reporting.columns import Column, FittedTable, Rows
from dure.reporting.marks import Key, Source

_MOST_EPOCHS = 6


def crossover_table(record: Mapping[str, Any]) -> FittedTable:
    """Return the candidates of a crossover, fitting itself to the terminal.

    ``record`` is what ``crossover_final.json`` holds; ``selection`` and ``held_out`` name the rows if they are there,
    ``path`` the file of the model.
    """
    epochs = {row["name"]: epochs_of_modules(row["modules"]) for row in record["candidates"]}
    columns = crossover_columns(Source(0, record), Source(0, {"epochs": epochs}))
    return FittedTable(columns, record["verdict"], _notes(record), elsewhere="crossover_final.json")


def crossover_columns(record: Source, facts: Source, *at: Key) -> list[Column]:
    """Return the candidates of a crossover that stands at keys of a record.

    ``facts`` has the ``epochs`` of every candidate in words, by its name.
    """
    rows = Rows.of(record, *at, "candidates")
    names = [record.get(*place, "name") for place in rows.places]
    kept = [place for place, name in enumerate(names) if name == record.get(*at, "kept")]
    margins = Rows(record, [(*at, "margins", name) for name in names])
    selection, held_out = (
        "↓" if record.get(*at, f"{key}_better") == "min" else "↑" for key in ("selection", "rows")
    )
    return [
        rows.column("candidate", "name", is_text=True, shortest=12, starred=kept),
        rows.column("kind", "kind", rank=4, is_text=True),
        rows.column(f"selection {selection}", "selection", written="digits"),
        rows.column(f"held-out {held_out}", "held_out", written="digits"),
        margins.column("margin", "value", written="signed", rank=1),
        margins.column("interval", written="signed", interval=True, rank=2),
        Rows(facts, [("epochs", name) for name in names]).column("epochs", rank=3, is_text=True, shortest=12),
    ]


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
