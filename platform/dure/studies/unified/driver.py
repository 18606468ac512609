"""The unified training as a kind of study: sweep, train, sweet spots and crossover, each step done once."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dure.config.loading import dump_yaml
from dure.config.schema import Experiment
from dure.errors import UserError
from dure.events import Notify
from dure.files import read_json, write_json, write_text
from dure.reporting.curves import CURVES
from dure.runs.epochs import epochs_of
from dure.runs.folder import RUN_RECORD, STUDY_FILE, UnifiedFolder, move_aside
from dure.runs.resuming import require_continuable
from dure.studies.kind import Kind, Session
from dure.studies.study import stored_study
from dure.studies.sweep.driver import RESULTS as POINTS
from dure.studies.sweep.driver import SweepKind
from dure.studies.sweep.plan import SweepStudy
from dure.studies.sweep.results import SweepResults
from dure.studies.unified.plan import UnifiedStudy
from dure.studies.unified.report import UnifiedView, unified_table
from dure.studies.unified.results import SWEEP, UnifiedResults

if TYPE_CHECKING:
    from dure.preflight.before import Files


RESULTS = "unified_results.json"
RATE = "training.learning_rate"
CONTINUED = "continues_after.json"
"""Names the epoch that a folder's unfinished training went back to."""
OOM = "oom_stats"


class UnifiedKind(Kind[UnifiedStudy, UnifiedResults]):
    """The folder is that of the main run.

    It gets ``lr_sweep_results/``, ``checkpoints_final/`` with the weights of epochs, ``metadata.json`` and
    ``crossover_final.pth``, ``sweet_spot_analysis/``, ``oom_stats/``, ``logs/`` and ``training_curves.png``.
    """

    results = UnifiedResults
    view = UnifiedView
    results_file: ClassVar[str] = RESULTS
    table = staticmethod(unified_table)

    def begin(self, session: Session) -> None:
        """Look whether there is the checkpoint to go back to."""
        file = session.back_to
        known = [each.resolve() for each in epochs_of(UnifiedFolder(session.path).checkpoints).values()]
        if file is not None and file.resolve() not in known:
            raise UserError(
                "this is no epoch of the training",
                where=f"--resume {file}",
                expected="its folder, or a checkpoint_epoch_….pt of its checkpoints_final/",
            )

    def run(self, session: Session) -> UnifiedResults:
        """Run the pipeline, or what is left of it."""
        from dure.epochs.needed_epochs import NeededEpochs, write_metadata
        from dure.family import load_family
        from dure.reporting.curves import RunCurves, plot_run
        from dure.runtime.experiment import require_more_to_train, train

        path, notify = session.path, session.follower.notified
        folder, (experiment,) = UnifiedFolder(path), self.shown()
        swept: SweepResults | None = None
        best: dict[str, Any] = {}
        if self.study.sweep:
            swept = self._sweep(experiment, session)
            best = swept.winning_values()
            for sentence in () if swept.verdict is None else swept.verdict.sentences:
                notify(f"step 1 of 4, sweep: {sentence}")
            experiment = experiment.with_(best, "the sweep")
            rate = experiment.training.learning_rate
            notify(f"learning rate {rate:g}, {'the winner of the sweep' if best else 'as it is configured'}")
        if session.resume and require_continuable(path, experiment, may_be_longer=True):
            require_more_to_train(folder)
            aside = move_aside(_made_of_all(folder), path)
            notify(f"what was made of the shorter training is in {aside.name}")
        else:
            write_text(path / RUN_RECORD, dump_yaml(experiment))
        if session.back_to is not None:
            _go_back(folder, session.back_to, experiment, notify)
        result = train(
            experiment,
            profile=session.profile,
            path=path,
            resume=session.resume and folder.metrics.is_file(),
            address=session.address,
            follower=session.run_follower,
            listeners=[NeededEpochs(load_family(experiment).module_losses())],
            layout=UnifiedFolder,
        )
        write_metadata(folder)
        _note_oom(folder, int(result.metrics.get("num_oom", 0)))
        plot_run(path / CURVES, RunCurves.of(path, experiment.name))
        is_whole = self.study.crossover and result.state == "completed"
        results = UnifiedResults(
            study=self.study.name,
            kind="unified",
            state=result.state,
            path=str(path),
            learning_rate=experiment.training.learning_rate,
            sweep=None if swept is None else best or {RATE: experiment.training.learning_rate},
            sweep_verdict=None if swept is None else swept.verdict,
            result=result,
            **(_analyses(folder, session, notify) if is_whole else {}),
        )
        if result.state == "completed":
            (path / CONTINUED).unlink(missing_ok=True)
        return results

    @classmethod
    def winner(cls, results: UnifiedResults) -> tuple[str, Mapping[str, Any]] | None:
        """Return the best checkpoint of the training."""
        return results.result.name, results.result.metrics

    @classmethod
    def runs_of(cls, results: UnifiedResults) -> Sequence[Mapping[str, Any]]:
        """Return the training after the sweep."""
        return [results.result.as_dict()]

    def files(self, path: Path | None) -> Sequence[Files]:
        """Return the files of the main run, and those of a sweep that is not finished."""
        from dure.preflight.before import Files, files_of_run

        (experiment,), place = self.shown(), None if path is None else path / SWEEP
        found = files_of_run(experiment, path, apart=[] if place is None else [place])
        if not self.study.sweep or (place is not None and SweepKind.is_completed(place)):
            return found
        # The weights of the best point so far lie beside those of the one that trains.
        return [*found, Files([self._swept(experiment)], 2, place)]

    def _swept(self, experiment: Experiment) -> Experiment:
        """Return what the points of the sweep train."""
        return experiment.with_({"training.epochs": self.study.sweep_epochs, "training.keep_epochs": None})

    def _sweep(self, experiment: Experiment, session: Session) -> SweepResults:
        """Search the learning rate in a folder of its own, unless that is done."""
        from dure.studies.life_cycle import run_experiments

        place = session.path / SWEEP
        started = (place / STUDY_FILE).is_file()
        study = SweepStudy(
            name=f"{experiment.name[:80]}-sweep",
            experiment=self.study.experiment,
            sampler="grid",
            num_trials=self.study.sweep_points,
        )
        results: SweepResults = run_experiments(
            stored_study(place, SweepStudy) if started else study,
            [self._swept(experiment)],
            profile=session.profile,
            path=place,
            resume=started,
            address=session.address,
            follower=session.follower,
        )
        if results.best is None:
            raise UserError(
                "no point of the sweep completed", where=str(place), hint="see its experiment_summary.txt"
            )
        shutil.copytree(place / POINTS, session.path / POINTS, dirs_exist_ok=True)
        return results


def _made_of_all(folder: UnifiedFolder) -> list[Path]:
    """Return what in a folder was made of the whole training."""
    from dure.epochs import driver as module_epochs

    return [
        *folder.checkpoints.glob("crossover_final.*"),
        *(folder.path / name for name in (RESULTS, CURVES, module_epochs.ANALYSIS)),
        folder.metadata,
    ]


def _go_back(folder: UnifiedFolder, file: Path, experiment: Experiment, notify: Notify) -> None:
    """Go back to an epoch, unless the same command did so before and what it began is not finished."""
    from dure.epochs.needed_epochs import write_metadata
    from dure.training.rewinding import go_back

    mark = folder.path / CONTINUED
    if mark.is_file() and read_json(mark, what="record of a unified training")["file"] == file.name:
        notify(f"what went on after {file.name} is not finished and is continued")
        return
    go_back(folder, file, experiment, made_of_all=_made_of_all(folder), notify=notify)
    write_metadata(folder)
    write_json(mark, {"file": file.name})


def _analyses(folder: UnifiedFolder, session: Session, notify: Notify) -> dict[str, Any]:
    """Find sweet spots and cross over, unless that is done."""
    from dure.epochs import driver as module_epochs

    made = sorted((folder.path / module_epochs.ANALYSIS).glob("sweet_spot_analysis_*.json"))
    if made:
        spots = read_json(made[-1], what="record of a unified training")
    else:
        notify("step 3 of 4: sweet spots of the modules")
        spots = module_epochs.find_sweet_spots(folder.path, notify=notify)
    record = folder.checkpoints / "crossover_final.json"
    if record.is_file() and record.with_suffix(".pth").is_file():
        crossed = read_json(record, what="record of a unified training")
    else:
        notify("step 4 of 4: crossover")
        crossed = module_epochs.cross_over(
            folder.path,
            profile=session.profile,
            searches=("greedy", "optuna"),
            max_evaluations=40,
            notify=notify,
        )
    return {"sweet_spots": spots, "crossover": crossed}


def _note_oom(folder: UnifiedFolder, count: int) -> None:
    """Say in ``oom_stats/`` that memory never ran out; when it did, the run has left its own account there."""
    place = folder.path / OOM
    if count == 0 and not list(place.glob("oom_stats_*.json")):
        stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
        write_json(place / f"oom_stats_{stamp}.json", {"num_oom": 0, "events": []})
