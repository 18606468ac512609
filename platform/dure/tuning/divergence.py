"""Ending a run whose loss leaves all bounds: every further step would be wasted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

from dure.errors import RunError
from dure.training.events import RunListener, RunProgress, RunStart

EXPLODED = 3.0
"""Times its first training loss at which a run counts as exploding."""
_IN_A_ROW = 2
"""Records above that bound; one alone may be a hard batch."""


class DivergedError(RunError):
    """The loss became NaN or infinite, or exploded."""


class DivergenceGuard(RunListener):
    """Raises :class:`DivergedError` in the process that trains, at the first record that shows it."""

    on_every_worker: ClassVar[bool] = False

    def __init__(self) -> None:
        self._first: float | None = None
        self._above = 0

    def started(self, start: RunStart, tell: Callable[[str], None]) -> None:
        """Forget the run before: a process trains many."""
        self._first, self._above = None, 0

    def progressed(self, progress: RunProgress) -> None:
        """Look at the losses.

        Raises:
            DivergedError: A loss is not finite, or the training loss exploded.
        """
        for name in ("loss", "eval_loss"):
            if not math.isfinite(progress.metrics.get(name, 0.0)):
                raise DivergedError(f"diverged: {name} is {progress.metrics[name]:g} at step {progress.step}")
        loss = progress.metrics.get("loss")
        if loss is None:
            return
        if self._first is None:
            self._first = loss
        self._above = self._above + 1 if loss > EXPLODED * self._first else 0
        if self._above >= _IN_A_ROW:
            raise DivergedError(
                f"diverged: loss {loss:.3g} at step {progress.step}, {loss / self._first:.1f} times the first"
            )
