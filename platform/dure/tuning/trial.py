"""What runs in a trial's process, and how its progress reaches the driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ray import tune

from dure.errors import DureError
from dure.runtime.fit import TrainReporter, fit, report_of
from dure.training.events import RunListener, RunProgress
from dure.training.records import RunFolder, RunResult
from dure.training.run import RunRequest, one_line


class _TuneReporter(RunListener):
    """Reports every record to Tune, from within the trial's own process."""

    def __init__(self) -> None:
        self._told: list[str] = []

    def told(self, message: str) -> None:
        """Keep the line for the next report; a report of its own would look like a result to a scheduler."""
        self._told.append(message)

    def progressed(self, progress: RunProgress) -> None:
        """Report, with the lines since the last report."""
        tune.report(report_of(progress, self._told))
        self._told = []


def run_trial(config: Mapping[str, Any], requests: Mapping[str, RunRequest]) -> None:
    """Run the trial that ``config["trial"]`` names; a failure becomes its result and leaves the process usable.

    One worker trains in this process, which goes on to the next trial; more workers get processes of their
    own from Ray Train.
    """
    request = requests[config["trial"]]
    nested = request.profile.num_workers > 1
    reporter = TrainReporter() if nested else _TuneReporter()
    callbacks = []
    if nested:
        from ray.tune.integration.ray_train import TuneReportCallback

        callbacks = [TuneReportCallback()]
    folder = RunFolder(request.path)
    try:
        fit(replace(request, listeners=(*request.listeners, reporter)), callbacks=callbacks)
    except DureError as error:
        if folder.read_result() is None:
            folder.write_result(
                RunResult(name=request.experiment.name, state="failed", error=one_line(error))
            )
