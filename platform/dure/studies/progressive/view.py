"""The page of a progressive training: score over data, the forecast and what came, stages and candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dure.metrics.metric import recorded
from dure.pages.shared_sections import text_head
from dure.reporting.figures import metric_phrase, percent
from dure.reporting.inline import Drawing
from dure.reporting.marks import listed
from dure.reporting.page import Block, Head, Inline, Picture, Section, Table
from dure.studies.progressive.plot import plot_progressive
from dure.studies.progressive.report import verdict_lines
from dure.studies.progressive.results import ProgressiveResults
from dure.studies.results import TrialRecord
from dure.studies.viewing import View, failures, moved


class ProgressiveView(View[ProgressiveResults]):
    """A progressive training: score over data, stages and candidates."""

    @classmethod
    def run_folders(cls, results: ProgressiveResults, path: Path) -> dict[str, Path]:
        """Return the folders of the winner's stages, last one first, then the last stage of every other candidate."""
        trials = {trial.name: trial for trial in results.experiments}
        several = len(results.candidates) > 1
        found = {}
        for candidate in sorted(results.candidates, key=lambda each: each.name != results.winner):
            stages = (
                candidate.stages if candidate.name == results.winner or not several else candidate.stages[-1:]
            )
            for stage in reversed(stages):
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
        told += failures({trial.name: trial.state for trial in results.experiments})
        gains = {
            after.name: after.score - before.score
            for before, after in zip(results.stages, results.stages[1:], strict=False)
            if after.score is not None and before.score is not None
        }
        return {"metric": metric.name, "sentences": told, "gains": gains}

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
            sections.append(Section("Stages", [_stages(self)]))
        if len(self.results.candidates) > 1:
            sections.append(Section("Candidates", [_candidates(self)]))
        return sections


def _stages(view: View[ProgressiveResults]) -> Block:
    record, results = view.record, view.results
    metric = recorded(results.as_json(), results.metric)
    has_loss = results.metric != "eval_loss"

    def losses(place: int) -> list[Inline]:
        return [record.mark("stages", place, "metrics", "eval_loss", written="number")] if has_loss else []

    rows: list[list[Inline]] = []
    for place, stage in enumerate(results.stages):
        at = ("stages", place)
        rows.append(
            [
                record.mark(*at, "name"),
                record.mark(*at, "ratio", written="ratio"),
                record.mark(*at, "num_rows", written="count"),
                record.figure(*at, "score", metric=metric),
                view.facts.change("gains", stage.name, metric=metric),
                *losses(place),
                record.mark(*at, "batch_size"),
                record.mark(*at, "gradient_accumulation_steps"),
                record.mark(*at, "seconds", written="duration"),
                record.mark(*at, "peak_memory_mb", written="memory"),
            ]
        )
    heads = [text_head("stage"), Head("data"), Head("rows"), Head(view.label(metric, "metric"))]
    names = ["over the stage before", *(["eval loss"] if has_loss else []), "batch", "accumulated"]
    heads += map(Head, names)
    strong = frozenset(at for at, stage in enumerate(results.stages) if stage.name == results.best_stage)
    return Table("Stages of the winner", [*heads, Head("time"), Head("peak memory")], rows, strong)


def _candidates(view: View[ProgressiveResults]) -> Block:
    record, results = view.record, view.results
    metric = recorded(results.as_json(), results.metric)
    keys = list(dict.fromkeys(key for each in results.candidates for key in each.values))
    trials: Mapping[str, TrialRecord] = {trial.name: trial for trial in results.experiments}
    places = {name: place for place, name in enumerate(trials)}
    rows: list[list[Inline]] = []
    for place, candidate in enumerate(results.candidates):
        at, last = ("candidates", place), len(candidate.stages) - 1
        rows.append(
            [
                record.mark(*at, "name"),
                *(record.mark(*at, "values", key, written="setting") for key in keys),
                record.mark(*at, "state"),
                record.mark(*at, "stages", last, "ratio", written="ratio") if last >= 0 else "–",
                record.figure(*at, "stages", last, "score", metric=metric) if last >= 0 else "–",
                record.mark("experiments", places[candidate.name], "seconds", written="duration"),
                record.mark(*at, "reason"),
            ]
        )
    heads = [text_head("candidate"), *(Head(key.rpartition(".")[2]) for key in keys), text_head("state")]
    heads += [Head("ended at"), Head(view.label(metric, "metric")), Head("time"), text_head("why")]
    strong = frozenset(at for at, each in enumerate(results.candidates) if each.name == results.winner)
    return Table("Candidates", heads, rows, strong)
