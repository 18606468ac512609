"""Comparing runs: their settings, their scores where these may be compared at all, and row by row."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import chain, combinations
from pathlib import Path
from typing import Literal

import numpy as np

from dure.archive import verdict
from dure.archive.comparison import (
    Comparison,
    ExampleRecord,
    GroupRecord,
    PairRecord,
    SettingRecord,
    Signature,
)
from dure.archive.left import LeftRun, Setting, completed_runs, settings_of
from dure.errors import UserError, nearest, shortened
from dure.metrics.metric import BASELINE, TEST, Metric
from dure.metrics.paired import LEVEL, PairedDifference, corrected, paired_difference
from dure.reporting.figures import class_figure, is_speed
from dure.reporting.verdicts import share_sentence
from dure.runs.folder import PREDICTED
from dure.runs.row_scores import RowScores, of_table, read_rows, read_scores, share_difference, with_prefix

_EXAMPLES = 10
_LONGEST_TEXT = 300
_FINAL_WEIGHTS = "final_weights"
"""The one word among the figures of a run that does not say how a metric was computed."""
_MOST_BY_SHARE = 3
"""Settings that the best one is compared with by a share of classes."""
_MOST_IN_PAIRS = 12
"""Settings up to which every two are compared row by row; of more, each with the best one."""


@dataclass(frozen=True)
class Scored:
    """A setting with its record, and the test rows that its runs left, by seed."""

    setting: Setting
    record: SettingRecord
    rows: Mapping[int, RowScores]

    @classmethod
    def of(cls, setting: Setting, metric: Metric) -> Scored:
        """Return what the runs of a setting left of a metric."""
        runs = setting.runs
        read = {
            seed: read_scores([run.folder.predictions for run in of_seed])
            for seed, of_seed in setting.by_seed.items()
        }
        rows = {seed: found for seed, found in read.items() if found is not None}

        def mean(prefix: str) -> float | None:
            return _mean([run.figure(f"{prefix}{metric.name}") for run in runs])

        is_tested = mean(TEST) is not None
        by_seed = _by_seed(setting, metric, rows, is_tested=is_tested)
        # Those of the score, unless a run left only its validation.
        of_test = is_tested and mean(BASELINE + TEST) is not None
        baseline = mean(BASELINE + TEST if of_test else BASELINE)
        beside = mean(TEST if of_test else "eval_")
        memory = [figure for run in runs if (figure := run.figure("peak_memory_mb")) is not None]
        record = SettingRecord(
            name=setting.name,
            runs=tuple(str(run.path) for run in runs),
            seeds=tuple(setting.by_seed),
            values=dict(setting.values),
            score=_mean([*by_seed.values()]),
            deviation=statistics.stdev(by_seed.values()) if len(by_seed) > 1 else None,
            by_seed=by_seed,
            signature=_signature(setting, metric, rows, is_tested=is_tested),
            baseline=baseline,
            baseline_split="test" if of_test else "dev",
            beats_baseline=None if beside is None or baseline is None else metric.better(beside, baseline),
            seconds=statistics.fmean(run.result.seconds for run in runs),
            peak_memory_mb=max(memory, default=None),
        )
        return cls(setting, record, rows)


def _by_seed(
    setting: Setting, metric: Metric, rows: Mapping[int, RowScores], *, is_tested: bool
) -> dict[int, float]:
    """Return the score of every seed; over folds that of all rows together where the metric is a mean over rows."""
    scores: dict[int, float | None] = {}
    for seed, runs in setting.by_seed.items():
        if is_tested and len(runs) > 1 and seed in rows and metric.name in rows[seed].scores:
            scores[seed] = float(rows[seed].scores[metric.name].mean())
        else:
            scores[seed] = _mean(
                [run.figure(f"{'test' if is_tested else 'eval'}_{metric.name}") for run in runs]
            )
    return {seed: score for seed, score in scores.items() if score is not None}


def _signature(
    setting: Setting, metric: Metric, rows: Mapping[int, RowScores], *, is_tested: bool
) -> Signature:
    """Return what the scores of a setting were measured on, and how."""
    first, how = setting.runs[0], _how(setting.runs[0], metric)
    if is_tested and len(rows) == len(setting.by_seed):
        hashes = dict.fromkeys(each.content_hash for each in rows.values())
        num_rows = max(len(each.rows) for each in rows.values())
        return Signature(split="test", rows="+".join(hashes), num_rows=num_rows, how=how)
    split: Literal["test", "dev"] = "test" if is_tested else "dev"
    tables = dict.fromkeys(run.hashes.get(split, run.hashes.get("train", "")) for run in setting.runs)
    count = first.figure("num_dev_rows") if split == "dev" else None
    table = "+".join(tables)
    if count is not None and count == first.experiment.data.max_dev_rows:
        # So many of the table were drawn, by the seed: other seeds have other rows.
        table = hashlib.sha256(f"{table} {sorted(setting.by_seed)}".encode()).hexdigest()
    return Signature(split=split, rows=table, num_rows=None if count is None else int(count), how=how)


def compare(named: Sequence[str | Path], *, metric: str | None = None) -> tuple[Comparison, list[Setting]]:
    """Compare the completed runs in folders of runs and studies; also returns the settings that its picture draws.

    The metric may have ``eval_`` or ``test_`` before its name; it is what chose the best checkpoints when not given.

    Raises:
        UserError: There are no two settings to compare, or the metric is not known of them.
    """
    runs, notes = completed_runs(named)
    settings = settings_of(runs)
    if len(settings) < 2:
        what = "one setting" if settings else "no run that completed"
        raise UserError(
            f"there is {what} in {', '.join(map(str, named))}",
            expected="two runs, or studies, that differ in more than their seed",
            hint="name a further run; dure runs shows them",
        )
    compared = _metric(runs, metric)
    scored = [Scored.of(setting, compared) for setting in settings]
    by_rows = _row_metric(scored, compared)
    alike: dict[str, list[Scored]] = {}
    for each in scored:
        alike.setdefault(each.record.signature.model_dump_json(), []).append(each)
    groups = [sorted(group, key=lambda each: compared.cost(each.record.score)) for group in alike.values()]
    pairs = [pair for group in groups for pair in _pairs(group, by_rows)]
    records = [[each.record for each in group] for group in groups]
    comparison = Comparison(
        metric=compared.name,
        direction="max" if compared.higher_is_better else "min",
        unit=compared.unit,
        settings=tuple(chain.from_iterable(records)),
        groups=tuple(_group_record(group, pairs) for group in groups),
        pairs=tuple(pairs),
        examples=tuple(_examples(max(groups, key=len), by_rows)),
        sentences=(),
        notes=(*notes, *verdict.notes_on(records, compared, by_rows)),
    )
    told = (*verdict.sentences(comparison, compared, by_rows), *_by_share(groups, compared, by_rows))
    return comparison.with_values(sentences=told), settings


def _metric(runs: Sequence[LeftRun], asked: str | None) -> Metric:
    """Return what is compared, by its bare name."""
    names = [
        {
            _bare(name)
            for name in run.result.metrics
            if name.startswith(("eval_", "test_")) and not is_speed(name)
        }
        for run in runs
    ]
    known = sorted(set[str]().union(*names))
    if asked is None:
        chosen = dict.fromkeys(_bare(run.result.best_metric) for run in runs if run.result.best_metric)
        if len(chosen) != 1:
            said = (
                f"runs were chosen by {', '.join(chosen)}" if chosen else "no run says what it was chosen by"
            )
            shared = [each for each in sorted(set[str].intersection(*names)) if class_figure(each) is None]
            raise UserError(
                said,
                where="--metric",
                expected=f"one that all of them have: {', '.join(shared)}" if shared else "runs of one task",
            )
        asked = next(iter(chosen))
    name = _bare(asked)
    if name not in known:
        raise UserError(
            f"no run has a score '{asked}'",
            where="--metric",
            expected=f"one of {', '.join(each for each in known if class_figure(each) is None)}",
            hint=nearest(name, known),
        )
    defined = [metric for run in runs if (metric := run.metric(name)).direction is not None]
    if not defined:
        raise UserError(
            f"no run says which way '{name}' is better",
            where="--metric",
            expected="a metric with a direction, of runs of this version of dure",
            hint="--metric loss",
        )
    return replace(defined[0], name=name)


def _bare(name: str) -> str:
    return name.removeprefix("eval_").removeprefix("test_")


def _row_metric(scored: Sequence[Scored], metric: Metric) -> Metric | None:
    """Return what rows are compared by: the metric where it is a mean over rows, else the first that is, if there is one."""
    tables = [rows.scores for each in scored for rows in each.rows.values()]
    shared = [name for name in (tables[0] if tables else ()) if all(name in table for table in tables)]
    if not shared:
        return None
    name = metric.name if metric.name in shared else shared[0]
    return replace(scored[0].setting.runs[0].metric(name), name=name)


def _how(run: LeftRun, metric: Metric) -> dict[str, str]:
    """Return how a metric was computed: a note called after some of the metrics, as ``rouge_tokenizer``, is of these."""
    names = ["loss", *map(_bare, run.result.definitions)]
    found = {}
    for key, value in run.result.metrics.items():
        if isinstance(value, str) and key != _FINAL_WEIGHTS:
            word = key.partition("_")[0]
            is_of_some = any(name.startswith(word) for name in names)
            if not is_of_some or metric.name.startswith(word):
                found[key] = value
    return found


def _pairs(group: Sequence[Scored], metric: Metric | None) -> list[PairRecord]:
    """Compare the settings of a group row by row, best first; those whose rows can be paired."""
    if metric is None:
        return []
    able = [each for each in group if len(each.rows) == len(each.setting.by_seed)]
    if len(able) <= _MOST_IN_PAIRS:
        two = list(combinations(able, 2))
    else:
        two = [(able[0], other) for other in able[1:]]
    in_all = len(able) * (len(able) - 1) // 2
    found = [(a, b, difference) for a, b in two if (difference := _difference(a, b, metric))]
    together = corrected([difference for _, _, difference in found], num_comparisons=max(in_all, len(found)))
    return [
        PairRecord(a=a.setting.name, b=b.setting.name, metric=metric.name, unit=metric.unit, **vars(each))
        for (a, b, _), each in zip(found, together, strict=True)
    ]


def _difference(a: Scored, b: Scored, metric: Metric) -> PairedDifference | None:
    """Compare two settings on the rows that all seeds of both scored, seed by seed; None where there is no such row."""
    shared = sorted(a.rows.keys() & b.rows.keys())
    seeds = [(seed, seed) for seed in shared] or list(zip(sorted(a.rows), sorted(b.rows), strict=False))
    tables = [(a.rows[one], b.rows[other]) for one, other in seeds]
    rows = reduce(np.intersect1d, (table.rows for pair in tables for table in pair))
    first, second = (np.stack([pair[side].of(metric.name, rows) for pair in tables]) for side in (0, 1))
    are_known = np.isfinite(first).all(axis=0) & np.isfinite(second).all(axis=0)
    if not are_known.any():
        return None
    return paired_difference(first[:, are_known], second[:, are_known], metric=metric)


def _by_share(groups: Sequence[Sequence[Scored]], metric: Metric, row_metric: Metric | None) -> list[str]:
    """Say how sure the order of settings of one seed is by a share of classes that is no mean over rows."""
    if row_metric is None or row_metric.name == metric.name:
        return []
    told = []
    for group in groups:
        files = {
            each.setting.name: each.setting.runs[0].folder.predictions
            for each in group
            if len(each.setting.runs) == 1 and each.rows
        }
        first, *others = [*files][: _MOST_BY_SHARE + 1] or [""]
        level = 1 - (1 - LEVEL) / max(1, len(files) - 1)
        for other in others:
            found = share_difference(files[first], files[other], metric.name, level)
            if found is not None:
                told.append(share_sentence(first, other, *found, metric))
    return told


def _group_record(group: Sequence[Scored], pairs: Sequence[PairRecord]) -> GroupRecord:
    first = group[0].record
    best = first.name if first.score is not None and first.beats_baseline is not False else None
    alike = {
        pair.b if pair.a == best else pair.a
        for pair in pairs
        if best in (pair.a, pair.b) and pair.verdict in ("tie", "equal")
    }
    names = tuple(each.setting.name for each in group)
    return GroupRecord(settings=names, best=best, ties=tuple(name for name in names if name in alike))


def _examples(group: Sequence[Scored], metric: Metric | None) -> list[ExampleRecord]:
    """Return the rows on which the settings differ most, as far as the settings scored the same ones."""
    able = [each for each in group if each.rows]
    if metric is None or len(able) < 2:
        return []
    rows = reduce(np.intersect1d, (table.rows for each in able for table in each.rows.values()))
    means = np.stack(
        [np.mean([table.of(metric.name, rows) for table in each.rows.values()], axis=0) for each in able]
    )
    spread = np.nan_to_num(means.max(axis=0) - means.min(axis=0), nan=-1.0)
    chosen = [place for place in np.argsort(-spread, kind="stable")[:_EXAMPLES].tolist() if spread[place] > 0]
    wanted = {int(rows[place]) for place in chosen}
    texts = {
        each.setting.name: read_rows(
            [run.folder.predictions for run in next(iter(each.setting.by_seed.values()))], wanted
        )
        for each in able
    }
    first = texts[able[0].setting.name]
    return [
        ExampleRecord(
            row=int(rows[place]),
            columns=_shortened(of_table(first[int(rows[place])])),
            scores={each.setting.name: float(means[number, place]) for number, each in enumerate(able)},
            predictions={
                name: _shortened(with_prefix(table[int(rows[place])], PREDICTED))
                for name, table in texts.items()
            },
        )
        for place in chosen
    ]


def _shortened(cells: Mapping[str, str]) -> dict[str, str]:
    return {name: shortened(cell, _LONGEST_TEXT) for name, cell in cells.items()}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None
