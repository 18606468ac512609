"""The page of a progressive training: score over data, the forecast and what came, stages and candidates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dure.metrics.metric import recorded
from dure.reporting.figures import metric_phrase, percent
from dure.reporting.inline import Drawing
from dure.reporting.page import Picture, Section, Table
from dure.studies.progressive.plot import plot_progressive
from dure.studies.progressive.report import (
    candidate_columns,
    gains_of,
    ranked_candidates,
    stage_columns,
    sums_of,
    verdict_lines,
)
from dure.studies.progressive.results import ProgressiveResults
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
            told.append(
                f"Stage {best.stage}{of} with {percent(best.ratio)} of the rows is the best: "
                f"{metric_phrase(metric, best.score)} on the validation rows."
            )
            if best.baseline is not None and not metric.better(best.score, best.baseline):
                told.append(
                    f"That is no better than the trivial baseline ({metric_phrase(metric, best.baseline)})."
                )
        told += verdict_lines(record)
        told += failures({trial.name: trial.state for trial in results.experiments})
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
            stages = Table("Stages of the winner", stage_columns(self.record, self.facts), best)
            sections.append(Section("Stages", [stages]))
        if len(self.results.candidates) > 1:
            order = ranked_candidates(self.record.data)
            won = [0] if self.results.winner is not None else []
            columns = candidate_columns(self.record, self.facts, order)
            sections.append(Section("Candidates", [Table("Candidates", columns, won)]))
        return sections
