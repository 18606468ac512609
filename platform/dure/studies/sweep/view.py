"""The page of a sweep: its verdict, its points, and the score over what was searched with the trivial baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dure.files import read_json
from dure.metrics.metric import recorded
from dure.pages.shared_sections import foldable, text_head
from dure.reporting.figures import NOTHING
from dure.reporting.inline import Drawing
from dure.reporting.marks import sentence
from dure.reporting.page import Block, Head, Inline, Picture, Section, Table
from dure.studies.batch.view import ranked_places
from dure.studies.study import stored_study
from dure.studies.sweep.driver import is_logarithmic
from dure.studies.sweep.plan import SweepStudy
from dure.studies.sweep.plot import plot_sweep
from dure.studies.sweep.report import standing
from dure.studies.sweep.results import SweepRecord, SweepResults
from dure.studies.viewing import View, failures, moved


class SweepView(View[SweepResults]):
    """A sweep: what was searched, and its points."""

    @classmethod
    def facts_of(cls, results: SweepResults, path: Path) -> dict[str, Any]:
        """Return the verdict of a sweep, or how far it is; and what each point is according to it."""
        verdict = None if results.verdict is None else results.verdict.as_json()
        told = ["The sweep has not come to its verdict."] if verdict is None else list(verdict["sentences"])
        told += failures(
            {trial.name: trial.state for trial in results.experiments if trial.state != "completed"}
        )
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
        return [*sections, Section("Points", [_points(self)])]


def sweep_picture(results: SweepResults, path: Path) -> Picture | None:
    """Return the picture of a sweep; None before it has its verdict.

    Args:
        results: What it came to.
        path: Its folder, wherever that lies by now.
    """
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
        parameters={key: is_logarithmic(space, key) for key in space.ordered()},
        verdict=verdict,
    )
    caption = "A point per trial. Band: not told apart from the best; dashed: the trivial baseline; cross: diverged."
    return Picture(caption, drawing)


def _points(view: View[SweepResults]) -> Block:
    results, record = view.results, view.record
    metrics = [recorded(results.as_json(), name) for name in results.metrics]
    order = ranked_places(results.experiments, metrics[0])
    winner = results.verdict.winner if results.verdict else None
    heads = [text_head("trial"), text_head("state")]
    heads += [
        Head(sentence("{}", record.mark("parameters", place))) for place in range(len(results.parameters))
    ]
    heads += [Head(view.label(metric, "metrics", place)) for place, metric in enumerate(metrics)]
    heads += [] if "eval_loss" in results.metrics else [Head("eval loss")]
    heads += [text_head("it is"), Head("time")]
    rows = [_row(view, place) for place in order]
    strong = frozenset(at for at, place in enumerate(order) if results.experiments[place].name == winner)
    return foldable(Table("Points, best first", heads, rows, strong))


def _row(view: View[SweepResults], place: int) -> list[Inline]:
    results, record, at = view.results, view.record, ("experiments", place)
    name = results.experiments[place].name
    cells: list[Inline] = [record.mark(*at, "name"), record.mark(*at, "state")]
    cells += [record.mark("values", name, key, written="setting") for key in results.parameters]
    for metric_name in results.metrics:
        metric = recorded(results.as_json(), metric_name)
        if metric_name == "seconds":
            cells.append(record.mark(*at, "seconds", written="number"))
        else:
            cells.append(record.figure(*at, "metrics", metric_name, metric=metric))
    if "eval_loss" not in results.metrics:
        cells.append(record.mark(*at, "metrics", "eval_loss", written="number"))
    cells += [
        view.facts.mark("standing", name) if view.facts.get("standing", name) else NOTHING,
        record.mark(*at, "seconds", written="duration"),
    ]
    return cells
