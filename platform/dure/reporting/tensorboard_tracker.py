"""Tracking a run with TensorBoard, by event files in the run's folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dure.config.schema import Experiment
from dure.config.tree import flat
from dure.events import Notify, RunStart
from dure.reporting.tracker import Tracker, summary_of
from dure.runs.folder import RunResult

FOLDER = "tensorboard"
"""Folder of the event files within that of the run."""


def tracker(experiment: Experiment) -> Tracker:
    """Return the tracker of a run."""
    return TensorBoardTracker()


class TensorBoardTracker(Tracker):
    """Writes a run's numbers by step, and at its end its settings with its scores as hyperparameters.

    The files lie in ``<run>/tensorboard``, so that runs side by side do not mix and ``tensorboard --logdir`` on any
    folder above shows all of them. A run that goes on tells TensorBoard at which step, which then drops what it had of
    later steps.
    """

    label = "TensorBoard"

    def __init__(self) -> None:
        super().__init__()
        self._writer: Any = None
        self._settings: dict[str, bool | float | str] = {}
        self._last_step = 0

    def open(self, start: RunStart, notify: Notify) -> bool:
        """Begin a file of events."""
        from torch.utils.tensorboard import SummaryWriter

        folder = start.path / FOLDER
        # What began again without a checkpoint repeats its step 0 too.
        first = start.resumed_step + 1 if start.resumed_step else 0
        purged = first if first or any(folder.glob("events.out.tfevents.*")) else None
        self._writer = SummaryWriter(str(folder), purge_step=purged)
        self._last_step = start.resumed_step
        plain = (bool, float, int, str)
        self._settings = {
            key: value if isinstance(value, plain) else str(value)
            for key, value in flat(start.experiment).items()
        }
        notify(
            "TensorBoard: its files are in the folder tensorboard of each run; tensorboard --logdir FOLDER"
        )
        return True

    def log(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Write numbers of a step."""
        self._last_step = step
        for name, value in {**values, "epoch": epoch}.items():
            self._writer.add_scalar(_tag(name), value, step)
        self._writer.flush()

    def close(self, result: RunResult) -> None:
        """Write the result, as scores of the settings and as text."""
        from torch.utils.tensorboard.summary import hparams

        found = summary_of(result)
        scores = {
            _tag(name): float(value)
            for name, value in found.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        for summary in hparams(self._settings, scores):  # type: ignore[no-untyped-call]
            self._writer.file_writer.add_summary(summary)
        for name, value in scores.items():
            self._writer.add_scalar(name, value, self._last_step)
        for name, text in found.items():
            if isinstance(text, str):
                self._writer.add_text(_tag(name), text, self._last_step)
        self._writer.close()


def _tag(name: str) -> str:
    """Return a metric's name as TensorBoard groups it: ``eval/f1[joy]`` is ``eval/f1/joy``."""
    return name.replace("[", "/").replace("]", "")
