"""``dure crossval``: from experiments to folds, their honest scores, and what an ensemble of them predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.config.data import SAMPLE
from dure.config.loading import checked, dump_yaml
from dure.config.schema import Experiment, Profile
from dure.errors import UserError
from dure.files import write_json, write_text
from dure.metrics.metric import RUN_METRICS, Metric, definitions
from dure.runs.folder import STUDY_FILE
from dure.storage.pushing import kept_in_storage
from dure.studies.crossval.plan import CrossvalStudy
from dure.studies.study import stored_study

if TYPE_CHECKING:
    from dure.events import StudyListener
    from dure.studies.crossval.strategy import Scores

RESULTS = "crossval_results.json"
SUMMARY = "crossval_summary.txt"
EXPERIMENT = "experiment.yaml"
OUT_OF_FOLD = "oof_predictions.csv"


def plan_crossval(
    experiments: Sequence[Experiment],
    *,
    folds: int | None = None,
    drop_worse: bool = False,
    stored: Path | None = None,
) -> CrossvalStudy:
    """Return the cross-validation that the options describe.

    Args:
        experiments: What is compared; the seed of the first cuts the folds for all.
        folds: Parts that the training table is cut into; 5 when not given.
        drop_worse: Whether a clearly worse experiment gets no further folds.
        stored: Folder of a cross-validation to continue.

    Raises:
        UserError: One of them is wrong, changes what cannot change, or the experiments do not share their rows.
    """
    before = None if stored is None else read_crossval(stored)
    first, names = experiments[0], [each.name for each in experiments]
    for each in experiments[1:]:
        if first.data.train == SAMPLE and each.family != first.family:
            raise UserError(
                f"the sample corpus of {each.name} ({each.family}) is not that of {first.name} ({first.family})",
                where="dure crossval",
                expected="experiments on the same rows, since they get the same folds",
                hint="data.train=FILE on the command line sets it for all",
            )
        for key in ("train", "columns", "max_train_rows"):
            if getattr(each.data, key) != getattr(first.data, key):
                raise UserError(
                    f"data.{key} of {each.name} is not that of {first.name}",
                    where="dure crossval",
                    expected="experiments on the same rows, since they get the same folds",
                    hint=f"data.{key}=… on the command line sets it for all",
                )
    if before is not None and (list(before.experiments) != names or folds not in (None, before.folds)):
        raise UserError(
            f"it compares {', '.join(before.experiments)} on {before.folds} folds",
            where=str(stored),
            hint="resume with the same experiments and folds, or start a new one",
        )
    shown = names[0] if len(names) == 1 else f"{names[0][:50]}-and-{len(names) - 1}-more"
    values = {
        "name": f"{shown[:85]}-crossval",
        "experiments": names,
        "folds": folds if folds is not None else before.folds if before is not None else 5,
        "seed": first.experiment.seed,
        "drop_worse": drop_worse or (before is not None and before.drop_worse),
    }
    return checked(CrossvalStudy, values, {("folds",): "--folds"}, "dure crossval")


def read_crossval(path: Path) -> CrossvalStudy:
    """Return the cross-validation of a folder.

    Raises:
        UserError: The folder holds none.
    """
    return stored_study(path, CrossvalStudy, "cross-validation")


@kept_in_storage
def crossval(
    study: CrossvalStudy,
    experiments: Sequence[Experiment],
    *,
    profile: Profile,
    path: Path,
    resume: bool = False,
    address: str | None = None,
    follower: StudyListener | None = None,
) -> dict[str, Any]:
    """Run a cross-validation, or what is left of it, and return its results.

    Args:
        study: From :func:`plan_crossval`.
        experiments: Its experiments, as the common options shape them.
        profile: The machine of every fold.
        path: Folder of the study.
        resume: Continue what the folder holds.
        address: Ray cluster to join.
        follower: Who hears of the study, here in the driver.

    Returns:
        What ``crossval_results.json`` holds.

    Raises:
        UserError: An experiment, its data or the cluster is wrong.
        RunError: Ray does not start.
    """
    from dure.reporting.tracking import trackers_for
    from dure.runs.folder import stored_experiment
    from dure.studies.adapter import run_study
    from dure.studies.crossval.report import crossval_text
    from dure.studies.crossval.strategy import Crossval

    path = path.resolve()
    for each in experiments:
        file = _experiment_file(study, path, each.name)
        if resume:
            stored_experiment(file.parent, each)
        write_text(file, dump_yaml(each))
    write_text(path / STUDY_FILE, dump_yaml(study))
    strategy = Crossval(study, experiments, path, judge=partial(_clearly_worse, study, experiments[0]))
    summary = run_study(
        strategy, profile=profile, path=path, follower=follower, listeners=trackers_for, address=address
    )
    results = _put_together(study, experiments[0], path, summary)
    write_json(path / RESULTS, results)
    write_text(path / SUMMARY, crossval_text(results))
    return results


def _put_together(
    study: CrossvalStudy, first: Experiment, path: Path, summary: Mapping[str, Any]
) -> dict[str, Any]:
    """Read what the folds left, write what they say together, and return the results of the study."""
    from dure.family import load_family
    from dure.studies.crossval.confusion import plot_confusion, write_confusion
    from dure.studies.crossval.results import comparisons, crossval_results, read_predictions
    from dure.studies.crossval.strategy import fold_folder

    found, predictions = [], {}
    for name in study.experiments:
        folder = _experiment_file(study, path, name).parent
        folds = [path / fold_folder(study, name, number) for number in range(1, study.folds + 1)]
        started = [each for each in folds if (each / EXPERIMENT).is_file()]
        result = crossval_results(name, started, folder / OUT_OF_FOLD)
        if "confusion" in result:
            write_confusion(folder / "confusion_matrix.csv", result["confusion"])
            plot_confusion(folder / "confusion_matrix.png", result["confusion"], title=name)
            result["confusion_matrix"] = str(folder / "confusion_matrix.png")
        found.append(result)
        rows = read_predictions(started)
        if rows is not None:
            predictions[name] = rows
    family = load_family(first)
    best_metric = family.best_metric
    metric = _bare(best_metric)
    known = (*RUN_METRICS, *family.metrics, best_metric)
    compared = (
        comparisons(found, metric=metric.name, num_folds=study.folds, predictions=predictions)
        if len(found) > 1
        else []
    )
    return {
        **summary,
        "metric": metric.name,
        "direction": metric.direction,
        "definitions": definitions(_bare(each) for each in known),
        "num_folds": study.folds,
        "trials": summary["experiments"],
        "experiments": found,
        "comparisons": compared,
    }


def _clearly_worse(study: CrossvalStudy, first: Experiment, scores: Scores) -> dict[str, str]:
    """Return the experiments that are clearly worse than the best on the folds that both have."""
    from statistics import fmean

    from dure.family import load_family
    from dure.studies.crossval.comparison import is_clearly_worse

    metric = load_family(first).best_metric
    scored = {name: each for name, each in scores.items() if each}
    if len(scored) < 2:
        return {}
    best = min(scored, key=lambda name: (-len(scored[name]), metric.cost(fmean(scored[name].values()))))
    worse = {}
    for name, each in scored.items():
        shared = sorted(each.keys() & scored[best].keys())
        if name != best and is_clearly_worse(
            [each[number] for number in shared],
            [scored[best][number] for number in shared],
            num_folds=study.folds,
            metric=metric,
        ):
            worse[name] = f"clearly worse than {best} on {len(shared)} folds"
    return worse


def _bare(metric: Metric) -> Metric:
    """Return a metric of validation under the name that figures of folds have."""
    return replace(metric, name=metric.name.removeprefix("eval_"))


def first_fold(study: CrossvalStudy, experiment: Experiment) -> Experiment:
    """Return what the first fold of an experiment runs, to be checked before anything starts."""
    from dure.studies.crossval.strategy import fold_experiment

    return fold_experiment(study, experiment, 1)


def fold_runs(path: Path, fold: int | None) -> list[Path]:
    """Return the folders whose models predict: a run itself, or the finished folds of a cross-validation.

    Args:
        path: Folder of a run, of a cross-validation, or of one of its experiments.
        fold: Only this one, counted from 1.

    Raises:
        UserError: There is no such fold, or it is not finished.
    """
    folds = {int(each.name.removeprefix("fold_")): each for each in path.glob("fold_*") if each.is_dir()}
    if not folds:
        if fold is not None:
            raise UserError(
                f"{path} holds no folds", where="--fold", expected="the folder of a cross-validation"
            )
        return [path]
    finished = {number: each for number, each in sorted(folds.items()) if (each / "final_model").is_dir()}
    if fold is None and finished:
        return list(finished.values())
    if fold not in finished:
        raise UserError(
            f"there is no finished fold {fold}" if fold is not None else "no fold of it is finished",
            where="--fold" if fold is not None else str(path),
            expected=f"one of {', '.join(map(str, finished))}" if finished else "a finished cross-validation",
        )
    return [finished[fold]]


def _experiment_file(study: CrossvalStudy, path: Path, name: str) -> Path:
    return (path if len(study.experiments) == 1 else path / name) / EXPERIMENT
