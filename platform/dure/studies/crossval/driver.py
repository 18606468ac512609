"""Cross-validation as a kind of study: folds, their honest scores, and what an ensemble of them predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.console import RenderableType

from dure.config.schema import Experiment
from dure.errors import UserError
from dure.outputs import RUN_RECORD
from dure.studies.crossval.plan import CrossvalStudy
from dure.studies.crossval.report import crossval_table
from dure.studies.crossval.results import CrossvalResults
from dure.studies.kind import Kind, Session

if TYPE_CHECKING:
    from dure.studies.crossval.strategy import Scores

OUT_OF_FOLD = "oof_predictions.csv"


class CrossvalKind(Kind[CrossvalStudy, CrossvalResults]):
    """Leaves a folder per fold, and for every experiment its predictions out of fold and its confusions."""

    results = CrossvalResults
    results_file: ClassVar[str] = "crossval_results.json"
    text_file: ClassVar[str | None] = "crossval_summary.txt"

    @property
    def num_copies(self) -> int:
        """A run per fold."""
        return self.study.folds

    def read(self) -> Sequence[Experiment]:
        """Return the first fold of every experiment."""
        from dure.studies.crossval.strategy import fold_experiment

        return [fold_experiment(self.study, each, 1) for each in self.shown()]

    def stored(self) -> Mapping[str, Experiment]:
        """Return the experiments, each in its own folder; a lone one in the study's."""
        shown = self.shown()
        return {"." if len(shown) == 1 else each.name: each for each in shown}

    def watched(self) -> Sequence[str]:
        """Return what the first experiment is judged by."""
        return [self.experiments[0].training.best_metric]

    def run(self, session: Session) -> CrossvalResults:
        """Run the folds that are left, and put together what they left."""
        from dure.reporting.tracking import trackers_for
        from dure.studies.adapter import run_study
        from dure.studies.crossval.strategy import Crossval

        experiments = self.shown()
        strategy = Crossval(
            self.study,
            experiments,
            session.path,
            judge=partial(_clearly_worse, self.study, experiments[0]),
        )
        results = run_study(
            strategy,
            profile=session.profile,
            path=session.path,
            follower=session.follower,
            listeners=trackers_for,
            address=session.address,
        )
        return _put_together(self.study, [each.name for each in experiments], session.path, results)

    @staticmethod
    def table(results: CrossvalResults) -> RenderableType:
        """Return the folds, the classes and the comparisons."""
        return crossval_table(results.as_json())


def _put_together(
    study: CrossvalStudy, names: Sequence[str], path: Path, results: CrossvalResults
) -> CrossvalResults:
    """Add what only the predictions of all folds together say, and write these."""
    from dure.studies.crossval.confusion import plot_confusion, write_confusion
    from dure.studies.crossval.predictions import read_predictions
    from dure.studies.crossval.results import comparisons, crossval_results
    from dure.studies.crossval.strategy import fold_folder

    found, predictions = [], {}
    for name in names:
        folder = path if len(names) == 1 else path / name
        folds = [path / fold_folder(study, name, number) for number in range(1, study.folds + 1)]
        started = [each for each in folds if (each / RUN_RECORD).is_file()]
        result = crossval_results(name, started, folder / OUT_OF_FOLD)
        if "confusion" in result:
            write_confusion(folder / "confusion_matrix.csv", result["confusion"])
            plot_confusion(folder / "confusion_matrix.png", result["confusion"], title=name)
            result["confusion_matrix"] = str(folder / "confusion_matrix.png")
        found.append(result)
        rows = read_predictions(started)
        if rows is not None:
            predictions[name] = rows
    compared = (
        comparisons(found, metric=results.metric, num_folds=study.folds, predictions=predictions)
        if len(found) > 1
        else []
    )
    values = {**results.as_json(), "experiments": found, "comparisons": compared}
    return CrossvalResults.model_validate(values)


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
