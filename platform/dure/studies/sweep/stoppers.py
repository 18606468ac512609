"""Who ends bad trials of a sweep: Tune's schedulers, with a memory of the sessions before."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, TrialScheduler

Reports = Sequence[Mapping[str, Any]]
"""What a trial reported, in order."""


@dataclass(frozen=True)
class PastTrial:
    """Stands for a trial of an earlier session, which Tune does not know."""

    trial_id: str


class EarlyStopper(TrialScheduler):  # type: ignore[misc]
    """A scheduler of Tune that is told what was reported before it was made.

    Tune's own begin every session with nothing to compare with, and a resumed sweep would let trials run on that
    it would have ended at one go. Trials are known by ``config["trial"]``.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._begun: dict[str, Reports] = {}

    def remember(self, name: str, reports: Reports, *, is_over: bool) -> None:
        """Take what a trial reported in earlier sessions.

        Reports are all that it will not report again; one that ``is_over`` will not run again, and the others are taken
        up when Tune adds them.
        """
        if not is_over:
            self._begun[name] = reports
            return
        trial = PastTrial(name)
        super().on_trial_add(None, trial)
        self._take(trial, reports)
        if reports:
            self.on_trial_complete(None, trial, dict(reports[-1]))

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Take up a trial, with what it reported before."""
        super().on_trial_add(tune_controller, trial)
        self._take(trial, self._begun.pop(trial.config.get("trial", ""), ()))

    @abstractmethod
    def _take(self, trial: Trial | PastTrial, reports: Reports) -> None:
        """Keep reports on which everything is decided."""


class AshaStopper(EarlyStopper, ASHAScheduler):  # type: ignore[misc]
    """ASHA whose rungs hold the trials of earlier sessions."""

    def _take(self, trial: Trial | PastTrial, reports: Reports) -> None:
        for report in reports:
            ASHAScheduler.on_trial_result(self, None, trial, dict(report))


class MedianStopper(EarlyStopper, MedianStoppingRule):  # type: ignore[misc]
    """The median rule whose means hold the trials of earlier sessions.

    Unlike Tune's, which fails on the next trial when one ended on a report without the metric, and counts twice
    what a trial whose process died reports again.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._reached: dict[str, float] = {}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide on a report, unless it is one that comes again."""
        if self._is_news(trial, result):
            return str(super().on_trial_result(tune_controller, trial, result))
        return str(self.CONTINUE)

    def on_trial_complete(
        self, tune_controller: Any, trial: Trial | PastTrial, result: dict[str, Any]
    ) -> None:
        """Keep what is there: Tune passes the last report a second time."""

    def _take(self, trial: Trial | PastTrial, reports: Reports) -> None:
        for report in reports:
            if self._is_news(trial, report):
                MedianStoppingRule.on_trial_complete(self, None, trial, dict(report))

    def _is_news(self, trial: Trial | PastTrial, report: Mapping[str, Any]) -> bool:
        """Return whether a report holds the metric of a later time than any before, and note it."""
        if self._metric not in report or self._time_attr not in report:
            return False
        time = float(report[self._time_attr])
        if time <= self._reached.get(trial.trial_id, -1.0):
            return False
        self._reached[trial.trial_id] = time
        return True
