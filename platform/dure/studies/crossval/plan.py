"""What a cross-validation is, as data, and how the options of the command line say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field

from dure.config.data import SAMPLE
from dure.config.loading import checked
from dure.config.scalars import Bool, Int
from dure.config.schema import Experiment
from dure.errors import UserError
from dure.studies.plan import SeveralExperiments, given

if TYPE_CHECKING:
    from dure.studies.kind import Kind


class CrossvalStudy(SeveralExperiments):
    """Experiments trained once per fold of their training table, each judged on rows that it never saw."""

    words: ClassVar[str] = "cross-validation"
    fixed: ClassVar[Mapping[str, str]] = {"experiments": "dure crossval", "folds": "--folds", "seed": "seed"}
    grows: ClassVar[str] = "experiments"

    kind: Literal["crossval"] = "crossval"
    """Kind of the study; a file must name it."""
    folds: Int = Field(default=5, ge=2)
    """Parts that the training table is cut into; every experiment gets the same ones."""
    seed: Int = Field(default=42, ge=0, lt=2**32)
    """Seed of the cut; that of the first experiment when not given."""
    drop_worse: Bool = False
    """Train an experiment on no further folds once it is clearly worse than the best."""

    def resolved(self, experiments: Sequence[Experiment]) -> Self:
        """Return the cross-validation with its seed.

        Raises:
            UserError: The experiments do not share their rows, or do not measure alike what compares them; or two have
                one name.
        """
        from dure.family import load_family
        from dure.studies.comparable import require_comparable

        first = experiments[0]
        study = super().resolved(experiments)
        for each in experiments[1:]:
            _check_shared_rows(each, first)
        metric = first.training.best_metric
        require_comparable(
            metric, [load_family(each) for each in experiments], where=f"training.best_metric={metric}"
        )
        return study if "seed" in study.model_fields_set else study.with_values(seed=first.experiment.seed)

    def num_trainings(self, experiment: Experiment) -> tuple[float, float]:
        """Return the folds; where the worse experiment is dropped, it may be after its first."""
        return 1.0 if self.drop_worse else float(self.folds), float(self.folds)

    def folder_of(self, name: str) -> str:
        """Return the folder of an experiment within the study's; a lone one needs none of its own."""
        return "." if len(self.experiments) == 1 else name

    @classmethod
    def kind_of(cls) -> type[Kind[Any, Any]]:
        """Return what runs a cross-validation."""
        from dure.studies.crossval.driver import CrossvalKind

        return CrossvalKind


def plan_crossval(experiments: Sequence[str], **options: Any) -> CrossvalStudy:
    """Return the cross-validation of experiments; ``options`` are keys of :class:`CrossvalStudy`, if they were given.

    Raises:
        UserError: One of them is wrong.
    """
    values = {"experiments": list(experiments), **given(options)}
    return checked(CrossvalStudy, values, {("folds",): "--folds"}, "dure crossval")


def _check_shared_rows(experiment: Experiment, first: Experiment) -> None:
    expected = "experiments on the same rows, since they get the same folds"
    if first.data.train == SAMPLE and experiment.family != first.family:
        raise UserError(
            f"the sample corpus of {experiment.name} ({experiment.family}) is not that of {first.name} ({first.family})",
            where="dure crossval",
            expected=expected,
            hint="data.train=FILE on the command line sets it for all",
        )
    for key in ("train", "columns", "max_train_rows", "max_dev_rows"):
        if getattr(experiment.data, key) != getattr(first.data, key):
            raise UserError(
                f"data.{key} of {experiment.name} is not that of {first.name}",
                where="dure crossval",
                expected=expected,
                hint=f"data.{key}=… on the command line sets it for all",
            )
