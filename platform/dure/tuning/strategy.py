"""The contract of a strategy: which trials, in which order, on which budget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune

from dure.config.schema import Experiment
from dure.training.events import RunListener
from dure.tuning.events import TrialStatus


@dataclass(frozen=True)
class TrialPlan:
    """One trial that a study wants.

    Attributes:
        name: Its name, which is also its folder.
        experiment: What it runs; None while that is not known, because a search algorithm proposes it.
    """

    name: str
    experiment: Experiment | None = None


class Strategy(ABC):
    """What a study is, apart from how it is run; the adapter does the running.

    The adapter calls :meth:`trials` once before anything starts, :meth:`param_space`, :meth:`tune_settings` and
    :meth:`listeners` once when Ray runs, :meth:`ended` after every trial, and :meth:`summary` whenever the
    summary is written: after every trial and at the end.

    A trial is known by ``config["trial"]``, its name. What it runs is the plan's experiment, or, for a trial
    that a search algorithm proposes, ``config["experiment"]``: the experiment as JSON. ``config["told"]``, if there is one, is told
    when the trial starts.
    """

    name: str
    kind: str

    @abstractmethod
    def trials(self) -> Sequence[TrialPlan]:
        """Return the trials in their order; the same ones every time it is called."""

    def param_space(self, pending: Sequence[str]) -> dict[str, Any]:
        """Return what Tune chooses configs from: the trials still to be run; nothing when an algorithm does."""
        return {"trial": tune.grid_search(list(pending))}

    def tune_settings(self) -> dict[str, Any]:
        """Return further arguments of ``tune.TuneConfig``, such as a scheduler or a search algorithm."""
        return {}

    def listeners(self) -> tuple[RunListener, ...]:
        """Return listeners that travel with every trial and hear of its progress before all others."""
        return ()

    def ended(self, trials: Sequence[TrialStatus]) -> None:  # noqa: B027 - most strategies leave it at that
        """A trial ended; the statuses are those of all trials."""

    @abstractmethod
    def summary(self, trials: Sequence[TrialStatus]) -> Mapping[str, Any]:
        """Return what the study's summary says beside the trials themselves."""
