"""The tables of a progressive study: the winner stage by stage, and where the other candidates ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from dure.errors import counted, shown_path
from dure.metrics.intervals import difference_of_shares, rows_behind
from dure.metrics.metric import TEST, under
from dure.reporting.columns import STATE_STYLES, Column, FittedTable, Rows, apart, column
from dure.reporting.figures import error_notes, metric_figure, metric_phrase, number, percent, study_title
from dure.reporting.marks import Source, listed, sentence
from dure.reporting.page import Picture, Section, Table
from dure.reporting.plots import Drawing
from dure.reporting.verdicts import chosen_phrase
from dure.studies.progressive.plot import plot_progressive
from dure.studies.progressive.results import ProgressiveResults, StageRecord
from dure.studies.viewing import View, failures, moved

_SHORTEST = 16
_LEVEL = 0.95
"""Probability of the interval that says whether candidates are apart."""
_FILE = "progressive_training_summary.txt"
_STOPS = {
    "gain": "stopped early: more data no longer pays",
    "baseline": "stopped early: no candidate beat the trivial baseline",
}


def progressive_table(results: ProgressiveResults) -> Group:
    """Return what a progressive study found, finished or not, fitting itself to the terminal that prints it."""
    record, several = Source(0, results.as_json()), len(results.candidates) > 1
    facts = Source(0, {"gains": gains_of(results), "sums": sums_of(results)})
    tables = []
    if results.stages:
        name = f"winner: {results.winner}" if several and results.winner else ""
        tables.append(FittedTable(stage_columns(results, record, facts), name, elsewhere=_FILE))
    if several:
        columns = candidate_columns(results, record, facts)
        tables.append(FittedTable(columns, "candidates" if tables else "", elsewhere=_FILE))
    parts = [counted(len(results.stages), "stage")] if results.stages else []
    parts += [counted(len(results.candidates), "candidate")] if several else []
    title = study_title(results.study, parts or ["no stage yet"], results.seconds, results.state)
    return apart(Text(title, style="bold"), *tables, Group(*map(Text, _notes(results))))


def verdict_lines(results: ProgressiveResults) -> list[str]:
    """Return why a progressive study ended early, its forecast beside what came, and what its best score is worth."""
    lines = [*_beginning(results), *_worth(results), *_close_calls(results)]
    return [f"{line[0].upper()}{line[1:]}." for line in lines]


def gains_of(results: ProgressiveResults) -> list[float | None]:
    """Return by how much the score of every stage is better than that of the one before; negative where it is worse."""
    metric = results.metric_named(results.metric)
    scores = [number(stage.score) for stage in results.stages]
    pairs = zip(scores, [None, *scores], strict=False)
    return [
        None if score is None or before is None else metric.gain(score, before) for score, before in pairs
    ]


def sums_of(results: ProgressiveResults) -> list[dict[str, float | None]]:
    """Return what the stages of every candidate took together."""
    return [
        {name: sum(getattr(each, name) for each in row.stages) or None for name in ("samples", "seconds")}
        for row in results.candidates
    ]


def stage_columns(results: ProgressiveResults, record: Source, facts: Source) -> list[Column]:
    """Return the stages of the winner; ``gains`` among the facts is what :func:`gains_of` returns."""
    metric, stages = results.metric_named(results.metric), Rows.of(record, "stages")
    has_loss = metric.name != "eval_loss"
    sizes = ("batch_size", "gradient_accumulation_steps")
    batches = [sentence("{} × {}", *(record.mark(*at, name) for name in sizes)) for at in stages.places]
    return [
        stages.column("stage", "stage"),
        stages.column("data", "ratio", written="ratio", rank=1),
        stages.column("rows", "num_rows", written="count", rank=3),
        stages.column(record.label(metric, "metric"), "score", figure=metric),
        Rows.of(facts, "gains").column("gain", change=metric, rank=2),
        *([stages.column("eval loss", "metrics", "eval_loss", written="number", rank=5)] if has_loss else []),
        column("batch", batches, rank=6),
        stages.column("time", "seconds", written="duration", rank=4),
        stages.column("peak memory", "peak_memory_mb", written="memory", rank=7),
    ]


def candidate_columns(results: ProgressiveResults, record: Source, facts: Source) -> list[Column]:
    """Return the candidates, the best first; ``sums`` among the facts is what :func:`sums_of` returns."""
    metric, order = results.metric_named(results.metric), _ranked(results)
    rows, sums = Rows.of(record, "candidates", order=order), Rows.of(facts, "sums", order=order)
    candidates = [results.candidates[place] for place in order]
    lasts = Rows(
        record,
        [(*at, "stages", len(row.stages) - 1) for at, row in zip(rows.places, candidates, strict=True)],
    )
    won = [place for place, row in enumerate(candidates) if row.name == results.winner]
    keys = dict.fromkeys(key for row in candidates for key in row.values)
    columns = [
        rows.column("candidate", "name", is_text=True, shortest=_SHORTEST),
        *(rows.column(key.rpartition(".")[2], "values", key, written="setting", rank=1) for key in keys),
        rows.column("state", "state", rank=4, is_text=True, styles=STATE_STYLES),
        lasts.column("ended at", "ratio", written="ratio", rank=2),
        lasts.column(record.label(metric, "metric"), "score", figure=metric, starred=won),
        sums.column("samples", "samples", written="count", rank=6),
        sums.column("time", "seconds", written="duration", rank=5),
    ]
    if any(row.reason for row in candidates):
        reasons = [record.mark(*at, "reason") if record.get(*at, "reason") else "" for at in rows.places]
        columns.append(column("why", reasons, 3, is_text=True, shortest=_SHORTEST))
    return columns


def _beginning(results: ProgressiveResults) -> list[str]:
    """Return why a study ended early, and its forecast beside what came."""
    return [*([_STOPS[results.stopped]] if results.stopped else []), *_forecast_notes(results)]


def _notes(results: ProgressiveResults) -> list[str]:
    """Return the lines beneath the tables: how far it got, and where it lies."""
    metric, best, notes = results.metric_named(results.metric), _best(results), _beginning(results)
    if results.baseline is not None:
        notes.append(f"trivial baseline: {metric_phrase(metric, results.baseline)}")
    if any(number(stage.score) is not None for stage in results.stages[1:]):
        unit = ", in percentage points" if metric.in_percent else ""
        notes.append(f"gain: over the stage before{unit}; batch: rows per step × accumulated steps")
    notes += error_notes([dict(trial) for trial in results.experiments])
    notes.append(f"samples trained: {results.samples_trained:,}")
    if best is not None:
        notes.append(f"best checkpoint: {shown_path(best.checkpoint)} (stage {best.stage})")
    notes += [*_worth(results), *_close_calls(results)]
    if results.final_model:
        notes.append(f"final model: {shown_path(results.final_model)}")
    return [*notes, f"results: {shown_path(results.path)}"]


def _worth(results: ProgressiveResults) -> list[str]:
    """Say what the score of the best of several stages is worth, which was chosen by the rows that it was measured on."""
    metric, best, count = results.metric_named(results.metric), _best(results), len(results.stages)
    if best is None or count < 2:
        return []
    tested = number(best.metrics.get(under(metric.name, TEST)))
    chosen = chosen_phrase(metric, best.score, count, tested)
    told = f"{metric_figure(metric, best.score)} of stage {best.stage} {chosen}"
    if tested is None:
        return [f"{told}; no test rows say by how much"]
    return [f"{told}; on the test rows, which chose nothing, it has {metric_figure(metric, tested)}"]


def _close_calls(results: ProgressiveResults) -> list[str]:
    """Say which candidates were beaten by less than the noise of the validation rows."""
    metric = results.metric_named(results.metric)
    if metric.unit != "share":
        return []
    told: dict[tuple[float, int], list[str]] = {}
    for row in results.candidates:
        last = row.stages[-1] if row.stages else None
        if row.state != "stopped" or last is None or last.score is None or not last.num_dev_rows:
            continue
        ahead = [
            each.score
            for other in results.candidates
            for each in other.stages[:-1]
            if each.ratio == last.ratio and each.score is not None
        ]
        if not ahead:
            continue
        weakest = max(ahead, key=metric.cost)
        behind = rows_behind(metric.name, last.metrics, last.num_dev_rows)
        low, high = difference_of_shares(weakest, last.score, behind, _LEVEL)
        if low <= 0 <= high:
            told.setdefault((last.ratio, last.num_dev_rows), []).append(row.name)
    return [
        f"beaten at {percent(ratio)} within the noise of {counted(rows, 'validation row')} (binomial, {100 * _LEVEL:g} %), "
        f"so that other rows might have kept them: {', '.join(names)}"
        for (ratio, rows), names in told.items()
    ]


def _forecast_notes(results: ProgressiveResults) -> list[str]:
    """Set the first forecast beside what was measured with as many rows, once it was."""
    metric = results.metric_named(results.metric)
    for stage in results.stages:
        if (made := stage.forecast) is None:
            continue
        low, high = metric_figure(metric, made.low), metric_figure(metric, made.high)
        line = (
            f"forecast made at {percent(stage.ratio)} for {made.at_rows:,} rows: "
            f"{metric_phrase(metric, made.value)} ({percent(made.level)} interval {low} to {high})"
        )
        truth = next((number(one.score) for one in results.stages if one.num_rows == made.at_rows), None)
        if truth is not None:
            within = "within" if made.low <= truth <= made.high else "outside"
            line += f"; measured: {metric_phrase(metric, truth)}, {within} it"
        return [line]
    return []


def _ranked(results: ProgressiveResults) -> list[int]:
    """Return the places of the candidates: the winner, then who saw the most data, the best score before the others."""
    metric = results.metric_named(results.metric)

    def rank(place: int) -> tuple[bool, float, float]:
        row = results.candidates[place]
        ratio, score = (row.stages[-1].ratio, number(row.stages[-1].score)) if row.stages else (0.0, None)
        return row.name != results.winner, -ratio, metric.cost(score)

    return sorted(range(len(results.candidates)), key=rank)


def _best(results: ProgressiveResults) -> StageRecord | None:
    return next((stage for stage in results.stages if stage.name == results.best_stage), None)


class ProgressiveView(View[ProgressiveResults]):
    """A progressive training: score over data, stages and candidates."""

    @classmethod
    def run_folders(cls, results: ProgressiveResults, path: Path) -> dict[str, Path]:
        """Return the folders of the winner's stages, best one first, then the last stage of every other candidate."""
        trials = {trial.name: trial for trial in results.experiments}
        several = len(results.candidates) > 1
        found = {}
        for candidate in sorted(results.candidates, key=lambda each: each.name != results.winner):
            stages = (
                candidate.stages if candidate.name == results.winner or not several else candidate.stages[-1:]
            )
            for stage in sorted(stages, key=lambda each: (each.name != results.best_stage, -each.stage)):
                name = f"{candidate.name} {stage.name}" if several else stage.name
                found[name] = moved(trials[candidate.name].path, results, path) / stage.name
        return found

    @classmethod
    def facts_of(cls, results: ProgressiveResults, path: Path) -> dict[str, Any]:
        """Return the verdict of a progressive training, and by how much each stage gained on the one before."""
        metric, best, told = results.metric_named(results.metric), _best(results), []
        if best is not None:
            of = (
                ""
                if len(results.candidates) < 2
                else f" of {results.winner}, the winner of {len(results.candidates)},"
            )
            equal = [str(each.stage) for each in results.stages if each.score == best.score and each != best]
            tie = (
                f"; {'stage' if len(equal) == 1 else 'stages'} {listed(equal)} tied with it" if equal else ""
            )
            told.append(
                f"Stage {best.stage}{of} with {percent(best.ratio)} of the rows is the best: "
                f"{metric_phrase(metric, best.score)} on the validation rows{tie}."
            )
            if best.baseline is not None and not metric.better(best.score, best.baseline):
                told.append(
                    f"That is no better than the trivial baseline ({metric_phrase(metric, best.baseline)})."
                )
        told += verdict_lines(results) + failures(results.experiments)
        return {
            "metric": metric.name,
            "sentences": told,
            "gains": gains_of(results),
            "sums": sums_of(results),
        }

    def sections(self) -> Sequence[Section]:
        """Return picture, stages and candidates."""
        sections = []
        if self.results.stages:
            points = [
                f"{percent(stage.ratio)}: {stage.score:.4g}"
                for stage in self.results.stages
                if stage.score is not None
            ]
            drawing = Drawing(f"{self.results.metric} by part of the training rows: {', '.join(points)}.")
            plot_progressive(drawing, self.results)
            caption = (
                "The score over the training rows, with the forecast that was made and what came; beneath it what every "
                "stage took. Grey squares were eliminated, crosses failed."
            )
            sections.append(Section("Score over data", [Picture(caption, drawing)]))
            best = [at for at, each in enumerate(self.results.stages) if each.name == self.results.best_stage]
            stages = Table(
                "Stages of the winner; gain: over the stage before; batch: rows per step × accumulated steps",
                stage_columns(self.results, self.record, self.facts),
                best,
            )
            sections.append(Section("Stages", [stages]))
        if len(self.results.candidates) > 1:
            won = [0] if self.results.winner is not None else []
            columns = candidate_columns(self.results, self.record, self.facts)
            sections.append(Section("Candidates", [Table("Candidates", columns, won)]))
        return sections
