"""What a batch is, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from dure.config.scalars import Text
from dure.errors import UserError, nearest
from dure.studies.plan import SeveralExperiments

if TYPE_CHECKING:
    from dure.studies.kind import Kind


class BatchStudy(SeveralExperiments):
    """Several experiments side by side, compared in one table."""

    suffix: ClassVar[str] = "batch"
    words: ClassVar[str] = "batch"

    kind: Literal["batch"] = "batch"
    """Kind of the study; a file must name it."""
    metrics: tuple[Text, ...] = Field(
        default=("eval_rouge1", "eval_rouge2", "eval_rougeL", "eval_rouge_sum", "eval_loss"), min_length=1
    )
    """Columns of the table; the first one ranks."""

    def chosen(self, wanted: str | None) -> BatchStudy:
        """Return the batch with those experiments only that ``--only`` asks for; all when not given.

        Raises:
            UserError: It names none of them.
        """
        return self if wanted is None else self.with_values(experiments=tuple(only(self.experiments, wanted)))

    @classmethod
    def kind_of(cls) -> type[Kind[Any, Any]]:
        """Return what runs a batch."""
        from dure.studies.batch.driver import BatchKind

        return BatchKind


def only(names: Sequence[str], wanted: str) -> list[str]:
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
