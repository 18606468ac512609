"""The four tasks of Red Heart: their names, and where their values stand."""

from __future__ import annotations

from collections.abc import Mapping

TASKS = ("emotion", "bentham", "regret", "surd")
"""The tasks in the order in which their values stand in ``logits`` and in labels."""
EMOTIONS = ("joy", "sadness", "anger", "fear", "surprise", "disgust", "neutral")
"""Names of the emotion classes, in the order in which a list of seven numbers gives them."""
BENTHAM = (
    *("intensity", "duration", "certainty", "propinquity", "fecundity", "purity", "extent"),
    *("external_cost", "redistribution", "self_damage"),
)
"""Names of the values of pleasure and pain: Bentham's seven (1789, chapter IV), and three more."""
SURD = ("synergy", "unique", "redundant", "deterministic")
"""Names of the four parts."""


def task_slices(sizes: Mapping[str, int]) -> dict[str, slice]:
    """Return where the values of each task stand among those of all, from ``RedHeartConfig.task_sizes``."""
    slices, start = {}, 0
    for task, size in sizes.items():
        slices[task] = slice(start, start + size)
        start += size
    return slices
