"""The progressive training as a kind of study: stages, what begins again, summary and picture."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dure.config.ratios import as_number
from dure.config.schema import Experiment, Profile
from dure.errors import UserError
from dure.events import Notify, silent
from dure.files import write_text, written_beside
from dure.runs.folder import RUN_RECORD, RunFolder, move_aside
from dure.studies.kind import Session, Shape, TrialKind
from dure.studies.progressive.plan import ProgressiveStudy, candidate_experiments
from dure.studies.progressive.report import ProgressiveView, progressive_table
from dure.studies.progressive.results import ProgressiveResults
from dure.studies.study import stored_study

if TYPE_CHECKING:
    from dure.preflight.before import Files
    from dure.studies.progressive.strategy import Progressive

PLOT = "progressive_training.png"


class ProgressiveKind(TrialKind[ProgressiveStudy, ProgressiveResults]):
    """Leaves a folder per stage, the results, their picture, and the model of the winner's best stage."""

    results = ProgressiveResults
    view = ProgressiveView
    results_file: ClassVar[str] = "progressive_training_results.json"
    text_file: ClassVar[str | None] = "progressive_training_summary.txt"
    pid_file: ClassVar[str] = "progressive_training.pid"
    table = staticmethod(progressive_table)

    def __init__(self, study: ProgressiveStudy, experiments: Sequence[Experiment], shape: Shape) -> None:
        super().__init__(study, experiments, shape)
        if study.on_baseline is None:
            self.study = study.with_values(on_baseline="warn" if self.shaped[0].rehearsal.enabled else "stop")

    def read(self) -> Sequence[Experiment]:
        """Return the experiment of every candidate, whose stages end with an epoch and not with a step."""
        return [
            self.shape(each).with_({"training.max_steps": None})
            for each in candidate_experiments(self.study, self.experiments[0])
        ]

    def checked(self) -> Sequence[Experiment]:
        """Return the candidates, after a look at what ranks them."""
        from dure.family import load_family
        from dure.studies.comparable import require_comparable

        candidates = self.read()
        metrics = dict.fromkeys(each.training.best_metric for each in candidates)
        if len(metrics) > 1:
            raise UserError(
                f"candidates would be ranked by one metric, and choose their checkpoints by {', '.join(metrics)}",
                where="--candidates training.best_metric",
                expected="one training.best_metric for all",
            )
        for metric in metrics:
            families = [load_family(each) for each in candidates]
            require_comparable(metric, families, where=f"training.best_metric={metric}")
        return candidates

    def files(self, path: Path | None) -> Sequence[Files]:
        """Return a run of every candidate, and the weights of every epoch of every stage."""
        epochs = self.study.epochs_per_stage * len(self.study.ratios)
        kept = {"epochs": epochs, "keep_epochs": 1, "keep_epochs_limit": epochs}
        changes = {f"training.{name}": value for name, value in kept.items()}
        return [
            replace(each, experiments=[one.with_(changes) for one in each.experiments])
            for each in super().files(path)
        ]

    def stored(self) -> Mapping[str, Experiment]:
        """Return the experiment without the settings of a candidate."""
        return {".": self.shaped[0]}

    def begin(self, session: Session) -> None:
        """Move aside what is trained again; what a candidate came to may be decided again, its stages stay."""
        if not session.resume:
            return
        study, path = self.study, session.path
        before = stored_study(path, ProgressiveStudy)
        begins_again = study.start_ratio is not None and (
            study.start_ratio != before.start_ratio or self.is_completed(path)
        )
        if begins_again and study.start_ratio is not None:
            _move_aside(study, path, study.start_ratio)
        else:
            for name in study.names():
                _move_orphans_aside(study, path / study.folder_of(name), session.follower.notified)
        if begins_again or not study.decides_like(before):
            for name in study.names():
                folder = RunFolder(path / study.folder_of(name))
                folder.result.unlink(missing_ok=True)
                shutil.rmtree(folder.final_model, ignore_errors=True)

    def strategy(self, session: Session) -> Progressive:
        """Return one trial per candidate."""
        from dure.studies.progressive.strategy import Progressive

        return Progressive(self.study, self.read(), session.path)

    def completed(self, results: ProgressiveResults, session: Session) -> ProgressiveResults:
        """Put the model of the best stage into its place, and draw the picture."""
        from dure.studies.progressive.plot import plot_progressive

        path = session.path
        if results.winner is not None and results.best_stage is not None:
            folder = path / self.study.folder_of(results.winner)
            model = _promoted_model(folder, path, results.best_stage, session.profile)
            results = results.with_values(final_model=str(model))
        if results.stages:
            plot_progressive(path / PLOT, results)
        return results

    @classmethod
    def winner(cls, results: ProgressiveResults) -> tuple[str, Mapping[str, Any]] | None:
        """Return the winner's best stage."""
        stages = results.stages if results.winner else ()
        found = next((stage for stage in stages if stage.name == results.best_stage), None)
        return None if found is None else (f"{results.winner}, {found.name},", found.metrics)

    @staticmethod
    def next_commands(results: ProgressiveResults) -> Sequence[str]:
        """Return how the final model predicts."""
        from dure.family.predicting import predict_command

        folder = Path(results.final_model or "").parent
        return () if results.final_model is None else (predict_command(folder, folder),)


def _move_aside(study: ProgressiveStudy, path: Path, start: Fraction) -> None:
    """Move stages from a ratio on into a folder of their own, after a look that the one before is finished."""
    from dure.studies.progressive.stage import stage_folders

    names = study.names()
    for name in names:
        candidate = path / study.folder_of(name)
        folders = stage_folders(study, candidate)
        place = study.ratios.index(start)
        if place and folders[place - 1].read_training_metrics() is None and len(names) == 1:
            raise UserError(
                f"{folders[place - 1].path.name}, from whose best model it would begin, is not finished",
                where=f"--start-ratio {as_number(start)}",
                hint="leave the option out to continue after the last finished stage",
            )
        later = [stage for stage in candidate.glob("stage_*pct") if int(stage.name.split("_")[1]) > place]
        if old := [each for each in (*later, candidate / "final_model") if each.is_dir()]:
            move_aside(old, candidate)


def _move_orphans_aside(study: ProgressiveStudy, candidate: Path, notify: Notify) -> None:
    """Move stages aside that began from a stage which the schedule has no more, with all after them."""
    from dure.studies.progressive.stage import stage_folders

    folders = stage_folders(study, candidate)
    for place, (before, folder) in enumerate(pairwise(folders), 1):
        record, began = folder.read_training_metrics(), before.read_training_metrics()
        is_orphan = (
            began is None
            if record is None
            else before.path.name not in Path(str(record.get("warm_start"))).parts
        )
        if folder.path.is_dir() and is_orphan:
            aside = move_aside(
                [*(each.path for each in folders[place:]), candidate / "final_model"], candidate
            )
            notify(
                f"{folder.path.name} did not begin from {before.path.name}, as it would now: it is in {aside.name}, with "
                "all after it, and is trained again"
            )
            return


def _promoted_model(candidate: Path, path: Path, stage: str, profile: Profile) -> Path:
    """Move the model of the winner's best stage into its candidate's folder, from where it predicts.

    Made again from the stage's weights, if it was removed when another stage was the best.
    """
    from dure.family.run_weights import weights_at
    from dure.family.saved_model import write_model
    from dure.runs.epochs import BEST

    target, made = candidate / "final_model", candidate / stage / "final_model"
    # What the model was trained on, and how its rows were read.
    records = [(RunFolder(candidate / stage).environment, RunFolder(candidate).environment)]
    if candidate != path:
        records.append((made.with_name(RUN_RECORD), candidate / RUN_RECORD))
    for record, copy in records:
        write_text(copy, record.read_text(encoding="utf-8"))
    if made.is_dir():
        with written_beside(target) as beside:
            made.rename(beside)
    elif not target.is_dir():
        weights = weights_at(candidate / stage / "checkpoints" / BEST)
        family = weights.family(silent)
        write_model(family, *weights.read(family, profile, silent), target)
    return target
