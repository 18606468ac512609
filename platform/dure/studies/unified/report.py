"""What a unified training came to, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dure.epochs.crossover_table import crossover_columns, crossover_table, epochs_of_modules
from dure.epochs.sweet_spot_plot import plot_sweet_spots
from dure.epochs.sweet_spot_table import sweet_spot_columns, sweet_spot_table
from dure.errors import shown_path
from dure.pages.run_facts import best_metric, worth_of
from dure.pages.run_page import figures_section
from dure.reporting.figures import duration, gains_of, memory
from dure.reporting.marks import Source
from dure.reporting.page import Block, Paragraph, Picture, Points, Section, Table
from dure.reporting.plots import Drawing
from dure.reporting.summary import result_report
from dure.runs.folder import RunFolder
from dure.studies.sweep.driver import SweepKind
from dure.studies.sweep.report import sweep_picture
from dure.studies.sweep.results import SweepResults
from dure.studies.unified.results import SWEEP, UnifiedResults
from dure.studies.viewing import View


def unified_table(results: UnifiedResults) -> Group:
    """Return the main run's result, the sweet spots of its modules, the crossover, and where everything lies."""
    run, verdict = {**results.result.as_dict(), "path": results.path}, results.sweep_verdict
    parts: list[RenderableType] = []
    if results.sweep is None and results.crossover is None:
        parts += [Text(_memory(results.result.metrics), style="bold"), Text()]
    parts.append(result_report(run))
    if results.sweet_spots is not None:
        parts.append(sweet_spot_table(results.sweet_spots))
    if results.crossover is not None:
        parts.append(crossover_table(results.crossover))
    parts += [Text(f"sweep: {sentence}") for sentence in (verdict.sentences if verdict else ())]
    origin = ""
    if results.sweep is not None:
        is_won = verdict is None or verdict.winner is not None
        origin = " (winner of the sweep)" if is_won else " (as configured: the sweep names no winner)"
    parts.append(
        Text(
            f"learning rate {results.learning_rate:g}{origin} · {duration(results.result.seconds)} of training · "
            f"results: {shown_path(results.path)}"
        )
    )
    return Group(*parts)


def _memory(metrics: Mapping[str, Any]) -> str:
    """Return in one line what a training took of the machine, which is what one on a few rows is for."""
    names = ("peak_memory_mb", "unreleased_memory_mb", "num_oom", "cpu_percent")
    peak, unreleased, times, cpu = (float(metrics.get(name, 0)) for name in names)
    return (
        f"memory: {memory(peak)} at the most, {memory(unreleased)} not given back, {times:.0f} times out of memory, "
        f"CPU {cpu:.0f} %"
    )


class UnifiedView(View[UnifiedResults]):
    """A unified training: the main run, its sweep, sweet spots and crossover."""

    @classmethod
    def run_folders(cls, results: UnifiedResults, path: Path) -> dict[str, Path]:
        """Return the folder of the main run, which is the study's."""
        return {results.result.name: path}

    @classmethod
    def facts_of(cls, results: UnifiedResults, path: Path) -> dict[str, Any]:
        """Return the verdict of a unified training: what the main run reached, and whether crossing over helped."""
        metric = best_metric(path)
        told = [f"The main run {results.result.state}.", *worth_of(RunFolder(path))]
        if results.crossover is not None:
            told.append(f"Crossover: {results.crossover['verdict']}.")
        if results.sweep_verdict is not None:
            told.append(f"Sweep: {results.sweep_verdict.sentences[0]}")
        found: dict[str, Any] = {
            "metric": metric.name,
            "sentences": told,
            "gains": gains_of(results.result.metrics),
        }
        if results.crossover is not None:
            candidates = results.crossover["candidates"]
            found["epochs"] = {row["name"]: epochs_of_modules(row["modules"]) for row in candidates}
        return found

    def sections(self) -> Sequence[Section]:
        """Return the main run, sweep, modules and crossover."""
        sections = [figures_section(self.runs, self.facts, self.record, "result")]
        sweep = self.path / SWEEP / SweepKind.results_file
        if self.results.sweep_verdict is not None and sweep.is_file():
            drawn = sweep_picture(SweepResults.read(sweep), self.path / SWEEP)
            lines = range(len(self.results.sweep_verdict.sentences))
            told = Points([self.record.mark("sweep_verdict", "sentences", line) for line in lines])
            sections.append(Section("Learning-rate sweep", [told, *([drawn] if drawn else [])]))
        if (spots := self.results.sweet_spots) is not None:
            sections.append(Section("Sweet spots of the modules", _modules(self.record, spots)))
        if (crossed := self.results.crossover) is not None:
            blocks = _crossover(self.record, self.facts, crossed)
            sections.append(Section("Crossover against its baselines", blocks))
        return sections


def _modules(record: Source, spots: Mapping[str, Any]) -> list[Block]:
    drawing = Drawing(_told(spots["modules"]))
    plot_sweet_spots(drawing, spots)
    caption = "Losses of every module over the epochs, with the epoch that each voter names."
    return [Picture(caption, drawing), Table("Sweet spots", sweet_spot_columns(record, "sweet_spots"))]


def _told(modules: Mapping[str, Mapping[str, Any]]) -> str:
    spots = [
        f"{name} {row['epoch'] if row['epoch'] is not None else 'none'}" for name, row in modules.items()
    ]
    return f"Sweet spots by epoch: {', '.join(spots)}."


def _crossover(record: Source, facts: Source, crossed: Mapping[str, Any]) -> list[Block]:
    kept = [at for at, row in enumerate(crossed["candidates"]) if row["name"] == crossed["kept"]]
    columns = crossover_columns(record, facts, "crossover")
    caption = "Candidates, with the margin of the best crossover over each; the one that is kept stands out"
    return [Paragraph(record.mark("crossover", "verdict")), Table(caption, columns, kept)]
