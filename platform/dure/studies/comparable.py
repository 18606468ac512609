"""Whether the members of a study can be ranked by one metric."""

from __future__ import annotations

from collections.abc import Sequence

from dure.errors import UserError
from dure.family import Family
from dure.metrics.metric import choosable


def compares(metric: str, families: Sequence[Family]) -> bool:
    """Return whether the better figure of a metric is that of the better model, whichever of the families has it."""
    return len(_kinds(metric, families)) < 2


def require_comparable(metric: str, families: Sequence[Family], *, where: str) -> None:
    """Check that all members of a study that have a metric measure it alike.

    Raises:
        UserError: They do not, such as losses by tokens of different models.
    """
    kinds = _kinds(metric, families)
    if len(kinds) < 2:
        return
    names = dict.fromkeys(
        name
        for family in families
        for name in choosable(family.metrics)
        if (found := family.metric(name)) is not None and found.direction and compares(name, families)
    )
    raise UserError(
        f"'{metric}' does not say which of these is better, since each has one of its own kind: "
        + "; ".join(kinds),
        where=where,
        expected=f"one of {', '.join(names)}" if names else "members that differ in other settings",
    )


def _kinds(metric: str, families: Sequence[Family]) -> list[str]:
    having = (family for family in families if family.metric(metric) is not None)
    return list(dict.fromkeys(family.measured_by(metric) for family in having))
