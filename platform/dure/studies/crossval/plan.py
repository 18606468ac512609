"""What a cross-validation is, as data, and how the options of the command line say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator

from dure.config.data import SAMPLE
from dure.config.loading import checked
from dure.config.scalars import Bool, Int, Text
from dure.config.schema import Experiment
from dure.errors import UserError
from dure.studies.plan import StudyPlan

if TYPE_CHECKING:
    from dure.studies.kind import Kind


class CrossvalStudy(StudyPlan):
    """Experiments trained once per fold of their training table, each judged on rows that it never saw."""

    suffix: ClassVar[str] = "crossval"
    words: ClassVar[str] = "cross-validation"
    fixed: ClassVar[Mapping[str, str]] = {"experiments": "dure crossval", "folds": "--folds", "seed": "seed"}

    kind: Literal["crossval"] = "crossval"
    """Kind of the study; a file must name it."""
    experiments: tuple[Text, ...] = Field(min_length=1)
    """Experiments by name or file, in the order of the table; the first is what the others are compared with."""
    folds: Int = Field(default=5, ge=2)
    """Parts that the training table is cut into; every experiment gets the same ones."""
    seed: Int = Field(default=42, ge=0, lt=2**32)
    """Seed of the cut; that of the first experiment when not given."""
    drop_worse: Bool = False
    """Train an experiment on no further folds once it is clearly worse than the best."""

    @field_validator("experiments")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("each experiment once, since each has one folder")
        return value

    @property
    def sources(self) -> Sequence[str]:
        """The experiments, by name or file."""
        return self.experiments

    def continued(self, before: Self, where: str) -> Self:
        """Return the cross-validation as it goes on in a folder, where further experiments may come after its own."""
        return super().continued(before, where).with_values(experiments=self.experiments)

    def is_same(self, key: str, before: Self) -> bool:
        """Return whether a key is as before; further experiments may come where each has a folder of its own."""
        if key != "experiments" or len(before.experiments) == 1:
            return super().is_same(key, before)
        return self.experiments[: len(before.experiments)] == before.experiments

    def resolved(self, experiments: Sequence[Experiment]) -> Self:
        """Return the cross-validation with its seed.

        Raises:
            UserError: The experiments do not share their rows, or two bear one name.
        """
        first, names = experiments[0], [each.name for each in experiments]
        if len(set(names)) < len(names):
            raise UserError(
                f"two experiments bear one name: {', '.join(names)}",
                where=self.name or "dure crossval",
                expected="distinct experiment.name, since each has a folder of its own",
            )
        for each in experiments[1:]:
            _check_shared_rows(each, first)
        given = "seed" in self.model_fields_set
        return self.with_values(seed=self.seed if given else first.experiment.seed)

    @classmethod
    def kind_of(cls) -> type[Kind[Any, Any]]:
        """Return what runs a cross-validation."""
        from dure.studies.crossval.driver import CrossvalKind

        return CrossvalKind


def plan_crossval(
    experiments: Sequence[str],
    *,
    overrides: Sequence[str] = (),
    folds: int | None = None,
    drop_worse: bool = False,
) -> CrossvalStudy:
    """Return the cross-validation that the options describe.

    Args:
        experiments: What is compared, by name or file.
        overrides: ``a.b=value`` texts for all of them.
        folds: Parts that the training table is cut into; 5 when not given.
        drop_worse: Whether a clearly worse experiment gets no further folds.

    Raises:
        UserError: One of them is wrong.
    """
    given = {"overrides": list(overrides) or None, "folds": folds, "drop_worse": drop_worse or None}
    values = {key: value for key, value in given.items() if value is not None}
    return checked(
        CrossvalStudy, {"experiments": list(experiments), **values}, {("folds",): "--folds"}, "dure crossval"
    )


def _check_shared_rows(experiment: Experiment, first: Experiment) -> None:
    expected = "experiments on the same rows, since they get the same folds"
    if first.data.train == SAMPLE and experiment.family != first.family:
        raise UserError(
            f"the sample corpus of {experiment.name} ({experiment.family}) is not that of {first.name} ({first.family})",
            where="dure crossval",
            expected=expected,
            hint="data.train=FILE on the command line sets it for all",
        )
    for key in ("train", "columns", "max_train_rows"):
        if getattr(experiment.data, key) != getattr(first.data, key):
            raise UserError(
                f"data.{key} of {experiment.name} is not that of {first.name}",
                where="dure crossval",
                expected=expected,
                hint=f"data.{key}=… on the command line sets it for all",
            )
