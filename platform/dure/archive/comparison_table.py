"""The tables of a comparison: scores, settings, rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dure.archive.comparison import Comparison, ExampleRecord
from dure.archive.left import Setting
from dure.data.writing import place_files
from dure.errors import counted, shortened
from dure.files import write_text
from dure.metrics.metric import Metric
from dure.reporting.columns import Column, FittedTable, Rows, apart, column, plain_text
from dure.reporting.curves import RunCurves, plot_runs
from dure.reporting.figures import NOTHING, bare_label, metric_label
from dure.reporting.marks import Source, sentence
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
    facts = Source(0, table_facts(comparison))
    scores = [Rows.of(facts, "settings").column("#", "place", rank=1), *score_columns(facts)]
    parts: list[RenderableType] = [
        FittedTable(scores, elsewhere=_ELSEWHERE),
        Group(*map(Text, comparison.sentences)),
    ]
    if comparison.pairs:
        by = f"row by row, by {comparison.pairs[0].metric.replace('_', ' ')}"
        parts.append(FittedTable(pair_columns(facts), by, elsewhere=_ELSEWHERE))
    if any(each.values for each in comparison.settings):
        parts.append(FittedTable(setting_columns(facts), "settings that differ", elsewhere=_ELSEWHERE))
    if comparison.examples:
        parts.append(_examples(comparison.examples))
    if comparison.notes:
        parts.append(Group(*map(Text, comparison.notes)))
    return apart(Text(title, style="bold"), *parts)


def table_facts(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON, with what its tables say of settings and pairs in words."""
    record = comparison.as_json()
    for facts, setting in zip(record["settings"], comparison.settings, strict=True):
        signature = setting.signature
        count = "" if signature.num_rows is None else f"{signature.num_rows:,} "
        facts |= {
            "place": _place(comparison, setting.name),
            "num_seeds": len(setting.seeds),
            "measured_on": f"{count}{signature.split} {signature.rows[:8]}",
            "measured_by": ", ".join(signature.how.values()) or None,
        }
    for facts, pair in zip(record["pairs"], comparison.pairs, strict=True):
        gain, low, high = (
            signed_figure(Metric("", None, pair.unit), each) for each in (pair.value, pair.low, pair.high)
        )
        facts |= {
            "gain": gain,
            "interval": f"{low} to {high}",
            "p": p_value_text(pair.p_value, pair.p_holm),
            "counts": f"{pair.wins}/{pair.ties}/{pair.losses}",
            "said": _VERDICTS[pair.verdict],
        }
    return record


def score_columns(facts: Source) -> list[Column]:
    """Return scores and costs, best first within what may be ranked together; ``facts`` are :func:`table_facts`."""
    rows, settings = Rows.of(facts, "settings"), facts.get("settings")
    metric = Metric(facts.get("metric"), facts.get("direction"), facts.get("unit"))
    columns = [
        rows.column("setting", "name", is_text=True, shortest=_SHORTEST_NAME),
        rows.column(facts.label(metric, "metric"), "score", figure=metric),
    ]
    if any(each["num_seeds"] > 1 for each in settings):
        columns.append(rows.column("± std", "deviation", figure=metric, rank=2))
        columns.append(rows.column("seeds", "num_seeds", rank=3))
    if any(each["baseline"] is not None for each in settings):
        columns.append(rows.column("baseline", "baseline", figure=metric, rank=5))
    columns += [
        rows.column("time", "seconds", written="duration", rank=4),
        rows.column("peak memory", "peak_memory_mb", written="memory", rank=6),
        rows.column("rows", "measured_on", rank=7, is_text=True),
    ]
    if any(each["measured_by"] for each in settings):
        columns.append(rows.column("measured by", "measured_by", rank=8, is_text=True))
    return columns


def pair_columns(facts: Source) -> list[Column]:
    """Return every two settings row by row; ``facts`` are :func:`table_facts`."""
    rows = Rows.of(facts, "pairs")
    level = facts.mark("pairs", 0, "level", written="ratio")
    return [
        *(rows.column(name, name, is_text=True, shortest=_SHORTEST_NAME) for name in ("a", "b")),
        rows.column("a better by", "gain"),
        rows.column(sentence("{} interval", level), "interval", rank=1),
        rows.column("p", "p", rank=2),
        rows.column("win/tie/loss", "counts", rank=3),
        rows.column("verdict", "said", is_text=True, styles=_STYLES),
    ]


def _place(comparison: Comparison, name: str) -> str:
    """Return the place of a setting; of several that may not be ranked together the group is named too."""
    scores = {each.name: each.score for each in comparison.settings}
    if scores[name] is None:
        return NOTHING
    number, group = next((i, each) for i, each in enumerate(comparison.groups) if name in each.settings)
    letter = chr(ord("A") + number % 26) if len(comparison.groups) > 1 else ""
    return f"{letter}{[scores[each] for each in group.settings].index(scores[name]) + 1}"


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
    title = f"the {counted(len(examples), 'row')} that differ most (numbered from 0), each with score and prediction{more}"
    return FittedTable(columns, title, elsewhere=_ELSEWHERE)


def _answer(example: ExampleRecord, name: str) -> str:
    said = _short(" ".join(example.predictions.get(name, {}).values()))
    return f"{example.scores[name]:.3g} {said}".strip()


def _short(text: str) -> str:
    return shortened(" ".join(text.split()), _LONGEST_TEXT)


_LONGEST_NAME = 40
_NAMES = ("comparison.json", "comparison.txt", "comparison.png")


def curves_of(settings: Sequence[Setting], order: Sequence[str]) -> list[RunCurves]:
    """Return the curves of all runs of settings, in the order of their names, each named as its setting."""
    return [
        RunCurves.of(run.path, shortened(each.name, _LONGEST_NAME))
        for each in sorted(settings, key=lambda each: order.index(each.name))
        for run in each.runs
    ]


def write_comparison(
    comparison: Comparison, settings: Sequence[Setting], folder: Path, *, force: bool
) -> None:
    """Write ``comparison.json``, ``.txt`` and ``.png`` into a folder, all of them or none.

    The folder is made if it is not there. With ``force`` files that are there, and say something else, are replaced.

    Raises:
        UserError: The folder cannot be written to, or such a file is there.
    """
    metric = Metric(comparison.metric, comparison.direction, comparison.unit)
    with TemporaryDirectory() as beside:
        record, text, curves = (Path(beside, name) for name in _NAMES)
        comparison.write(record)
        write_text(text, plain_text(comparison_table(comparison)))
        runs = curves_of(settings, [each.name for each in comparison.settings])
        plot_runs(curves, runs, replace(metric, name=f"eval_{metric.name}"), title=metric_label(metric))
        # The picture is there in every format that was asked for.
        place_files({file.name: file for file in sorted(Path(beside).iterdir())}, folder, force=force)
