"""The batch that a command describes: a study, or experiments that are named one by one."""

from __future__ import annotations

from collections.abc import Sequence

from dure.config.loading import checked
from dure.errors import UserError, nearest
from dure.studies.batch.plan import BatchStudy
from dure.studies.study import is_study, load_study_of


def plan_batch(
    names: Sequence[str], *, overrides: Sequence[str] = (), only: str | None = None, seeds: int | None = None
) -> BatchStudy:
    """Return the batch of a study, or of experiments that are named one by one.

    ``only`` has the numbers or names of those that run, with commas.

    Raises:
        UserError: Nothing is named, one of the names is not known, or several studies are named.
    """
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
    if only is not None:
        study = study.with_values(experiments=tuple(only_of(study.experiments, only)))
    return study.with_overrides(overrides)


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
