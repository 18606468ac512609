"""Cross-validation as a kind of study: folds, their honest scores, and what an ensemble of them predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dure.config.schema import Experiment
from dure.errors import UserError
from dure.studies.crossval.plan import CrossvalStudy
from dure.studies.crossval.report import CrossvalView, crossval_table
from dure.studies.crossval.results import CrossvalResults
from dure.studies.kind import Session, TrialKind

if TYPE_CHECKING:
    from dure.studies.crossval.strategy import Crossval

OUT_OF_FOLD = "oof_predictions.csv"


class CrossvalKind(TrialKind[CrossvalStudy, CrossvalResults]):
    """Leaves a folder per fold, and for every experiment its predictions out of fold and its confusions."""

    results = CrossvalResults
    view = CrossvalView
    results_file: ClassVar[str] = "crossval_results.json"
    text_file: ClassVar[str | None] = "crossval_summary.txt"
    table = staticmethod(crossval_table)

    @property
    def num_copies(self) -> int:
        """A run per fold."""
        return self.study.folds

    def read(self) -> Sequence[Experiment]:
        """Return the first fold of every experiment."""
        from dure.studies.crossval.strategy import fold_experiment

        return [fold_experiment(self.study, each, 1) for each in self.shown()]

    def stored(self) -> Mapping[str, Experiment]:
        """Return the experiments, each in its folder."""
        return {self.study.folder_of(each.name): each for each in self.shown()}

    def strategy(self, session: Session) -> Crossval:
        """Return one trial per experiment and fold."""
        from dure.studies.crossval.strategy import Crossval

        return Crossval(self.study, self.shown(), session.path)

    def completed(self, results: CrossvalResults, session: Session) -> CrossvalResults:
        """Add what only the predictions of all folds together say, and write these."""
        from dure.studies.crossval.confusion import plot_confusion, write_confusion
        from dure.studies.crossval.results import comparisons, put_together

        found, predictions = [], {}
        for each in results.experiments:
            folder = session.path / self.study.folder_of(each.name)
            experiment, rows = put_together(each, folder / OUT_OF_FOLD)
            if experiment.confusion is not None:
                picture = folder / "confusion_matrix.png"
                write_confusion(picture.with_suffix(".csv"), experiment.confusion)
                plot_confusion(picture, experiment.confusion, title=each.name)
                experiment = experiment.with_values(confusion_matrix=str(picture))
            if rows is not None:
                predictions[each.name] = rows
            found.append(experiment)
        compared = comparisons(
            found, metric=results.metric, num_folds=results.num_folds, predictions=predictions
        )
        return results.with_values(experiments=tuple(found), comparisons=compared)

    @classmethod
    def winner(cls, results: CrossvalResults) -> tuple[str, Mapping[str, Any]] | None:
        """Return the means over the held-out rows of all folds, of the best experiment that has all."""
        metric = results.metric_named(results.metric)
        means = {each.name: each.mean for each in results.whole}
        best = metric.best({name: mean.get(metric.name) for name, mean in means.items()})
        return None if best is None else (best, {f"eval_{name}": each for name, each in means[best].items()})

    @staticmethod
    def next_commands(results: CrossvalResults) -> Sequence[str]:
        """Return how the folds of the first experiment that has all of them predict together."""
        from dure.family.predicting import predict_command

        folds = [Path(each.folds[0].path) for each in results.whole[:1]]
        return tuple(predict_command(fold.parent, fold) for fold in folds)


def fold_runs(path: Path, fold: int | None) -> list[Path]:
    """Return the folders whose models predict: a run itself, or the finished folds of a cross-validation.

    A path is the folder of a run, of a cross-validation, or of one of its experiments; a fold counts from 1.

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
