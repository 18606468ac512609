"""The batch as a kind of study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.console import RenderableType

from dure.config.schema import Experiment
from dure.errors import UserError, one_line
from dure.reporting.columns import apart
from dure.reporting.summary import summary_table
from dure.studies.batch.plan import BatchStudy
from dure.studies.batch.report import BatchView, seeds_table
from dure.studies.batch.results import BatchResults
from dure.studies.kind import Session, TrialKind

if TYPE_CHECKING:
    from dure.studies.batch.strategy import Batch


class BatchKind(TrialKind[BatchStudy, BatchResults]):
    """A finished experiment of the folder is not run again; an interrupted one continues from its checkpoint."""

    results = BatchResults
    view = BatchView
    results_file: ClassVar[str] = "experiment_summary.json"
    text_file: ClassVar[str | None] = "experiment_summary.txt"
    runs_what_it_can: ClassVar[bool] = True

    def checked(self) -> Sequence[Experiment]:
        """Return the experiments, after a look at what ranks them."""
        from dure.studies.batch.strategy import column_metrics

        column_metrics(self.study, self.read())
        return self.shown()

    def shown(self) -> Sequence[Experiment]:
        """Return every run: the experiments, each by all of its seeds."""
        return [run for each in self.read() for run in self.study.runs_of(each)]

    def read(self) -> Sequence[Experiment]:
        """Return every experiment once: its seeds share their rows."""
        return self.shaped

    @property
    def num_copies(self) -> int:
        """Runs of each experiment."""
        return self.study.seeds or 1

    def stored(self) -> Mapping[str, Experiment]:
        """Return every experiment, in its own folder."""
        return {each.name: each for each in self.shown()}

    def watched(self) -> Sequence[str]:
        """Return the columns of the table."""
        return self.study.metrics

    def strategy(self, session: Session) -> Batch:
        """Return one trial per experiment and seed."""
        from dure.studies.batch.strategy import Batch

        return Batch(self.study, self.read())

    def completed(self, results: BatchResults, session: Session) -> BatchResults:
        """Draw the curves of every experiment into its folder, and say in the record who is best."""
        from dure.reporting.curves import CURVES, RunCurves, plot_run

        for name, folder in self.view.run_folders(results, session.path).items():
            curves = RunCurves.of(folder, name)
            if curves.records:
                plot_run(folder / CURVES, curves)
        if results.settings:
            return results
        try:
            return results.with_values(sentences=tuple(self.view.verdict(results, session.path)))
        except UserError as error:  # a damaged record of one run takes nobody's results
            session.follower.notified(f"how sure the best is cannot be said: {one_line(error)}")
            return results

    @classmethod
    def winner(cls, results: BatchResults) -> tuple[str, Mapping[str, Any]] | None:
        """Return the best experiment; with several seeds the mean of the best setting."""
        means = {each.name: each.mean for each in results.settings}
        if results.best in means:
            return results.best, means[results.best]
        return super().winner(results)

    @staticmethod
    def table(results: BatchResults) -> RenderableType:
        """Return the experiments, best first; with several seeds also their means."""
        table = summary_table(results.as_json())
        return apart(seeds_table(results), table) if results.settings else table

    @staticmethod
    def next_commands(results: BatchResults) -> Sequence[str]:
        """Return how the model of the best run predicts."""
        from dure.family.predicting import predict_command

        settings = {each.name: each.runs[0] for each in results.settings}
        best = settings.get(results.best or "", results.best)
        folder = Path(results.path, best or "")
        return () if best is None else (predict_command(folder, folder),)
