"""The tables of a comparison: scores, settings, rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dure.archive.comparison import Comparison, ExampleRecord, PairRecord, SettingRecord
from dure.archive.settings import Setting
from dure.archive.verdict import difference_of
from dure.data.writing import place_files
from dure.files import write_text
from dure.metrics.metric import Metric
from dure.reporting.columns import Column, FittedTable, Rows, column, plain_text
from dure.reporting.curves import RunCurves, plot_runs
from dure.reporting.figures import (
    NOTHING,
    bare_label,
    counted,
    duration,
    memory,
    metric_figure,
    metric_label,
    shortened,
)
from dure.reporting.marks import Source
from dure.reporting.verdicts import p_value_text, signed_figure

_SHORTEST_NAME = 16
_SHORTEST_TEXT = 12
_LONGEST_TEXT = 60
_MOST_PREDICTED = 4
_VERDICTS = {"better": "a is better", "worse": "b is better", "tie": "tie", "equal": "equal on every row"}
_STYLES = {"a is better": "green", "b is better": "green"}
_ELSEWHERE = "comparison.json (-o DIR)"


def comparison_table(comparison: Comparison) -> Group:
    """Return what a comparison found, fitting itself to the terminal that prints it."""
    metric = Metric(comparison.metric, comparison.direction, comparison.unit)
    num_runs = sum(len(each.runs) for each in comparison.settings)
    title = (
        f"{counted(len(comparison.settings), 'setting')} of {counted(num_runs, 'run')}, by "
        f"{bare_label(metric)} ({metric.sentence})"
    )
    parts: list[RenderableType] = [Text(title, style="bold"), Text(), _scores(comparison, metric)]
    parts += [Text(), *(Text(sentence) for sentence in comparison.sentences)]
    if comparison.pairs:
        parts += [Text(), _pairs(comparison.pairs)]
    if any(each.values for each in comparison.settings):
        columns = setting_columns(Source(0, comparison.as_json()))
        parts += [Text(), FittedTable(columns, "settings that differ", elsewhere=_ELSEWHERE)]
    if comparison.examples:
        parts += [Text(), _examples(comparison.examples)]
    return Group(*parts, *([Text()] if comparison.notes else []), *map(Text, comparison.notes))


def _scores(comparison: Comparison, metric: Metric) -> FittedTable:
    """Return scores and costs, best first within what may be ranked together."""
    by_name = {each.name: each for each in comparison.settings}
    records = [by_name[name] for group in comparison.groups for name in group.settings]
    places = [_place(comparison, name) for group in comparison.groups for name in group.settings]
    several = any(len(each.seeds) > 1 for each in records)
    columns = [
        column("#", places, rank=1),
        column("setting", (each.name for each in records), is_text=True, shortest=_SHORTEST_NAME),
        column(metric_label(metric), (metric_figure(metric, each.score) for each in records)),
    ]
    if several:
        spreads = (metric_figure(metric, each.deviation) for each in records)
        columns += [
            column("± std", spreads, rank=2),
            column("seeds", (len(each.seeds) for each in records), rank=3),
        ]
    baselines = [metric_figure(metric, each.baseline) for each in records]
    if any(each.baseline is not None for each in records):
        columns.append(column("baseline", baselines, rank=5))
    columns += [
        column("time", (duration(each.seconds) for each in records), rank=4),
        column("peak memory", (memory(each.peak_memory_mb) for each in records), rank=6),
        column("rows", (_rows(each) for each in records), rank=7, is_text=True),
    ]
    how = [", ".join(each.signature.how.values()) or NOTHING for each in records]
    if any(each.signature.how for each in records):
        columns.append(column("measured by", how, rank=8, is_text=True))
    return FittedTable(columns, elsewhere=_ELSEWHERE)


def _place(comparison: Comparison, name: str) -> str:
    """Return the place of a setting; of several that may not be ranked together the group is named too."""
    by_name = {each.name: each for each in comparison.settings}
    letter = {
        each: chr(ord("A") + number % 26)
        for number, group in enumerate(comparison.groups)
        for each in group.settings
    }
    group = next(group for group in comparison.groups if name in group.settings)
    if by_name[name].score is None:
        return NOTHING
    first = next(i for i, each in enumerate(group.settings) if by_name[each].score == by_name[name].score)
    return f"{letter[name] if len(comparison.groups) > 1 else ''}{first + 1}"


def _rows(record: SettingRecord) -> str:
    count = "" if record.signature.num_rows is None else f"{record.signature.num_rows:,} "
    return f"{count}{record.signature.split} {record.signature.rows[:8]}"


def _pairs(pairs: Sequence[PairRecord]) -> FittedTable:
    unit = Metric(pairs[0].metric, None, pairs[0].unit)
    known = [difference_of(pair) for pair in pairs]
    columns = [
        column("a", (pair.a for pair in pairs), is_text=True, shortest=_SHORTEST_NAME),
        column("b", (pair.b for pair in pairs), is_text=True, shortest=_SHORTEST_NAME),
        column("a better by", (signed_figure(unit, pair.value) for pair in pairs)),
        column(
            f"{100 * pairs[0].level:g} % interval",
            (f"{signed_figure(unit, pair.low)} to {signed_figure(unit, pair.high)}" for pair in pairs),
            rank=1,
        ),
        column("p", (p_value_text(each) for each in known), rank=2),
        column("win/tie/loss", (f"{pair.wins}/{pair.ties}/{pair.losses}" for pair in pairs), rank=3),
        column("verdict", (_VERDICTS[pair.verdict] for pair in pairs), is_text=True, styles=_STYLES),
    ]
    return FittedTable(columns, f"row by row, by {pairs[0].metric.replace('_', ' ')}", elsewhere=_ELSEWHERE)


def setting_columns(record: Source) -> list[Column]:
    """Return only what differs: a line for every setting, a column for every key."""
    rows = Rows.of(record, "settings")
    keys = dict.fromkeys(key for setting in record.get("settings") for key in setting["values"])
    shown: dict[str, Any] = {"written": "setting", "is_text": True, "shortest": _SHORTEST_TEXT}
    return [
        rows.column("setting", "name", is_text=True, shortest=_SHORTEST_NAME),
        *(rows.column(key, "values", key, rank=place, **shown) for place, key in enumerate(keys, 1)),
    ]


def _examples(examples: Sequence[ExampleRecord]) -> FittedTable:
    """Return the rows that differ most, with what every setting makes of them."""
    names = list(examples[0].scores)
    columns: list[Column] = [column("row", (each.row for each in examples))]
    for place, name in enumerate(examples[0].columns):
        cells = (_short(each.columns[name]) for each in examples)
        columns.append(column(name, cells, rank=10 + place, is_text=True, shortest=_SHORTEST_TEXT))
    for place, name in enumerate(names[:_MOST_PREDICTED]):
        cells = (_answer(each, name) for each in examples)
        columns.append(column(name, cells, rank=1 + place, is_text=True, shortest=_SHORTEST_TEXT))
    more = f" (first {_MOST_PREDICTED} settings)" if len(names) > _MOST_PREDICTED else ""
    title = f"the {counted(len(examples), 'row')} that differ most, each with score and prediction{more}"
    return FittedTable(columns, title, elsewhere=_ELSEWHERE)


def _answer(example: ExampleRecord, name: str) -> str:
    said = _short(" ".join(example.predictions.get(name, {}).values()))
    return f"{example.scores[name]:.3g} {said}".strip()


def _short(text: str) -> str:
    return shortened(" ".join(text.split()), _LONGEST_TEXT)


_LONGEST_NAME = 40
_NAMES = ("comparison.json", "comparison.txt", "comparison.png")


def write_comparison(
    comparison: Comparison, settings: Sequence[Setting], folder: Path, *, force: bool
) -> None:
    """Write ``comparison.json``, ``.txt`` and ``.png`` into a folder, all of them or none.

    Args:
        comparison: What was found.
        settings: What was compared.
        folder: Made if it is not there.
        force: Whether files that are there, and say something else, are replaced.

    Raises:
        UserError: The folder cannot be written to, or such a file is there.
    """
    metric = Metric(comparison.metric, comparison.direction, comparison.unit)
    order = {each.name: place for place, each in enumerate(comparison.settings)}
    with TemporaryDirectory() as beside:
        record, text, curves = (Path(beside, name) for name in _NAMES)
        comparison.write(record)
        write_text(text, plain_text(comparison_table(comparison)))
        ordered = sorted(settings, key=lambda each: order[each.name])
        runs = [
            RunCurves.of(run.path, shortened(each.name, _LONGEST_NAME))
            for each in ordered
            for run in each.runs
        ]
        plot_runs(curves, runs, replace(metric, name=f"eval_{metric.name}"), title=metric_label(metric))
        # The picture is there in every format that was asked for.
        place_files({file.name: file for file in sorted(Path(beside).iterdir())}, folder, force=force)
