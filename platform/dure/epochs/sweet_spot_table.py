"""The report on sweet spots: which epoch each module was best at, who says so, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from dure.reporting.columns import Column, FittedTable, Rows, column, plain_text
from dure.reporting.figures import NOTHING
from dure.reporting.marks import Key, Source

_CRITERIA = ("low", "stable", "fitting", "converged", "plateau")
_TRENDS = {
    "falling": "still falling at the end: more epochs may make it better",
    "rising": "rising at the end: it overfits or diverges",
    "diverged": "its loss was not finite at the end",
}

Row = Mapping[str, Any]


def sweet_spot_table(record: Mapping[str, Any]) -> FittedTable:
    """Return the sweet spots of a run, a row per module, fitting itself to the terminal.

    ``record`` is what ``dure.epochs.sweet_spot.analysis_record`` returns.
    """
    columns = sweet_spot_columns(Source(0, record))
    return FittedTable(
        columns, "sweet spots by epoch", notes=_notes(record), elsewhere="sweet_spot_report_<time>.txt"
    )


def sweet_spot_columns(record: Source, *at: Key) -> list[Column]:
    """Return the modules of an analysis that stands at keys of a record."""
    modules: Mapping[str, Row] = record.get(*at, "modules")
    rows = Rows(record, [(*at, "modules", name) for name in modules])
    confidences = [
        "too few epochs"
        if row["confidence"] is None
        else record.mark(*place, "confidence", written="whole-percent")
        for place, row in zip(rows.places, modules.values(), strict=True)
    ]
    criteria = ([name for name in _CRITERIA if row["epoch"] in row["met"][name]] for row in modules.values())
    return [
        rows.column("module", written="key", is_text=True, shortest=12),
        rows.column("sweet spot", "epoch"),
        column("confidence", confidences),
        rows.column("eval loss", "eval_loss", written="number", rank=1),
        rows.column("train loss", "train_loss", written="number", rank=5),
        *(rows.column(voter, "votes", voter, rank=3) for voter in record.get(*at, "voters")),
        column("it is", (", ".join(met) or NOTHING for met in criteria), 4, is_text=True),
        rows.column("trend", "trend", written="words", rank=2, is_text=True),
    ]


def sweet_spot_text(record: Mapping[str, Any]) -> str:
    """Return the same as plain text with all columns, and for every module the epochs that meet each criterion."""
    lines = [*plain_text(sweet_spot_table(record)).splitlines(), "", "epochs that meet each criterion"]
    for name, row in record["modules"].items():
        lines += ["", name]
        lines += [f"  {criterion:<10} {_ranges(row['met'][criterion])}" for criterion in _CRITERIA]
    return "\n".join(lines) + "\n"


def _notes(record: Mapping[str, Any]) -> list[str]:
    limits = record["thresholds"]
    notes = [
        f"{name}: {_TRENDS[row['trend']]}"
        for name, row in record["modules"].items()
        if row["trend"] in _TRENDS
    ]
    few = [name for name, row in record["modules"].items() if row.get("verdict") == "too_few_epochs"]
    if few:
        notes.insert(
            0,
            f"{', '.join(few)}: too few epochs to say anything. A sweet spot needs {limits['window']} validated epochs, "
            f"a trend {limits['trend_window']}; the epoch named has the lowest loss, which may be chance",
        )
    return [
        *notes,
        "lowest, criteria, plateau, score: the epoch that each of these names; confidence: the share that agrees",
        f"low: within {limits['low_within']:g} of the lowest loss; stable: standard deviation of "
        f"{limits['window']} epochs below {limits['max_std']:g};",
        f"fitting: eval loss - train loss below {limits['max_gap']:g}; converged: changes by less than "
        f"{100 * limits['max_change']:g} % in {limits['window']} epochs;",
        f"plateau: no trend in {limits['trend_window']} epochs (Mann-Kendall, level {limits['trend_level']:g})",
    ]


def _ranges(epochs: Sequence[int]) -> str:
    """Return epochs as ``1-4, 7``."""
    runs = runs_of(epochs, range(min(epochs, default=0), max(epochs, default=0) + 1))
    return ", ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in runs) or NOTHING


def runs_of(chosen: Sequence[int], epochs: Sequence[int]) -> list[tuple[int, int]]:
    """Return the first and the last epoch of every run of chosen ones that no other epoch interrupts."""
    runs = [list(run) for is_chosen, run in groupby(epochs, chosen.__contains__) if is_chosen]
    return [(run[0], run[-1]) for run in runs]
