"""Which epochs of a run may yet be a sweet spot, and what is known of those whose weights are kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dure.epochs.loss_series import Point, series_of
from dure.epochs.sweet_spot import Thresholds, candidate_epochs
from dure.errors import UserError
from dure.events import Notify, RunListener, RunProgress, RunStart
from dure.files import read_json_lines, write_json
from dure.runs.budget import record_needed
from dure.runs.epochs import epochs_of
from dure.runs.folder import UnifiedFolder

WHOLE = "model"
"""Stands for every module that is judged by the whole validation loss."""


class NeededEpochs(RunListener):
    """Says while a model trains which epochs may yet be a module's sweet spot, and keeps ``metadata.json``.

    It reads the run's own records, so that a resumed run goes on with what it knew.

    Args:
        losses: Module to the validation loss that it is judged by.
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
            series = _series(self._path, self._losses)
        except UserError:  # nothing was validated yet
            return set()
        return {
            epoch
            for points in series.values()
            for epoch in candidate_epochs(points, Thresholds(), saved=saved)
        }

    def progressed(self, progress: RunProgress) -> None:
        """Bring ``metadata.json`` up to a validation."""
        if progress.kind == "eval" and self._path is not None:
            folder = UnifiedFolder(self._path)
            if folder.checkpoints.is_dir():
                record_needed(folder.checkpoints, self.epochs_to_keep())
            write_metadata(folder)


def write_metadata(folder: UnifiedFolder) -> None:
    """Write ``metadata.json``: epoch, step, learning rate, metrics and file of every epoch whose weights are kept."""
    records = read_json_lines(folder.metrics)
    entries = []
    for epoch, file in epochs_of(folder.checkpoints).items():
        found = [row for row in records if row["kind"] == "eval" and round(row["epoch"], 2) == epoch]
        steps = [row for row in records if row["kind"] == "train" and row["epoch"] <= epoch + 1e-6]
        if not found:
            continue
        metrics = {key: value for key, value in found[0].items() if key.startswith("eval_")}
        entries.append(
            {
                "epoch": epoch,
                "step": found[0]["step"],
                "learning_rate": steps[-1].get("learning_rate") if steps else None,
                "metrics": {"loss": steps[-1].get("loss") if steps else None, **metrics},
                "file": file.name,
            }
        )
    if entries:
        write_json(folder.metadata, entries)


def _series(path: Path, losses: Mapping[str, str]) -> dict[str, list[Point]]:
    return series_of(path, [WHOLE, *losses], losses)
