"""The table of texts and what is predicted of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dure.reporting.columns import FittedTable, column
from dure.runs.folder import PROBABILITY

_SHORTEST_TEXT = 20


def predictions_table(rows: Sequence[Mapping[str, Any]]) -> FittedTable:
    """Return texts with their predictions.

    Args:
        rows: ``text``, and what is predicted by column; of the probabilities of classes the largest is shown.
    """
    shares = [name for name in rows[0] if name.startswith(PROBABILITY)]
    said = [name for name in rows[0] if name not in shares and name != "text"]
    columns = [
        column(
            name, (" ".join(str(row[name]).split()) for row in rows), is_text=True, shortest=_SHORTEST_TEXT
        )
        for name in ("text", *said)
    ]
    if shares:
        largest = (f"{100 * max(float(row[name]) for name in shares):.1f}" for row in rows)
        columns.append(column("probability %", largest, rank=1))
    return FittedTable(columns, elsewhere="--json")
