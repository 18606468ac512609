"""The page of a sweep: its verdict, its points, and the score over what was searched with the trivial baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dure.files import read_json
from dure.metrics.metric import recorded
from dure.pages.shared_sections import foldable
from dure.reporting.inline import Drawing
from dure.reporting.page import Picture, Section, Table
from dure.studies.study import stored_study
from dure.studies.sweep.driver import is_logarithmic
from dure.studies.sweep.plan import SweepStudy
from dure.studies.sweep.plot import plot_sweep
from dure.studies.sweep.report import point_columns, ranked_points, standing
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
        order, winner = ranked_points(self.record.data), self.results.verdict and self.results.verdict.winner
        strong = [at for at, place in enumerate(order) if self.results.experiments[place].name == winner]
        points = Table("Points, best first", point_columns(self.record, self.facts, order), strong)
        return [*sections, Section("Points", [foldable(points)])]


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
