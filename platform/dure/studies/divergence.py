"""Ending a run whose loss leaves all bounds: every further step would be wasted."""

from __future__ import annotations

import math

from dure.errors import RunError
from dure.events import Notify, RunListener, RunProgress, RunStart
from dure.files import json_lines
from dure.runs.folder import RunFolder

EXPLODED = 3.0
"""Times its first training loss at which a run counts as exploding."""
_IN_A_ROW = 2
"""Records above that bound; one alone may be a hard batch."""


class DivergedError(RunError):
    """The loss became NaN or infinite, or exploded."""


def first_loss(folder: RunFolder) -> float | None:
    """Return the first training loss that a run recorded, or None when it recorded none."""
    losses = (record.get("loss") for record in json_lines(folder.metrics) if record["kind"] == "train")
    return next((loss for loss in losses if loss is not None), None)


class DivergenceGuard(RunListener):
    """Raises :class:`DivergedError` in the process that trains, at the first record that shows it.

    ``first_loss`` is what counts as the first loss of a run that begins with trained weights, whose own is so small
    that any hard batch is several times of it.
    """

    def __init__(self, first_loss: float | None = None) -> None:
        self._given = first_loss
        self._first = first_loss
        self._above = 0

    def started(self, start: RunStart, notify: Notify) -> None:
        """Forget the run before, since a process trains many; a run that continues had its first loss."""
        self._first, self._above = self._given, 0
        if self._first is None and start.resumed_step:
            self._first = first_loss(RunFolder(start.path))

    def progressed(self, progress: RunProgress) -> None:
        """Look at the losses.

        Raises:
            DivergedError: A loss is not finite, or the training loss exploded.
        """
        for name in ("loss", "eval_loss"):
            if not math.isfinite(progress.metrics.get(name, 0.0)):
                raise DivergedError(f"{name} is {progress.metrics[name]:g} at step {progress.step}")
        loss = progress.metrics.get("loss")
        if loss is None:
            return
        if not self._first:  # of 0 everything is many times
            self._first = loss
        # Of a loss below 0 it is as far above it.
        bound = self._first + (EXPLODED - 1) * abs(self._first)
        self._above = self._above + 1 if loss > bound else 0
        if self._above >= _IN_A_ROW:
            times = (
                f"{loss / self._first:.1f} times the first"
                if self._first > 0
                else f"and {self._first:.3g} at first"
            )
            raise DivergedError(f"loss {loss:.3g} at step {progress.step}, {times}")
