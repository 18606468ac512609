"""The unified training: sweep, train, sweet spots and crossover in one folder, each step done once."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.config.loading import dump_yaml
from dure.config.schema import Experiment, Profile
from dure.epochs.loss_series import Point, series_of
from dure.epochs.sweet_spot import Thresholds, candidate_epochs
from dure.errors import UserError
from dure.events import RunListener, RunProgress, RunStart
from dure.files import read_json, read_json_lines, write_json, write_text
from dure.runs.budget import record_needed
from dure.runs.epochs import epochs_of
from dure.runs.folder import STUDY_FILE, RunFolder, UnifiedFolder, stored_experiment
from dure.storage.pushing import kept_in_storage

if TYPE_CHECKING:
    from dure.events import StudyListener

logger = logging.getLogger(__name__)

Tell = Callable[[str], None]

BASE = "experiment.yaml"
RESULTS = "unified_results.json"
SWEEP = "lr_sweep"
SWEEP_RESULTS = "lr_sweep_results"
CURVES = "training_curves.png"
CONTINUED = "continues_after.json"
"""Names the epoch that a folder's unfinished training went back to."""
OOM = "oom_stats"
WHOLE = "model"
"""Stands for every module that is judged by the whole validation loss."""
SWEEP_POINTS = 5


@kept_in_storage
def unified(
    experiment: Experiment,
    *,
    profile: Profile,
    path: Path,
    resume: bool = False,
    after: Path | None = None,
    sweeps: bool = True,
    crosses: bool = True,
    sweep_epochs: int = 1,
    address: str | None = None,
    followers: Sequence[RunListener] = (),
    study_follower: StudyListener | None = None,
    tell: Tell,
) -> dict[str, Any]:
    """Run the whole pipeline, or what is left of it, and return its results.

    The folder is that of the main run. It gets ``lr_sweep_results/``, ``checkpoints_final/`` with the weights of
    epochs, ``metadata.json`` and ``crossover_final.pth``, ``sweet_spot_analysis/``, ``oom_stats/``, ``logs/`` and
    ``training_curves.png``.

    Args:
        experiment: What is trained, as the common options shape it.
        profile: The machine.
        path: Folder of the training.
        resume: Continue what the folder holds: a finished step is not done again.
        after: Weights of an epoch of the folder, which the training goes back to; what came later is moved aside.
        sweeps: Whether the learning rate is searched first; the winner trains.
        crosses: Whether sweet spots and crossover come after the training.
        sweep_epochs: Passes over the rows of every point of the sweep, each from the same weights.
        address: Ray cluster to join.
        followers: Who hears of the main run, here in the driver.
        study_follower: Who hears of the sweep.
        tell: Gets one-line messages.

    Returns:
        ``state``, ``learning_rate``, ``sweep`` (its winner), ``result`` of the run, ``sweet_spots`` and
        ``crossover``: what the files of the same names hold.

    Raises:
        UserError: The experiment, its data, the folder or the cluster is wrong.
        RunError: A step failed.
    """
    from dure.epochs.curves_plot import plot_curves
    from dure.family import load_family
    from dure.runtime.experiment import train

    path = path.resolve()
    folder = UnifiedFolder(path)
    best: dict[str, Any] = {}
    _foretell_disk(experiment, path, tell)
    if sweeps:
        best = _sweep(experiment, profile, path, sweep_epochs, address, study_follower)
        tell(
            f"step 1 of 4, sweep: {', '.join(f'{key}={value:g}' for key, value in best.items())} is the best"
        )
        experiment = experiment.with_(best, "the sweep")
    if resume:
        stored_experiment(path, experiment)
    write_text(path / BASE, dump_yaml(experiment))
    if after is not None:
        _go_back(folder, after, experiment, tell)
    keeper = EpochKeeper(load_family(experiment).module_losses())
    result = train(
        experiment,
        profile=profile,
        path=path,
        resume=resume and folder.metrics.is_file(),
        address=address,
        followers=followers,
        listeners=[keeper],
        layout=UnifiedFolder,
    )
    results: dict[str, Any] = {
        "state": result.state,
        "path": str(path),
        "learning_rate": experiment.training.learning_rate,
        "sweep": best or None,
        "result": result.as_dict(),
        "sweet_spots": None,
        "crossover": None,
    }
    write_metadata(folder)
    _note_oom(folder, int(result.metrics.get("num_oom", 0)))
    plot_curves(path / CURVES, read_json_lines(folder.metrics), title=experiment.name)
    if crosses and result.state == "completed":
        results |= _analyses(folder, profile, tell)
    write_json(path / RESULTS, results)
    if result.state == "completed":
        (path / CONTINUED).unlink(missing_ok=True)
    return results


def _go_back(folder: UnifiedFolder, file: Path, experiment: Experiment, tell: Tell) -> None:
    """Go back to an epoch, unless the same command did so before and what it began is not finished."""
    from dure.epochs import driver as module_epochs
    from dure.training.rewinding import go_back

    mark = folder.path / CONTINUED
    if mark.is_file() and read_json(mark, what="record of a unified training")["file"] == file.name:
        tell(f"what went on after {file.name} is not finished and is continued")
        return
    go_back(
        folder,
        file,
        experiment,
        made_of_all=[
            *folder.checkpoints.glob("crossover_final.*"),
            *(folder.path / name for name in (RESULTS, CURVES, module_epochs.ANALYSIS)),
            folder.metadata,
        ],
        notify=tell,
    )
    write_metadata(folder)
    write_json(mark, {"file": file.name})


class EpochKeeper(RunListener):
    """Says while a model trains which epochs may yet be a module's sweet spot, and keeps ``metadata.json``.

    It reads the run's own records, so that a resumed run goes on with what it knew.

    Args:
        losses: Module to the validation loss that it is judged by.
    """

    def __init__(self, losses: Mapping[str, str]) -> None:
        self._losses = dict(losses)
        self._path: Path | None = None

    def started(self, start: RunStart, notify: Callable[[str], None]) -> None:
        """Note where the run is."""
        self._path = start.path

    def epochs_to_keep(self) -> set[int]:
        """Return the epochs that are candidates by now."""
        if self._path is None:
            return set()
        saved = list(epochs_of(UnifiedFolder(self._path).checkpoints))
        try:
            series = _series(self._path, self._losses)
        except UserError:  # nothing was validated yet
            return set()
        return {
            epoch
            for points in series.values()
            for epoch in candidate_epochs(points, Thresholds(), saved=saved)
        }

    def progressed(self, progress: RunProgress) -> None:
        """Bring ``metadata.json`` up to a validation."""
        if progress.kind == "eval" and self._path is not None:
            folder = UnifiedFolder(self._path)
            if folder.checkpoints.is_dir():
                record_needed(folder.checkpoints, self.epochs_to_keep())
            write_metadata(folder)


def write_metadata(folder: UnifiedFolder) -> None:
    """Write ``metadata.json``: epoch, step, learning rate, metrics and file of every epoch whose weights are kept."""
    records = read_json_lines(folder.metrics)
    entries = []
    for epoch, file in epochs_of(folder.checkpoints).items():
        found = [row for row in records if row["kind"] == "eval" and round(row["epoch"], 2) == epoch]
        steps = [row for row in records if row["kind"] == "train" and row["epoch"] <= epoch + 1e-6]
        if not found:
            continue
        metrics = {key: value for key, value in found[0].items() if key.startswith("eval_")}
        entries.append(
            {
                "epoch": epoch,
                "step": found[0]["step"],
                "learning_rate": steps[-1].get("learning_rate") if steps else None,
                "metrics": {"loss": steps[-1].get("loss") if steps else None, **metrics},
                "file": file.name,
            }
        )
    if entries:
        write_json(folder.metadata, entries)


def _foretell_disk(experiment: Experiment, path: Path, tell: Tell) -> None:
    """Tell what the run will keep on the disk.

    Raises:
        UserError: It does not fit.
    """
    from dure.family import load_family
    from dure.family.corpus import load_corpus
    from dure.preflight.checks import Note
    from dure.preflight.forecast import check_disk
    from dure.preflight.model import model_facts
    from dure.runs.forecast import forecast

    family, note = load_family(experiment), Note()
    facts = model_facts(note, family, load_corpus(family, tell=logger.info).tokenizer)
    check_disk(note, forecast(experiment, facts.num_parameters, facts.num_trained, "fp32"), path)
    tell(f"disk: {note.found}")


def _series(path: Path, losses: Mapping[str, str]) -> dict[str, list[Point]]:
    return series_of(path, [WHOLE, *losses], losses)


def _sweep(
    experiment: Experiment,
    profile: Profile,
    path: Path,
    epochs: int,
    address: str | None,
    follower: StudyListener | None,
) -> dict[str, Any]:
    """Search the learning rate in a folder of its own, unless that is done, and return the winner's values."""
    from dure.studies.sweep import driver as sweeping

    place = path / SWEEP
    started = (place / STUDY_FILE).is_file()
    study = sweeping.plan_sweep(
        experiment,
        sampler=None if started else "grid",
        num_trials=None if started else SWEEP_POINTS,
        stored=place if started else None,
    )
    summary = sweeping.sweep(
        study,
        experiment.with_({"training.epochs": epochs, "training.keep_epochs": None}),
        profile=profile,
        path=place,
        resume=started,
        address=address,
        follower=follower,
    )
    if summary["best_values"] is None:
        raise UserError(
            "no point of the sweep completed", where=str(place), hint="see its experiment_summary.txt"
        )
    shutil.copytree(place / sweeping.RESULTS, path / SWEEP_RESULTS, dirs_exist_ok=True)
    return dict(summary["best_values"])


def _analyses(folder: UnifiedFolder, profile: Profile, tell: Tell) -> dict[str, Any]:
    """Find sweet spots and cross over, unless that is done."""
    from dure.epochs import driver as module_epochs

    made = sorted((folder.path / module_epochs.ANALYSIS).glob("sweet_spot_analysis_*.json"))
    if made:
        spots = read_json(made[-1], what="record of a unified training")
    else:
        tell("step 3 of 4: sweet spots of the modules")
        spots = module_epochs.find_sweet_spots(folder.path, thresholds=Thresholds(), tell=tell)
    record = folder.checkpoints / "crossover_final.json"
    if record.is_file() and record.with_suffix(".pth").is_file():
        crossed = read_json(record, what="record of a unified training")
    else:
        tell("step 4 of 4: crossover")
        crossed = module_epochs.cross_over(
            folder.path, profile=profile, searches=("greedy", "optuna"), max_evaluations=40, tell=tell
        )
    return {"sweet_spots": spots, "crossover": crossed}


def _note_oom(folder: UnifiedFolder, count: int) -> None:
    """Say in ``oom_stats/`` that memory never ran out; when it did, the run has left its own account there."""
    place = folder.path / OOM
    if count == 0 and not list(place.glob("oom_stats_*.json")):
        stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
        write_json(place / f"oom_stats_{stamp}.json", {"num_oom": 0, "events": []})


def folder_of(given: Path) -> Path:
    """Return the folder that ``--resume`` speaks of, which need not be there yet: it may come from storage."""
    return given.parent.parent if given.suffix == ".pt" else given


def resumption_of(given: Path) -> tuple[Path, Path | None]:
    """Return the folder of a unified training, and the weights of the epoch that it is to go on after.

    Args:
        given: The folder, which goes on where it was, or such a file of its ``checkpoints_final/``.

    Raises:
        UserError: It is neither.
    """
    is_epoch = given.is_file() and given.resolve() in [
        file.resolve() for file in epochs_of(given.parent).values()
    ]
    folder = given.resolve().parent.parent if is_epoch else given
    if not RunFolder(folder).experiment.is_file() and not (folder / SWEEP / STUDY_FILE).is_file():
        raise UserError(
            "this is no unified training",
            where=f"--resume {given}",
            expected="its folder, or a checkpoint_epoch_….pt of its checkpoints_final/",
        )
    return folder, given if is_epoch else None
