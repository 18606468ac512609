"""A search algorithm for Tune whose strategy knows all that it proposes: nothing is searched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher


class Proposing(Searcher):  # type: ignore[misc]
    """Proposes what its strategy says, trial by trial.

    ``following`` gets Tune's id of the next trial, and returns its config; None to wait, or ``FINISHED`` when there are
    no more.
    """

    FINISHED = str(Searcher.FINISHED)

    def __init__(self, following: Callable[[str], dict[str, Any] | str | None]) -> None:
        super().__init__(metric=None, mode=None)
        self._following = following

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the config of the next trial, None to wait, or that there are no more."""
        return self._following(trial_id)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn nothing: the trials are given."""

    def save(self, checkpoint_path: str) -> None:
        """Leave a file where Tune wants one; a resumed study knows from its folders what is left."""
        Path(checkpoint_path).write_text("", encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Start again."""
