"""What a batch is, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field

from dure.config.scalars import Int, Text
from dure.config.schema import Experiment
from dure.errors import UserError
from dure.studies.plan import SeveralExperiments

if TYPE_CHECKING:
    from dure.family import Family
    from dure.studies.kind import Kind


class BatchStudy(SeveralExperiments):
    """Several experiments side by side, compared in one table."""

    words: ClassVar[str] = "batch"

    kind: Literal["batch"] = "batch"
    """Kind of the study; a file must name it."""
    metrics: tuple[Text, ...] = Field(
        default=("eval_rouge1", "eval_rouge2", "eval_rougeL", "eval_rouge_sum", "eval_loss"), min_length=1
    )
    """Columns of the table; the first one ranks."""
    seeds: Int | None = Field(default=None, ge=2, le=1000)
    """Runs of every experiment, each by another seed from its own on; means are compared then."""

    def runs_of(self, experiment: Experiment) -> tuple[Experiment, ...]:
        """Return the runs of one experiment: itself, or one for each seed, which is named after it."""
        if self.seeds is None:
            return (experiment,)
        first = experiment.experiment.seed
        return tuple(
            experiment.with_(
                {"experiment.seed": seed, "experiment.name": f"{experiment.name}-seed{seed}"}, "--seeds"
            )
            for seed in range(first, first + self.seeds)
        )

    def continued(self, before: Self, where: str) -> Self:
        """Return the batch as it goes on in a folder, where seeds may be added.

        Raises:
            UserError: A seed that has its runs would be left out of the means.
        """
        if self.seeds is not None and (before.seeds is None or self.seeds < before.seeds):
            was = "one run of each experiment" if before.seeds is None else f"{before.seeds} seeds"
            raise UserError(
                f"the batch was started with {was}",
                where=f"--seeds {self.seeds}",
                expected="as many seeds, or more" if before.seeds else "no --seeds",
                hint=f"leave it out (see {where}), or start a batch of its own with another --output",
            )
        return super().continued(before, where)

    def num_trainings(self, experiment: Experiment) -> tuple[float, float]:
        """Return the seeds."""
        return float(self.seeds or 1), float(self.seeds or 1)

    def resolved(self, experiments: Sequence[Experiment]) -> Self:
        """Return the batch with the columns that its experiments have, when it says none and lacks its first one.

        Raises:
            UserError: Two of the experiments have one name, or a family is wrong.
        """
        from dure.family import load_family
        from dure.metrics.metric import choosable

        study = super().resolved(experiments)
        if "metrics" in self.model_fields_set:
            return study
        families = [load_family(each) for each in experiments]
        if any(family.metric(self.metrics[0]) is not None for family in families):
            return study
        best = [family.best_metric.name for family in families]
        others = [name for family in families for name in choosable(family.metrics) if name != "eval_loss"]
        names = dict.fromkeys((*best, *others, "eval_loss"))
        first = next((name for name in names if _can_rank(name, families)), best[0])
        return study.with_values(metrics=(first, *(name for name in names if name != first)))

    @classmethod
    def kind_of(cls) -> type[Kind[Any, Any]]:
        """Return what runs a batch."""
        from dure.studies.batch.driver import BatchKind

        return BatchKind


def _can_rank(name: str, families: Sequence[Family]) -> bool:
    from dure.studies.comparable import compares

    directions = {metric.direction for each in families if (metric := each.metric(name)) is not None}
    return directions <= {"min", "max"} and compares(name, families)
