"""Parameter crossover: the final model from the best epoch of each module, if that is proven to be better.

Candidates are compared on the *selection* rows. The best crossover then meets the baselines on *held-out* rows, that
nothing was chosen by; it is kept only if it wins against each of them there. Otherwise the best baseline is kept, by the
selection rows too.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from dure.epochs import mixing
from dure.epochs.mixing import EMA, EpochWeights, Recipe, State
from dure.epochs.module_search import greedy_search, optuna_search
from dure.errors import UserError
from dure.events import Notify
from dure.files import write_json, written_beside
from dure.metrics.metric import Direction, Metric
from dure.metrics.paired import PairedDifference, paired_difference
from dure.runs.folder import CROSSOVER_FILE

logger = logging.getLogger(__name__)

RECORD = "crossover_final.json"
TOWARDS_LAST = (0.25, 0.5, 0.75)
"""Where between each module's own epoch and the last one the interpolated candidates lie."""

Score = Callable[[State], float]
Rows = Callable[[State], Sequence[float]]


@dataclass(frozen=True)
class Candidate:
    """One way to build the model."""

    name: str
    """Such as ``last`` or ``selective``."""
    kind: Literal["baseline", "crossover"]
    """A ``baseline`` treats all modules alike; a ``crossover`` does not."""
    recipe: Recipe
    selection: float
    """Its score on the selection rows; NaN when it was not finite."""
    held_out: float | None = None
    """Its mean over the held-out rows; None for candidates that did not get so far."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return {
            "name": self.name,
            "kind": self.kind,
            "selection": _json_number(self.selection),
            "held_out": _json_number(self.held_out),
            "modules": {
                module: {str(source): round(share, 6) for source, share in shares.items()}
                for module, shares in self.recipe.items()
            },
        }


@dataclass(frozen=True)
class Outcome:
    """What a crossover came to."""

    candidates: tuple[Candidate, ...]
    """All that were tried, baselines first."""
    winner: str
    """Name of the crossover with the best selection score."""
    kept: str
    """Name of the candidate that the final model is, chosen by the selection rows among baselines."""
    margins: dict[str, PairedDifference | None]
    """Baseline → by how much the winner is better on the held-out rows; None where the scores of one of the two are not
    finite."""
    better: Direction | None
    """Whether lower or higher scores are better."""
    num_evaluations: int
    """How many models were scored on the selection rows."""

    def __getitem__(self, name: str) -> Candidate:
        return next(candidate for candidate in self.candidates if candidate.name == name)

    @property
    def is_crossover(self) -> bool:
        """Whether a crossover was kept."""
        return self[self.kept].kind == "crossover"

    @property
    def is_proven(self) -> bool:
        """Whether a crossover was kept, and its margin over every baseline is none of chance."""
        return self.is_crossover and not self._unsure()

    def verdict(self) -> str:
        """Say in a sentence what was kept and why."""
        if self.is_proven:
            return f"crossover '{self.kept}' is kept: better than every baseline on held-out rows, certainly"
        if self.is_crossover:
            return (
                f"crossover '{self.kept}' is kept: better than every baseline on held-out rows, "
                f"though not certainly than {', '.join(self._unsure())}"
            )
        return (
            f"no crossover is kept: '{self.winner}', the best by selection, is not better than every baseline "
            f"on held-out rows; '{self.kept}' is the best baseline by selection, and the held-out rows chose nothing "
            "of it"
        )

    def _unsure(self) -> list[str]:
        """Return the baselines that the winner may only have beaten by chance; one that diverged is none of them."""
        return [name for name, margin in self.margins.items() if margin is not None and not margin.is_certain]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return {
            "kept": self.kept,
            "is_crossover": self.is_crossover,
            "is_proven": self.is_proven,
            "verdict": self.verdict(),
            "winner": self.winner,
            "modules": self[self.kept].as_dict()["modules"],
            "margins": {
                name: None if margin is None else {**asdict(margin), "is_certain": margin.is_certain}
                for name, margin in self.margins.items()
            },
            "selection_better": self.better,
            "rows_better": self.better,
            "num_evaluations": self.num_evaluations,
            "candidates": [candidate.as_dict() for candidate in self.candidates],
        }


def crossover(
    weights: EpochWeights,
    spots: Mapping[str, int],
    score: Score,
    rows: Rows,
    *,
    metric: Metric,
    best: int | None = None,
    searches: Sequence[Literal["greedy", "optuna"]] = ("greedy", "optuna"),
    max_evaluations: int = 100,
    seed: int = 0,
    notify: Notify = logger.info,
) -> Outcome:
    """Try the ways to build a model from its epochs, and say which one is to be kept.

    Baselines are the last epoch, the best one, the moving average if there is one, and the uniform and the greedy soup
    (Wortsman et al., 2022). Crossovers are *selective* (each module from its sweet spot), *weighted* (with the
    epochs beside it), *interpolated* (towards the last epoch), and what each search finds, beginning at the best of
    *selective* and the single epochs.

    Where no crossover is kept, the baseline is the best one on the selection rows, so that its score on the held-out
    rows, which chose nothing of it, is honest. That of a kept crossover is a little flattered, by having been kept.
    What ``score`` gets, to score it on the selection rows, is read from files: copy it, never change it. ``rows``
    scores a model on each held-out row, always in the same order; both are scores of ``metric``. The best epoch is that by ``score`` when none is
    given, by the metric that the run chose by. Each search may score ``max_evaluations`` models.

    Raises:
        UserError: A sweet spot or the best epoch is none of the epochs, or a module has no sweet spot; or no baseline
            has finite scores on the held-out rows.
    """
    _check_epochs(weights, spots, best)
    epochs, modules = weights.epochs, weights.modules
    spots = {module: spots[module] for module in modules}
    found = _Candidates(weights, score, metric, notify)
    ranked = sorted(epochs, key=lambda epoch: found.cost(mixing.whole(modules, epoch)))
    _add_baselines(found, ranked, ranked[0] if best is None else best)

    found.add("selective", "crossover", mixing.selective(spots))
    found.add("weighted", "crossover", mixing.weighted(spots, epochs))
    for share in TOWARDS_LAST:
        found.add(f"interpolated_{share:g}", "crossover", mixing.interpolated(spots, epochs[-1], share))
    start = min([spots, *(dict.fromkeys(modules, epoch) for epoch in ranked)], key=found.choice_cost)
    for search in searches:
        match search:
            case "greedy":
                choice = greedy_search(start, epochs, found.choice_cost, max_evaluations=max_evaluations)
            case "optuna":
                choice = optuna_search(
                    start, epochs, found.choice_cost, max_evaluations=max_evaluations, seed=seed
                )
        found.add(f"search_{search}", "crossover", mixing.selective(choice))
    winner = min(
        (candidate for candidate in found.candidates if candidate.kind == "crossover"),
        key=lambda candidate: found.cost(candidate.recipe),
    )
    return _decided(found, winner, rows, seed)


class _Candidates:
    """The recipes that were tried, each scored once on the selection rows."""

    def __init__(self, weights: EpochWeights, score: Score, metric: Metric, notify: Notify) -> None:
        self.weights = weights
        self.metric = metric
        self.candidates: list[Candidate] = []
        self.scores: dict[str, float] = {}
        self._score = score
        self._tell = notify

    def add(self, name: str, kind: Literal["baseline", "crossover"], recipe: Recipe) -> None:
        """Score a recipe and say how it does."""
        self.candidates.append(Candidate(name, kind, recipe, self._scored(recipe)))
        self._tell(f"{name}: {self.candidates[-1].selection:.6g} on the selection rows")

    def cost(self, recipe: Recipe) -> float:
        """Return the score of a recipe as something to be made small."""
        return self.metric.cost(self._scored(recipe))

    def choice_cost(self, choice: Mapping[str, int]) -> float:
        """Return the cost of taking each module from one epoch."""
        return self.cost(mixing.selective(choice))

    def _scored(self, recipe: Recipe) -> float:
        key = repr(sorted((module, sorted(shares.items(), key=str)) for module, shares in recipe.items()))
        if key not in self.scores:
            self.scores[key] = float(self._score(self.weights.build(recipe)))
        return self.scores[key]


def _add_baselines(found: _Candidates, ranked: Sequence[int], best: int) -> None:
    """Try what needs no crossover: single epochs, their averages, and soups of them."""
    epochs, modules = found.weights.epochs, found.weights.modules
    found.add("last", "baseline", mixing.whole(modules, epochs[-1]))
    found.add("best", "baseline", mixing.whole(modules, best))
    if EMA in found.weights.files:
        found.add("ema", "baseline", mixing.whole(modules, EMA))
    found.add("uniform_soup", "baseline", mixing.soup(modules, epochs))
    found.add("greedy_soup", "baseline", _greedy_soup(modules, ranked, found.cost))


def save_crossover(
    outcome: Outcome, weights: EpochWeights, folder: Path, *, about: Mapping[str, Any] | None = None
) -> Path:
    """Write the kept model as a plain state dict, and beside it what it is.

    ``crossover_final.pth`` and ``crossover_final.json`` each appear whole or not at all, and the record never stands
    beside a model that it is not of; ``about`` has further facts for it.

    Returns:
        The file of the model; ``torch.load(path, weights_only=True)`` gives name → tensor.
    """
    model, record = folder / CROSSOVER_FILE, folder / RECORD
    record.unlink(missing_ok=True)
    with written_beside(model) as beside:
        torch.save(weights.build(outcome[outcome.kept].recipe), beside)
    files = {str(source): path.name for source, path in weights.files.items()}
    write_json(record, {**outcome.as_dict(), "model": CROSSOVER_FILE, "files": files, **(about or {})})
    return model


def _check_epochs(weights: EpochWeights, spots: Mapping[str, int], best: int | None) -> None:
    expected = f"one of the epochs {', '.join(map(str, weights.epochs))}"
    missing = sorted(weights.modules.keys() - spots.keys())
    if missing:
        raise UserError(f"module '{missing[0]}' has no sweet spot", expected=expected)
    chosen = {f"sweet spot of '{module}'": spots[module] for module in weights.modules}
    for what, epoch in {**chosen, **({} if best is None else {"best epoch": best})}.items():
        if epoch not in weights.epochs:
            raise UserError(f"the {what} is epoch {epoch}, of which there are no weights", expected=expected)


def _greedy_soup(
    modules: Mapping[str, Sequence[str]], ranked: Sequence[int], loss: Callable[[Recipe], float]
) -> Recipe:
    """Average the best epoch with every next one that does not make the average worse."""
    chosen = [ranked[0]]
    reached = loss(mixing.soup(modules, chosen))
    for epoch in ranked[1:]:
        tried = loss(mixing.soup(modules, sorted([*chosen, epoch])))
        if tried <= reached and math.isfinite(tried):
            chosen, reached = sorted([*chosen, epoch]), tried
    return mixing.soup(modules, chosen)


def _decided(found: _Candidates, winner: Candidate, rows: Rows, seed: int) -> Outcome:
    weights, metric = found.weights, found.metric
    baselines = [candidate for candidate in found.candidates if candidate.kind == "baseline"]
    scores: dict[str, list[float]] = {}
    measured: dict[str, list[float]] = {}
    for candidate in (*baselines, winner):
        key = repr(candidate.recipe)
        if key not in measured:
            measured[key] = [float(value) for value in rows(weights.build(candidate.recipe))]
        scores[candidate.name] = measured[key]
    means = {name: _mean(values) for name, values in scores.items()}
    finite = [candidate for candidate in baselines if math.isfinite(means[candidate.name])]
    if not finite:
        raise UserError(
            "no baseline has finite scores on the held-out rows",
            where=str(weights.files[weights.epochs[-1]]),
            hint="did the training diverge? Its metrics.jsonl tells",
        )
    margins: dict[str, PairedDifference | None] = {}
    for candidate in baselines:
        pair = (scores[winner.name], scores[candidate.name])
        is_known = math.isfinite(means[winner.name] + means[candidate.name])
        margins[candidate.name] = paired_difference(*pair, metric=metric, seed=seed) if is_known else None
    wins = math.isfinite(means[winner.name]) and all(
        margin is None or margin.value > 0 for margin in margins.values()
    )
    return Outcome(
        candidates=tuple(
            replace(candidate, held_out=means.get(candidate.name)) for candidate in found.candidates
        ),
        winner=winner.name,
        kept=(winner if wins else min(finite, key=lambda candidate: metric.cost(candidate.selection))).name,
        margins=margins,
        better=metric.direction,
        num_evaluations=len(found.scores),
    )


def _mean(values: Sequence[float]) -> float:
    """Return the mean over the rows; of none there is none."""
    return math.fsum(values) / len(values) if values and all(map(math.isfinite, values)) else math.nan


def _json_number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
