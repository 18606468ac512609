"""Runs beside each other on the same test rows, in sentences; the rules are those of :mod:`dure.metrics.paired`."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from dure.metrics.metric import Metric, recorded
from dure.metrics.paired import corrected, paired_difference
from dure.pages.run_facts import environment_of
from dure.reporting.verdicts import difference_sentence
from dure.runs.folder import ROW, SCORE, RunFolder

_MOST = 12
"""Runs that the first one is compared with: each is a test more to be corrected for."""

Scores = Mapping[int, float]


def paired_sentences(runs: Mapping[str, Path], metric: Metric) -> list[str]:
    """Return how sure it is that the first run is better than each other one, by what every test row is worth.

    Args:
        runs: Folder of every run by its name; the first one is compared with the others.
        metric: What they are compared by; where it is no mean over rows, the first score of theirs that is.

    Returns:
        A sentence for every run that was scored on the same test rows; corrected for their number (Holm).
    """
    names = [*runs][: _MOST + 1]
    tables = {name: _scores(runs[name], metric) for name in names}
    known = {name: table for name, table in tables.items() if table is not None}
    if len(known) < 2 or names[0] not in known:
        return []
    by, first, rows_hash = known[names[0]]
    others = [
        name for name, table in known.items() if name != names[0] and table[0] == by and table[2] == rows_hash
    ]
    result = RunFolder(runs[names[0]]).read_result()
    used = replace(
        recorded({"definitions": {} if result is None else result.definitions}, f"eval_{by}"), name=by
    )
    if used.direction is None:
        return []
    found = []
    for name in others:
        rows = sorted(first.keys() & known[name][1].keys())
        if rows:
            both = [np.array([table[row] for row in rows]) for table in (first, known[name][1])]
            is_known = np.isfinite(both[0]) & np.isfinite(both[1])
            found.append((name, paired_difference(*[scores[is_known] for scores in both], metric=used)))
    differences = [difference for _, difference in found]
    together = corrected(differences) if len(differences) > 1 else differences
    return [
        f"On the test rows: {difference_sentence(names[0], name, each, used)}"
        for (name, _), each in zip(found, together, strict=True)
    ]


def _scores(run: Path, metric: Metric) -> tuple[str, Scores, str] | None:
    """Return by what the rows of a run are scored, these scores, and the hash of the rows; None without such rows."""
    file, rows_hash = RunFolder(run).predictions, environment_of(run).get("data", {}).get("test")
    if rows_hash is None or not file.is_file():
        return None
    with file.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        columns = [name for name in reader.fieldnames or () if name.startswith(SCORE)]
        wanted = f"{SCORE}{metric.name.removeprefix('eval_')}"
        if not columns:
            return None
        column = wanted if wanted in columns else columns[0]
        scores = {int(row[ROW]): float(row[column] or math.nan) for row in reader}
    return column.removeprefix(SCORE), scores, rows_hash
