"""The page of a batch: who is best, who is no better than the trivial baseline, and all figures with their gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dure.errors import counted
from dure.metrics.metric import BASELINE, Metric, recorded, under
from dure.metrics.paired import LEVEL, corrected, paired_difference
from dure.pages.run_facts import experiment_of
from dure.reporting.columns import Cell, Column, FittedTable, Rows, column
from dure.reporting.figures import (
    NOTHING,
    bare_label,
    gains_of,
    metric_figure,
    metric_phrase,
    number,
    some_names,
)
from dure.reporting.marks import Key, Source, sentence
from dure.reporting.page import Section, Table
from dure.reporting.summary import experiment_columns, ranked
from dure.reporting.verdicts import difference_sentence, share_sentence
from dure.runs.folder import RunFolder
from dure.runs.row_scores import read_scores, share_difference
from dure.studies.batch.results import BatchResults, Setting
from dure.studies.viewing import View, failures

_SHORTEST = 24
_ONE_SEED = (
    "Each was trained by one seed: the intervals say how far a difference depends on the test rows, and nothing of "
    "another seed (--seeds N)."
)


class BatchView(View[BatchResults]):
    """A batch: its experiments, best first; with several seeds, first what they are worth as means over these."""

    @classmethod
    def run_folders(cls, results: BatchResults, path: Path) -> Mapping[str, Path]:
        """Return the folder of every run by its name; of several seeds, those of the best setting first."""
        folders = super().run_folders(results, path)
        first = next((each.runs for each in results.settings if each.name == results.best), ())
        return {name: folders[name] for name in (*first, *(each for each in folders if each not in first))}

    @classmethod
    def facts_of(cls, results: BatchResults, path: Path) -> dict[str, Any]:
        """Return verdict and gains of a batch."""
        metric = results.metric_named(results.metrics[0])
        gains = [gains_of(trial.metrics).get(metric.name, {}) for trial in results.experiments]
        told = cls.verdict(results, path) + failures(results.experiments)
        return {"metric": metric.name, "sentences": told, "gains": gains}

    @classmethod
    def verdict(cls, results: BatchResults, path: Path) -> list[str]:
        """Return who is best, and how sure that is."""
        metric, folders = results.metric_named(results.metrics[0]), cls.run_folders(results, path)
        if results.settings:
            firsts = {each.name: folders[each.runs[0]] for each in results.settings if each.runs}
            return _over_seeds(results, metric) + _on_other_rows(firsts)
        scores, below = dict[str, float](), []
        for trial in results.experiments:
            score, trivial = (
                number(trial.metrics.get(name)) for name in (metric.name, under(metric.name, BASELINE))
            )
            if trial.state == "completed" and score is not None:
                scores[trial.name] = score
                if trivial is not None and not metric.better(score, trivial):
                    below.append(trial.name)
        told = _of_one_seed(folders, metric, scores, below)
        return told + _on_other_rows({name: folders[name] for name in scores})

    def sections(self) -> Sequence[Section]:
        """Return the table of a batch, best first."""
        record, results = self.record, self.results
        metric, experiments = results.metric_named(results.metrics[0]), record.get("experiments")
        order = ranked(experiments, metric)
        columns = experiment_columns(record, self.facts, order)
        rows = Rows.of(record, "experiments", order=order)
        if any("baseline" in each for each in self.facts.get("gains")):
            baseline = under(metric.name, BASELINE)
            columns.insert(3, rows.column("trivial baseline", "metrics", baseline, figure=metric))
        columns.append(rows.column("peak memory", "metrics", "peak_memory_mb", written="memory"))
        strong = [at for at, place in enumerate(order) if experiments[place]["name"] == results.best]
        caption = sentence("Experiments, best {} first", record.mark("metrics", 0, written="metric"))
        of_seeds = [Section("Settings", [_settings(self)])] if results.settings else []
        return [*of_seeds, Section("Experiments", [Table(caption, columns, strong)])]


def _of_one_seed(
    folders: Mapping[str, Path], metric: Metric, scores: Mapping[str, float], below: Sequence[str]
) -> list[str]:
    """Return who is best, who is no better than the trivial baseline, and how sure that is by the test rows."""
    if not scores:
        return [f"No experiment completed with a {metric.name}."]
    best = metric.ranked(scores)[0]
    equal = [name for name, score in scores.items() if score == scores[best] and name != best]
    first, number_of = metric_phrase(metric, scores[best]), counted(len(scores), "experiment")
    if equal:
        told = [f"{best} and {', '.join(equal)} tie at {first}, the best of {number_of}."]
    elif len(scores) > 1:
        told = [f"{best} has the best score of {number_of}: {first} on the validation rows."]
    else:
        told = [f"{best} has {first} on the validation rows."]
    told += [f"No better than the trivial baseline: {', '.join(below)}."] if below else []
    paired = paired_sentences({name: folders[name] for name in metric.ranked(scores)}, metric)
    return told + ([*paired, _ONE_SEED] if paired else [])


def _on_other_rows(folders: Mapping[str, Path]) -> list[str]:
    """Return a sentence on runs whose validation rows differ; nothing where all have the same."""
    groups: dict[Any, list[str]] = {}
    for name, folder in folders.items():
        run = RunFolder(folder)
        environment, result = run.read_environment(), run.read_result()
        table = environment.get("data", {}).get("dev")
        if table is None or result is None:
            continue
        rows, data = result.metrics.get("num_dev_rows"), experiment_of(folder).get("data", {})
        drawn_by = environment.get("seed") if rows == data.get("max_dev_rows") else None
        groups.setdefault((table, rows, drawn_by), []).append(name)
    if len(groups) < 2:
        return []
    apart = "; ".join(map(some_names, groups.values()))
    return [
        f"Not all were validated on the same rows, and scores compare only within each of these: {apart}."
    ]


def _over_seeds(results: BatchResults, metric: Metric) -> list[str]:
    """Return the means over seeds, best first, and every two settings by the same seeds."""
    told = [_mean_sentence(results.settings[place], metric) for place in _by_mean(results)]
    if results.best is None:
        told.append("No setting has all its scores and a mean above the trivial baseline.")
    return told + [each.sentence for each in results.comparisons]


def _mean_sentence(setting: Setting, metric: Metric) -> str:
    mean, deviation = setting.mean.get(metric.name), setting.deviation.get(metric.name)
    if mean is None:
        return f"{setting.name}: no run has a {metric.name}."
    told = (
        f"{setting.name}: {metric_phrase(metric, mean)} as a mean over {counted(setting.num_scored, 'seed')}"
    )
    if deviation is not None:
        told += f", standard deviation {metric_figure(metric, deviation)}"
    if setting.baseline is not None and not metric.better(mean, setting.baseline):
        told += f"; no better than the trivial baseline ({metric_figure(metric, setting.baseline)})"
    return f"{told}."


def _by_mean(results: BatchResults) -> list[int]:
    """Return the places of the settings, the best mean first; those that lack seeds last, whose means are of others."""
    metric = results.metric_named(results.metrics[0])
    costs = [
        (each.num_scored < len(each.runs), metric.cost(each.mean.get(metric.name)))
        for each in results.settings
    ]
    return sorted(range(len(costs)), key=costs.__getitem__)


def seeds_table(results: BatchResults) -> FittedTable:
    """Return the mean of every setting over its seeds with the deviation between them, best mean first."""
    metric, order = results.metric_named(results.metrics[0]), _by_mean(results)
    settings = [results.settings[place] for place in order]
    columns = _setting_columns(results, Source(0, results.as_json()), order)
    columns.insert(1, column("seeds", (f"{each.num_scored}/{len(each.runs)}" for each in settings), rank=5))
    title = f"{results.study} · mean ± standard deviation over seeds, ranked by {bare_label(metric)}"
    notes = [each.sentence for each in results.comparisons]
    baselines = [each.baseline for each in settings if each.baseline is not None]
    if baselines:
        beaten = "" if results.best else ", which no setting is better than"
        notes.append(f"trivial baseline: {metric_figure(metric, baselines[0])}{beaten}")
    return FittedTable(columns, title, notes, elsewhere="experiment_summary.txt")


def _setting_columns(results: BatchResults, record: Source, order: Sequence[int]) -> list[Column]:
    """Return the name of every setting and its means over the seeds with the deviation between them."""
    rows = Rows.of(record, "settings", order=order)
    columns = [rows.column("setting", "name", is_text=True, shortest=_SHORTEST)]
    for place, name in enumerate(results.metrics):
        metric = results.metric_named(name)

        def cell(*at: Key, metric: Metric = metric) -> Cell:
            both = [record.figure(*at, what, metric.name, metric=metric) for what in ("mean", "deviation")]
            return both[0] if both[0] == NOTHING else sentence("{} ± {}", *both)

        heading, rank = record.label(metric, "metrics", place), 10 + place if place else 0
        columns.append(column(heading, [cell(*at) for at in rows.places], rank))
    return columns


def _settings(view: View[BatchResults]) -> Table:
    record, results = view.record, view.results
    order = _by_mean(results)
    rows = Rows.of(record, "settings", order=order)
    columns = _setting_columns(results, record, order)
    columns.insert(1, rows.column("seeds", "num_scored", written="count"))
    metric = results.metric_named(results.metrics[0])
    columns.append(rows.column("trivial baseline", "baseline", figure=metric))
    # Of a tie no row stands out, though one has the highest mean.
    tied = {
        name
        for each in results.comparisons
        if each.verdict in ("tie", "equal")
        for name in (each.first, each.second)
    }
    best = None if results.best in tied else results.best
    strong = [at for at, place in enumerate(order) if results.settings[place].name == best]
    caption = "Mean over the seeds ± standard deviation between them, on the validation rows"
    return Table(caption, columns, strong)


_MOST = 12
"""Runs that the first one is compared with: each is a test more to be corrected for."""


def paired_sentences(runs: Mapping[str, Path], metric: Metric) -> list[str]:
    """Return how sure it is that the first run is better than each other one, by what every test row is worth.

    Args:
        runs: Folder of every run by its name; the first one is compared with the others.
        metric: What they are compared by; where it is no mean over rows, the first score of theirs that is.

    Returns:
        A sentence for every run that was scored on the same test rows, and alike; corrected for their number (Holm).
    """
    names = [*runs][: _MOST + 1]
    folders = [RunFolder(runs[name]) for name in names]
    tables = [read_scores([each.predictions]) for each in folders]
    first = tables[0] if tables else None
    if first is None or not first.scores:
        return []
    wanted = metric.name.removeprefix("eval_")
    by = wanted if wanted in first.scores else next(iter(first.scores))
    result, measured = folders[0].read_result(), _measured(folders[0], by)
    used = replace(
        recorded({"definitions": {} if result is None else result.definitions}, f"eval_{by}"), name=by
    )
    if used.direction is None or measured[0] is None:
        return []
    found = []
    for name, folder, table in zip(names[1:], folders[1:], tables[1:], strict=True):
        # The smaller loss of another kind says nothing.
        if table is None or by not in table.scores or _measured(folder, by) != measured:
            continue
        rows = np.intersect1d(first.rows, table.rows)
        both = np.stack([first.of(by, rows), table.of(by, rows)])
        are_known = np.isfinite(both).all(axis=0)
        if are_known.any():
            found.append((name, paired_difference(*both[:, are_known], metric=used)))
    differences = [difference for _, difference in found]
    together = corrected(differences) if len(differences) > 1 else differences
    told = [
        difference_sentence(names[0], name, each, used)
        for (name, _), each in zip(found, together, strict=True)
    ]
    if by != wanted:
        level = 1 - (1 - LEVEL) / max(1, len(found))
        files = {name: RunFolder(runs[name]).predictions for name in (names[0], *(name for name, _ in found))}
        for name, _ in found:
            share = share_difference(files[names[0]], files[name], wanted, level)
            told += [] if share is None else [share_sentence(names[0], name, *share, metric)]
    return [f"On the test rows: {sentence}" for sentence in told]


def _measured(run: RunFolder, score: str) -> tuple[str | None, dict[str, Any]]:
    """Return the hash of a run's test rows, and its words on how it computed a score, such as ``rouge_tokenizer``."""
    result = run.read_result()
    words = {
        name: value
        for name, value in ({} if result is None else result.metrics).items()
        if isinstance(value, str) and score.startswith(name.partition("_")[0])
    }
    return run.read_environment().get("data", {}).get("test"), words
