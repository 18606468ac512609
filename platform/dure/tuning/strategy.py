"""The contract of a strategy: which trials, in which order, on which budget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dure.config.schema import Experiment
from dure.tuning.events import TrialStatus


@dataclass(frozen=True)
class TrialPlan:
    """One trial that a study wants: a name that is also its folder, and what it runs."""

    name: str
    experiment: Experiment


class Strategy(ABC):
    """What a study is, apart from how it is run; the adapter does the running.

    The adapter calls :meth:`trials` once before anything starts, :meth:`tune_settings` once when Ray runs,
    and :meth:`summary` whenever the summary is written: after every trial and at the end.
    """

    name: str
    kind: str

    @abstractmethod
    def trials(self) -> Sequence[TrialPlan]:
        """Return the trials in their order; the same ones every time it is called."""

    def tune_settings(self) -> dict[str, Any]:
        """Return further arguments of ``tune.TuneConfig``, such as a scheduler or a search algorithm."""
        return {}

    @abstractmethod
    def summary(self, trials: Sequence[TrialStatus]) -> Mapping[str, Any]:
        """Return what the study's summary says beside the trials themselves."""
