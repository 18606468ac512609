"""The tables of a progressive study: the winner stage by stage, and where the other candidates ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dure.errors import counted
from dure.metrics.intervals import difference_of_shares
from dure.metrics.metric import TEST, Metric, recorded, under
from dure.reporting.columns import STATE_STYLES, Column, FittedTable, Rows, column
from dure.reporting.figures import (
    NOTHING,
    error_notes,
    metric_figure,
    metric_phrase,
    number,
    percent,
    shown_path,
    study_title,
)
from dure.reporting.inline import Drawing
from dure.reporting.marks import Source, listed, sentence
from dure.reporting.page import Picture, Section, Table
from dure.reporting.verdicts import chosen_phrase
from dure.studies.progressive.plot import plot_progressive
from dure.studies.progressive.results import ProgressiveResults
from dure.studies.viewing import View, failures, moved

_SHORTEST = 16
_LEVEL = 0.95
"""Probability of the interval that says whether candidates are apart."""
_FILE = "progressive_training_summary.txt"
_STOPS = {
    "gain": "stopped early: more data no longer pays",
    "baseline": "stopped early: no candidate beat the trivial baseline",
}

Row = Mapping[str, Any]


def progressive_table(summary: Mapping[str, Any]) -> Group:
    """Return what a progressive study found, fitting itself to the terminal that prints it.

    ``summary`` is what ``progressive_training_results.json`` holds, of a finished study or of one that runs.
    """
    candidates: Sequence[Row] = summary.get("candidates") or []
    stages: Sequence[Row] = summary.get("stages") or (candidates[0]["stages"] if len(candidates) == 1 else [])
    record = Source(0, {**summary, "stages": stages, "candidates": candidates})
    tables = []
    if stages:
        name = f"winner: {summary['winner']}" if len(candidates) > 1 and summary.get("winner") else ""
        facts = Source(0, {"gains": gains_of(stages)})
        tables.append(FittedTable(stage_columns(record, facts), name, elsewhere=_FILE))
    if len(candidates) > 1:
        facts = Source(0, {"sums": sums_of(candidates)})
        order = ranked_candidates(summary)
        columns = candidate_columns(record, facts, order)
        tables.append(FittedTable(columns, "candidates" if tables else "", elsewhere=_FILE))
    parts: list[RenderableType] = [Text(_title(summary, stages, candidates), style="bold")]
    for table in tables:
        parts += [Text(), table]
    return Group(*parts, Text(), *map(Text, _notes(summary, stages)))


def verdict_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return why a progressive study ended early, its forecast beside what came, and what its best score is worth."""
    metric, stages = _metric(summary), summary["stages"]
    lines = [_STOPS[summary["stopped"]]] if summary["stopped"] else []
    lines += _forecast_notes(metric, stages)
    best = _best(stages, summary)
    if best is not None and len(stages) > 1:
        lines.append(_worth(best, metric, len(stages)))
    lines += _close_calls(summary)
    return [f"{line[0].upper()}{line[1:]}." for line in lines]


def _title(summary: Mapping[str, Any], stages: Sequence[Row], candidates: Sequence[Row]) -> str:
    parts = [counted(len(stages), "stage")] if stages else []
    if len(candidates) > 1:
        parts.append(counted(len(candidates), "candidate"))
    return study_title(summary["study"], parts or ["no stage yet"], summary["seconds"], summary["state"])


def gains_of(stages: Sequence[Row]) -> list[float | None]:
    """Return by how much the score of every stage differs from that of the one before."""
    scores = [number(stage.get("score")) for stage in stages]
    pairs = zip(scores, [None, *scores], strict=False)
    return [None if score is None or before is None else score - before for score, before in pairs]


def sums_of(candidates: Sequence[Row]) -> list[dict[str, float | None]]:
    """Return what the stages of every candidate took together."""
    return [{name: _sum(row["stages"], name) for name in ("samples", "seconds")} for row in candidates]


def stage_columns(record: Source, facts: Source) -> list[Column]:
    """Return the stages of the winner; ``gains`` among the facts is what :func:`gains_of` returns."""
    metric, stages = _metric(record.data), Rows.of(record, "stages")
    has_loss = metric.name != "eval_loss"
    sizes = ("batch_size", "gradient_accumulation_steps")
    batches = [
        NOTHING
        if record.get(*at, sizes[0]) is None
        else sentence("{} × {}", *(record.mark(*at, name) for name in sizes))
        for at in stages.places
    ]
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


def candidate_columns(record: Source, facts: Source, order: Sequence[int]) -> list[Column]:
    """Return the candidates in an order; ``sums`` among the facts is what :func:`sums_of` returns."""
    metric = _metric(record.data)
    rows, sums = Rows.of(record, "candidates", order=order), Rows.of(facts, "sums", order=order)
    candidates = [record.get(*at) for at in rows.places]
    lasts = Rows(
        record,
        [(*at, "stages", len(row["stages"]) - 1) for at, row in zip(rows.places, candidates, strict=True)],
    )
    won = [place for place, row in enumerate(candidates) if row["name"] == record.get("winner")]
    keys = dict.fromkeys(key for row in candidates for key in row["values"])
    columns = [
        rows.column("candidate", "name", is_text=True, shortest=_SHORTEST),
        *(rows.column(key.rpartition(".")[2], "values", key, written="setting", rank=1) for key in keys),
        rows.column("state", "state", rank=4, is_text=True, styles=STATE_STYLES),
        lasts.column("ended at", "ratio", written="ratio", rank=2),
        lasts.column(record.label(metric, "metric"), "score", figure=metric, starred=won),
        sums.column("samples", "samples", written="count", rank=6),
        sums.column("time", "seconds", written="duration", rank=5),
    ]
    if any(row.get("reason") for row in candidates):
        reasons = [record.mark(*at, "reason") if record.get(*at, "reason") else "" for at in rows.places]
        columns.append(column("why", reasons, 3, is_text=True, shortest=_SHORTEST))
    return columns


def _notes(summary: Mapping[str, Any], stages: Sequence[Row]) -> list[str]:
    """Return the lines beneath the tables: how far it got, and where it lies."""
    metric = _metric(summary)
    notes = [_STOPS[summary["stopped"]]] if summary.get("stopped") else []
    notes += _forecast_notes(metric, stages)
    baseline = number(summary.get("baseline"))
    if baseline is not None:
        notes.append(f"trivial baseline: {metric_phrase(metric, baseline)}")
    if any(number(stage.get("score")) is not None for stage in stages[1:]):
        unit = ", in percentage points" if metric.in_percent else ""
        notes.append(f"gain: over the stage before{unit}; batch: rows per step × accumulated steps")
    notes += error_notes(summary.get("experiments") or [])
    if summary.get("samples_trained") is not None:
        notes.append(f"samples trained: {summary['samples_trained']:,}")
    best = _best(stages, summary)
    if best is not None and best.get("checkpoint"):
        notes.append(f"best checkpoint: {shown_path(best['checkpoint'])} (stage {best['stage']})")
    if best is not None and len(stages) > 1:
        notes.append(_worth(best, metric, len(stages)))
    notes += _close_calls(summary)
    if summary.get("final_model"):
        notes.append(f"final model: {shown_path(summary['final_model'])}")
    notes.append(f"results: {shown_path(summary['path'])}")
    return notes


def _worth(best: Row, metric: Metric, num_stages: int) -> str:
    """Say what the score of the best stage is worth, which was chosen by the rows that it was measured on."""
    tested = number(best.get("metrics", {}).get(under(metric.name, TEST)))
    chosen = chosen_phrase(metric, best["score"], num_stages, tested)
    told = f"{metric_figure(metric, best['score'])} of stage {best['stage']} {chosen}"
    if tested is None:
        return f"{told}; no test rows say by how much"
    return f"{told}; on the test rows, which chose nothing, it has {metric_figure(metric, tested)}"


def _close_calls(summary: Mapping[str, Any]) -> list[str]:
    """Say which candidates were beaten by less than the noise of the validation rows."""
    metric = _metric(summary)
    if metric.unit != "share":
        return []
    told: dict[tuple[float, int], list[str]] = {}
    candidates: Sequence[Row] = summary.get("candidates") or []
    for row in candidates:
        last = _last(row)
        score, rows = number(last.get("score")), number(last.get("num_dev_rows"))
        ahead = [
            number(stage.get("score"))
            for other in candidates
            for stage in other["stages"][:-1]
            if last and stage["ratio"] == last["ratio"]
        ]
        scores = {place: each for place, each in enumerate(ahead) if each is not None}
        if row["state"] != "stopped" or score is None or not rows or not scores:
            continue
        weakest = scores[metric.ranked(scores)[-1]]
        low, high = difference_of_shares(weakest, score, int(rows), _LEVEL)
        if low <= 0 <= high:
            told.setdefault((last["ratio"], int(rows)), []).append(row["name"])
    return [
        f"beaten at {percent(ratio)} within the noise of {counted(rows, 'validation row')} (binomial, {100 * _LEVEL:g} %), "
        f"so that other rows might have kept them: {', '.join(names)}"
        for (ratio, rows), names in told.items()
    ]


def _forecast_notes(metric: Metric, stages: Sequence[Row]) -> list[str]:
    """Set the first forecast beside what was measured with as many rows, once it was."""
    stage = next((stage for stage in stages if stage.get("forecast")), None)
    if stage is None:
        return []
    made: Row = stage["forecast"]
    low, high = metric_figure(metric, made["low"]), metric_figure(metric, made["high"])
    line = (
        f"forecast made at {percent(stage['ratio'])} for {made['at_rows']:,} rows: "
        f"{metric_phrase(metric, made['value'])} ({percent(made['level'])} interval {low} to {high})"
    )
    truth = next((number(one.get("score")) for one in stages if one["num_rows"] == made["at_rows"]), None)
    if truth is not None:
        within = "within" if made["low"] <= truth <= made["high"] else "outside"
        line += f"; measured: {metric_phrase(metric, truth)}, {within} it"
    return [line]


def ranked_candidates(summary: Mapping[str, Any]) -> list[int]:
    """Return the places of the candidates: the winner, then who saw the most data, the best score before the others."""
    metric = _metric(summary)
    candidates = summary["candidates"]

    def rank(place: int) -> tuple[bool, float, float]:
        last = _last(candidates[place])
        score = number(last.get("score"))
        is_beaten = candidates[place]["name"] != summary.get("winner")
        return is_beaten, -last.get("ratio", 0.0), metric.cost(score)

    return sorted(range(len(candidates)), key=rank)


def _last(row: Row) -> Row:
    """Return the last stage that a candidate has; an empty one when it has none."""
    return row["stages"][-1] if row["stages"] else {}


def _best(stages: Sequence[Row], summary: Mapping[str, Any]) -> Row | None:
    scored = [stage for stage in stages if number(stage.get("score")) is not None]
    # The later of equals, as the study itself chooses.
    return min(reversed(scored), key=lambda stage: _metric(summary).cost(stage["score"]), default=None)


def _metric(summary: Mapping[str, Any]) -> Metric:
    return recorded(summary, summary["metric"])


def _sum(stages: Sequence[Row], name: str) -> float | None:
    values = [value for stage in stages if (value := number(stage.get(name))) is not None]
    return sum(values) if values else None


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
        record = results.as_json()
        metric = recorded(record, results.metric)
        told = []
        best = next((stage for stage in results.stages if stage.name == results.best_stage), None)
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
        told += verdict_lines(record)
        told += failures(results.experiments)
        return {
            "metric": metric.name,
            "sentences": told,
            "gains": gains_of(record["stages"]),
            "sums": sums_of(record["candidates"]),
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
            plot_progressive(drawing, self.results.as_json())
            caption = (
                "The score over the training rows, with the forecast that was made and what came; beneath it what every "
                "stage took. Grey squares were eliminated, crosses failed."
            )
            sections.append(Section("Score over data", [Picture(caption, drawing)]))
            best = [at for at, each in enumerate(self.results.stages) if each.name == self.results.best_stage]
            stages = Table(
                "Stages of the winner; gain: over the stage before; batch: rows per step × accumulated steps",
                stage_columns(self.record, self.facts),
                best,
            )
            sections.append(Section("Stages", [stages]))
        if len(self.results.candidates) > 1:
            order = ranked_candidates(self.record.data)
            won = [0] if self.results.winner is not None else []
            columns = candidate_columns(self.record, self.facts, order)
            sections.append(Section("Candidates", [Table("Candidates", columns, won)]))
        return sections
