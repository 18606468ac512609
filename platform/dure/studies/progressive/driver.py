"""``dure progressive``: from its plan to stages, summary and picture."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.config.loading import dump_yaml, load_experiment
from dure.config.ratios import as_number, as_ratio
from dure.config.schema import Experiment, Profile
from dure.errors import UserError
from dure.files import read_json, write_json, write_text, written_beside
from dure.runs.folder import STUDY_FILE
from dure.storage.pushing import kept_in_storage
from dure.studies.progressive.plan import ProgressiveStudy, candidate_experiments, read_progressive

if TYPE_CHECKING:
    from dure.events import StudyListener

BASE = "experiment.yaml"
RESULTS = "progressive_training_results.json"
SUMMARY = "progressive_training_summary.txt"
PLOT = "progressive_training.png"
PID = "progressive_training.pid"
"""Names the process while a background job trains there."""


@kept_in_storage
def progressive(
    study: ProgressiveStudy,
    experiment: Experiment,
    *,
    profile: Profile,
    path: Path,
    shape: Callable[[Experiment], Experiment] = lambda experiment: experiment,
    resume: bool = False,
    begin_again: bool = False,
    address: str | None = None,
    follower: StudyListener | None = None,
) -> dict[str, Any]:
    """Run a progressive training, or what is left of it, and return its results.

    Args:
        study: From :func:`dure.config.progressive_plan.plan_progressive`.
        experiment: What is trained.
        profile: The machine of every candidate.
        path: Folder of the study.
        shape: What the common options make of each candidate's experiment, such as its rehearsal.
        resume: Continue what the folder holds.
        begin_again: Begin at ``study.start_ratio`` again, from the best model of the stage before; what the
            folder holds of that stage and later ones is moved aside.
        address: Ray cluster to join.
        follower: Who hears of the study, here in the driver.

    Returns:
        What ``progressive_training_results.json`` holds.

    Raises:
        UserError: The experiment, its data, the folder or the cluster is wrong.
        RunError: Ray does not start.
    """
    from dure.jobs.background_folders import refuse_second
    from dure.reporting.tracking import trackers_for
    from dure.runs.folder import RunFolder, stored_experiment
    from dure.studies.adapter import run_study
    from dure.studies.progressive.plot import plot_progressive
    from dure.studies.progressive.report import progressive_text
    from dure.studies.progressive.strategy import Progressive

    path = path.resolve()
    refuse_second(path)
    base = shape(experiment)
    if resume:
        stored_experiment(path, base)
        if begin_again and study.start_ratio is not None:
            _move_aside(study, path, study.start_ratio)
        if begin_again or read_progressive(path) != study:
            # What a candidate came to is decided anew; its finished stages stay.
            for name in study.names():
                folder = RunFolder(_candidate_folder(study, path, name))
                folder.result.unlink(missing_ok=True)
                shutil.rmtree(folder.final_model, ignore_errors=True)
    write_text(path / STUDY_FILE, dump_yaml(study))
    write_text(path / BASE, dump_yaml(base))
    strategy = Progressive(
        study,
        [shape(each) for each in candidate_experiments(study, experiment)],
        path,
        log_file=f"logs/progressive_training_{datetime.now():%Y%m%d_%H%M%S}.log",
        forecaster=_forecaster(base),
    )
    results = run_study(
        strategy, profile=profile, path=path, follower=follower, listeners=trackers_for, address=address
    )
    if results["winner"] is not None:
        results["final_model"] = str(
            _promoted_model(
                _candidate_folder(study, path, results["winner"]), path, results["best_stage"], profile
            )
        )
        write_json(path / RESULTS, results)
    write_text(path / SUMMARY, progressive_text(results))
    if results["stages"]:
        plot_progressive(path / PLOT, results)
    return results


def begins_again(path: Path, start_ratio: str | None) -> bool:
    """Return whether a start ratio asks a folder's training to begin there again, or is only said once more.

    It is said once more when the session that began there was not finished: the same command continues it.

    Args:
        path: Folder of a progressive training.
        start_ratio: What the user gave.
    """
    if start_ratio is None:
        return False
    file = path / RESULTS
    is_finished = _results(file).get("state") == "completed"
    return is_finished or read_progressive(path).start_ratio != as_ratio(start_ratio)


def _forecaster(experiment: Experiment) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any] | None]:
    from dure.family import load_family
    from dure.studies.progressive.forecast import forecast

    metric = load_family(experiment).best_metric

    def ahead(records: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        scored = [record for record in records if record["score"] is not None]
        if not scored or scored[-1]["ratio"] == 1 or not scored[-1]["num_dev_rows"]:
            return None
        found = forecast(
            [record["num_rows"] for record in scored],
            [record["score"] for record in scored],
            scored[-1]["num_rows_in_all"],
            metric=metric,
            num_dev_rows=scored[-1]["num_dev_rows"],
        )
        return None if found is None else asdict(found)

    return ahead


def _move_aside(study: ProgressiveStudy, path: Path, start: Fraction) -> None:
    """Move stages from a ratio on into a folder of their own, after a look that the one before is finished."""
    from dure.studies.progressive.stage import stage_folders

    names = study.names()
    stamp = f"replaced_{datetime.now():%Y%m%d_%H%M%S}"
    for name in names:
        candidate = _candidate_folder(study, path, name)
        folders = stage_folders(study, candidate)
        place = study.ratios.index(start)
        if place and folders[place - 1].read_training_metrics() is None and len(names) == 1:
            raise UserError(
                f"{folders[place - 1].path.name}, from whose best model it would begin, is not finished",
                where=f"--start-ratio {as_number(start)}",
                hint="leave the option out to continue after the last finished stage",
            )
        later = [stage for stage in candidate.glob("stage_*pct") if int(stage.name.split("_")[1]) > place]
        for old in (*later, candidate / "final_model"):
            if old.is_dir():
                (candidate / stamp).mkdir(exist_ok=True)
                old.rename(candidate / stamp / old.name)


def _candidate_folder(study: ProgressiveStudy, path: Path, name: str) -> Path:
    return path if len(study.candidates) == 1 else path / name


def _promoted_model(candidate: Path, path: Path, stage: str, profile: Profile) -> Path:
    """Move the model of the winner's best stage into its candidate's folder, from where it predicts.

    Made anew from the stage's weights, if it was removed when another stage was the best.
    """
    from dure.runs.epochs import BEST
    from dure.training.snapshots import export_weights

    target, made = candidate / "final_model", candidate / stage / "final_model"
    if candidate != path:
        shutil.copyfile(made.with_name(BASE), candidate / BASE)
    if made.is_dir():
        with written_beside(target) as beside:
            made.rename(beside)
    elif not target.is_dir():
        weights = candidate / stage / "checkpoints" / BEST
        export_weights(weights, load_experiment(str(made.with_name(BASE))), profile, target)
    return target


def _results(file: Path) -> dict[str, Any]:
    return read_json(file, what="record of a progressive training") if file.is_file() else {}
