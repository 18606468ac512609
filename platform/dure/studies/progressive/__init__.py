"""Progressive training: more and more of the data, and the Ray Tune scheduler that drives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dure.studies.progressive.scheduler import ProgressiveRatioScheduler

__all__ = ["ProgressiveRatioScheduler"]


def __getattr__(name: str) -> Any:
    # Plans and tables need no Ray Tune, which takes seconds to import.
    if name in __all__:
        from dure.studies.progressive import scheduler

        return getattr(scheduler, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
