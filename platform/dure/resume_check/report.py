"""The report of ``dure verify-resume``: what is the same in both runs, and what is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dure.reporting.columns import FittedTable, column

_DIGITS = 12
_STYLES = {"yes": "green", "no": "bold red"}
_KINDS = {"eval_": "validation", "untrained_": "validation before training", "test_": "test"}


def resume_table(record: Mapping[str, Any]) -> Group:
    """Return a row for everything compared, the verdict, and where exactness is not promised."""
    rows = _shortened(record["comparisons"])
    columns = [
        column("what", (row["what"] for row in rows), is_text=True),
        column("equal", ("yes" if row["is_equal"] else "no" for row in rows), is_text=True, styles=_STYLES),
        column("compared", (row["count"] for row in rows)),
        column("largest difference", map(_difference, rows)),
        column("first at step", ("" if row["first_step"] is None else row["first_step"] for row in rows)),
        column("SHA-256", map(_digests, rows), is_text=True),
    ]
    cuts = ", ".join(f"{cut['signal']} at step {cut['step']}" for cut in record["cuts"])
    shown: list[RenderableType] = [
        FittedTable(columns, f"{record['name']}: {record['steps']} steps undisturbed, and with {cuts}"),
        Text(),
        Text(_verdict(record), style="green" if record["passed"] else "bold red"),
        Text("not promised to be exact:"),
        *(Text(f"  {line}") for line in record["caveats"]),
        Text(f"results in {record['path']}"),
    ]
    return Group(*shown)


def _shortened(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Put the metrics that are equal into one row for validation and one for the test; others stand alone."""
    shown: list[Mapping[str, Any]] = []
    for row in rows:
        kind = next((kind for prefix, kind in _KINDS.items() if row["what"].startswith(prefix)), None)
        if kind is None or not row["is_equal"]:
            shown.append(row)
            continue
        same = next((each for each in shown if each["what"] == kind), None)
        if same is None:
            shown.append({**row, "what": kind})
        else:
            shown[shown.index(same)] = {**same, "count": same["count"] + row["count"]}
    return shown


def _verdict(record: Mapping[str, Any]) -> str:
    if record["is_identical"]:
        return "identical: the resumed run is the undisturbed one"
    if record["passed"]:
        return f"equal within {record['tolerance']:g}"
    return "not identical: resuming changes this run"


def _difference(row: Mapping[str, Any]) -> str:
    if row["is_equal"]:
        return "0"
    return "not to be had" if row["difference"] is None else f"{row['difference']:.2g}"


def _digests(row: Mapping[str, Any]) -> str:
    if row["digests"] is None:
        return ""
    one, other = (digest[:_DIGITS] for digest in row["digests"])
    return one if one == other else f"{one} / {other}"
