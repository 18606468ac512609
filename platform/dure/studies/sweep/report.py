"""The table of a sweep: every point, best first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dure.errors import counted, shown_path
from dure.pages.shared_sections import foldable
from dure.reporting.columns import STATE_STYLES, Column, FittedTable, Rows, column
from dure.reporting.figures import NOTHING, duration, error_notes, number
from dure.reporting.marks import Source
from dure.reporting.page import Picture, Section, Table
from dure.reporting.plots import Drawing
from dure.studies.results import TrialRecord
from dure.studies.study import stored_study
from dure.studies.sweep.plan import SweepStudy
from dure.studies.sweep.plot import plot_sweep
from dure.studies.sweep.results import SweepRecord, SweepResults
from dure.studies.sweep.verdict import SweepVerdict
from dure.studies.viewing import View, failures, moved


def sweep_table(results: SweepResults) -> FittedTable:
    """Return the points of a sweep, fitting themselves to the terminal that prints them."""
    order = ranked_points(results)
    places = [
        str(place)
        if trial.state == "completed" and _score(trial, results.metrics[0]) is not None
        else NOTHING
        for place, trial in enumerate((results.experiments[at] for at in order), 1)
    ]
    record, facts = Source(0, results.as_json()), Source(0, {"standing": standings(results)})
    columns = [column("#", places, rank=4), *point_columns(results, record, facts, order)]
    title = f"{results.study} · {counted(len(order), 'point')} in {duration(results.seconds)}"
    return FittedTable(columns, title, _notes(results), elsewhere="experiment_summary.txt")


def point_columns(results: SweepResults, record: Source, facts: Source, order: Sequence[int]) -> list[Column]:
    """Return the points of a sweep in an order; ``standing`` among the facts is what :func:`standings` returns."""
    rows, best = Rows.of(record, "experiments", order=order), _marked(results)
    names = [record.get(*at, "name") for at in rows.places]
    columns = [
        rows.column("trial", "name", is_text=True),
        rows.column("state", "state", rank=2, is_text=True, styles=STATE_STYLES),
    ]
    values = Rows(record, [("values", name) for name in names])
    for place, key in enumerate(results.parameters):
        heading = record.mark("parameters", place, written="ending")
        columns.append(values.column(heading, key, written="setting", rank=place))
    for place, name in enumerate(results.metrics):
        metric, keys = results.metric_named(name), ("seconds",) if name == "seconds" else ("metrics", name)
        starred = [at for at, each in enumerate(names) if each in best and place == 0]
        heading = record.label(metric, "metrics", place)
        rank = 10 + place if place else 1
        columns.append(rows.column(heading, *keys, figure=metric, rank=rank, starred=starred))
    if "eval_loss" not in results.metrics:
        columns.append(rows.column("eval loss", "metrics", "eval_loss", written="number", rank=6))
    if facts.get("standing"):
        stands = Rows(facts, [("standing", name) for name in names])
        columns.append(stands.column("it is", rank=3, is_text=True))
    return [*columns, rows.column("time", "seconds", written="duration", rank=5)]


def _notes(results: SweepResults) -> list[str]:
    verdict = results.verdict
    notes = [] if verdict is None else list(verdict.sentences)
    if _marked(results):
        several = len(results.metrics) > 1
        notes.append(
            "*: best compromises" if several else "*: the winner" if verdict else "*: the best so far"
        )
    notes += error_notes([dict(trial) for trial in results.experiments])
    files = {"winner": results.winner, "plot": results.plot, "record": results.record}
    return notes + [f"{label}: {shown_path(file)}" for label, file in files.items() if file]


def _marked(results: SweepResults) -> set[str]:
    """Return the trials with a star: the winner, or the best so far of a sweep that still runs; all best compromises."""
    first = results.best if results.verdict is None else results.verdict.winner
    return {name for name in (first, *results.front) if name is not None}


def standings(results: SweepResults) -> dict[str, str]:
    """Return what the verdict says of every point, in a few words; nothing before there is one."""
    verdict = results.verdict
    return (
        {} if verdict is None else {each.name: _standing(each.name, verdict) for each in results.experiments}
    )


def _standing(name: str, verdict: SweepVerdict) -> str:
    told = []
    if name == verdict.winner:
        told.append("the winner")
    elif name == verdict.best:
        told.append("the best score, no winner")
    if name in verdict.equals:
        told.append("not told apart from the best" if verdict.gaps[name].value else "tied with the best")
    elif name in verdict.gaps:
        told.append("worse than the best")
    if name in verdict.below_baseline:
        told.append("no better than the baseline")
    if name in verdict.never_rose:
        told.append("trained at rate 0")
    if name in verdict.in_warmup:
        told.append("ended in its warm-up")
    return ", ".join(told) or NOTHING


def ranked_points(results: SweepResults) -> list[int]:
    """Return the places of the trials: completed points best first, then stopped ones, then the others."""
    order, metric = ("completed", "stopped", "diverged"), results.metric_named(results.metrics[0])
    trials = results.experiments

    def rank(place: int) -> tuple[int, float]:
        state = trials[place].state
        cost = metric.cost(_score(trials[place], metric.name))
        return order.index(state) if state in order else len(order), cost

    return sorted(range(len(trials)), key=rank)


def _score(trial: TrialRecord, metric: str) -> float | None:
    return number({**trial.metrics, "seconds": trial.seconds}.get(metric))


class SweepView(View[SweepResults]):
    """A sweep: what was searched, and its points."""

    @classmethod
    def facts_of(cls, results: SweepResults, path: Path) -> dict[str, Any]:
        """Return the verdict of a sweep, or how far it is; and what each point is according to it."""
        verdict = results.verdict
        told = ["The sweep has not come to its verdict."] if verdict is None else list(verdict.sentences)
        told += failures(results.experiments)
        return {"metric": results.metrics[0], "sentences": told, "standing": standings(results)}

    def sections(self) -> Sequence[Section]:
        """Return points and picture of a sweep."""
        sections = []
        drawn = sweep_picture(self.results, self.path)
        if drawn is not None:
            sections.append(Section("Score over what was searched", [drawn]))
        order, winner = ranked_points(self.results), self.results.verdict and self.results.verdict.winner
        strong = [at for at, place in enumerate(order) if self.results.experiments[place].name == winner]
        columns = point_columns(self.results, self.record, self.facts, order)
        points = Table("Points, best first", columns, strong)
        return [*sections, Section("Points", [foldable(points)])]


def sweep_picture(results: SweepResults, path: Path) -> Picture | None:
    """Return the picture of a sweep; None before it has its verdict."""
    if results.record is None or results.verdict is None:
        return None
    file = moved(results.record, results, path)
    if not file.is_file():
        return None
    points = SweepRecord.read(file).points
    keys = ", ".join(key.rpartition(".")[2].replace("_", " ") for key in results.parameters)
    drawing = Drawing(
        f"{results.metrics[0]} of {len(points)} points over {keys}. {results.verdict.sentences[0]}"
    )
    plot_sweep(drawing, results, points, stored_study(path, SweepStudy).space)
    caption = "A point per trial. Band: not told apart from the best; dashed: the trivial baseline; cross: diverged."
    return Picture(caption, drawing)
