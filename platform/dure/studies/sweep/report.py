"""The table of a sweep: every point, best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dure.errors import counted
from dure.files import read_json
from dure.metrics.metric import recorded
from dure.pages.shared_sections import foldable
from dure.reporting.columns import STATE_STYLES, Column, FittedTable, Rows, column
from dure.reporting.figures import (
    NOTHING,
    duration,
    error_notes,
    number,
    shown_path,
)
from dure.reporting.inline import Drawing
from dure.reporting.marks import Source
from dure.reporting.page import Picture, Section, Table
from dure.studies.study import stored_study
from dure.studies.sweep.plan import SweepStudy
from dure.studies.sweep.plot import plot_sweep
from dure.studies.sweep.results import SweepRecord, SweepResults
from dure.studies.viewing import View, failures, moved

Row = Mapping[str, Any]


def sweep_table(summary: Mapping[str, Any]) -> FittedTable:
    """Return the points of a sweep, fitting themselves to the terminal that prints them."""
    order = ranked_points(summary)
    verdict = summary.get("verdict")
    names = [row["name"] for row in summary["experiments"]]
    facts = Source(
        0, {"standing": {} if verdict is None else {name: standing(name, verdict) for name in names}}
    )
    first, several = summary["metrics"][0], range(1, len(order) + 1)
    scored = [summary["experiments"][at] for at in order]
    places = [
        str(place) if row["state"] == "completed" and _score(row, first) is not None else NOTHING
        for place, row in zip(several, scored, strict=True)
    ]
    columns = [column("#", places, rank=4), *point_columns(Source(0, summary), facts, order)]
    title = f"{summary['study']} · {counted(len(order), 'point')} in {duration(summary['seconds'])}"
    return FittedTable(columns, title, _notes(summary), elsewhere="experiment_summary.txt")


def point_columns(record: Source, facts: Source, order: Sequence[int]) -> list[Column]:
    """Return the points of a sweep in an order; ``standing`` among the facts says what the verdict says of each."""
    rows, best = Rows.of(record, "experiments", order=order), _marked(record.data)
    names = [record.get(*at, "name") for at in rows.places]
    columns = [
        rows.column("trial", "name", is_text=True),
        rows.column("state", "state", rank=2, is_text=True, styles=STATE_STYLES),
    ]
    values = Rows(record, [("values", name) for name in names])
    for place, key in enumerate(record.get("parameters")):
        heading = record.mark("parameters", place, written="ending")
        columns.append(values.column(heading, key, written="setting", rank=place))
    for place, name in enumerate(record.get("metrics")):
        metric, keys = recorded(record.data, name), ("seconds",) if name == "seconds" else ("metrics", name)
        starred = [at for at, each in enumerate(names) if each in best and place == 0]
        heading = record.label(metric, "metrics", place)
        rank = 10 + place if place else 1
        columns.append(rows.column(heading, *keys, figure=metric, rank=rank, starred=starred))
    if "eval_loss" not in record.get("metrics"):
        columns.append(rows.column("eval loss", "metrics", "eval_loss", written="number", rank=6))
    if facts.get("standing"):
        stands = Rows(facts, [("standing", name) for name in names])
        columns.append(stands.column("it is", rank=3, is_text=True))
    return [*columns, rows.column("time", "seconds", written="duration", rank=5)]


def _notes(summary: Mapping[str, Any]) -> list[str]:
    verdict = summary.get("verdict")
    notes = [] if verdict is None else list(verdict["sentences"])
    if _marked(summary):
        several = len(summary["metrics"]) > 1
        notes.append(
            "*: best compromises" if several else "*: the winner" if verdict else "*: the best so far"
        )
    notes += error_notes(summary["experiments"])
    for label in ("winner", "plot", "record"):
        if summary.get(label):
            notes.append(f"{label}: {shown_path(summary[label])}")
    return notes


def _marked(summary: Mapping[str, Any]) -> set[str]:
    """Return the trials with a star: the winner, or the best so far of a sweep that still runs; all best compromises."""
    verdict = summary.get("verdict")
    first = summary["best"] if verdict is None else verdict["winner"]
    return {name for name in (first, *summary["front"]) if name is not None}


def standing(name: str, verdict: Mapping[str, Any]) -> str:
    """Return what the verdict says of a point, in a few words."""
    told = []
    if name == verdict["winner"]:
        told.append("the winner")
    elif name == verdict["best"]:
        told.append("the best score, no winner")
    if name in verdict["equals"]:
        told.append(
            "not told apart from the best" if verdict["gaps"][name]["value"] else "tied with the best"
        )
    elif name in verdict["gaps"]:
        told.append("worse than the best")
    if name in verdict["below_baseline"]:
        told.append("no better than the baseline")
    if name in verdict["never_rose"]:
        told.append("trained at rate 0")
    if name in verdict["in_warmup"]:
        told.append("ended in its warm-up")
    return ", ".join(told) or NOTHING


def ranked_points(summary: Mapping[str, Any]) -> list[int]:
    """Return the places of the trials: completed points best first, then stopped ones, then the others."""
    order, metric = ("completed", "stopped", "diverged"), recorded(summary, summary["metrics"][0])
    rows = summary["experiments"]

    def rank(place: int) -> tuple[int, float]:
        row = rows[place]
        state = order.index(row["state"]) if row["state"] in order else len(order)
        return state, metric.cost(_score(row, metric.name))

    return sorted(range(len(rows)), key=rank)


def _score(row: Row, metric: str) -> float | None:
    return number({**row["metrics"], "seconds": row["seconds"]}.get(metric))


class SweepView(View[SweepResults]):
    """A sweep: what was searched, and its points."""

    @classmethod
    def facts_of(cls, results: SweepResults, path: Path) -> dict[str, Any]:
        """Return the verdict of a sweep, or how far it is; and what each point is according to it."""
        verdict = None if results.verdict is None else results.verdict.as_json()
        told = ["The sweep has not come to its verdict."] if verdict is None else list(verdict["sentences"])
        told += failures(results.experiments)
        is_what = (
            {}
            if verdict is None
            else {trial.name: standing(trial.name, verdict) for trial in results.experiments}
        )
        return {"metric": results.metrics[0], "sentences": told, "standing": is_what}

    def sections(self) -> Sequence[Section]:
        """Return points and picture of a sweep."""
        sections = []
        drawn = sweep_picture(self.results, self.path)
        if drawn is not None:
            sections.append(Section("Score over what was searched", [drawn]))
        order, winner = ranked_points(self.record.data), self.results.verdict and self.results.verdict.winner
        strong = [at for at, place in enumerate(order) if self.results.experiments[place].name == winner]
        points = Table("Points, best first", point_columns(self.record, self.facts, order), strong)
        return [*sections, Section("Points", [foldable(points)])]


def sweep_picture(results: SweepResults, path: Path) -> Picture | None:
    """Return the picture of a sweep; None before it has its verdict."""
    if results.record is None or results.verdict is None:
        return None
    file = moved(results.record, results, path)
    if not file.is_file():
        return None
    record = SweepRecord.model_validate(read_json(file, what="record of a sweep"))
    space, verdict = stored_study(path, SweepStudy).space, results.as_json()["verdict"]
    keys = ", ".join(key.rpartition(".")[2].replace("_", " ") for key in results.parameters)
    drawing = Drawing(
        f"{results.metrics[0]} of {len(record.points)} points over {keys}. {verdict['sentences'][0]}"
    )
    plot_sweep(
        drawing,
        [point.as_json() for point in record.points],
        title=results.study,
        metrics=[recorded(results.as_json(), name) for name in results.metrics],
        parameters={key: space.is_logarithmic(key) for key in space.ordered()},
        verdict=verdict,
    )
    caption = "A point per trial. Band: not told apart from the best; dashed: the trivial baseline; cross: diverged."
    return Picture(caption, drawing)
