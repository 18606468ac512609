"""The sweep as a kind of study: its trials, its record, its picture, its winner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from dure.config.loading import dump_yaml, load_experiment
from dure.config.schema import Experiment
from dure.errors import UserError, typed_path
from dure.events import Notify
from dure.files import read_json, write_text
from dure.runs.folder import RunFolder
from dure.secrets import without_passwords
from dure.studies.kind import Session, TrialKind
from dure.studies.study import stored_study
from dure.studies.sweep.plan import SweepStudy, judged_by, override_text
from dure.studies.sweep.report import SweepView, sweep_table
from dure.studies.sweep.results import SweepRecord, SweepResults, sweep_points

if TYPE_CHECKING:
    from dure.studies.life_cycle import Asked
    from dure.studies.sweep.strategy import Sweep

WINNER = "winner.yaml"
RESULTS = "lr_sweep_results"
REHEARSED = "The winner of a rehearsal: a miniature, at a learning rate of its own. Not for the real model."
"""First line of its ``winner.yaml``."""


class SweepKind(TrialKind[SweepStudy, SweepResults]):
    """Leaves in the folder, beside one folder per trial, all points as JSON and as a picture, and the winner.

    These are ``lr_sweep_results/`` and, where there is a winner, ``winner.yaml``: the experiment with its values.
    """

    results = SweepResults
    view = SweepView
    results_file: ClassVar[str] = "experiment_summary.json"
    text_file: ClassVar[str | None] = "experiment_summary.txt"
    table = staticmethod(sweep_table)

    @property
    def num_copies(self) -> int:
        """The weights of the best trial so far lie beside those of the one that trains."""
        return 2

    def checked(self) -> Sequence[Experiment]:
        """Return the experiment as each metric would judge it whose name can be checked before anything runs."""
        experiment, (first, *others) = self.shaped[0], self.study.metrics
        named = [each for each in others if each.name.startswith("eval_") and "[" not in each.name]
        return [judged_by(experiment, each.metric) for each in (first, *named)]

    def stored(self) -> Mapping[str, Experiment]:
        """Return the experiment as its first metric judges it."""
        return {".": self._base()}

    def watched(self) -> Sequence[str]:
        """Return what the sweep looks for."""
        return [each.name for each in self.study.metrics]

    def begin(self, session: Session) -> None:
        """Open the search, so that one that cannot be is known before anything is written."""
        from dure.studies.sweep.strategy import Sweep

        url, storage = session.profile.storage.url, self.study.storage
        if url is not None and storage is not None and storage.startswith("sqlite"):
            raise UserError(
                "the file of this search would not be in the profile's storage.url, and the sweep could not go on "
                "elsewhere",
                where=f"--storage {storage}",
                hint="leave it out: the search is then kept in the sweep's folder; or give a server",
            )
        between, total = _samples(self._base()) if self.study.scheduler != "none" else (1, 1)
        self._strategy = Sweep(
            self.study,
            self.experiments[0],
            session.path,
            shape=self.shape,
            samples_between_validations=between,
            total_samples=total,
        )
        trials = self._strategy.search.trials()
        if session.resume and not trials and any(session.path.glob("trial_*/metrics.jsonl")):
            raise UserError(
                "there are trials, and nothing of the search that made them: a database keeps it by the name of the folder",
                where=str(session.path) if storage is None else f"--storage {without_passwords(storage)}",
                hint="give the folder the name back that it had; or begin anew in another --output",
            )
        if not session.resume and trials:
            raise UserError(
                f"it holds a search of the name '{self.study.name}' in {session.path.name} already",
                where=f"--storage {storage}",
                hint="another --output, or --resume in the folder of that search",
            )

    def strategy(self, session: Session) -> Sweep:
        """Return the search that was opened."""
        return self._strategy

    def completed(self, results: SweepResults, session: Session) -> SweepResults:
        """Write points, picture and winner, and return the record with its verdict and files."""
        from dure.studies.sweep.plot import plot_sweep
        from dure.studies.sweep.verdict import sweep_verdict

        wanted = {name: self._strategy.experiment(point) for name, point in results.points().items()}
        trained = {name: self.shape(experiment) for name, experiment in wanted.items()}
        # Of a rehearsal the winner is the miniature that trained, marked as such, and never a model of its size.
        winners = trained if results.is_rehearsal else wanted
        points, path = sweep_points(results, trained), session.path
        results = results.with_values(verdict=sweep_verdict(results, points, _dev_losses(results)))
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        record = path / RESULTS / f"lr_sweep_{stamp}.json"
        picture = path / RESULTS / f"lr_sweep_plot_{stamp}.png"
        files: dict[str, str] = {"record": str(record)}
        SweepRecord.of(results, points).write(record)
        if points:
            plot_sweep(picture, results, points, self.study.space)
            files["plot"] = str(picture)
        winner = None if results.verdict is None else results.verdict.winner
        if winner is None:
            (path / WINNER).unlink(missing_ok=True)
        else:
            head = f"# {REHEARSED}\n" if results.is_rehearsal else ""
            write_text(path / WINNER, head + dump_yaml(winners[winner]))
            files["winner"] = str(path / WINNER)
        return results.with_values(**files)

    @staticmethod
    def next_commands(results: SweepResults) -> Sequence[str]:
        """Return how the winner is trained."""
        winner = results.winner
        what = "  # the miniature once more" if results.is_rehearsal else ""
        return () if winner is None else (f"dure train {typed_path(winner)}{what}",)

    def _base(self) -> Experiment:
        """Return what is tried, judged by the first metric."""
        return self.shape(judged_by(self.experiments[0], self.study.metrics[0].metric))


def finished_sweep(path: Path) -> SweepResults:
    """Return the results of a finished or interrupted sweep of which a trial completed.

    Raises:
        UserError: The folder holds no sweep, or no trial of it completed.
    """
    stored_study(path, SweepStudy)
    file = path / SweepKind.results_file
    results = SweepResults.read(file) if file.is_file() else None
    if results is None or results.best is None:
        raise UserError(
            "no trial of this sweep completed",
            where=str(path),
            hint=f"dure sweep … --resume --output {typed_path(path)}",
        )
    return results


def experiment_to_train(
    experiment: str | Experiment,
    overrides: Sequence[str],
    asked: Asked,
    *,
    from_sweep: Path | None = None,
    epochs: int | None = None,
) -> Experiment:
    """Return what ``dure train`` runs: an experiment by name, file or as it is, with a sweep's best values and the options.

    Raises:
        UserError: Something that was given is wrong, or as :func:`finished_sweep` and :func:`check_for`.
    """
    swept = None if from_sweep is None else finished_sweep(from_sweep)
    best = {} if swept is None else swept.winning_values()
    laid = [*(f"{key}={override_text(value)}" for key, value in best.items()), *overrides]
    chosen = (
        experiment.with_(laid) if isinstance(experiment, Experiment) else load_experiment(experiment, laid)
    )
    if epochs is not None:
        if any(each.partition("=")[0] == "training.epochs" for each in overrides):
            raise UserError(
                "training.epochs is given too", where=f"--epochs {epochs}", hint="give one of them"
            )
        chosen = chosen.with_({"training.epochs": epochs}, "--epochs")
    if swept is not None:
        check_for(swept, asked.shape(chosen), notify=asked.notify, where=f"--from-sweep {from_sweep}")
    return chosen


def check_for(results: SweepResults, experiment: Experiment, *, notify: Notify, where: str) -> None:
    """Check that the best values of a sweep may be laid over an experiment, and say what they are worth.

    Raises:
        UserError: The sweep was rehearsed and the experiment is not.
    """
    if results.is_rehearsal and not experiment.rehearsal.enabled:
        raise UserError(
            "this sweep was a rehearsal: what suits its miniatures of random weights says nothing about the real model",
            where=where,
            expected="a sweep of the model itself",
            hint="dure sweep without --rehearse; or train with --rehearse too",
        )
    if results.verdict is not None:
        for sentence in results.verdict.sentences:
            notify(f"sweep: {sentence}")


def _dev_losses(results: SweepResults) -> dict[str, list[float]]:
    """Return the loss of every validation row by trial, of the trials that left them."""
    files = {trial.name: RunFolder(Path(trial.path)).dev_losses for trial in results.experiments}
    read = {
        name: read_json(file, what="record of a trial's validation rows")["losses"]
        for name, file in files.items()
        if file.is_file()
    }
    return {name: losses for name, losses in read.items() if None not in losses}


def _samples(experiment: Experiment) -> tuple[int, int]:
    """Return the training rows between two validations, and those of a whole trial."""
    from dure.family import load_family
    from dure.family.corpus import read_splits
    from dure.training.arguments import steps_per_epoch, total_steps

    training, data = experiment.training, experiment.data
    rows = read_splits(load_family(experiment)).tables["train"].num_rows
    rows = max(1, round(min(rows, data.max_train_rows or rows) * data.train_ratio))
    steps = steps_per_epoch(experiment, rows) if training.eval_every == "epoch" else training.eval_every
    return steps * training.effective_batch_size, total_steps(
        experiment, rows
    ) * training.effective_batch_size
