"""The tables of what lies in the outputs, and of what may go."""

from __future__ import annotations

from collections.abc import Sequence

from dure.archive.cleaning import Cleaning
from dure.archive.listing import Listed, Listing
from dure.errors import counted
from dure.files import in_bytes
from dure.metrics.metric import Metric
from dure.reporting.columns import STATE_STYLES, FittedTable, column
from dure.reporting.figures import NOTHING, duration, metric_phrase, shown_path

_SHORTEST_PATH = 20


def listing_table(found: Listing) -> FittedTable:
    """Return runs and studies, a line each."""
    entries = found.entries
    columns = [
        column("path", (shown_path(each.path) for each in entries), is_text=True, shortest=_SHORTEST_PATH),
        column("kind", (each.kind for each in entries), rank=4, is_text=True),
        column("state", (each.state for each in entries), is_text=True, styles=STATE_STYLES),
        column("date", (each.date for each in entries), rank=2),
        column("runs", (each.num_runs for each in entries), rank=5),
        column("best", map(_score, entries), rank=1, is_text=True),
        column("time", (duration(each.seconds) for each in entries), rank=3),
        column("size", (in_bytes(each.num_bytes) for each in entries), rank=3),
    ]
    size = in_bytes(sum(each.num_bytes for each in entries))
    notes = () if entries else ("dure runs DIR looks in another folder",)
    what = "1 run or study" if len(entries) == 1 else f"{len(entries):,} runs and studies"
    return FittedTable(columns, f"{what}, {size}", notes, elsewhere="--json")


def cleaning_table(found: Cleaning) -> FittedTable:
    """Return what may go, or what went, the largest first."""
    rows = sorted(found.removable, key=lambda each: -each.num_bytes)
    columns = [
        column("size", (in_bytes(each.num_bytes) for each in rows)),
        column("path", (shown_path(each.path) for each in rows), is_text=True, shortest=_SHORTEST_PATH),
        column("why", (each.reason for each in rows), is_text=True, shortest=_SHORTEST_PATH),
    ]
    size = in_bytes(found.num_bytes)
    what = f"{counted(len(rows), 'thing')}, {size}"
    title = f"removed: {what}" if found.is_removed else f"may go: {what}"
    notes: Sequence[str] = [f"left alone: {each}" for each in found.left]
    if rows and not found.is_removed:
        notes = ["nothing is removed yet; --yes removes it"]
    return FittedTable(columns, title, notes)


def _score(each: Listed) -> str:
    if each.metric is None or each.score is None:
        return NOTHING
    return metric_phrase(Metric(each.metric, each.direction, each.unit), each.score)
