"""What a batch is, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field

from dure.config.loading import checked
from dure.config.scalars import Int, Text
from dure.config.schema import Experiment
from dure.errors import UserError, nearest
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

    def chosen(self, wanted: str | None) -> BatchStudy:
        """Return the batch with those experiments only that ``--only`` asks for; all when not given.

        Raises:
            UserError: It names none of them.
        """
        return (
            self if wanted is None else self.with_values(experiments=tuple(only_of(self.experiments, wanted)))
        )

    @classmethod
    def kind_of(cls) -> type[Kind[Any, Any]]:
        """Return what runs a batch."""
        from dure.studies.batch.driver import BatchKind

        return BatchKind


def _can_rank(name: str, families: Sequence[Family]) -> bool:
    from dure.studies.comparable import compares

    directions = {metric.direction for each in families if (metric := each.metric(name)) is not None}
    return directions <= {"min", "max"} and compares(name, families)


def plan_batch(
    names: Sequence[str], *, overrides: Sequence[str] = (), only: str | None = None, seeds: int | None = None
) -> BatchStudy:
    """Return the batch of a study, or of experiments that are named one by one.

    ``only`` has the numbers or names of those that run, with commas.

    Raises:
        UserError: Nothing is named, one of the names is not known, or several studies are named.
    """
    from dure.studies.study import is_study, load_study_of

    if not names:
        raise UserError(
            "no study and no experiment is named", where="dure batch", hint="dure list shows them"
        )
    if len(names) == 1 and is_study(names[0]):
        study = load_study_of(BatchStudy, names[0])
    else:
        for name in names:
            if is_study(name):
                raise UserError(
                    f"'{name}' is a study, which runs by itself",
                    where="dure batch",
                    expected="one study, or experiments",
                    hint=f"dure batch {name}",
                )
        study = checked(BatchStudy, {"experiments": list(names)}, {}, "dure batch")
    if seeds is not None:
        study = checked(BatchStudy, study.said() | {"seeds": seeds}, {("seeds",): "--seeds"}, "dure batch")
    return study.with_overrides(overrides).chosen(only)


def only_of(names: Sequence[str], wanted: str) -> list[str]:
    """Return those of ``names`` that ``--only`` asks for, by number from 1 or by name, in their own order.

    Raises:
        UserError: There is no such number or name.
    """
    chosen = set()
    for word in (part.strip() for part in wanted.split(",")):
        if word.isdecimal() and 1 <= int(word) <= len(names):
            chosen.add(names[int(word) - 1])
        elif word in names:
            chosen.add(word)
        else:
            raise UserError(
                f"'{word}' is no experiment of the study",
                where="--only",
                expected=f"numbers from 1 to {len(names)}, or names: {', '.join(names)}",
                hint=nearest(word, names),
            )
    return [name for name in names if name in chosen]
