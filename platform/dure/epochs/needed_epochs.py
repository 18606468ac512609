"""Which epochs of a run may yet be a sweet spot, and what is known of those whose weights are kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dure.epochs.loss_series import series_of
from dure.epochs.sweet_spot import candidate_epochs
from dure.errors import UserError
from dure.events import Notify, RunListener, RunProgress, RunStart
from dure.files import json_lines, write_json
from dure.runs.budget import record_needed
from dure.runs.epochs import epochs_of
from dure.runs.folder import UnifiedFolder

WHOLE = "model"
"""Stands for every module that is judged by the whole validation loss."""


class NeededEpochs(RunListener):
    """Says while a model trains which epochs may yet be a module's sweet spot, and keeps ``metadata.json``.

    It reads the run's own records, so that a resumed run goes on with what it knew. ``losses`` names the validation
    loss that each module is judged by.
    """

    def __init__(self, losses: Mapping[str, str]) -> None:
        self._losses = dict(losses)
        self._path: Path | None = None

    def started(self, start: RunStart, notify: Notify) -> None:
        """Note where the run is."""
        self._path = start.path

    def epochs_to_keep(self) -> set[int]:
        """Return the epochs that are candidates by now."""
        if self._path is None:
            return set()
        saved = list(epochs_of(UnifiedFolder(self._path).checkpoints))
        try:
            series = series_of(self._path, [WHOLE, *self._losses], self._losses)
        except UserError:  # nothing was validated yet
            return set()
        return {epoch for points in series.values() for epoch in candidate_epochs(points, saved=saved)}

    def progressed(self, progress: RunProgress) -> None:
        """Bring ``metadata.json`` up to a validation."""
        if progress.kind == "eval" and self._path is not None:
            folder = UnifiedFolder(self._path)
            if folder.checkpoints.is_dir():
                record_needed(folder.checkpoints, self.epochs_to_keep())
            write_metadata(folder)


def write_metadata(folder: UnifiedFolder) -> None:
    """Write ``metadata.json``: epoch, step, learning rate, metrics and file of every epoch whose weights are kept."""
    kept = epochs_of(folder.checkpoints)
    found: dict[float, dict[str, Any]] = {}
    last: dict[float, dict[str, Any]] = {}
    for row in json_lines(folder.metrics):
        if row["kind"] == "eval":
            found.setdefault(round(row["epoch"], 2), row)
        elif row["kind"] == "train":
            last |= {epoch: row for epoch in kept if row["epoch"] <= epoch + 1e-6}
    entries = []
    for epoch, file in kept.items():
        if epoch not in found:
            continue
        metrics = {key: value for key, value in found[epoch].items() if key.startswith("eval_")}
        step = last.get(epoch, {})
        entries.append(
            {
                "epoch": epoch,
                "step": found[epoch]["step"],
                "learning_rate": step.get("learning_rate"),
                "metrics": {"loss": step.get("loss"), **metrics},
                "file": file.name,
            }
        )
    if entries:
        write_json(folder.metadata, entries)
