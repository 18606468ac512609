"""The page of a batch: who is best, who is no better than the trivial baseline, and all figures with their gains."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dure.metrics.metric import Metric, recorded
from dure.metrics.paired import corrected, paired_difference
from dure.pages.run_facts import environment_of
from dure.reporting.columns import Rows
from dure.reporting.figures import BASELINE, counted, metric_phrase, number
from dure.reporting.marks import sentence
from dure.reporting.page import Section, Table
from dure.reporting.summary import experiment_columns, gains_of, ranked
from dure.reporting.verdicts import difference_sentence
from dure.runs.folder import ROW, SCORE, RunFolder
from dure.studies.batch.results import BatchResults
from dure.studies.results import TrialRecord
from dure.studies.viewing import View, failures


class BatchView(View[BatchResults]):
    """A batch: its experiments, best first."""

    @classmethod
    def facts_of(cls, results: BatchResults, path: Path) -> dict[str, Any]:
        """Return verdict and gains of a batch."""
        metric = recorded(results.as_json(), results.metrics[0])
        trials = {trial.name: trial for trial in results.experiments}
        scores = {
            trial.name: score
            for trial in results.experiments
            if trial.state == "completed" and (score := number(trial.metrics.get(metric.name))) is not None
        }
        told = []
        if scores:
            best = metric.ranked(scores)[0]
            equal = [name for name, score in scores.items() if score == scores[best] and name != best]
            first = metric_phrase(metric, scores[best])
            if equal:
                told.append(
                    f"{best} and {', '.join(equal)} tie at {first}, the best of {counted(len(scores), 'experiment')}."
                )
            elif len(scores) > 1:
                told.append(
                    f"{best} has the best score of {len(scores)} experiments: {first} on the validation rows."
                )
            else:
                told.append(f"{best} has {first} on the validation rows.")
        else:
            told.append(f"No experiment completed with a {metric.name}.")
        told += _beside_baseline(metric, scores, trials)
        folders = cls.run_folders(results, path)
        told += paired_sentences({name: folders[name] for name in metric.ranked(scores)}, metric)
        told += failures({trial.name: trial.state for trial in results.experiments})
        gains = gains_of(results.as_json()["experiments"], metric.name)
        return {"metric": metric.name, "sentences": told, "gains": gains}

    def sections(self) -> Sequence[Section]:
        """Return the table of a batch, best first."""
        record, results = self.record, self.results
        metric, experiments = recorded(record.data, results.metrics[0]), record.get("experiments")
        order = ranked(experiments, metric)
        columns = experiment_columns(record, self.facts, order)
        rows, gains = (
            Rows.of(each, key, order=order) for each, key in ((record, "experiments"), (self.facts, "gains"))
        )
        if any("baseline" in each for each in self.facts.get("gains")):
            baseline = metric.name.replace("eval_", BASELINE, 1)
            columns[3:3] = [
                rows.column("trivial baseline", "metrics", baseline, figure=metric),
                gains.column("above it", "baseline", change=metric),
            ]
        columns.append(rows.column("peak memory", "metrics", "peak_memory_mb", written="memory"))
        strong = [at for at, place in enumerate(order) if experiments[place]["name"] == results.best]
        has_gain = any("untrained" in each for each in self.facts.get("gains"))
        gain = "; gain: over the untrained model" if has_gain else ""
        caption = sentence("Experiments, best {} first{}", record.mark("metrics", 0, written="metric"), gain)
        return [Section("Experiments", [Table(caption, columns, strong)])]


def _beside_baseline(
    metric: Metric, scores: Mapping[str, float], trials: Mapping[str, TrialRecord]
) -> list[str]:
    below = [
        name
        for name, score in scores.items()
        if (baseline := _before(trials[name], metric.name, BASELINE)) is not None
        and not metric.better(score, baseline)
    ]
    return [f"No better than the trivial baseline: {', '.join(below)}."] if below else []


def _before(trial: TrialRecord, metric: str, prefix: str) -> float | None:
    return (
        number(trial.metrics.get(metric.replace("eval_", prefix, 1))) if metric.startswith("eval_") else None
    )


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
