"""Searching the epoch of every module by trying: coordinate by coordinate, or with Optuna."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Choice = dict[str, int]
"""Module → epoch."""


@dataclass
class _Trials:
    """What was tried, so that nothing is scored twice."""

    loss: Callable[[Mapping[str, int]], float]
    budget: int
    tried: dict[tuple[tuple[str, int], ...], float] = field(default_factory=dict)

    @property
    def is_spent(self) -> bool:
        return len(self.tried) >= self.budget

    def of(self, choice: Mapping[str, int]) -> float:
        key = tuple(choice.items())
        if key not in self.tried:
            loss = self.loss(choice)
            self.tried[key] = math.inf if math.isnan(loss) else loss
        return self.tried[key]


def greedy_search(
    start: Mapping[str, int],
    epochs: Sequence[int],
    loss: Callable[[Mapping[str, int]], float],
    *,
    max_evaluations: int,
) -> Choice:
    """Change the epoch of one module at a time to the best one, round by round, until no change helps.

    ``loss`` is asked ``max_evaluations`` times at most; NaN counts as the worst. Returned is the best choice that was
    tried.
    """
    trials = _Trials(loss, max_evaluations)
    best, best_loss = dict(start), trials.of(start)
    improved = True
    while improved:
        improved = False
        for module in start:
            for epoch in epochs:
                choice = {**best, module: epoch}
                if trials.is_spent:
                    return best
                found = trials.of(choice)
                if found < best_loss:
                    best, best_loss, improved = choice, found, True
    return best


def optuna_search(
    start: Mapping[str, int],
    epochs: Sequence[int],
    loss: Callable[[Mapping[str, int]], float],
    *,
    max_evaluations: int,
    seed: int = 0,
) -> Choice:
    """Search the epochs of all modules together with Optuna's TPE, which learns how modules go together.

    Arguments are those of :func:`greedy_search`; ``seed`` decides what is drawn. ``start`` is tried first. A choice
    that is drawn again is not scored again, and there are at most thrice as many draws as evaluations.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trials = _Trials(loss, max_evaluations)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True))
    study.enqueue_trial({module: epochs.index(epoch) for module, epoch in start.items()})

    def objective(trial: Any) -> float:
        choice = {module: epochs[trial.suggest_int(module, 0, len(epochs) - 1)] for module in start}
        found = trials.of(choice)
        if trials.is_spent:
            study.stop()
        # A sampler cannot learn from infinity.
        return found if math.isfinite(found) else 1e30

    study.optimize(objective, n_trials=3 * max_evaluations)
    return dict(min(trials.tried.items(), key=lambda item: item[1])[0])
